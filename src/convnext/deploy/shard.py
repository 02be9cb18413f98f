"""`shard`: labelled images as plain tar files, which every verb then takes for the data."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

from convnext.data.shards.write import PER_SHARD, Sharded, write_shards
from convnext.data.source import NamedColumns
from convnext.data.stores.opened import is_url
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
    label_column: str | None = None,
    path_column: str | None = None,
    progress: bool = False,
) -> Sharded:
    """Write labelled images into `out` as plain tar files of `images_per_shard`, with an index and digests.

    `out` is a folder, or an address in an object store, as s3://bucket/pets, where nobody else may write meanwhile. `train`,
    `evaluate` and `audit` take it for the data; the webdataset library and timm read its tar files. The same call goes on
    with what was stopped. The other arguments are those of `train`. Raises DataError for data that cannot be read and where
    `out` holds something else, ConvNeXtError where the disk refuses, Unreachable where the store does.
    """
    how: dict[str, Any] = {"per_shard": images_per_shard, "tell": info if progress else lambda line: None}
    far = is_url(out)
    if not far:
        refuse_among(str(out), [data] if images is None else [data, images])
    told: dict[str, Any] = {"columns": NamedColumns.of(label_column, path_column), "labels": labels}
    source = source_of(data, task, images=images, form=form, colours=colours, **told)
    with nullcontext() if far else Claim(Path(out)):
        return write_shards(source, out, **how)
