"""Packages that not everybody installs: which extra brings each, what it is for, and the line where one is missing."""

from collections.abc import Callable
from functools import cache, wraps
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from convnext.errors import ConvNeXtError

EXTRAS = {  # package, by the name that it is imported by -> the extra that brings it, and what for
    "torch": ("torch", "training, and predicting with runs"),
    "torchvision": ("torch", "detection"),
    "timm": ("torch", "RandAugment and the baselines"),
    "safetensors": ("torch", "runs and weights"),
    "huggingface_hub": ("torch", "weights from the hub"),
    "simplejpeg": ("fast", "faster JPEG decoding"),
    "tensorboard": ("track", "--tensorboard"),
    "sklearn": ("demo", "`convnext demo`"),
    "faster_coco_eval": ("detect", "average precision of detectors"),
    "onnx": ("export", "`convnext export --to onnx`"),
    "onnxscript": ("export", "`convnext export --to onnx`"),
    "onnxruntime": ("runtime", "predicting with exported .onnx files, and scoring them"),
    "openvino": ("openvino", "`convnext export --to openvino`, predicting with .xml files"),
    "nncf": ("openvino", "int8"),
    "tifffile": ("bands", "TIFF files of many bands"),
    "imagecodecs": ("bands", "TIFF files that are packed by LZW and others"),
    "fastapi": ("serve", "`convnext serve`"),
    "uvicorn": ("serve", "`convnext serve`"),
    "python_multipart": ("serve", "`convnext serve`"),
    "prometheus_client": ("serve", "`convnext serve`"),
    "fsspec": ("cloud", "data in an object store"),
    "s3fs": ("cloud", "data at s3:// addresses"),
    "pyarrow": ("parquet", "tables in Parquet and Arrow files"),
}


class MissingPackage(ConvNeXtError, ImportError):
    """Something that is asked for needs a package that is not installed."""


def installed(package: str) -> bool:
    """Whether `package` can be imported."""
    try:
        import_module(package)
    except ImportError:
        return False
    return True


def found(package: str) -> bool:
    """Whether `package` lies where Python would import it from; it is not imported, which may take seconds."""
    return find_spec(package) is not None


def needs(package: str, what: str, extra: str | None = None) -> Any:
    """The module `package`, which `what` needs. Raises MissingPackage, naming the extra that brings it.

    `extra`: that one, where another extra than that of EXTRAS brings everything for `what`.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise missing(error, what, package, extra) from None


def missing(error: ImportError, what: str, package: str | None = None, extra: str | None = None) -> MissingPackage:
    """What to say where an import failed: the package, and how to get it. Raises `error` where it is none of EXTRAS."""
    name = (package or error.name or "").partition(".")[0]
    if name not in EXTRAS:
        raise error
    reason = "is not installed" if _absent(error, name) else f"cannot be imported here ({error})"
    return MissingPackage(f"{what} needs {name}, which {reason}: pip install 'convnext[{extra or EXTRAS[name][0]}]'.")


def _absent(error: ImportError, name: str) -> bool:
    return isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == name


@cache
def explained(function: Callable[..., Any]) -> Callable[..., Any]:
    """A public function whose failing import of an extra is told in one line."""

    @wraps(function)
    def call(*arguments: Any, **more: Any) -> Any:
        try:
            return function(*arguments, **more)
        except MissingPackage:
            raise
        except ImportError as error:
            raise missing(error, f"convnext.{function.__name__}") from None

    return call
