"""`convnext export`: a trained network as a file that runs without this package, compared with what it was made of.

The file appears whole or not at all, and only when its answers are those of the run: within float rounding, or for int8
within a limit of lost accuracy on labelled images. Recipe, class names and preprocessing travel in it.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch.export import Dim, ExportedProgram

from convnext.config import override
from convnext.deploy import graph
from convnext.deploy.detector import DetectionPredictor
from convnext.deploy.export import segmenting
from convnext.deploy.export.agreement import agreement, compared_on
from convnext.deploy.export.answering import Answering
from convnext.deploy.export.compared import compared_of
from convnext.deploy.export.description import description
from convnext.deploy.export.quantized import Quantization, to_int8
from convnext.deploy.exported.detector import ExportedDetector
from convnext.deploy.exported.opened import Pixels, Run, is_exported, megabytes, move, open_exported
from convnext.deploy.forms import table
from convnext.deploy.forms.asked import Options, form_for, refuse_task, task_of
from convnext.deploy.forms.seal import seal
from convnext.deploy.load import load
from convnext.errors import CheckpointError, ConvNeXtError
from convnext.files import refuse_unusable, told, workroom

BOUNDS = {"fp32": 1e-3, "fp16": 3e-2}  # largest difference of a logit, as a share of the largest logit
_RESIZED = 10  # times that, where a pixel may be resized to the next grey level
_TRACED = (2, 48, 40)  # images, rows and columns of what is traced; the graph takes any number of each


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
    said: str = ""  # of the difference, where there are no logits; a score is then compared in their place

    def lines(self) -> list[str]:
        """For a terminal."""
        return [
            f"{self.out}: {self.precision} for {self.form}, {self.megabytes:.1f} MB",
            self.said
            or f"largest difference of a logit between the run in torch and the file in {self.backend}, on {self.compared}: "
            f"{self.difference:.1e} "
            f"(logits up to {self.largest:.2g})",
            *self.notes,
        ]

    def to_dict(self) -> dict[str, Any]:
        """For a program."""
        names = ("form", "precision", "backend", "compared")
        return {
            "out": str(self.out),
            **{name: getattr(self, name) for name in names},
            **({"max_score_difference": self.difference} if self.said else self._logits()),
            "megabytes": self.megabytes,
            **self.figures,
        }

    def _logits(self) -> dict[str, float]:
        return {"max_logit_difference": self.difference, "max_logit": self.largest}


def export(run: str | Path, to: str, out: str | Path | None = None, options: Options | None = None) -> Done:
    """Write the network of `run` as form `to` to `out`, RUN/model.onnx and so on by default; compare both.

    Raises ConvNeXtError where the form or its packages are missing, the network cannot be traced, the answers differ,
    or int8 costs more than `options.max_loss` points; whatever was at `out` is then untouched.
    """
    options = options or Options()
    form = form_for(to, options)
    path = _place(run, form, out, options)
    if is_exported(run):
        raise CheckpointError(f"'{run}' is exported already. Name the run that it was made of.")
    form.require(to, int8=bool(options.int8), detector=task_of(run) == "detection")
    predictor: Any = load(run, weights=options.weights, device="cpu", plain=True)
    refuse_task(predictor.recipe.task, predictor.source, to, options)
    if predictor.recipe.task == "detection":
        return _of_detector(predictor, form, path, options)
    compared: Any = compared_of(predictor, options.compare_on or options.int8)
    with workroom(Path(tempfile.gettempdir()), "convnext-export") as folder:
        made = folder / f"{path.stem}{form.suffix}"
        precision = "fp16" if options.half else "fp32"
        program = _traced(predictor, form, half=options.half and form.half == "graph")
        described = description(predictor, precision)
        with told(made):
            table.called(form.writer)(program, made, described, half=options.half)
            seal(made)
        run_here, backend = _run(made, program, form, options.backend)
        difference, beyond = compared.difference(run_here), compared.difference_beyond(run_here)
        bound = BOUNDS[precision] * max(compared.largest, 1e-6)
        if not (beyond <= bound and difference <= _RESIZED * bound):  # also refuses NaN
            raise ConvNeXtError(
                f"The exported network answers otherwise: logits differ by {max(difference, beyond):.1e} where they go up to "
                f"{compared.largest:.2g}. No file is kept. Try another --to, or leave out --half."
            )
        notes: list[str] = []
        figures: dict[str, Any] = {}
        if options.int8:
            asked = Quantization(options.int8, options.calibrate, options.max_loss, options.backend, options.workers)
            with told(made):
                precision, notes, figures = to_int8(made, form, predictor, described, asked, compared)
            difference = compared.difference(_run(made, program, form, options.backend)[0])
        size_mb = megabytes(made)
        move(made, path)
    about: dict[str, Any] = {"largest": compared.largest, "compared": compared.said, "megabytes": size_mb}
    return Done(path, form.name, precision, backend, difference, **about, notes=tuple(notes), figures=figures)


def _of_detector(predictor: DetectionPredictor, form: table.Form, path: Path, options: Options) -> Done:
    """The same for a detector, which is compared by what it finds."""
    images, said = compared_on(predictor.recipe.input, options.compare_on)
    with workroom(Path(tempfile.gettempdir()), "convnext-export") as folder:
        made = folder / f"{path.stem}{form.suffix}"
        with told(made):
            table.called(form.detector)(predictor, made, half=options.half)
            seal(made)
        opened = open_exported(made, backend=options.backend, threads=torch.get_num_threads())
        exact = replace(predictor, recipe=override(predictor.recipe, {"precision": "fp32"}))  # bf16 finds a little else
        found = agreement(exact, ExportedDetector.around(opened), images, said)
        if not found.holds:
            raise ConvNeXtError(
                f"The exported detector answers otherwise: {found.line()}. No file is kept. Serve the run."
            )
        size_mb = megabytes(made)
        move(made, path)
    figures: dict[str, Any] = {"objects": found.objects, "same": found.same, "max_edge_px": found.box_px}
    about: dict[str, Any] = {"compared": found.compared, "megabytes": size_mb, "said": found.line(), "figures": figures}
    precision = "fp16" if options.half else "fp32"
    return Done(path, form.name, precision, opened.backend, found.score, 1.0, **about)


def _traced(predictor: Any, form: table.Form, *, half: bool) -> ExportedProgram:
    """A whole classifier, from decoded images to answers, or a segmenter up to its logits."""
    if predictor.recipe.task == "segmentation":
        return segmenting.traced(predictor.model, predictor.recipe, half=half)
    network = graph.prepared(predictor.model, convolutions=form.convolutions)
    config = predictor.recipe.input
    images = torch.zeros(*_TRACED, len(config.mean), dtype=torch.float32 if config.wide else torch.uint8)
    free = {0: graph.BATCH, 1: Dim("height", min=1, max=2**16), 2: Dim("width", min=1, max=2**16)}
    return graph.trace(Answering(network, predictor), images, free=free, half=half)


def _place(run: str | Path, form: table.Form, out: str | Path | None, options: Options) -> Path:
    """Where the file goes. Raises ConvNeXtError for a name that is not one of `form`."""
    folder = Path(run) if Path(run).is_dir() else Path(run).parent
    name = "model_int8" if options.int8 else "model_fp16" if options.half else "model"
    path = Path(out) if out is not None else folder / f"{name}{form.suffix}"
    if path.suffix != form.suffix:
        raise ConvNeXtError(f"'{path}' cannot hold a network for {form.name}. Let its name end in {form.suffix}.")
    refuse_unusable(path)
    return path


def _run(path: Path, program: ExportedProgram, form: table.Form, backend: str) -> tuple[Run, str]:
    """The network in `path`, or where nothing opens it the program that was saved there, and what runs it."""
    if form.opener:
        exported = open_exported(path, backend=backend, threads=torch.get_num_threads())
        return exported.run, exported.backend
    module = program.module()

    def run(images: Pixels, outputs: Sequence[str], **more: NDArray[Any]) -> list[NDArray[Any]]:
        with torch.inference_mode():
            found = module(torch.from_numpy(images), *map(torch.from_numpy, more.values()))
        return [found[name].numpy() for name in outputs]

    return run, "torch.export"
