"""The forms that a network is exported to, one row each: export, opening, the command line and the front door read these.

What a row names by 'module:function' is imported when it is called: writing takes torch, opening does not, and neither
is needed to say which forms there are.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from convnext.errors import ConvNeXtError
from convnext.extras import needs

KEY = "convnext"  # under which a file holds our description
SEALED = (
    "convnext_digest"  # names the digest at the end of a file, and stands in the description of a file that has one
)


INPUT, SIZE = "images", "size"  # inputs of every graph, and of those of segmenters
LOGITS, SCORES, ANSWERS = OUTPUTS = ("logits", "scores", "answers")  # of a classifier, (N, K) each


@dataclass(frozen=True, kw_only=True)
class Form:
    """What tells one form from the others."""

    name: str
    suffix: str  # of the file that is named
    beside: tuple[str, ...] = ()  # suffixes of the files that come with it
    packages: tuple[str, ...] = ()  # what exporting takes beside torch
    extra: str = "torch"  # brings them all
    convolutions: bool = False  # whether the network is traced with 1x1 convolutions for its pointwise layers
    seal: tuple[bytes, bytes] = (
        b"",
        b"",
    )  # what stands around the digest that ends a file; readers of the form skip it
    writer: str  # (program, path, description, *, half): writes the file
    detector: str = ""  # (predictor, path, *, half): writes that of a detector; '': it is not for detectors
    detector_packages: tuple[str, ...] = ()  # what that takes more
    backend: str = ""  # the package that runs it, and the name of that; '': none does, see `unopened`
    opener: str = ""  # (path, threads) -> (run, text of the description), by that package
    also: tuple[str, ...] = ()  # backends of other forms that run it too
    unopened: str = ""  # what it is and what to load instead
    half: Literal["graph", "file", ""] = ""  # where weights get their 16 bits: as it is traced, or as it is written
    quantizer: str = ""  # (source, out, images, variant, description): its int8 form; '': there is none
    int8_packages: tuple[str, ...] = ()  # what that takes more
    int8_hindrance: str = ""  # () -> why this machine cannot make it, or None; '': nothing hinders

    @property
    def backends(self) -> tuple[str, ...]:
        """What can run a file of it, the first by choice."""
        return (self.backend, *self.also) if self.backend else ()

    def require(self, asked: str, *, int8: bool = False, detector: bool = False) -> None:
        """Raise MissingPackage where a package is missing that exporting to it takes, ConvNeXtError for another hindrance.

        `asked`: what the user calls it, where it is a part of something else.
        """
        for package in self.packages:
            needs(package, f"--to {asked}", self.extra)
        for package in self.detector_packages if detector else ():
            needs(package, f"--to {asked} of a detector")
        for package in self.int8_packages if int8 else ():
            needs(package, "--int8")
        if int8 and self.int8_hindrance and (reason := called(self.int8_hindrance)()):
            raise ConvNeXtError(f"--int8 with --to {asked} is of no use here: {reason}. Take --to openvino.")


FORMS = (
    Form(
        name="onnx",
        suffix=".onnx",
        packages=("onnx", "onnxscript", "onnxruntime"),
        extra="export",
        seal=(
            b"r\x1b\n\x0f" + SEALED.encode() + b"\x12\x08",
            b"",
        ),  # of a protocol buffer: one more entry of its metadata
        writer="convnext.deploy.export.onnx:write",
        detector="convnext.deploy.export.detector:write",
        backend="onnxruntime",
        opener="convnext.deploy.forms.onnx:opened",
        also=("openvino",),
        half="graph",
        quantizer="convnext.deploy.export.onnx:quantize",
    ),
    Form(
        name="openvino",
        suffix=".xml",
        beside=(".bin",),
        packages=("openvino",),
        extra="openvino",
        seal=(b"<!-- " + SEALED.encode() + b" ", b" -->"),
        convolutions=True,
        writer="convnext.deploy.export.openvino:write",
        detector="convnext.deploy.export.openvino:write_detector",
        detector_packages=("onnx", "onnxscript"),
        backend="openvino",
        opener="convnext.deploy.forms.openvino:opened",
        half="file",
        quantizer="convnext.deploy.export.openvino:quantize",
        int8_packages=("nncf",),
    ),
    Form(
        name="convnext",
        suffix=".convnext",
        packages=("torch", "safetensors"),
        seal=(b"\n" + SEALED.encode() + b" ", b"\n"),
        writer="convnext.deploy.export.convnext:write",
        backend="torch",
        opener="convnext.deploy.forms.convnext:opened",
        quantizer="convnext.deploy.export.convnext:quantize",
        int8_hindrance="convnext.kernels.dispatch:without_compiled",
    ),
    Form(
        name="torch",
        suffix=".pt2",
        writer="convnext.deploy.export.torch:write",
        unopened="a program for torch.export.load, which may run code from the file. Load the run, or an .onnx.",
        half="graph",
    ),
)


def names() -> tuple[str, ...]:
    """Of all forms."""
    return tuple(form.name for form in FORMS)


def backends() -> dict[str, Form]:
    """Backend -> the form that is its own."""
    return {form.backend: form for form in FORMS if form.backend}


def form_of(path: str | Path) -> Form | None:
    """The form of a file that is named like one."""
    suffix = Path(path).suffix.lower()
    return next((form for form in FORMS if form.suffix == suffix), None)


def called(function: str) -> Callable[..., Any]:
    """The function that 'module:function' names."""
    module, _, name = function.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), name)
    return found
