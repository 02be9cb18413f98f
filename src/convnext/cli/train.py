"""`convnext train DATA`."""

import argparse
from pathlib import Path
from typing import Any

from convnext.cli.options import (
    CLASSES,
    DENSE,
    annotation_flags,
    bands_of,
    changes_of,
    columns_of,
    count,
    flags_of,
    json_flag,
    near_option,
    promise_flags,
    refuse_of_other_tasks,
    table_flags,
)
from convnext.cli.printing import show, show_json
from convnext.config import TASKS, ClassificationRecipe, Recipe, RunOptions, fields_of, leaves_of, override, parse
from convnext.errors import ConvNeXtError
from convnext.recipes import DEFAULT, RECIPES, default_name, recipe, task_of, with_changes
from convnext.recipes.shorter import require_minutes

HELP = (
    "Train a classifier on class folders, a detector on boxes and masks, or a segmenter on masks. "
    "The same command resumes a run that stopped."
)
WHOLE = {"mask_rcnn_": "coco_mask_rcnn_3x", "cascade_": "coco_cascade_3x", "upernet_": "ade20k_upernet_160k"}
SHORT = {  # flag -> the recipe field it is short for
    "epochs": "schedule.epochs",
    "batch": "optim.batch",
    "lr": "optim.lr",
    "precision": "precision",
    "metric": "select.metric",
    "balance": "loss.balance",
}
VAL_SHARE = 0.2
MEANING = {
    "epochs": "passes over the training images",
    "batch": "images per optimizer step, over all devices",
    "lr": "peak learning rate for that batch",
    "precision": "fp32, bf16 or fp16; small recipes and transfer take what the device is fast in",
    "metric": "figure on the held-out images that chooses the best weights, e.g. balanced_accuracy, macro_f1",
    "balance": "what makes up for uneven classes: auto, none, weights, logits, for classification also sampler",
}
AUTO = "auto"
TASK_FLAGS = {  # flag -> the tasks that know it
    "val": DENSE,
    "val_images": DENSE,
    "form": DENSE,
    "colours": ("segmentation",),
    "balance": ("classification", "segmentation"),
    "cuda_graphs": ("classification", "segmentation"),
    "cache": CLASSES,
    "freeze": CLASSES,
    "labels": CLASSES,
    "label_column": CLASSES,
    "path_column": CLASSES,
    "group_column": CLASSES,
    "promise": CLASSES,
    "sets": CLASSES,
    "corrections": CLASSES,
}


