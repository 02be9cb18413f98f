"""`shard`: labelled images as plain tar files, which every verb then takes for the data."""

from pathlib import Path
from typing import Literal

from convnext.data.shards.write import PER_SHARD, Sharded, write_shards
from convnext.deploy.output import refuse_among
from convnext.engine.claim import Claim
from convnext.engine.records import info
from convnext.tasks.opening import source_of


def shard(
    data: str | Path,
    out: str | Path,
    *,
    images_per_shard: int = PER_SHARD,
    task: Literal["classification", "detection", "segmentation"] | None = None,
    images: str | Path | None = None,
    form: str | None = None,
    colours: str | Path | None = None,
    labels: Literal["single", "multi"] | None = None,
    progress: bool = False,
) -> Sharded:
    """Write labelled images into the folder `out` as plain tar files of `images_per_shard`, with an index and digests.

    `train`, `evaluate` and `audit` take `out` for the data, also copied to an object store, by its address; the webdataset
    library and timm read its tar files. The same call goes on with what was stopped. The other arguments are those of
    `train`. Raises DataError for data that cannot be read and where `out` holds something else, ConvNeXtError where the
    disk refuses.
    """
    refuse_among(str(out), [data] if images is None else [data, images])
    source = source_of(data, task, images=images, form=form, colours=colours, labels=labels)
    with Claim(Path(out)):
        return write_shards(source, Path(out), per_shard=images_per_shard, tell=info if progress else lambda line: None)
