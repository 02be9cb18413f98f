"""`convnext export`: a trained classifier as a file that runs without this package, compared with what it was made of.

The file appears whole or not at all, and only when its answers are those of the run: within float rounding, or for int8
within a limit of lost accuracy on labelled images. Recipe, class names and preprocessing travel in it.
"""

import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from convnext import __version__
from convnext.data.loader import eval_batches
from convnext.data.source import Dataset, open_unlabelled
from convnext.data.transforms import normalise
from convnext.deploy import graph, int8
from convnext.deploy.predictor import Predictor, load
from convnext.deploy.runtime import (
    KEY,
    VERSION,
    Exported,
    Floats,
    is_exported,
    megabytes,
    move,
    needs,
    open_exported,
)
from convnext.engine.records import info
from convnext.errors import CheckpointError, ConvNeXtError, nearest
from convnext.tasks.evaluation import Outcomes

FORMS = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}
BACKENDS = {"onnx": "onnxruntime", "openvino": "openvino"}
BOUNDS = {"fp32": 1e-3, "fp16": 3e-2}  # largest difference of a logit, as a share of the largest logit
KEPT = (
    "task",
    "weights",
    "score",
    "metrics",
    "step",
    "images",
    "val_share",
    "provenance",
)  # of the run's description
COMPARED = 8  # images in the batch that is compared and timed


@dataclass(frozen=True)
class Options:
    """What `export` is asked for beside run, form and place."""

    weights: str = "best"
    backend: str = "auto"
    dynamic: bool = False
    half: bool = False
    int8: str | None = None  # data to calibrate and to judge on
    calibrate: int = 300  # images
    max_loss: float = 0.5  # points of top-1
    compare_on: str | None = None  # images; None: fixed noise
    workers: int = -1


@dataclass(frozen=True)
class Done:
    """What `export` did."""

    out: Path
    form: str
    precision: str  # fp32, fp16, or a variant of int8
    backend: str  # what ran it here
    difference: float  # of a logit, at most
    largest: float  # logit of the network it was made of
    compared: str  # on what
    megabytes: float
    notes: tuple[str, ...] = ()
    figures: dict[str, Any] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """For a terminal."""
        return [
            f"{self.out}: {self.precision} for {self.form}, {self.megabytes:.1f} MB",
            f"largest logit difference, torch against {self.backend}, on {self.compared}: {self.difference:.1e} "
            f"(logits up to {self.largest:.2g})",
            *self.notes,
        ]

    def as_json(self) -> dict[str, Any]:
        """For a program."""
        names = ("form", "precision", "backend", "compared")
        return {
            "out": str(self.out),
            **{name: getattr(self, name) for name in names},
            "max_logit_difference": self.difference,
            "max_logit": self.largest,
            "megabytes": self.megabytes,
            **self.figures,
        }


def export(run: str | Path, form: str, out: str | Path | None = None, options: Options | None = None) -> Done:
    """Write the classifier of `run` as `form` of FORMS to `out`, RUN/model.onnx and so on by default; compare the two.

    Raises ConvNeXtError where the form or its packages are missing, the network cannot be traced, the answers differ,
    or int8 costs more than `options.max_loss` points; whatever was at `out` is then untouched.
    """
    options = options or Options()
    path = _place(run, form, out, options)
    if is_exported(run):
        raise CheckpointError(f"'{run}' is exported already. Name the run that it was made of.")
    predictor = load(run, weights=options.weights, device="cpu", plain=True)
    x, compared = _images(predictor, options)
    with tempfile.TemporaryDirectory(prefix="convnext-export-") as folder:
        made = Path(folder) / f"{path.stem}{FORMS[form]}"
        precision = "fp16" if options.half else "fp32"
        network = graph.prepared(predictor.model, convolutions=form == "openvino")
        size_px, channels = predictor.recipe.input.eval_size_px, len(predictor.recipe.input.mean)
        program = graph.trace(
            network, channels, size_px, dynamic=options.dynamic, half=options.half and form != "openvino"
        )
        described = description(predictor, precision)
        _write(program, form, made, described, half=options.half)
        expected = _answers(predictor.model, x)
        result = _run(made, program, form, options.backend)
        difference, largest = _differ(result(x), expected)
        if not difference <= BOUNDS[precision] * max(largest, 1e-6):  # also refuses NaN
            raise ConvNeXtError(
                f"The exported network answers otherwise: logits differ by {difference:.1e} where they go up to "
                f"{largest:.2g}. No file is kept. Try another --to, or leave out --half."
            )
        backend = result.backend if isinstance(result, Exported) else "torch.export"
        notes: list[str] = []
        figures: dict[str, Any] = {}
        if options.int8:
            precision, notes, figures = _to_int8(made, predictor, described, options, x)
            difference, largest = _differ(open_exported(made, backend=options.backend)[0](x), expected)
        size_mb = megabytes(made)
        move(made, path)
    return Done(path, form, precision, backend, difference, largest, compared, size_mb, tuple(notes), figures)


