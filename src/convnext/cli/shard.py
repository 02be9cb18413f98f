"""`convnext shard DATA OUT`."""

import argparse

from convnext.cli.options import annotation_flags, columns_of, count, json_flag, refuse_more, table_flags
from convnext.cli.printing import show, show_json
from convnext.config import TASKS

HELP = "Write labelled images as plain tar files with an index and digests: a few large files in place of very many."
PER_SHARD = 2000


def flags(parser: argparse.ArgumentParser) -> None:
    """Declare its arguments."""
    parser.epilog = (
        "`convnext train OUT`, `evaluate` and `audit` read OUT as they read DATA, also copied to an object store, as "
        "s3://bucket/OUT; the webdataset library and timm read its tar files. `convnext verify OUT` compares each tar file "
        "with its digest. The same command goes on with what was stopped."
    )
    parser.add_argument("data", metavar="DATA", help="labelled images, as `convnext train` takes them")
    parser.add_argument("out", metavar="OUT", help="new folder, or its address, as s3://bucket/OUT")
    text = f"images in one tar file ({PER_SHARD})"
    parser.add_argument("--images-per-shard", type=count, default=PER_SHARD, metavar="N", help=text)
    parser.add_argument("--task", choices=list(TASKS), help="what is to be learnt (detected from the data)")
    labels = "classification: one label an image or several (by what the data look like)"
    parser.add_argument("--labels", choices=("single", "multi"), help=labels)
    annotation_flags(parser.add_argument_group("detection and segmentation"))
    table_flags(parser)
    json_flag(parser)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Write, and say what was written."""
    refuse_more(args, rest)
    from convnext.deploy.shard import shard

    names = ("images_per_shard", "task", "images", "form", "colours", "labels")
    how = {name: getattr(args, name) for name in names}
    done = shard(args.data, args.out, progress=not args.json, **how, **columns_of(args))
    if args.json:
        show_json(done.to_dict())
    else:
        show(done.lines())
    return 0
