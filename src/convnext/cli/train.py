"""`convnext train DATA`."""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from convnext.cli import dense
from convnext.cli.options import (
    CLASSES,
    DENSE,
    TASKS,
    annotation_flags,
    changes_of,
    count,
    flags_of,
    json_flag,
    refuse_of_other_tasks,
)
from convnext.config import ClassificationRecipe, Recipe, RunOptions, fields_of, parse
from convnext.errors import ConvNeXtError, nearest
from convnext.recipes import DEFAULT, RECIPES, recipe, task_of, with_changes

HELP = (
    "Train a classifier on class folders, a detector on boxes and masks, or a segmenter on label maps. "
    "The same command resumes a run that stopped."
)
WHOLE = {"mask_rcnn_": "coco_mask_rcnn_3x", "cascade_": "coco_cascade_3x", "upernet_": "ade20k_upernet_160k"}
SHORT = {  # flag -> the recipe field it is short for
    "epochs": "schedule.epochs",
    "batch": "optim.batch",
    "lr": "optim.lr",
    "precision": "precision",
}
MEANING = {
    "epochs": "passes over the training images",
    "batch": "images per optimizer step, over all devices",
    "lr": "peak learning rate for that batch",
    "precision": "fp32, bf16 or fp16",
}
TASK_FLAGS = {  # flag -> the tasks that know it
    "images": DENSE,
    "val": DENSE,
    "val_images": DENSE,
    "form": DENSE,
    "cache": CLASSES,
}


