"""`convnext evaluate RUN DATA`."""

import argparse
from pathlib import Path
from typing import Any

from convnext.cli.options import (
    BATCH,
    CLASSES,
    DENSE,
    annotation_flags,
    columns_of,
    count,
    predictor_flags,
    promise_flags,
    refuse_more,
    refuse_of_other_tasks,
    table_flags,
)
from convnext.cli.printing import show
from convnext.errors import ConvNeXtError
from convnext.files import to_json

HELP = (
    "Score a run on labelled images: top-1, top-5, calibration and confusion of a classifier, or a suite of harder "
    "tests; average precision of a detector; IoU of a segmenter."
)
GRIDS = ("corruptions", "c-bar", "attacks")
SUITE_FLAGS = {  # flag -> the suites that know it
    "out": GRIDS,
    "seed": GRIDS,
    "reference": GRIDS,
    "severities": ("corruptions", "c-bar"),
    "names": ("corruptions", "c-bar"),
    "stored": ("corruptions", "c-bar"),
    "eps": ("attacks",),
    "steps": ("attacks",),
    "real": ("real",),
}
TASK_FLAGS = {  # flag -> the tasks that know it
    "suite": CLASSES,
    "batch": CLASSES,
    "promise": CLASSES,
    "sets": CLASSES,
    "keep": CLASSES,
    "label_column": CLASSES,
    "path_column": CLASSES,
    "form": DENSE,
    "colours": ("segmentation",),
    "multi_scale": ("segmentation",),
}


def flags(parser: argparse.ArgumentParser) -> None:
    """Declare its arguments."""
    parser.add_argument("run", metavar="RUN", help="a run folder, a checkpoint or a file of `convnext export`")
    data = "data in the form that the run was trained on; if the run split them itself, its held-out images are scored"
    parser.add_argument("data", metavar="DATA", help=data)
    parts = ("train", "val", "test")
    parser.add_argument("--part", choices=parts, help="part of the data to score (val, else test, else all)")
    predictor_flags(parser)
    annotated = parser.add_argument_group("detection and segmentation")
    annotation_flags(annotated)
    annotated.add_argument(
        "--multi-scale", action="store_true", help="segmentation: predict at several scales, with flips"
    )
    table_flags(parser)
    answers = parser.add_argument_group("answers of a classifier")
    promise_flags(answers)
    answers.add_argument("--keep", action="store_true", help="keep promise and sets in the run, for predict and export")
    suite = parser.add_argument_group("suites of a classifier")
    choices = (*GRIDS, "subset", "real")
    text = "ImageNet-C, C-bar; FGSM and PGD; folders that are some of the classes (ImageNet-A, -R, ...); ReaL labels"
    suite.add_argument("--suite", choices=choices, help=text)
    suite.add_argument("--out", help="folder of the suite's results, which a second call resumes (RUN/robustness)")
    suite.add_argument("--seed", type=int, help="seed of corruptions and random starts (0)")
    suite.add_argument("--reference", help="auto, none, alexnet, or a robustness.json to divide errors by (auto)")
    suite.add_argument("--severities", help="severities, e.g. 1,3,5 (all)")
    suite.add_argument("--names", help="corruptions, e.g. fog,frost (all)")
    suite.add_argument("--stored", action="store_true", default=None, help="pass corrupted images through a JPEG")
    suite.add_argument("--eps", help="largest pixel change of an attack, in 255ths (1,2,4,8)")
    suite.add_argument("--steps", type=count, help="steps of PGD (10)")
    suite.add_argument("--real", help="ReaL label file, real.json")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Evaluate and print."""
    refuse_more(args, rest)
    for flag, suites in SUITE_FLAGS.items():
        if getattr(args, flag) is not None and args.suite not in suites:
            raise ConvNeXtError(f"--{flag} is for --suite {' or '.join(suites)}.")
    given = [flag for flag in ("promise", "sets") if getattr(args, flag) is not None]
    if args.keep and not given:
        raise ConvNeXtError("--keep keeps a promise or sets, and none is asked for. Add --promise 0.99, or --sets 0.9.")
    if given and args.suite:
        raise ConvNeXtError(f"--{given[0]} does not go with --suite {args.suite}. Leave one of them out.")
    if args.suite == "real" and (args.part or args.images):
        raise ConvNeXtError(
            f"--{'part' if args.part else 'images'} says nothing for --suite real, which knows all images by their names. "
            "Leave it out."
        )
    from convnext.deploy.load import load

    predictor: Any = load(args.run, weights=args.weights, device=args.device)
    task = predictor.recipe.task
    refuse_of_other_tasks(args, TASK_FLAGS, task, f"'{args.run}' is")
    if args.bands:
        predictor = predictor.with_bands(args.bands)
    if args.suite in GRIDS:
        _grid(args, predictor)
    else:
        {None: _plain, "subset": _subset, "real": _real}[args.suite](args, predictor)
    return 0


def _plain(args: argparse.Namespace, predictor: Any) -> None:
    """All classes, whatever the task."""
    from convnext.reports.text import text_of

    task = predictor.recipe.task
    how: dict[str, Any] = {"workers": args.workers, "progress": not args.json, "images": args.images}
    asked = {"promise": args.promise, "sets": args.sets, "keep": args.keep}
    how |= {"batch": args.batch or 0, **asked, **columns_of(args)} if task == "classification" else {}
    how |= {"form": args.form} if task != "classification" else {}
    how |= {"multi_scale": True} if args.multi_scale else {}
    how |= {"colours": args.colours} if args.colours else {}
    result = predictor.evaluate(args.data, args.part, **how).to_dict()
    show(to_json(result) if args.json else text_of(result))


def _subset(args: argparse.Namespace, predictor: Any) -> None:
    """Those classes that the data name."""
    from convnext.reports.text import text_of
    from convnext.studies.robustness.subsets import open_subset
    from convnext.tasks.classification import report
    from convnext.tasks.classification.several.report import evaluation_of as evaluation_of_several

    data = open_subset(_labelled(args, predictor), predictor.classes, part=args.part)
    skipped: dict[str, str] = {}
    how = _pass(args, skipped)
    if predictor.several:  # each class is judged alone: those that the data do not know stay unknown
        told = predictor.label_outcomes(data.dataset, how)
        found = evaluation_of_several(told, data.dataset, predictor.thresholds)
    else:
        outcomes = predictor.outcomes(data.dataset, how, only=data.only)
        found = report.evaluation_of(outcomes, data.dataset)
    result = found.with_about(skipped=skipped, weights=predictor.metadata.get("weights", "raw")).to_dict()
    show(to_json(result) if args.json else text_of(result))


def _pass(args: argparse.Namespace, skipped: dict[str, str]) -> Any:
    """How the images pass the network; broken ones are noted in `skipped`."""
    from convnext.tasks.classification.passing import Pass

    return Pass(args.workers, args.batch or BATCH, not args.json, skipped=skipped)


def _labelled(args: argparse.Namespace, predictor: Any) -> Any:
    """The data that a person names, as they were labelled for the run."""
    from convnext.data.source import NamedColumns
    from convnext.tasks.opening import scored_source
    from convnext.tasks.splits import as_trained

    columns = NamedColumns.of(**columns_of(args))
    source = scored_source(args.data, "classification", images=args.images, columns=columns)
    return as_trained(source, predictor.recipe.labels, predictor.metadata)


def _real(args: argparse.Namespace, predictor: Any) -> None:
    """ImageNet's validation images with several right answers each."""
    if args.real is None:
        raise ConvNeXtError("--suite real needs --real FILE, the published real.json.")
    from convnext.studies.robustness.subsets import open_real, real_accuracy

    if predictor.several:
        raise ConvNeXtError(
            "--suite real counts how often the first class is among the right ones, and this run names several labels an "
            "image, none of which is first. Leave --suite out."
        )
    labels = open_real(args.data, args.real, predictor.classes)
    skipped: dict[str, str] = {}
    outcomes = predictor.outcomes(labels.dataset, _pass(args, skipped))
    result = {"real": real_accuracy(outcomes, labels), "n": len(outcomes.index), "left_out": labels.left_out}
    text = f"ReaL {result['real']:.2%} on {result['n']:,} images; {labels.left_out:,} without an answer left out"
    show(to_json({**result, "skipped": skipped}) if args.json else text)


