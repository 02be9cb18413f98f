"""The network of a detector: of a recipe, or by name, as in 'mask_rcnn_tiny', 'cascade_xlarge' or 'mask_rcnn_resnet50'."""

from typing import Any

from convnext.config import DetectionRecipe, DetectorHeadConfig, ModelConfig, TaskRecipe, expect, parse
from convnext.errors import ConvNeXtError, nearest
from convnext.recipes.architectures import ARCHITECTURES, architecture
from convnext.recipes.dense import CASCADE_HEAD
from convnext.tasks.detection.detector import Detector

PUBLISHED = tuple(
    f"{kind}_{size}" for kind in ("mask_rcnn", "cascade") for size in ("tiny", "small", "base", "large", "xlarge")
)
_HEADS = {"mask_rcnn_": DetectorHeadConfig(), "cascade_mask_rcnn_": CASCADE_HEAD, "cascade_": CASCADE_HEAD}


def build(recipe: TaskRecipe) -> Detector:
    """The freshly initialised detector of a recipe. Raises ConvNeXtError for a recipe of another task."""
    chosen = expect(recipe, DetectionRecipe)
    return Detector(chosen.model, chosen.head)


def detector(name: str, classes: int = 80, *, drop_path: float = 0.0, **fields: Any) -> Detector:
    """The freshly initialised detector called `name`; `drop_path` is its backbone's, `fields` are any others of the head.

    Raises ConvNeXtError for an unknown name or a value that is refused.
    """
    return Detector(*detector_values(name, classes, drop_path=drop_path, **fields))


def detector_values(
    name: str, classes: int = 80, *, drop_path: float = 0.0, **fields: Any
) -> tuple[ModelConfig, DetectorHeadConfig]:
    """The backbone and the head that `name` means: 'mask_rcnn_' or 'cascade_', then any name that `architecture` knows.

    `fields` are those of DetectorHeadConfig. Raises ConvNeXtError for an unknown name or a value that is refused.
    """
    prefix = next((prefix for prefix in _HEADS if name.startswith(prefix)), None)
    if prefix is None:
        known = [f"{prefix}{size}" for prefix in _HEADS for size in ARCHITECTURES]
        raise ConvNeXtError(
            f"No detector is called '{name}'.{nearest(name, known)} Names begin with 'mask_rcnn_' or 'cascade_' and end "
            "with that of a backbone, e.g. 'mask_rcnn_tiny'."
        )
    backbone = architecture(name.removeprefix(prefix)).model_copy(update={"classes": 0, "drop_path": drop_path})
    head = parse(DetectorHeadConfig, _HEADS[prefix].model_dump() | fields | {"classes": classes}, where=f"'{name}'")
    return backbone, head
