"""What a network that is passed on says of itself, so that anybody can measure it again: `convnext verify BUNDLE DATA`.

A bundle is a run, or an exported file, in whose description the same stands. No torch here.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from convnext.deploy.verify.reference import Reference
from convnext.errors import CheckpointError
from convnext.files import from_json

KEY = "promises"  # of the description of an exported file
EVALUATION = "evaluation.json"
TOLERANCE = {"fp32": 0.001}  # of a rate on the same images: on another machine a score close to another may pass it
COARSE = 0.005  # the same of 16 bits


@dataclass(frozen=True)
class Stated:
    """The figures on one set of images."""

    part: str  # 'held out', which also chose the weights, or 'test'
    n: int
    images: str  # their fingerprint; '': not known
    scores: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # 95 %, of those that are no plain share
    recalls: Mapping[str, tuple[int, float]] = field(
        default_factory=dict
    )  # class -> images, and the share that is right
    crosswise: bool = False  # each image was judged by a network that had not learnt from it; the one here has

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


@dataclass(frozen=True)
class Promises:
    """What is stated, on which images, and how near a second measurement must come."""

    stated: tuple[Stated, ...] = ()
    tolerance: float = TOLERANCE["fp32"]  # of a rate, on the same images
    reference: Reference | None = None  # what the run answers to images that can be made anywhere

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "stated": [each.to_dict() for each in self.stated],
            "tolerance": self.tolerance,
            **({"reference": self.reference.to_dict()} if self.reference else {}),
        }


def promises_of_run(weights: Path, metadata: Mapping[str, Any], precision: str) -> Promises:
    """Those of a run, by the evaluation.json beside its `weights`, or by what travels in them; else none are known.

    Raises CheckpointError where it is damaged.
    """
    tolerance = TOLERANCE.get(precision, COARSE)
    path = weights.parent / EVALUATION
    if not path.is_file():
        return promises_of_file(weights, metadata) if KEY in metadata else Promises(tolerance=tolerance)
    try:
        found = from_json(path.read_bytes())
        same = all(found.get(name) == metadata.get(name) for name in ("weights", "classes"))
        if not same or metadata.get("step") not in (
            found.get("step"),
            0,
        ):  # 0: a head on frozen features, without a step
            return Promises(tolerance=tolerance)
        stated = [_stated("held out", found, crosswise=bool(found.get("crosswise")))]
        if isinstance(found.get("test"), dict):
            stated.append(_stated("test", found["test"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from None
    return Promises(tuple(stated), tolerance)


def promises_of_file(source: Path, description: Mapping[str, Any]) -> Promises:
    """Those in the description of an exported file. Raises CheckpointError where they are none."""
    held = description.get(KEY)
    if held is None:
        return Promises()
    try:
        stated = tuple(_read(each) for each in held["stated"])
        given = held.get("reference")
        return Promises(stated, _number(held["tolerance"]), None if given is None else Reference.of(given))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(source, error) from None


def _stated(part: str, found: Mapping[str, Any], *, crosswise: bool = False) -> Stated:
    """From the figures of an evaluation."""
    scores = {name: value for name, value in found.items() if isinstance(value, float)}
    rows = [row for row in found.get("per_class", ()) if "recall_low" in row]
    recalls = {row["name"]: (row["n"], row["recall"]) for row in rows}
    entry = {"part": part, "n": found["n"], "images": found.get("images", ""), "scores": scores, "recalls": recalls}
    return _read(entry | {"intervals": found.get("intervals", {}), "crosswise": crosswise})


def _read(entry: Mapping[str, Any]) -> Stated:
    """Raises ValueError, KeyError or TypeError where `entry` is none."""
    n, part, images = entry["n"], entry["part"], entry["images"]
    if type(n) is not int or n < 1 or not isinstance(part, str) or not isinstance(images, str):
        raise ValueError("its images are not counted")
    return Stated(
        part,
        n,
        images,
        {name: _number(value) for name, value in entry["scores"].items()},
        {name: (_number(low), _number(high)) for name, (low, high) in entry["intervals"].items()},
        {name: (int(n), _number(recall)) for name, (n, recall) in entry["recalls"].items()},
        bool(entry["crosswise"]),
    )


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e300:
        raise ValueError(f"{str(value)[:40]} is no number")
    return float(value)


def _damaged(source: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"'{source}' is damaged: what it promises cannot be read ({str(error)[:100]}). Restore it.")
