"""What the address of a request asks for: which network, and how it is to answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import QueryParams

from convnext.data.store import printable
from convnext.deploy.serve.limits import Refused
from convnext.deploy.serve.models import Model, Models
from convnext.deploy.serve.queue import Options
from convnext.errors import nearest, on_one_line

DENSE = ("detection", "segmentation")
PARAMETERS: Mapping[str, tuple[str, str, tuple[str, ...]]] = {  # name -> type in JSON, what it is, tasks that know it
    "model": ("string", "the network, where the server has several", ("classification", *DENSE)),
    "top": ("integer", "at most so many classes or objects of an image", ("classification", *DENSE)),
    "threshold": ("number", "several labels an image: the lowest score of a class, 0 to 1", ("classification",)),
    "explain": ("string", "adds where the reasons for this class are; empty: for the likeliest", ("classification",)),
    "score": ("number", "detection: the lowest score of an object, 0 to 1", ("detection",)),
    "multi_scale": ("boolean", "segmentation: at several scales, with flips", ("segmentation",)),
    "mask": ("boolean", "segmentation: adds 'mask', a PNG of the classes' numbers as a data URL", ("segmentation",)),
}


@dataclass(frozen=True)
class Wish:
    """A network, and the options of its answers."""

    model: Model
    options: Options
    mask: bool


def wish_of(query: QueryParams, models: Models) -> Wish:
    """What a query says. Raises Refused for what it does not know, cannot read or would not use."""
    for name in query:
        if name not in PARAMETERS:
            raise Refused(400, f"'{on_one_line(name)}' is no parameter of this address.{nearest(name, PARAMETERS)}")
        if len(query.getlist(name)) > 1:
            raise Refused(400, f"{name} is given twice. Give it once.")
    model = models.chosen(query.get("model"))
    for name in query:
        tasks = PARAMETERS[name][2]
        if model.task not in tasks:
            raise Refused(
                400, f"{name} is for {' and '.join(tasks)}; '{model.name}' is for {model.task}. Leave it out."
            )
    found: dict[str, Any] = {}
    if "top" in query:
        found["top"] = _count(query["top"])
    if "threshold" in query and not model.several:
        raise Refused(400, f"threshold is for several labels an image; '{model.name}' names one. Leave it out.")
    found |= {name: _share(name, query[name]) for name in ("threshold", "score") if name in query}
    if "explain" in query:
        found["explain"] = _explained(query["explain"], model)
    if "multi_scale" in query:
        found["multi_scale"] = _whether("multi_scale", query["multi_scale"])
    return Wish(model, tuple(found.items()), "mask" in query and _whether("mask", query["mask"]))


def _explained(text: str, model: Model) -> str:
    """The class that is meant, by the name that people are told."""
    if model.unexplained:
        raise Refused(400, model.unexplained)
    classes = model.predictor.classes
    known = {printable(name): name for name in classes} | {name: name for name in classes}
    if text and text not in known:
        raise Refused(400, f"'{on_one_line(text)[:40]}' is no class of '{model.name}'.{nearest(text, known)}")
    return known[text] if text else ""


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 9 or int(text) < 1:
        raise Refused(400, f"top = '{on_one_line(text)[:40]}' is refused: it must be a whole number, 1 or more.")
    return int(text)


def _share(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise Refused(400, f"{name} = '{on_one_line(text)[:40]}' is refused: it must be a number from 0 to 1.")
    return value


def _whether(name: str, text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise Refused(400, f"{name} = '{on_one_line(text)[:40]}' is refused: it is true or false.")
    return text.lower() in ("true", "1")
