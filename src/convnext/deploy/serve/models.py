"""The networks that are served: their names, and the newest of each where that is asked for."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convnext.config import Bands
from convnext.data.store import printable
from convnext.deploy.classifier import ClassificationPredictor
from convnext.deploy.exported.opened import files_of, is_exported
from convnext.deploy.load import load
from convnext.deploy.prediction import Prediction
from convnext.deploy.predictor import Predictor
from convnext.deploy.serve.limits import Refused
from convnext.drawing.palette import colour_of
from convnext.errors import ConvNeXtError, nearest, on_one_line

_ALIKE = ("model", "best", "best_ema", "last")  # files that are called the same in every run: their folder names them
_WARM_PX = 32  # sides of the image that the first answer is made for, before anybody asks
Seen = tuple[tuple[str, int, int, int], ...]  # name, time, size and number of each file


@dataclass(eq=False)
class Model:
    """A network under the name that people ask it by."""

    name: str
    source: Path
    weights: str
    device: str
    predictor: Predictor[Prediction]
    seen: Seen
    unexplained: str = ""  # why it has no activation maps; '' where it has

    @classmethod
    def opened(cls, name: str, source: Path, weights: str = "best", device: str = "auto") -> "Model":
        """Loaded, and warm: its first answer is made. Raises what `load` raises."""
        seen = _seen(source)
        predictor = _warm(load(source, weights=weights, device=device))
        return cls(name, source, weights, device, predictor, seen, _unexplained(predictor))

    @property
    def task(self) -> str:
        """'classification', 'detection' or 'segmentation'."""
        return self.predictor.recipe.task

    @property
    def channels(self) -> int:
        """Of the images that it takes."""
        return len(self.predictor.recipe.input.mean)

    @property
    def several(self) -> bool:
        """Whether a classifier may name several labels of an image."""
        return bool(getattr(self.predictor, "several", False))

    @property
    def reads_bands(self) -> bool:
        """Whether it takes files of bands, and no colours or greys."""
        return _reads_bands(self.predictor)

    def renewed(self) -> bool:
        """Take the weights of another file, or of the same one as it is now; False where nothing has changed.

        Raises ConvNeXtError where they cannot be read: what is served stays, and they are not tried again.
        """
        seen = _seen(self.source)
        if seen in (self.seen, ()):
            return False
        self.seen = seen
        found = load(self.source, weights=self.weights, device=self.device)
        if found.recipe.task != self.task:
            raise ConvNeXtError(f"'{self.source}' is for {found.recipe.task} now, and was for {self.task}.")
        self.predictor, self.unexplained = _warm(found), _unexplained(found)
        return True

    def to_dict(self) -> dict[str, Any]:
        """What is told about it: 'name', 'task', 'classes', the colour of each, and whether it 'explains' its answers."""
        classes = [printable(name) for name in self.predictor.classes]
        colours = ["#{:02x}{:02x}{:02x}".format(*colour_of(number)) for number in range(len(classes))]
        about = {"name": self.name, "task": self.task, "classes": classes, "colours": colours}
        return about | {"explains": not self.unexplained}


class Models(Mapping[str, Model]):
    """All of them, by their names."""

    def __init__(self, models: Sequence[Model]):
        self._models = {model.name: model for model in models}

    def __getitem__(self, name: str) -> Model:
        return self._models[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)

    def chosen(self, name: str | None) -> Model:
        """The one that is asked for; the only one, where no name is given. Raises Refused."""
        names = ", ".join(self)
        if name is None and len(self) > 1:
            raise Refused(400, f"Which network? This server has {names}: name one with ?model=.")
        if name is not None and name not in self:
            raise Refused(404, f"No network is called '{on_one_line(name)}' here, only {names}.{nearest(name, self)}")
        return self[name if name is not None else next(iter(self))]


def open_models(runs: Sequence[str], *, weights: str = "best", device: str = "auto") -> Models:
    """The networks of runs, checkpoints and exported files, each given as a path or as NAME=PATH.

    Without a name it has that of its folder. Raises ConvNeXtError where two have the same name, and what `load` raises.
    """
    named: dict[str, Path] = {}
    for run in runs:
        name, source = _parted(run)
        if name in named:
            raise ConvNeXtError(
                f"'{named[name]}' and '{source}' would both be called '{name}'. Name one: other={source}."
            )
        named[name] = source
    return Models([Model.opened(name, source, weights, device) for name, source in named.items()])


def _parted(run: str) -> tuple[str, Path]:
    """(name, path) of 'NAME=PATH' or 'PATH'."""
    name, equals, path = run.partition("=")
    if not equals or Path(run).exists():
        source = Path(run)
        place = source.resolve()
        file = place.is_file() or is_exported(place)
        name = (place.parent.name if place.stem in _ALIKE else place.stem) if file else place.name
    else:
        source = Path(path)
    if not name or not name.isprintable() or "/" in name or (not path and equals):
        raise ConvNeXtError(f"'{on_one_line(run)}' gives no name to ask the network by. Name it: pets={source}.")
    return name, source


def _warm(predictor: Predictor[Prediction]) -> Predictor[Prediction]:
    """After its first answer, which packs weights, compiles and takes memory; of bands somebody has to send one."""
    channels = len(predictor.recipe.input.mean)
    if not _reads_bands(predictor):
        predictor(np.zeros((_WARM_PX, _WARM_PX, channels), np.uint8))
    return predictor


def _unexplained(predictor: Predictor[Prediction]) -> str:
    """Why there are no activation maps; '' where there are, as a first one shows, or where an image of bands is to show it."""
    if not isinstance(predictor, ClassificationPredictor):
        return f"'{predictor.source}' is for {predictor.recipe.task}, and only classifiers are explained."
    if _reads_bands(predictor):
        return ""
    try:
        predictor.explain(np.zeros((_WARM_PX, _WARM_PX, len(predictor.recipe.input.mean)), np.uint8))
    except ConvNeXtError as error:
        return str(error)
    return ""


def _reads_bands(predictor: Predictor[Prediction]) -> bool:
    config = predictor.recipe.input
    return isinstance(config, Bands) and bool(config.bands)


def _seen(source: Path) -> Seen:
    """What changes when new weights are written; nothing while they are not there."""
    files = sorted(source.glob("*.safetensors")) if source.is_dir() else files_of(source)
    try:
        states = [(file.name, file.stat()) for file in files]
    except OSError:  # it is just being replaced
        return ()
    return tuple((name, state.st_mtime_ns, state.st_size, state.st_ino) for name, state in states)
