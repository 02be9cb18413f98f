"""Whether the images of a run that goes on are still those that it began with: names may stay while contents change.

The look before the first step reads every image anyway (of very many an even sample): a digest of each, eight bytes, is kept
in the run's folder. Dates are not looked at, so that a copy of the data is the same data.
"""

from pathlib import Path
from typing import Any

import numpy as np

from convnext.config import RunOptions
from convnext.data.scan import DIGEST_BYTES, NAMED, places, stride_of
from convnext.data.store import printable
from convnext.engine.distributed import World
from convnext.errors import DataError, number_of
from convnext.files import write_bytes

DIGESTS = "images.digests"  # N times eight bytes: train, then val; zeros for one that could not be read


def require_same_contents(splits: Any, digests: bytes, options: RunOptions, world: World) -> None:
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
