"""Checkpoints as a run leaves them, of small networks with fresh weights."""

from pathlib import Path

import torch

from convnext.config import override
from convnext.engine.checkpoint import save
from convnext.recipes import recipe
from convnext.tasks.table import row_of
from shape_objects import FIELDS

TASKS = ("classification", "detection", "segmentation")
_BLOCKS = {"model.depths": (1, 1, 1, 1), "model.widths": (8, 12, 16, 24)}
_FIELDS = {
    "classification": _BLOCKS | {"input.eval_size_px": 64},
    "detection": FIELDS | {"head.score": 0.0},  # it shows everything that it thinks of
    "segmentation": _BLOCKS | {"head.width": 16, "head.aux_width": 8},
}


def checkpoint_of(task: str, folder: Path, *, classes: tuple[str, ...] = ("a", "b")) -> Path:
    """`folder`/best.safetensors."""
    name = "small" if task == "classification" else f"small_{task}"
    made = override(recipe(name, "atto", images=100, image_px=64, classes=len(classes)), _FIELDS[task])
    torch.manual_seed(0)
    model = row_of(task).build(made)
    metadata = {"recipe": made.model_dump(mode="json"), "task": task, "classes": list(classes)}
    save(folder / "best.safetensors", model.state_dict(), metadata)
    return folder / "best.safetensors"