def flags(parser: argparse.ArgumentParser) -> None:
    """Declare its arguments. What decides the numbers is a recipe field; the rest is a `RunOptions` field."""
    parser.epilog = (
        "Any recipe field is an option too: --optim.lr 1e-3 --augment.mixup 0 --model.stem overlap --head.most 300. "
        "`runs/<name>/recipe.json` lists them all."
    )
    data = (
        "class folders (or train/ and val/ with them) or a table of path and label: classification; COCO JSON, Pascal VOC, "
        "YOLO or a table with objects: detection; images with index masks: segmentation; or a zip or shards "
        "of any, also as s3://bucket/NAME"
    )
    parser.add_argument("data", metavar="DATA", help=data)
    parser.add_argument("--task", choices=list(TASKS), help="what to learn (detected from the data)")
    parser.add_argument("--model", help="network or backbone, as `convnext models` lists them (atto, or the weights')")
    small = "small, transfer, finetune, imagenet1k, small_detection, coco_mask_rcnn_3x, ade20k_upernet_160k, ..."
    parser.add_argument("--recipe", help=f"{small} (transfer with --weights of a classifier, else the small one)")
    parser.add_argument("--out", help="run folder (runs/<data>_<model>)")
    weights = "start from this file, folder or run, or hub:OWNER/NAME: network, sizes and normalisation follow it"
    parser.add_argument("--weights", help=weights)
    labels = "classification: one label an image or several (by what the data look like, which is said)"
    parser.add_argument("--labels", choices=("single", "multi"), help=labels)
    freeze = "classification, with --weights: fit a linear head on the frozen network and stop there"
    parser.add_argument("--freeze", action="store_true", default=None, help=freeze)
    channels = "1 for grey, 3 for colour, or as many as the images have bands (what they have)"
    parser.add_argument("--channels", type=count, help=channels)
    bands = "the bands that are the channels, in order, e.g. 4,3,2,8 or B04,B03,B02 (all)"
    parser.add_argument("--bands", type=bands_of, help=bands)
    parser.add_argument(
        "--val-share", type=float, default=VAL_SHARE, help="share to hold out when the data have no val part (0.2)"
    )
    folds = "cross-validate: one run for each of so many parts, which it holds out, into RUN/fold1, ..."
    corrections = (
        "classification: a table such as audit.csv; images in it are left out, or get the class of its column label"
    )
    parser.add_argument("--corrections", metavar="FILE", help=corrections)
    parser.add_argument("--folds", type=count, help=folds)
    parser.add_argument("--seed", type=int, default=0, help="seed of the split, the weights and the order (0)")
    for flag, field in SHORT.items():
        short = "" if flag == field else f"; short for --{field}"
        parser.add_argument(f"--{flag}", help=f"{MEANING[flag]}{short} (default: the recipe's value)")
    parser.add_argument(
        "--minutes", help="end in about so many minutes: epochs (at most --epochs) and size fit this machine"
    )
    size = "pixels: side of the training crop; for detection and segmentation, the shorter side of an image"
    parser.add_argument("--size", type=count, help=f"{size} (default: the recipe's value)")
    parser.add_argument("--device", help="auto, cpu, cuda, cuda:1, mps (auto)")
    many = "processes of this machine that share each batch, such as one for each GPU (1)"
    parser.add_argument("--processes", type=count, help=many)
    parser.add_argument("--workers", type=int, help="processes that read images (chosen automatically)")
    parser.add_argument("--micro-batch", type=int, help="images per forward pass; gradients add up to the batch")
    parser.add_argument("--compile", action="store_true", default=None, help="compile the network with torch.compile")
    graphs = (
        "on one GPU: record a step of a classifier or a segmenter as a CUDA graph and replay it; also with --compile"
    )
    parser.add_argument("--cuda-graphs", action="store_true", default=None, help=graphs)
    sharded = (
        "with several processes: each keeps a part of weights and optimizer states; for networks such as xlarge, huge"
    )
    parser.add_argument("--shard-weights", action="store_true", default=None, help=sharded)
    kernels = "plain: no compiled blocks; triton: Triton blocks on a GPU; auto: compiled blocks on a CPU (auto)"
    parser.add_argument("--kernels", choices=("auto", "plain", "triton"), help=kernels)
    parser.add_argument("--cache", choices=("auto", "on", "off"), help="classification: keep images in memory (auto)")
    parser.add_argument("--checkpoint-steps", type=int, help="also save a checkpoint every N steps")
    parser.add_argument("--checkpoint-minutes", type=float, help="save a checkpoint at least every N minutes (5)")
    parser.add_argument(
        "--strict-images", action="store_true", default=None, help="stop the run at the first broken image"
    )
    parser.add_argument("--tensorboard", action="store_true", default=None, help="write TensorBoard files as well")
    json_flag(parser)
    promise_flags(parser.add_argument_group("answers of a classifier"))
    table_flags(parser, groups=True)
    annotated = parser.add_argument_group("detection and segmentation")
    annotation_flags(annotated)
    annotated.add_argument(
        "--val", metavar="ANNOTATIONS", help="annotations of the validation images, if they are in another file"
    )
    annotated.add_argument("--val-images", metavar="DIR", help="folder or zip of the validation images (as --images)")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Train, evaluate what came out, write the report."""
    check(args, rest, args.task)  # before the data are read
    from convnext import api
    from convnext.data.source import NamedColumns
    from convnext.tasks.opening import source_of
    from convnext.tasks.starting import run_folder

    how: dict[str, Any] = {"form": args.form, "colours": args.colours, "labels": args.labels}
    how["columns"] = NamedColumns.of(**columns_of(args))
    source = source_of(args.data, args.task, images=args.images, apart=bool(args.val or args.val_images), **how)
    task = source.task
    refuse_of_other_tasks(args, TASK_FLAGS, task, "the data are")
    changes = check(args, rest, task)
    out = run_folder(args.data, args.model, args.weights) if args.out is None else args.out
    _check_out(out, [args.data, args.images, args.val, args.val_images])
    options = parse(RunOptions, {"out": out, "progress": not args.json, **_picked(args, RunOptions)}, where="options")
    from convnext.reports.predictions import watching
    from convnext.tasks.train import Request, train

    val = source_of(args.val, task, images=args.val_images or args.images, **how) if args.val else None
    names = ("recipe", "model", "weights", "channels", "val_share", "seed", "minutes", "corrections", "promise", "sets")
    asked: dict[str, Any] = {name: getattr(args, name) for name in names}
    asked["bands"] = args.bands or ()
    request = Request(data=source, val=val, **asked, size_px=args.size, changes=changes)
    if args.folds:
        return _cross_validated(request, options, args)
    done = train(request, options, watch=watching)
    if done.first:
        _report(api.concluded(done), as_json=args.json)
    return 0


def _cross_validated(request: Any, options: RunOptions, args: argparse.Namespace) -> int:
    """A run for each fold, and what they come to."""
    if args.val_share != VAL_SHARE:
        raise ConvNeXtError(f"--val-share is what one run holds out; --folds {args.folds} holds out every image once.")
    from convnext.engine.records import info
    from convnext.studies.folds.run import cross_validated

    found = cross_validated(request, options, args.folds)
    if found and args.json:
        show_json(found.to_dict())
    elif found:
        show(found.lines())
        info(f"The report: {found.report}")
    return 0


def check(args: argparse.Namespace, rest: list[str], task: str | None = None) -> dict[str, Any]:
    """The recipe fields that the arguments change. What no recipe takes is refused, before torch or data are read.

    `task`: None while it is not known; then what one of the small recipes takes will do.
    """
    changes: dict[str, Any] = {
        field: text for flag, field in SHORT.items() if (text := getattr(args, flag)) is not None
    }
    if task == "classification" and args.size:
        changes["input.size_px"] = args.size
    longer = changes_of(rest)
    for field in changes:
        if field in longer:
            flag = next((flag for flag, each in SHORT.items() if each == field), "size")
            raise ConvNeXtError(f"--{flag} is short for --{field}, and both are given. Give one of them.")
    if changes.get("loss.balance") == AUTO:  # what a recipe does by itself
        del changes["loss.balance"]
    changes |= longer
    if args.minutes is not None:
        require_minutes(args.minutes)
    if args.freeze:
        if not args.weights:
            raise ConvNeXtError(
                "--freeze keeps the network that --weights names, and none is named. Add --weights FILE."
            )
        changes |= {"start.mode": "probe", "start.mix": [], "start.folds": 0}
    whole = next((prefix for prefix in WHOLE if args.model and args.model.startswith(prefix)), None)
    if whole:
        backbone = args.model.removeprefix(whole)
        raise ConvNeXtError(f"--model is the backbone: '{args.model}' is --model {backbone} --recipe {WHOLE[whole]}.")
    tasks = [task] if task else list(DEFAULT)
    names = [args.recipe] if args.recipe else [default_name(each, weights=bool(args.weights)) for each in tasks]
    probes = [_probe(args, name, task) for name in names]
    every = {task: dict(leaves_of(kind)) for task, kind in TASKS.items()}  # also of other kinds: `override` says whose
    known = [field for probe in probes for field in _fields(probe, changes)]
    for name, value in changes.items():
        if name not in known and not any(name in fields for fields in every.values()):
            hint = near_option(name, list(dict.fromkeys([*known, *flags_of(args)])))
            raise ConvNeXtError(f"No option or recipe field is called '--{name}'.{hint}")
        if value is None:
            raise ConvNeXtError(f"--{name} needs a value.")
    refused = [(probe.task, error) for probe in probes if (error := _refusal(probe, changes))]
    if len(refused) == len(probes):  # that of the task whose fields these are says what is wrong with them
        raise max(refused, key=lambda pair: sum(name in every[pair[0]] for name in changes))[1]
    return changes


def _probe(args: argparse.Namespace, name: str, task: str | None) -> Recipe:
    """Recipe `name` before the data are known. Raises ConvNeXtError where it is not for `task`, or not of that size."""
    found = task_of(name)
    if task and found != task:
        raise ConvNeXtError(f"Recipe '{name}' is for {found}, and this is {task}. Take {', '.join(RECIPES[task])}.")
    dense_px = args.size if task in DENSE else None
    channels = args.channels or len(args.bands or ()) or 3
    probe = recipe(name, args.model or "atto", images=1000, image_px=dense_px or 224, classes=2, in_channels=channels)
    if dense_px and not isinstance(probe, ClassificationRecipe) and probe.input.eval_short_px != dense_px:
        own = probe.input.eval_short_px
        rule = f"the {'least' if dense_px < own else 'most'} that --size takes for recipe '{name}' is {own} px"
        raise ConvNeXtError(
            f"--size {dense_px} is refused: {rule}. Other sizes are for --input.short_px and --input.eval_short_px."
        )
    return probe


def _fields(probe: Recipe, changes: dict[str, Any]) -> list[str]:
    """The fields of the recipe, its head of the kind that is asked for where it can be."""
    try:
        return list(fields_of(override(probe, {name: new for name, new in changes.items() if name == "head.kind"})))
    except ConvNeXtError:  # `_refusal` says why
        return list(fields_of(probe))


def _refusal(probe: Recipe, changes: dict[str, Any]) -> ConvNeXtError | None:
    """Why the recipe does not take these values. Whether images have several labels the data say: then it is asked for."""
    several = changes.get("loss.kind", "ce") != "ce" or changes.get("select.metric") in ("map", "micro_f1", "exact")
    asked = {"labels": "multi", "loss.kind": "bce", "select.metric": "map"} if several else {}
    try:
        with_changes(probe, {**asked, **changes}, images=1000)
    except ConvNeXtError as error:
        return error
    return None


def _check_out(out: str, data: list[str | None]) -> None:
    """A run among the images would be taken for images the next time."""
    from convnext.deploy.output import refuse_among

    refuse_among(out, [place for place in data if place])
    if Path(out).resolve() == Path.cwd():
        raise ConvNeXtError(f"--out {out} is the current folder. Name one for this run alone, e.g. --out runs/first.")


def _picked(args: argparse.Namespace, kind: type[RunOptions]) -> dict[str, Any]:
    return {name: getattr(args, name) for name in kind.model_fields if getattr(args, name, None) is not None}


def _report(run: Any, *, as_json: bool) -> None:
    """Print the result."""
    from convnext.engine.records import info
    from convnext.reports.baseline import baseline_line, never_line
    from convnext.reports.text import scores_fitted, scores_text, test_text

    if as_json:
        show_json(run.to_dict())
    else:
        way = "images, by cross-validation" if run.evaluation.about.get("crosswise") else "held-out images"
        found = run.evaluation.to_dict()
        for line in scores_fitted(found) if run.evaluation.task == "classification" else []:
            info(line)
        lines = [f"{scores_text(found)} on {run.evaluation.n:,} {way}: {run.path}", test_text(found)]
        show([line for line in lines if line])
        for line in filter(None, (baseline_line(found), never_line(found))):
            info(line)
        info(f"The report: {run.report}")
