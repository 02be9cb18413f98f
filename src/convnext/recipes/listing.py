"""Every network by name with its size: what `convnext models` lists and the paper's tables are compared with."""

from typing import Any

from convnext.recipes.baselines import BASELINES
from convnext.recipes.sizes import DETECTORS, OTHER_SIZES, SEGMENTERS, SIZES, STEP_SIZES

GROUPS = {
    "v1": "ConvNeXt (arXiv 2201.03545)",
    "v2": "ConvNeXt V2 (arXiv 2301.00808)",
    "isotropic": "isotropic ConvNeXt",
    "baseline": "what they are measured against",
    "roadmap_t": "the roadmap, from ResNet-50 to ConvNeXt-T",
    "roadmap_b": "the roadmap, from ResNet-200 to ConvNeXt-B",
}
_STARTS = {
    "v2": "v2_",
    "isotropic": "iso_",
    "roadmap_t": "roadmap_t:",
    "roadmap_b": "roadmap_b:",
}  # how their names begin


def classifiers() -> list[dict[str, Any]]:
    """{'name', 'params', 'macs', 'input_size', 'group'} of every classifier: ConvNeXts, baselines, the roadmap's steps."""
    return [
        {"name": name, "params": params, "macs": macs, "input_size": size_px, "group": group_of(name)}
        for name, (params, macs, size_px) in (SIZES | STEP_SIZES).items()
    ]


def detectors() -> list[dict[str, Any]]:
    """{'name', 'params', 'macs', 'height', 'width'} of every detector of the paper's table and its relatives."""
    found = DETECTORS.items()
    return [
        {"name": name, "params": params, "macs": macs, "height": 800, "width": 1280} for name, (params, macs) in found
    ]


def segmenters() -> list[dict[str, Any]]:
    """The same of every segmenter."""
    return [
        {"name": name, "params": params, "macs": macs, "height": side, "width": 4 * side}
        for name, (params, macs, side) in SEGMENTERS.items()
    ]


def group_of(name: str) -> str:
    """The key of GROUPS that a classifier belongs to."""
    if name in BASELINES:
        return "baseline"
    return next((group for group, start in _STARTS.items() if name.startswith(start)), "v1")


def listed(name: str, size_px: int) -> tuple[int, int] | None:
    """(parameters, MACs) of a classifier for images of this side, or None where it is not listed."""
    params, macs, own_px = (SIZES | STEP_SIZES).get(name, (0, 0, 0))
    return (params, macs) if own_px == size_px else OTHER_SIZES.get((name, size_px))


def listed_dense(kind: str, backbone: str, side_px: int) -> tuple[int, int] | None:
    """(parameters, MACs) of 'mask_rcnn', 'cascade' or 'upernet' on `backbone` at this shorter side, where it is listed."""
    names = (f"{kind}_{backbone}_{side_px}", f"{kind}_{backbone}")
    every = {name: (params, macs, 800) for name, (params, macs) in DETECTORS.items()} | SEGMENTERS
    return next((every[name][:2] for name in names if name in every and every[name][2] == side_px), None)
