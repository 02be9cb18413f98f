"""What images held when a run began: whether it goes on with the same ones, and whether it has learnt from those it scores.

Names may stay while contents change, and contents while names do. The look before the first step reads every image anyway
(of very many an even sample): a digest of each, eight bytes, is kept in the run's folder. Dates are not looked at, so that a
copy of the data is the same data.
"""

from collections import Counter
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convnext.config import RunOptions
from convnext.data.scan import DIGEST_BYTES, NAMED, looked_at, places, stride_of
from convnext.data.store import printable
from convnext.errors import DataError, number_of
from convnext.files import from_json, write_bytes

if TYPE_CHECKING:
    from convnext.engine.distributed import World  # which needs torch; exported files are scored without it

COMPARED = 5000  # images that are compared with those of training; of more an even sample
DIGESTS = "images.digests"  # N times eight bytes: train, then val; zeros for one that could not be read


def require_same_contents(splits: Any, digests: bytes, options: RunOptions, world: "World") -> None:
    """Keep `digests`, of the look at `splits`, where the run begins; where it goes on, compare them.

    Raises DataError, in every process, when images are not what they were.
    """
    told = world.from_first(_compared(splits, digests, Path(options.out)) if world.first else "")
    if told:
        raise DataError(told)


def _compared(splits: Any, digests: bytes, out: Path) -> str:
    """Why the run cannot go on, or ''."""
    kept = out / DIGESTS
    if not kept.exists() or not any(out.glob("*.safetensors")):  # nothing was trained yet
        write_bytes(kept, digests)
        return ""
    before = kept.read_bytes()
    if before == digests:
        return ""
    way = f"Give it the images of then, choose another --out, or remove '{kept}' to go on with what is there now."
    if len(before) != len(digests):
        counts = (len(each) // DIGEST_BYTES for each in (before, digests))
        return "'{}' holds a run on other data: it began with {:,} images, and {:,} are there now. {}".format(
            out, *counts, way
        )
    rows = [np.frombuffer(each, np.uint64) for each in (before, digests)]
    changed = np.flatnonzero(rows[0] != rows[1]).tolist()
    parts = {"train": splits.train, "val": splits.val}
    sizes = {name: len(part.entries) for name, part in parts.items()}
    looked = places(sizes, stride_of(sum(sizes.values())))
    wanted = set(changed[:NAMED])
    names = [f"'{printable(parts[part].entries[place].path)}'" for n, (part, place) in enumerate(looked) if n in wanted]
    more = ", ..." if len(changed) > NAMED else ""
    many = number_of(len(changed), "image")
    return f"'{out}' holds a run on other data: {many} changed since it began, {', '.join(names)}{more}. {way}"


def learnt_line(run: Path, dataset: Any, *, everything: bool) -> str:
    """That a run has learnt from some of the images of `dataset`, by what they hold; '' where none or it is not known.

    `everything`: whether it has learnt from its held-out images too. Files are read, and nothing is decoded.
    """
    try:
        kept, noted = (run / DIGESTS).read_bytes(), from_json((run / "data.json").read_text("utf-8"))
        sizes = {part: int(noted[part]["n"]) for part in ("train", "val")}
    except (OSError, ValueError, LookupError, TypeError):
        return ""
    looked = places(sizes, stride_of(sum(sizes.values())))
    taught = len(kept) if everything else DIGEST_BYTES * sum(part == "train" for part, _ in looked)
    known = {kept[start : start + DIGEST_BYTES] for start in range(0, taught, DIGEST_BYTES)} - {bytes(DIGEST_BYTES)}

    def digest(task: tuple[str, int]) -> bytes:
        try:
            data = dataset.store.read(dataset.entries[task[1]].path)
        except (DataError, OSError):  # scoring names it
            return b""
        return blake2b(data, digest_size=16).digest()[:DIGEST_BYTES]

    stride = stride_of(len(dataset.entries), COMPARED)
    seen = looked_at({"": dataset}, lambda entry: (entry.path,), digest, 0, stride)
    found = Counter(each in known for each in seen if each)
    if not found[True]:
        return ""
    are = "is a copy of one" if found[True] == 1 else "are copies of those"
    return (
        f"{found[True]:,} of {number_of(found.total(), 'image')} {are} that the run was trained on: the figures say less about "
        "others."
    )