def description(predictor: Predictor, precision: str) -> dict[str, Any]:
    """What travels in the file: enough to predict and evaluate as the run does, and for people to use it without us."""
    recipe, metadata = predictor.recipe, predictor.metadata
    size = recipe.input.eval_size_px
    shorter = int(size / recipe.input.eval_crop)
    resize = f"both sides to {size} px" if recipe.input.eval_resize == "warp" else f"shorter side to {shorter} px"
    return {
        "version": VERSION,
        "written_by": f"convnext {__version__}, torch {torch.__version__}",
        "precision": precision,
        "recipe": recipe.model_dump(mode="json"),
        "classes": list(predictor.classes),
        "preprocessing": {
            "steps": f"RGB; {resize}, bicubic; centre of {size} px; (value / 255 - mean) / std; (N, C, H, W) float32",
            "size_px": size,
            "mean": list(recipe.input.mean),
            "std": list(recipe.input.std),
        },
        **{name: metadata[name] for name in KEPT if name in metadata},
    }


def _place(run: str | Path, form: str, out: str | Path | None, options: Options) -> Path:
    """Where the file goes. Raises ConvNeXtError for options that do not fit together, before any work is done."""
    if form not in FORMS:
        raise ConvNeXtError(f"There is no form '{form}': onnx, openvino or torch.{nearest(form, FORMS)}")
    if options.int8 and (form == "torch" or options.half):
        other = "--to torch" if form == "torch" else "--half"
        raise ConvNeXtError(f"--int8 does not go with {other}. It is for --to openvino and --to onnx.")
    wrong = form == "torch" and options.backend != "auto"
    if wrong or (options.int8 and options.backend not in ("auto", BACKENDS[form])):
        raise ConvNeXtError(f"--backend {options.backend} does not go with --to {form}. Leave it out.")
    for package in {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("openvino",)}.get(form, ()):
        needs(package, f"--to {form}")
    if options.int8 and form == "openvino":
        needs("nncf", "--int8")
    if not 0 <= options.max_loss <= 100:
        raise ConvNeXtError(f"--max-loss {options.max_loss:g} must be from 0 to 100 points of top-1.")
    folder = Path(run) if Path(run).is_dir() else Path(run).parent
    name = "model_int8" if options.int8 else "model_fp16" if options.half else "model"
    path = Path(out) if out is not None else folder / f"{name}{FORMS[form]}"
    if path.suffix != FORMS[form]:
        raise ConvNeXtError(f"'{path}' cannot hold a network for {form}. Let its name end in {FORMS[form]}.")
    return path


def _write(program: Any, form: str, path: Path, described: dict[str, Any], *, half: bool) -> None:
    text = json.dumps(described)
    if form == "torch":
        torch.export.save(program, path, extra_files={f"{KEY}.json": text})
    elif form == "onnx":
        proto = graph.to_onnx(program)
        _describe_onnx(proto, described)
        try:
            path.write_bytes(proto.SerializeToString())
        except ValueError:  # what a protocol buffer of more than 2 GB raises
            raise ConvNeXtError(
                "The network does not fit in one ONNX file of 2 GB. Try --half or --to openvino."
            ) from None
    else:
        model = graph.to_openvino(program)
        model.set_rt_info(text, [KEY])
        needs("openvino", "--to openvino").save_model(model, path, compress_to_fp16=half)


def _describe_onnx(proto: Any, described: dict[str, Any]) -> None:
    values = {KEY: json.dumps(described), "classes": json.dumps(described["classes"])}
    values["preprocessing"] = json.dumps(described["preprocessing"])
    del proto.metadata_props[:]
    for key, value in values.items():
        proto.metadata_props.add(key=key, value=value)


