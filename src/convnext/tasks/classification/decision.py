"""What a classifier makes of its logits: one small value, kept beside the class names in checkpoints and exported files.

No torch here: runs and exported files decide by the same lines.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convnext.errors import CheckpointError
from convnext.tasks.classification.calibration import SOFTMAX, Scale
from convnext.tasks.classification.conformal import Sets
from convnext.tasks.classification.promise import Promise

KEY = "decision"  # of the metadata of checkpoints, of the description of exported files, and of evaluation.json


@dataclass(frozen=True)
class Decision:
    """From logits to an answer; of weights that nothing was fitted for, the plain softmax."""

    scale: Scale = SOFTMAX
    images: str = ""  # the fingerprint of those that the scale was fitted on, which have no say in figures about it
    n: int = 0  # how many they were
    promise: Promise | None = None  # None: every image is answered
    sets: Sets | None = None  # None: no sets are given

    @classmethod
    def of(cls, metadata: Mapping[str, Any], source: str | Path) -> "Decision":
        """That of `metadata` from the file `source`. Raises CheckpointError that names what is none of a decision."""
        held = metadata.get(KEY)
        if held is None:
            return PLAIN
        _require(held, _FIELDS, KEY, source)
        promise, sets = held.get("promise"), held.get("sets")
        for part, fields in (("promise", _PROMISE), ("sets", _SETS)):
            if held.get(part) is not None:
                _require(held[part], fields, f"{KEY}.{part}", source)
        return cls(
            Scale(held["temperature"], held["stretch"]),
            held["images"],
            held["n"],
            None if promise is None else Promise(**{name: promise[name] for name in _PROMISE}),
            None if sets is None else Sets(**{name: sets[name] for name in _SETS}),
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "temperature": self.scale.temperature,
            "stretch": self.scale.stretch,
            "images": self.images,
            "n": self.n,
            **({"promise": self.promise.to_dict()} if self.promise else {}),
            **({"sets": self.sets.to_dict()} if self.sets else {}),
        }


PLAIN = Decision()


Fields = Mapping[str, tuple[Callable[[Any], bool], str]]  # of the JSON -> what it must be


def _require(held: Any, fields: Fields, name: str, source: str | Path) -> None:
    if not isinstance(held, dict):
        raise _damaged(source, name, held, f"the fields of a {name.rpartition('.')[2]}")
    for field, (fits, kind) in fields.items():
        if not fits(held.get(field)):
            raise _damaged(source, f"{name}.{field}", held.get(field), kind)


def _damaged(source: str | Path, name: str, value: Any, kind: str) -> CheckpointError:
    shown = repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:57]}..."
    return CheckpointError(
        f"'{source}' is damaged: {name} = {shown} in its header is refused; it must be {kind}. Restore it."
    )


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


_RATE = (lambda value: _number(value) and 0 <= value <= 1, "a number from 0 to 1")
_TEXT = (lambda value: isinstance(value, str), "text")
_COUNT = (lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 0, "a whole number")
_MORE = (lambda value: _number(value) and value >= 0, "a number, 0 or more")
_FIELDS: Fields = {
    "temperature": (lambda value: _number(value) and value > 0, "a number above 0"),
    "stretch": _MORE,
    "images": _TEXT,
    "n": _COUNT,
}
_PROMISE: Fields = {"accuracy": _RATE, "threshold": _RATE, "answered": _RATE, "n": _COUNT, "part": _TEXT}
_SETS: Fields = {
    "coverage": _RATE,
    "most": _MORE,
    "penalty": _MORE,
    "free": (lambda value: _COUNT[0](value) and value >= 1, "a whole number of 1 or more"),
    "n": _COUNT,
    "part": _TEXT,
}
