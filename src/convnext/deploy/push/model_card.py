"""The card of a trained network, as the README of a repository: what it learnt from, how good it is, its limits, whose it is.

Every number comes from the run's own records; what is not known is said to be unknown. Names are escaped for Markdown.
"""

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from convnext import __version__
from convnext.deploy.verify.finding import percent
from convnext.deploy.verify.measured import FIGURES, RATES
from convnext.deploy.verify.promises import Promises, Stated
from convnext.errors import number_of, on_one_line
from convnext.files import to_json
from convnext.models.licences import UNKNOWN, terms
from convnext.tasks.classification.calibration import unfitted
from convnext.tasks.classification.metrics import wilson

ROWS = 100  # classes in the table, the worst first
FEW = 30  # held-out images of a class, below which its figures say little
TAGS = {"classification": "image-classification", "detection": "object-detection", "segmentation": "image-segmentation"}
_SPDX = {"MIT": "mit", "Apache-2.0": "apache-2.0", "CC-BY-NC-4.0": "cc-by-nc-4.0"}  # as the hub spells them
_DOES = {
    "classification": "names what an image shows",
    "detection": "finds objects",
    "segmentation": "names the class of each pixel",
}
_OF_CLASS = {  # column of a table of classes -> its head; shares of 1
    "recall": "recall",
    "precision": "precision",
    "f1": "F1",
    "ap": "AP",
    "box_ap": "box AP",
    "mask_ap": "mask AP",
    "iou": "IoU",
}


@dataclass(frozen=True)
class Subject:
    """A trained network with what its run wrote down."""

    recipe: Any
    classes: tuple[str, ...]
    metadata: Mapping[str, Any] = field(repr=False)
    promises: Promises = field(repr=False)
    evaluation: Mapping[str, Any] = field(repr=False)  # evaluation.json; {}: there is none of these weights
    data: Mapping[str, Any] = field(repr=False)  # data.json; {}: there is none
    name: str = ""  # for people
    repository: str = ""  # 'OWNER/NAME'; '': it is in none
    licence: str = ""  # that its owner names
    libraries: tuple[str, ...] = ()  # beside this package, that load it

    @property
    def origin(self) -> str:
        """What it started from; '' for random weights."""
        return str(self.metadata.get("origin", ""))

    @property
    def inherited(self) -> str:
        """The licence of what it started from; '' for random weights."""
        return str(self.metadata.get("license", UNKNOWN)) if self.origin else ""