def _to_int8(
    made: Path, predictor: Predictor, described: dict[str, Any], options: Options, x: Tensor
) -> tuple[str, list[str], dict[str, Any]]:
    """Replace the float file `made` by its int8 form, where that is good enough; says how good."""
    train, val = int8.parts_for(str(options.int8), predictor.classes, predictor.metadata)
    if options.calibrate < 1:
        raise ConvNeXtError(f"--calibrate {options.calibrate} must be 1 image or more.")
    images = int8.calibration(train, predictor.recipe.input, options.calibrate, predictor.recipe.seed)
    info(f"Calibrating on {len(images):,} images, judging by {len(val.entries):,} others.")
    floats = open_exported(made, backend=options.backend)[0]
    before = scored(floats, predictor, val, options.workers)
    small = made.with_name(f"int8{made.suffix}")

    def judged(variant: str) -> int8.Comparison:
        _quantize(made, small, images, variant, described)
        quick = open_exported(small, backend=options.backend)[0]
        return int8.Comparison.of(before, scored(quick, predictor, val, options.workers))

    variant, found = int8.first_within(tuple(int8.VARIANTS), judged, options.max_loss, info)
    quick = open_exported(small, backend=options.backend)[0]
    plain = predictor.model
    contestants = {"float": lambda: floats(x), "int8": lambda: quick(x), "torch": lambda: _answers(plain, x)}
    times = int8.in_turn(contestants)
    faster = int8.ratio(times["float"], times["int8"]), int8.ratio(times["torch"], times["int8"])
    sizes = megabytes(made), megabytes(small)
    move(small, made)
    notes = [
        *found.text(options.max_loss).split("\n"),
        f"speed on {len(x)} images: {faster[0]:.2f} times the same network in float32 under {floats.backend}, "
        f"{faster[1]:.2f} times plain torch",
        f"size: {sizes[0]:.1f} -> {sizes[1]:.1f} MB",
    ]
    names = ("n", "before", "after", "loss", "doubt", "agreement")
    figures = {"int8": {name: getattr(found, name) for name in names} | {"speed": faster[0], "speed_torch": faster[1]}}
    return variant, notes, figures


def _quantize(source: Path, out: Path, images: list[Floats], variant: str, described: dict[str, Any]) -> None:
    described = described | {"precision": "int8", "int8": {"variant": variant, "calibrated_on": len(images)}}
    if source.suffix == ".onnx":
        int8.quantize_onnxruntime(source, out, images, variant)
        onnx = needs("onnx", "--int8")
        proto = onnx.load(str(out))
        _describe_onnx(proto, described)
        out.write_bytes(proto.SerializeToString())
        return
    openvino = needs("openvino", "--int8")
    model = int8.quantize_openvino(openvino.Core().read_model(source), images, variant)
    model.set_rt_info(json.dumps(described), [KEY])
    openvino.save_model(model, out, compress_to_fp16=False)


def scored(network: torch.nn.Module, predictor: Predictor, dataset: Dataset, workers: int) -> Outcomes:
    """What `network` makes of a labelled dataset, preprocessed as `predictor` does."""
    exact = predictor.recipe.model_copy(update={"precision": "fp32"})
    judge = Predictor(network, exact, predictor.classes, torch.device("cpu"), predictor.source, {}, plain=True)
    return judge.evaluate(dataset, workers=workers, batch=32)


def _images(predictor: Predictor, options: Options) -> tuple[Tensor, str]:
    """(COMPARED, C, H, W) normalised images to compare on, and what they are."""
    config: Any = predictor.recipe.input
    where = options.compare_on or options.int8
    if where:
        dataset = open_unlabelled([where])
        some = Dataset((), dataset.entries[:: max(1, len(dataset.entries) // COMPARED)][:COMPARED], dataset.store)
        found = [batch.images for batch in eval_batches(some, config, batch=COMPARED)]
        if found and len(found[0]):
            x = normalise(torch.cat(found), config)
            return x, f"{len(x)} images"
        raise ConvNeXtError(f"None of {len(some.entries)} images of '{where}' could be read.")
    shape = (COMPARED, len(config.mean), config.eval_size_px, config.eval_size_px)
    return torch.randn(shape, generator=torch.Generator().manual_seed(2022)), f"{COMPARED} images of fixed noise"


def _answers(network: torch.nn.Module, x: Tensor) -> Tensor:
    with torch.inference_mode():
        return network(x).float()


def _run(path: Path, program: Any, form: str, backend: str) -> Any:
    """The network in `path`, or for torch the program that was saved there."""
    return open_exported(path, backend=backend)[0] if form != "torch" else program.module()


def _differ(result: Tensor, expected: Tensor) -> tuple[float, float]:
    """Largest difference and largest value."""
    return (result.float() - expected).abs().max().item(), expected.abs().max().item()
