"""The audit on one page that needs nothing but itself: images with what is doubtful about them."""

from collections.abc import Sequence

from convnext import __version__
from convnext.data.bands import shown_to_eyes
from convnext.data.store import Store
from convnext.drawing.markup import Html, clean, table, tag
from convnext.drawing.numbers import count, percent
from convnext.drawing.thumbnails import Shown, thumbnail
from convnext.errors import number_of
from convnext.reports.page import page
from convnext.studies.audit.findings import Audit, Group, Image, Outlier, Pair, Suspect

_WRONG, _GROUPS, _IN_GROUP, _FAR = 120, 40, 8, 48  # that are shown; the tables hold all
_EACH = 6  # images of a pair of classes


def audit_page(found: Audit, store: Store, name: str, shown: Shown = shown_to_eyes) -> Html:
    """The page of an audit of the data called `name`, whose images `store` reads and `shown` makes visible."""
    show = _Cards(store, shown)
    sections = [
        ("Labels", _labels(found, show)),
        ("Duplicates", _duplicates(found.groups, show)),
        ("Outliers", _outliers(found.outliers, show)),
        *([] if found.several else [("Classes", _classes(found.pairs, found.wrong, show))]),
        *([("Left out", _left_out(found))] if found.skipped or found.unjudged else []),
    ]
    stats = {
        "Images": count(found.n),
        "Labels likely wrong": count(len(found.wrong)),
        "Groups of copies": count(len(found.groups)),
        "Copies across parts": count(sum(group.leaks for group in found.groups)),
        "Outliers": count(len(found.outliers)),
        "Classes": count(len(found.classes)),
    }
    listed = tag("dl", [tag("div", tag("dt", key), tag("dd", value)) for key, value in stats.items()], class_="stats")
    share = len(found.wrong) / found.n if found.n else 0.0
    score = tag(
        "div",
        tag("p", "Labels likely wrong", class_="label"),
        tag("p", percent(share), class_="hero"),
        tag("p", f"{count(len(found.wrong))} of {number_of(found.n, 'image')}", class_="below"),
        class_="score",
    )
    return page(
        f"Audit of {clean(name)}",
        tag(
            "header",
            tag("p", "Audit of labelled images", class_="over"),
            tag("h1", clean(name)),
            tag("div", score, listed, class_="headline"),
        ),
        tag("nav", [tag("a", title, href=f"#{_anchor(title)}") for title, _ in sections]),
        tag("main", [tag("section", tag("h2", title), body, id=_anchor(title)) for title, body in sections]),
        tag("footer", f"Written by convnext {__version__}."),
    )


class _Cards:
    """Images as cards, each read when it is shown, once."""

    def __init__(self, store: Store, shown: Shown):
        self._store, self._shown = store, shown
        self._made: dict[str, tuple[str, int] | None] = {}

    def __call__(self, path: str, *says: object) -> Html:
        """An image, what is said of it, and its name; the whole path where the mouse rests."""
        if path not in self._made:
            self._made[path] = thumbnail(self._store.read, path, self._shown)
        small, name = self._made[path], clean(path).rsplit("/", 1)[-1]
        if small:
            image = tag("img", src=small[0], alt=name, class_="pixels" if small[1] < 80 else None)
        else:
            image = tag("div", name, class_="unseen")
        place = "/".join(clean(path).split("/")[-2:])
        caption = tag("figcaption", [tag("div", each) for each in says], tag("div", place, class_="file"))
        return tag("figure", tag("div", image, class_="frame"), caption, title=clean(path), class_="card")


def _labels(found: Audit, show: _Cards) -> list[Html]:
    if not found.wrong:
        return [
            _lead("No label is likely wrong: no network that has not learnt from an image is sure of another class.")
        ]
    lead = (
        "The given class, then the one that networks find which have not learnt from the image. The score, 0 to 1, is the "
        "chance that the label is a mistake, where one label in twenty is. Hard images are among them: look at each. "
        f"{_first(len(found.wrong), _WRONG, 'audit.csv')}"
    )
    cards = [_suspect(each, show) for each in found.wrong[:_WRONG]]
    return [_lead(lead), tag("div", cards, class_="cards")]