def model_card(of: Subject) -> str:
    """The card, in Markdown."""
    parts = [
        _head(of),
        _title(of),
        _scores(of),
        _classes(of),
        _training(of),
        _limits(of),
        _licence(of),
        _use(of),
        f"Written by `convnext` {__version__} from the records of the run.",
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _head(of: Subject) -> str:
    """What the hub reads; JSON is YAML, too."""
    told = of.licence or (of.inherited if terms(of.inherited) else "")
    held: dict[str, Any] = {"pipeline_tag": TAGS[of.recipe.task], "tags": ["convnext", *of.libraries]}
    held["library_name"] = next(iter(of.libraries), "convnext")
    if told:
        known = _SPDX.get(told)
        held |= {"license": known} if known else {"license": "other", "license_name": told}
    if of.promises.stated:
        held["metrics"] = [name for name in FIGURES if name in of.promises.stated[0].scores]
    return "\n".join(["---", *(f"{name}: {to_json(value)}" for name, value in held.items()), "---"])


def _title(of: Subject) -> str:
    network = of.recipe.model.name
    name = of.name or network
    many = number_of(len(of.classes), "class", "classes")
    several = " An image may have several." if getattr(of.recipe, "labels", "single") == "multi" else ""
    return f"# {_safe(name)}\n\nA ConvNeXt (`{network}`) that {_DOES[of.recipe.task]}: {many}.{several}"


def _scores(of: Subject) -> str:
    if not of.promises.stated:
        return "## How good it is\n\nNot known: no evaluation of these weights was beside them."
    rows = [row for stated in of.promises.stated for row in _score_rows(stated)]
    lines = ["## How good it is", "", *_table(["figure", "value", "95 % interval", "on"], rows)]
    if of.promises.stated[0].crosswise:
        lines += ["", "Each held-out image was judged by a network that had not learnt from it; the one here has."]
    else:
        lines += [
            "",
            "Held-out images were not trained on, but chose the weights. Those of a part `test` chose nothing.",
        ]
    return "\n".join([*lines, *_answers(of)])


def _score_rows(stated: Stated) -> Iterator[list[str]]:
    on = f"{number_of(stated.n, 'image')}, {stated.part}"
    for name, title in FIGURES.items():
        if name not in stated.scores:
            continue
        value = stated.scores[name]
        low, high = wilson(value, stated.n) if name in RATES else stated.intervals.get(name, (None, None))
        shown = "" if low is None or high is None else f"{percent(low)} to {percent(high)}"
        yield [title, percent(value), shown, on]
    for name, title in (
        ("balanced_accuracy", "balanced accuracy"),
        ("macro_f1", "macro F1"),
        ("ece", "calibration error"),
    ):
        if name in stated.scores:
            yield [title, percent(stated.scores[name]), "", on]


def _answers(of: Subject) -> list[str]:
    """What was fitted to the answers."""
    decision = of.metadata.get("decision") or {}
    lines = []
    if decision and decision["temperature"] == 1 and not decision["stretch"]:
        lines += ["", f"Its scores are as the network gives them: {unfitted(decision['n'])}."]
    elif decision:
        lines += [
            "",
            f"Its scores are calibrated (temperature {decision['temperature']:.2f}): of those at 80 %, 80 % should be right.",
        ]
    if decision.get("promise"):
        held = decision["promise"]
        some = f"Of its answers from a score of {held['threshold']:.3f} on" if held["threshold"] else "Of its answers"
        lines += [
            "",
            f"{some} {100 * held['accuracy']:g} % are right, with 95 % confidence, on images like these; it answers "
            f"{held['answered']:.0%} of them.",
        ]
    return lines


def _classes(of: Subject) -> str:
    rows = list(of.evaluation.get("per_class", ()))
    if not rows:
        return "## Classes\n\n" + ", ".join(map(_safe, of.classes))
    columns = [name for name in _OF_CLASS if any(isinstance(row.get(name), float) for row in rows)]
    first = columns[0] if columns else "name"
    counted = next((name for name in ("n", "objects", "pixels") if name in rows[0]), "")
    worst = sorted(rows, key=lambda row: (row.get(first) is None, row.get(first), row["name"]))
    head = ["class", {"n": "images"}.get(counted, counted), *(_OF_CLASS[name] for name in columns)]
    cells = [
        [row["name"], f"{row.get(counted, 0):,}", *(_share(row.get(name)) for name in columns)] for row in worst[:ROWS]
    ]
    more = len(rows) - ROWS
    tail = ["", f"... and {number_of(more, 'class', 'classes')} that do better."] if more > 0 else []
    return "\n".join(["## Classes, the hardest first", "", *_table(head, cells), *tail])


def _training(of: Subject) -> str:
    recipe = of.recipe
    train, val = (of.data.get(part, {}).get("n") for part in ("train", "val"))
    images = (
        f"{number_of(train, 'image')}, with {val:,} others held out"
        if train and val
        else "images that were not counted"
    )
    start = f"weights of `{_safe(of.origin)}`" if of.origin else "random weights"
    schedule = recipe.schedule
    length = number_of(schedule.steps, "step") if schedule.steps else number_of(schedule.epochs or 0.0, "epoch")
    side = recipe.input.training_px[1]
    lines = [
        "## What it was trained on",
        "",
        f"{images[0].upper()}{images[1:]}, from {start}, by recipe `{recipe.name}`:",
    ]
    lines[-1] += f" {length}, images of {side} px, seed {recipe.seed}."
    skipped = len(of.data.get("skipped", ()))
    if skipped:
        lines.append(f"{number_of(skipped, 'image')} could not be read and were left out.")
    return "\n".join(
        [*lines, "", "Whoever publishes this should add where the images are from, and under which terms."]
    )


def _limits(of: Subject) -> str:
    held, task = of.evaluation, of.recipe.task
    lines = []
    if task == "classification":
        sure = (of.metadata.get("decision") or {}).get("promise")
        but = " unless it says that it is not sure" if sure else ""
        gets = "may get some" if getattr(of.recipe, "labels", "single") == "multi" else f"gets one of them{but}"
        lines.append(f"It knows these classes and no others: an image of something else {gets}.")
    few = [row["name"] for row in held.get("per_class", ()) if 0 < row.get("n", FEW) < FEW]
    if few:
        lines.append(f"Few held-out images ({FEW - 1} or fewer) stand behind the figures of {_named(few)}.")
    none = [
        row["name"] for row in held.get("per_class", ()) if not row.get("n", row.get("objects", row.get("pixels", 1)))
    ]
    if none:
        lines.append(f"Nothing is known of {_named(none)}: no held-out image shows it.")
    if held.get("never_predicted"):
        lines.append(f"It never answered {_named(held['never_predicted'])} on the held-out images.")
    lines.append(
        "The figures are about images like those that were held out: other cameras, places or times may cost accuracy."
    )
    lines.append(
        "It was not tested for fairness between groups of people, nor against images that are made to mislead."
    )
    return "\n".join(["## Limits", "", *(f"- {line}" for line in lines)])


def _licence(of: Subject) -> str:
    lines = ["## Licence", ""]
    told = of.licence or (of.inherited if terms(of.inherited) else "")
    lines.append(
        f"This network: **{_safe(told)}**."
        if told
        else "This network: **not stated**. Ask its owner before you use it."
    )
    if not of.origin:
        lines.append("It was trained from random weights: no weights of others are in it.")
    elif of.inherited == UNKNOWN:
        lines.append(f"It started from `{_safe(of.origin)}`, whose licence is **unknown**. Ask whoever published that.")
    else:
        by = of.metadata.get("license_known_by")
        known = f" (by {_safe(str(by))})" if by else ""
        asks = terms(of.inherited)
        lines.append(
            f"It started from `{_safe(of.origin)}`, which is under {of.inherited}{known}{f': {asks}' if asks else ''}."
        )
    return "\n".join(lines)


def _use(of: Subject) -> str:
    name = of.repository
    source = f"hub:{name}" if name else of.name
    blocks = ["## How to use it", "", "```python", "import convnext", "", f'network = convnext.load("{source}")']
    blocks += ['print(network("photo.jpg").text())', "```"]
    colour = len(of.recipe.input.mean) == 3 and not getattr(of.recipe.input, "bands", ())  # others lack their pixels
    if "transformers" in of.libraries and colour:
        blocks += ["", "```python", "from transformers import pipeline", ""]
        blocks += [f'print(pipeline("image-classification", "{name}")("photo.jpg"))', "```"]
    if "timm" in of.libraries and colour:
        blocks += [
            "",
            "```python",
            "import timm",
            "",
            f'network = timm.create_model("hf-hub:{name}", pretrained=True).eval()',
        ]
        blocks += ["transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network))", "```"]
    if of.libraries:
        blocks += [
            "",
            "Scores of other libraries are the plain softmax: the temperature is applied by `convnext` alone.",
        ]
    blocks += ["", f"Is it as good on your images? `convnext verify {source} DATA` measures again what this card says."]
    return "\n".join(blocks)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [list(map(_safe, row)) for row in rows]
    return [f"| {' | '.join(row)} |" for row in [list(head), ["---"] * len(head), *lines]]


def _share(value: Any) -> str:
    return percent(value) if isinstance(value, int | float) else ""


def _named(names: Sequence[str], most: int = 10) -> str:
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(map(_safe, names[:most])) + more


def _safe(text: str) -> str:
    """A name on one line, which can neither end a cell nor become markup."""
    shown = html.escape(on_one_line(text), quote=False)
    return "".join(f"\\{letter}" if letter in "|*_`[]\\" else letter for letter in shown)
