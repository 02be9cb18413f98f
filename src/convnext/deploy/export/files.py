"""How an exported network is written: a file for each form, with its description inside."""

import json
from pathlib import Path
from typing import Any

import torch

from convnext import __version__
from convnext.deploy import graph
from convnext.deploy.classifier import ClassificationPredictor
from convnext.deploy.exported import KEY, VERSION
from convnext.errors import ConvNeXtError
from convnext.extras import needs

FORMS = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}
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


def description(predictor: ClassificationPredictor, precision: str) -> dict[str, Any]:
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


def write(program: Any, form: str, path: Path, described: dict[str, Any], *, half: bool) -> None:
    """Write `program` as `form` of FORMS to `path`; `half` in 16-bit floats."""
    text = json.dumps(described)
    if form == "torch":
        torch.export.save(program, path, extra_files={f"{KEY}.json": text})
    elif form == "onnx":
        proto = graph.to_onnx(program)
        describe_onnx(proto, described)
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


def describe_onnx(proto: Any, described: dict[str, Any]) -> None:
    """Put the description into an ONNX model, in place of what it says of itself."""
    values = {KEY: json.dumps(described), "classes": json.dumps(described["classes"])}
    values["preprocessing"] = json.dumps(described["preprocessing"])
    del proto.metadata_props[:]
    for key, value in values.items():
        proto.metadata_props.add(key=key, value=value)