def _suspect(each: Suspect, show: _Cards) -> Html:
    change = [tag("span", clean(each.given), class_="ground-truth"), " → ", tag("b", clean(each.suggested))]
    return show(each.path, change, f"{each.score:.3f}")


def _telling(group: Group) -> list[Image]:
    """The images of a group that are shown: of every part and class one, then the others in their order."""
    first = {(image.part, image.given): image for image in reversed(group.images)}
    kept = [image for image in group.images if first[image.part, image.given] is image]
    told = set(map(id, kept[:_IN_GROUP]))
    return [*kept, *(image for image in group.images if id(image) not in told)][:_IN_GROUP]


def _duplicates(groups: Sequence[Group], show: _Cards) -> list[Html]:
    if not groups:
        return [_lead("No two images show the same.")]
    leaks, torn = sum(group.leaks for group in groups), sum(group.torn for group in groups)
    lead = (
        "Images that show the same, also smaller, compressed, without colour, mirrored or cut at the edge. "
        f"{number_of(leaks, 'group')} across parts, so that what is learnt is scored as well; {torn:,} with two classes. "
        f"{_first(len(groups), _GROUPS, 'duplicates.csv')}"
    )
    shown: list[Html] = [_lead(lead)]
    for number, group in enumerate(groups[:_GROUPS], 1):
        what = ["across parts"] * group.leaks + ["of two classes or more"] * group.torn
        what += [f"{_IN_GROUP} shown"] * (len(group.images) > _IN_GROUP)
        shown.append(tag("h3", ", ".join([f"Group {number}: {len(group.images)} images", *what])))
        cards = [
            show(image.path, [tag("b", image.part), " "] if image.part else "", clean(image.given))
            for image in _telling(group)
        ]
        shown.append(tag("div", cards, class_="cards over-cards"))
    return shown


def _outliers(far: Sequence[Outlier], show: _Cards) -> list[Html]:
    if not far:
        return [_lead("No image is far from all others.")]
    lead = (
        "Images far from all others: 1 - the mean cosine to the nearest. They need not be wrong. "
        f"{_first(len(far), _FAR, 'outliers.csv')}"
    )
    cards = [show(each.path, clean(each.given), f"{each.distance:.3f}") for each in far[:_FAR]]
    return [_lead(lead), tag("div", cards, class_="cards")]


def _classes(pairs: Sequence[Pair], wrong: Sequence[Suspect], show: _Cards) -> list[Html]:
    if not pairs:
        return [_lead("No two classes are mixed up.")]
    lead = "Classes that are hard to tell apart, or whose labels are mixed up: share of all images, estimated."
    rows: list[list[object]] = [
        [f"{clean(each.first)} and {clean(each.second)}", percent(each.share, 2), count(each.images)] for each in pairs
    ]
    shown: list[Html] = [_lead(lead), table(["Classes", "Share", "Labels in doubt"], rows, class_="short")]
    for each in pairs[:3]:
        of = [one for one in wrong if {one.given, one.suggested} == {each.first, each.second}][:_EACH]
        if of:
            shown += [tag("h3", f"{clean(each.first)} and {clean(each.second)}")]
            shown += [tag("div", [_suspect(one, show) for one in of], class_="cards over-cards")]
    return shown


def _left_out(found: Audit) -> list[Html]:
    shown: list[Html] = []
    if found.skipped:
        shown.append(_lead(f"{number_of(len(found.skipped), 'image')} could not be read."))
        rows: list[list[object]] = [[clean(path), reason] for path, reason in list(found.skipped.items())[:_WRONG]]
        shown.append(table(["Image", "Reason"], rows, text_columns={0, 1}))
    if found.unjudged:
        text = "could not be judged: no other fold holds an image of the class."
        shown.append(_lead(f"{number_of(len(found.unjudged), 'label')} {text}"))
        shown.append(tag("p", ", ".join(map(clean, found.unjudged[:_FAR])), class_="path"))
    return shown


def _lead(text: str) -> Html:
    return tag("p", text, class_="lead")


def _first(n: int, most: int, file: str) -> str:
    return f"The first {most} of {n:,}; all are in {file}." if n > most else f"Also in {file}."


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")
