"""What there is by name: networks with their sizes, as `convnext models` lists them, and recipes with their fields."""

from typing import Any

from convnext.config import Recipe, described
from convnext.errors import ConvNeXtError
from convnext.recipes import DEFAULT, FITTED, PUBLISHED, RECIPES, recipe, task_of, with_grid
from convnext.recipes.architectures import VARIANTS
from convnext.recipes.baselines import BASELINES
from convnext.recipes.sizes import DETECTORS, OTHER_SIZES, SEGMENTERS, SIZES, STEP_SIZES

GROUPS = {
    "v1": "ConvNeXt (arXiv 2201.03545)",
    "v2": "ConvNeXt V2 (arXiv 2301.00808)",
    "isotropic": "isotropic ConvNeXt",
    "variant": "more of timm's family",
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

ASSUMED = {"images": 1000, "image_px": 224, "classes": 10}  # data of fitted recipes, where nothing else is said


def recipes() -> list[dict[str, Any]]:
    """{'name', 'task', 'fitted', 'default', 'meaning'} of every recipe; 'fitted' ones size themselves by the data."""
    return [
        {
            "name": name,
            "task": task,
            "fitted": name in FITTED[task],
            "default": name == DEFAULT[task],
            "meaning": str(make.__doc__).splitlines()[0],
        }
        for task, named in RECIPES.items()
        for name, make in named.items()
    ]


def shown_recipe(
    name: str, model: str | None = None, *, images: int | None = None, image_px: int | None = None
) -> Recipe:
    """Recipe `name` for `model`: a published one as it was published, a fitted one for data of ASSUMED or of these.

    Without a model, published recipes are those of 'tiny', fitted ones of 'atto'.

    Raises ConvNeXtError for an unknown recipe or network, and for data that a published recipe has no use for.
    """
    task = task_of(name)
    data: dict[str, Any] = {
        key: value for key, value in {"images": images, "image_px": image_px}.items() if value is not None
    }
    if name in FITTED[task]:
        return with_grid(recipe(name, model or "atto", **{**ASSUMED, **data}))
    if data:
        raise ConvNeXtError(
            f"Recipe '{name}' is published and does not follow the data: leave out --images and --size. The fitted ones "
            f"are {', '.join(each for named in FITTED.values() for each in named)}."
        )
    return with_grid(PUBLISHED[task][name](model or "tiny"))


def recipe_fields(chosen: Recipe) -> list[dict[str, Any]]:
    """{'field', 'value', 'unit', 'meaning'} of every field of a recipe, by its dotted name."""
    return described(chosen)


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
    if name in BASELINES or name in VARIANTS:
        return "baseline" if name in BASELINES else "variant"
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
