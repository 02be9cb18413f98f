"""ConvNeXt: train it on your images, trust it to the digit, ship it."""

from importlib import import_module
from types import FunctionType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from convnext.api import (
        Run,
        create,
        embed,
        evaluate,
        export,
        load,
        optimize,
        predict,
        recipe,
        similar,
        train,
    )
    from convnext.config import Recipe
    from convnext.deploy.classifier import ClassificationPredictor
    from convnext.deploy.detector import DetectionPredictor
    from convnext.deploy.explanation import Explanation
    from convnext.deploy.prediction import (
        ClassificationPrediction,
        DetectionPrediction,
        Prediction,
        SegmentationPrediction,
    )
    from convnext.deploy.predictor import Predictor
    from convnext.deploy.push.push import Pushed, push
    from convnext.deploy.segmenter import SegmentationPredictor
    from convnext.deploy.serve.run import serve
    from convnext.deploy.shard import shard
    from convnext.deploy.verify.digests import Verified
    from convnext.deploy.verify.verify import Verification, verify
    from convnext.errors import CheckpointError, ConvNeXtError, DataError, TrainingError
    from convnext.models.convnext import ConvNeXt
    from convnext.studies.audit.findings import Audit
    from convnext.studies.audit.run import audit
    from convnext.studies.explain.page import explain
    from convnext.studies.folds.run import CrossValidated, cross_validate
    from convnext.tasks.result import Evaluation

__all__ = [
    "Audit",
    "CheckpointError",
    "ClassificationPrediction",
    "ClassificationPredictor",
    "ConvNeXt",
    "ConvNeXtError",
    "CrossValidated",
    "DataError",
    "DetectionPrediction",
    "DetectionPredictor",
    "Evaluation",
    "Explanation",
    "Prediction",
    "Predictor",
    "Pushed",
    "Recipe",
    "Run",
    "SegmentationPrediction",
    "SegmentationPredictor",
    "TrainingError",
    "Verification",
    "Verified",
    "__version__",
    "audit",
    "create",
    "cross_validate",
    "embed",
    "evaluate",
    "explain",
    "export",
    "load",
    "optimize",
    "predict",
    "push",
    "recipe",
    "serve",
    "shard",
    "similar",
    "train",
    "verify",
]

_HOMES = {  # module -> the public names in it; loaded on first use, so that `import convnext` costs nothing
    "convnext.api": (
        "Run",
        "create",
        "embed",
        "evaluate",
        "export",
        "load",
        "optimize",
        "predict",
        "recipe",
        "similar",
        "train",
    ),
    "convnext.config": ("Recipe",),
    "convnext.deploy.classifier": ("ClassificationPredictor",),
    "convnext.deploy.detector": ("DetectionPredictor",),
    "convnext.deploy.verify.digests": ("Verified",),
    "convnext.deploy.explanation": ("Explanation",),
    "convnext.tasks.result": ("Evaluation",),
    "convnext.deploy.prediction": (
        "ClassificationPrediction",
        "DetectionPrediction",
        "Prediction",
        "SegmentationPrediction",
    ),
    "convnext.deploy.predictor": ("Predictor",),
    "convnext.deploy.push.push": ("Pushed", "push"),
    "convnext.deploy.segmenter": ("SegmentationPredictor",),
    "convnext.deploy.serve.run": ("serve",),
    "convnext.deploy.shard": ("shard",),
    "convnext.deploy.verify.verify": ("Verification", "verify"),
    "convnext.errors": ("CheckpointError", "ConvNeXtError", "DataError", "TrainingError"),
    "convnext.models.convnext": ("ConvNeXt",),
    "convnext.studies.audit.findings": ("Audit",),
    "convnext.studies.audit.run": ("audit",),
    "convnext.studies.explain.page": ("explain",),
    "convnext.studies.folds.run": ("CrossValidated", "cross_validate"),
}

if not TYPE_CHECKING:  # or a checker would take any name for one of ours

    def __getattr__(name: str) -> Any:
        from convnext.extras import explained, missing

        for module, names in _HOMES.items():
            if name in names:
                try:
                    found = getattr(import_module(module), name)
                except ImportError as error:  # of an extra
                    raise missing(error, f"convnext.{name}") from None
                if not isinstance(found, FunctionType):
                    return found
                from convnext.recipes.spelling import understood  # which costs more than a class does

                return explained(understood(found))
        raise AttributeError(f"module 'convnext' has no attribute '{name}'")

    def __dir__() -> list[str]:
        return list(__all__)