def _grid(args: argparse.Namespace, predictor: Any) -> None:
    """Corruptions and attacks: many evaluations, kept in a folder."""
    from convnext.studies.robustness.measured import measure_of
    from convnext.studies.robustness.subsets import Subset, open_subset
    from convnext.studies.robustness.suite import choose_reference, require_colours, run_suite, suite
    from convnext.studies.robustness.text import robustness_text
    from convnext.tasks.classification.facts import fingerprint
    from convnext.tasks.opening import open_scored
    from convnext.tasks.splits import held_out

    require_colours(predictor.recipe)  # first: data take long to open
    chosen_options: dict[str, Any] = {"seed": args.seed, "stored": args.stored, "steps": args.steps}
    chosen_options |= {
        name: _numbers(name, getattr(args, name)) for name in ("severities", "eps") if getattr(args, name)
    }
    chosen_options |= {"names": tuple(args.names.split(","))} if args.names else {}
    chosen = suite(args.suite, **{name: value for name, value in chosen_options.items() if value is not None})
    reference = choose_reference(args.reference or "auto", chosen, measure_of(predictor.recipe))
    source = _labelled(args, predictor)
    about = (source, predictor.recipe, predictor.metadata, fingerprint)
    if held_out(*about) is None:
        data = open_subset(source, predictor.classes, part=args.part)
    else:
        data = Subset(open_scored(*about, part=args.part), ())
    place = Path(args.run)
    out = Path(args.out) if args.out else (place if place.is_dir() else place.parent) / "robustness"
    result = run_suite(
        predictor,
        data.dataset,
        chosen,
        out,
        reference=reference,
        only=data.only,
        workers=args.workers,
        batch=args.batch or BATCH,
    )
    show(to_json(result) if args.json else robustness_text(result))


def _numbers(name: str, text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConvNeXtError(f"--{name} {text} is refused: give numbers with commas, such as 1,2.") from None
    return tuple(int(number) for number in numbers) if name == "severities" else numbers