def flags(parser: argparse.ArgumentParser) -> None:
    """Declare its arguments. What decides the numbers is a recipe field; the rest is a `RunOptions` field."""
    parser.epilog = (
        "Any recipe field is an option too: --optim.lr 1e-3 --augment.mixup 0 --model.stem overlap --head.most 300. "
        "`runs/<name>/recipe.json` lists them all."
    )
    data = (
        "class folders (or train/ and val/ with them) or a CSV: classification; COCO JSON, Pascal VOC or YOLO: "
        "detection; images with index masks: segmentation; or a zip of any"
    )
    parser.add_argument("data", metavar="DATA", help=data)
    parser.add_argument("--task", choices=TASKS, help="what to learn (detected from the data)")
    parser.add_argument("--model", default="atto", help="network or backbone, as `convnext models` lists them (atto)")
    small = "small, imagenet1k, finetune, small_detection, coco_mask_rcnn_3x, ade20k_upernet_160k, ..."
    parser.add_argument("--recipe", help=f"{small} (the small recipe of the task)")
    parser.add_argument("--out", help="run folder (runs/<data>_<model>)")
    parser.add_argument("--weights", help="start from this file or run, or hub:OWNER/NAME")
    parser.add_argument("--channels", type=int, default=3, choices=(1, 3), help="3 for colour, 1 for grey (3)")
    parser.add_argument(
        "--val-share", type=float, default=0.2, help="share to hold out when the data have no val part (0.2)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the split, the weights and the order (0)")
    for flag, field in SHORT.items():
        parser.add_argument(f"--{flag}", help=f"{MEANING[flag]}; short for --{field} (default: the recipe's value)")
    size = "pixels: side of the training crop; for detection and segmentation, the shorter side of an image"
    parser.add_argument("--size", type=count, help=f"{size} (default: the recipe's value)")
    parser.add_argument("--device", help="auto, cpu, cuda, cuda:1, mps (auto)")
    parser.add_argument("--workers", type=int, help="processes that read images (chosen automatically)")
    parser.add_argument("--micro-batch", type=int, help="images per forward pass; gradients add up to the batch")
    parser.add_argument("--compile", action="store_true", default=None, help="compile the network with torch.compile")
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
    annotated = parser.add_argument_group("detection and segmentation")
    annotation_flags(annotated)
    annotated.add_argument(
        "--val", metavar="ANNOTATIONS", help="annotations of the validation images, if they are in another file"
    )
    annotated.add_argument("--val-images", metavar="DIR", help="folder or zip of the validation images (as --images)")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Train, evaluate what came out, write the report."""
    check(args, rest, args.task)
    source = _source(args)
    task = source.task
    refuse_of_other_tasks(args, TASK_FLAGS, task, "the data are")
    changes = check(args, rest, task)
    out = args.out or f"runs/{Path(args.data).resolve().stem}_{args.model.replace(':', '_')}"
    _check_out(out, [args.data, args.images, args.val, args.val_images])
    options = parse(RunOptions, {"out": out, "progress": not args.json, **_picked(args, RunOptions)}, where="options")
    if task == "classification":
        _train_classes(args, source, changes, options)
    else:
        dense.train(args, source, changes, options)
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
    changes |= longer
    whole = next((prefix for prefix in WHOLE if args.model.startswith(prefix)), None)
    if whole:
        backbone = args.model.removeprefix(whole)
        raise ConvNeXtError(f"--model is the backbone: '{args.model}' is --model {backbone} --recipe {WHOLE[whole]}.")
    names = [args.recipe] if args.recipe else [DEFAULT[task]] if task else list(DEFAULT.values())
    probes = [_probe(args, name, task) for name in names]
    for name, value in changes.items():
        if value is None:
            raise ConvNeXtError(f"--{name} needs a value.")
        every = [field for kind in TASKS for field in fields_of(_tiny(DEFAULT[kind]))]
        known = [field for probe in probes for field in fields_of(probe)]
        if name not in (*known, *every):
            hint = nearest(name, list(dict.fromkeys([*known, *flags_of(args)])))
            raise ConvNeXtError(f"No option or recipe field is called '--{name}'.{hint}")
    refused = [error for probe in probes if (error := _refusal(probe, changes))]
    if len(refused) == len(probes):
        raise refused[0]
    return changes


def _probe(args: argparse.Namespace, name: str, task: str | None) -> Recipe:
    """Recipe `name` before the data are known. Raises ConvNeXtError where it is not for `task`, or not of that size."""
    found = task_of(name)
    if task and found != task:
        raise ConvNeXtError(f"Recipe '{name}' is for {found}, and this is {task}. Take {', '.join(RECIPES[task])}.")
    dense_px = args.size if task in DENSE else None
    probe = recipe(name, args.model, images=1000, image_px=dense_px or 224, classes=2, in_channels=args.channels)
    if dense_px and not isinstance(probe, ClassificationRecipe) and probe.input.eval_short_px != dense_px:
        raise ConvNeXtError(
            f"--size {dense_px} does not suit recipe '{name}', whose images have a shorter side of "
            f"{probe.input.eval_short_px} px. Give --input.short_px and --input.eval_short_px."
        )
    return probe


def _tiny(name: str) -> Recipe:
    return recipe(name, "tiny", images=1000, image_px=224, classes=2)


def _refusal(probe: Recipe, changes: dict[str, Any]) -> ConvNeXtError | None:
    """Why the recipe does not take these values."""
    try:
        with_changes(probe, changes, images=1000)
    except ConvNeXtError as error:
        return error
    return None


def _source(args: argparse.Namespace) -> Any:
    """The data, of the task that the arguments say, else of what they look like. Raises ConvNeXtError where they differ."""
    from convnext.data.opening import recognise

    if args.task == "classification":
        return recognise(args.data, annotated=False)
    annotated = True if args.form or args.task or args.images or args.val or args.val_images else None
    source = recognise(args.data, args.images, form=args.form, annotated=annotated)
    if args.task and source.task != args.task:
        raise ConvNeXtError(
            f"--task {args.task} does not fit '{args.data}', whose annotations are for {source.task}. Leave it out, or name "
            "other data."
        )
    return source


def _check_out(out: str, data: list[str | None]) -> None:
    """A run among the images would be taken for images the next time."""
    from convnext.deploy.output import refuse_among

    if Path(out).resolve() == Path.cwd():
        raise ConvNeXtError(f"--out {out} is the current folder. Name one for this run alone, e.g. --out runs/first.")
    refuse_among(out, [place for place in data if place])


def _picked(args: argparse.Namespace, kind: type[RunOptions]) -> dict[str, Any]:
    return {name: getattr(args, name) for name in kind.model_fields if getattr(args, name, None) is not None}


def _train_classes(args: argparse.Namespace, source: Any, changes: dict[str, Any], options: RunOptions) -> None:
    """A classifier."""
    from convnext.tasks.train import Request, train

    request = Request(
        data=source,
        recipe=args.recipe or DEFAULT["classification"],
        model=args.model,
        weights=args.weights,
        channels=args.channels,
        val_share=args.val_share,
        seed=args.seed,
        changes=changes,
    )
    finished, splits = train(request, options)
    if not int(os.environ.get("RANK", "0")):
        _conclude(options, finished, splits, as_json=args.json)


def _conclude(options: RunOptions, finished: Any, splits: Any, *, as_json: bool) -> None:
    """Evaluate the best weights, write evaluation.json and report.html, and print the result."""
    from convnext.deploy.load import load
    from convnext.engine.records import info
    from convnext.files import write_text
    from convnext.reports.run import write_report
    from convnext.tasks.evaluation import report

    out = options.out
    predictor = load(out, task="classification", device=options.device)
    outcomes = predictor.outcomes(splits.val, workers=options.workers, progress=options.progress)
    result = report(outcomes, predictor.classes, [entry.path for entry in splits.val.entries])
    result["weights"] = finished.weights
    write_text(Path(out) / "evaluation.json", json.dumps(result) + "\n")
    page = write_report(Path(out), read=splits.val.store.read)
    if as_json:
        keys = ("top1", "top5", "loss", "ece", "n", "weights")
        print(json.dumps({"run": out, "report": str(page), "step": finished.step, **{k: result[k] for k in keys}}))
    else:
        print(f"top-1 {result['top1']:.2%}  top-5 {result['top5']:.2%} on {result['n']:,} held-out images: {out}")
        info(f"The report: {page}")
