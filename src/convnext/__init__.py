"""ConvNeXt: train it on your images, trust it to the digit, ship it."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {  # name -> where it lives; loaded on first use, so that `import convnext` costs nothing
    "create": "convnext.models.create",
    "load": "convnext.deploy.load",
    "optimize": "convnext.deploy.optimize",
    "Predictor": "convnext.deploy.predictor",
    "Prediction": "convnext.deploy.results",
    "ConvNeXt": "convnext.models.convnext",
    "Recipe": "convnext.config",
    "ConvNeXtError": "convnext.errors",
    "recipe": "convnext.recipes",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'convnext' has no attribute '{name}'")
    try:
        return getattr(import_module(_PUBLIC[name]), name)
    except ImportError as error:  # of an extra
        from convnext.extras import missing

        raise missing(error, f"convnext.{name}") from None


def __dir__() -> list[str]:
    return sorted(__all__)
