"""`convnext convert`: weights from one library's form to another's, in a file that appears whole or not at all.

The suffix of the output decides the container: `.safetensors`; `.pth`, `.pt`, `.bin`, a pickle of tensors alone, only
when asked for so; `.npz` for Keras; no suffix, a folder with config.json for transformers.
"""

import contextlib
import io
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from convnext import __version__
from convnext.engine import checkpoint
from convnext.engine.run import BEST, LAST, last_of, weights_file
from convnext.errors import CheckpointError, ConvNeXtError, number_of
from convnext.files import appearing, elsewhere, refuse_unusable, to_json, write_bytes
from convnext.integrity import INDEX
from convnext.models.convert import LIBRARIES, Weights, express, read_weights
from convnext.models.convnext import EPS
from convnext.models.libraries import DEFAULT_EPS, NotComparable, image, outputs, transformers_config
from convnext.models.licences import NON_COMMERCIAL
from convnext.models.tensors import NPZ_METADATA, PROVENANCE, RUN, read_tensors

PICKLES = (".pth", ".pt", ".bin")
Save = Callable[[dict[str, Tensor], dict[str, str], Path], None]


@dataclass(frozen=True)
class Comparison:
    """How far the result is from the source: the largest difference of a logit, or None and why."""

    difference: float | None
    note: str  # one sentence: what was compared, or why nothing could be


@dataclass(frozen=True)
class Conversion:
    """What `convert` did."""

    out: Path
    library: str
    weights: Weights
    tensors: int
    comparison: Comparison

    def lines(self) -> list[str]:
        """For a terminal."""
        weights, known = self.weights, self.weights.provenance
        config, by = weights.config, f" (by {known.known_by})" if known.known_by else ""
        shape = f"depths {config.depths}, widths {config.widths}"
        shape += f", {number_of(config.classes, 'class', 'classes')}" if config.classes else ", no head"
        terms = " Commercial use is not allowed." if known.licence == NON_COMMERCIAL else ""
        return [
            f"{weights.kind} '{config.name}', {shape}; read as '{weights.format_name}'",
            *weights.notes,
            f"licence: {known.licence}{by}, from {known.origin}.{terms}",
            f"{self.out}: {number_of(self.tensors, 'tensor')} for {self.library}",
            *(["The run's recipe and class names are in it: `convnext predict` takes it."] if weights.record else []),
            self.comparison.note,
        ]

    def to_dict(self) -> dict[str, object]:
        """For a program."""
        weights = self.weights
        return {
            "out": str(self.out),
            "to": self.library,
            "from": weights.format_name,
            "model": weights.config.name,
            "kind": weights.kind,
            "tensors": self.tensors,
            "origin": weights.provenance.origin,
            "license": weights.provenance.licence,
            "predicts": bool(weights.record),
            "max_logit_difference": self.comparison.difference,
            "note": self.comparison.note,
        }


def convert(
    source: str | Path, out: str | Path, library: str, *, weights: str = "best", check: bool = True
) -> Conversion:
    """Write the network in `source` for `library` of LIBRARIES to `out`, atomically, and compare the two.

    `source`: a file, a run's folder (`weights` chooses in it: best, raw, ema, last), a folder of transformers, or
    'hub:OWNER/NAME'. Raises ConvNeXtError where the source does not make a whole network, the library cannot hold it,
    or the disk refuses; whatever was at `out` is then untouched.
    """
    path, source = Path(out), _file_of_run(source, weights)
    save = _container(path, library)
    refuse_unusable(path, folder=save is None)
    if not str(source).startswith("hub:") and path.resolve() == Path(source).resolve():
        raise ConvNeXtError(f"'{path}' is both source and result. Name another file for the result.")
    held = _held(source)
    tensors = express(held, library)
    try:
        if save is None:
            _write_folder(tensors, _header(held, library), path, held)
        elif library == "convnext" and path.suffix == ".safetensors" and held.record:
            checkpoint.save(path, tensors, _record(held))
        else:
            with appearing(path) as made:
                save(tensors, _header(held, library), made)
    except OSError as error:
        raise CheckpointError(f"Cannot write '{path}': {error.strerror or error}. {elsewhere(error)}.") from None
    comparison = compare(held, path, library) if check else Comparison(None, "Not compared, as asked.")
    return Conversion(path, library, held, len(tensors), comparison)


def compare(source: Weights, out: str | Path, library: str, *, side_px: int = 224) -> Comparison:
    """Run source and result on one fixed image, each in its own library where that is installed.

    The source runs in the library it was written for, or else in ours; the result in `library`, from what now lies on
    the disk. Dense backbones are compared in all their normed maps, networks without a head in their features.
    """
    path = Path(out)
    written = read_weights(path)
    x = image(source.config, side_px)
    theirs = read_tensors(path / "model.safetensors" if path.is_dir() else path)[0]
    if library == "keras-npz":
        theirs = express(written, library)
    what = {"classifier": "logit", "features": "feature", "backbone": "value of the maps"}[source.kind]
    try:
        result = outputs(library, theirs if library != "convnext" else written.state, written, x)
    except NotComparable as error:
        same = source.state.keys() == written.state.keys() and all(
            torch.equal(value, written.state[name]) for name, value in source.state.items()
        )
        found = "all its tensors, read back, are those of the source to the bit" if same else "IT DIFFERS, read back"
        return Comparison(None, f"Largest {what} difference: not measured, {error}; {found}.")
    reference, origin = _reference(source, x)
    difference = _largest(reference, result)
    note = f"Largest {what} difference, {origin} against {library}: {difference:.1e} (values up to {_size(reference)})."
    if not source.dense:  # no final norm there
        note += _about_eps(source, written, library, reference, theirs, x)
    return Comparison(difference, note)


def _about_eps(
    source: Weights, written: Weights, library: str, reference: Tensor, theirs: Mapping[str, Tensor], x: Tensor
) -> str:
    """transformers alone takes the final norm's eps from a config, 1e-12 by default; the comparison is at 1e-6."""
    note = ""
    if library == "transformers":
        default = _largest(reference, outputs(library, theirs, written, x, eps=DEFAULT_EPS))
        where = "Say so in its config" if written.eps is None else f"config.json says {written.eps:g}"
        note = (
            f" That is with layer_norm_eps = {EPS:g} in the final norm; transformers' default of {DEFAULT_EPS:g} makes "
        )
        note += f"it {default:.1e}. {where}."
    if source.eps not in (None, EPS):
        own = _largest(reference, outputs("convnext", source.state, source, x, eps=source.eps or EPS))
        note += f" The source's config.json says {source.eps:g}: run so, it differs by {own:.1e} from what is compared."
    return note


def _largest(one: Tensor, other: Tensor) -> float:
    return (one - other).abs().max().item()


def _reference(source: Weights, x: Tensor) -> tuple[Tensor, str]:
    """The source's answer, and who gave it: the library that the file was written for, or our network."""
    family = source.format_name.partition("_")[0]
    library = {"keras": "keras-npz"}.get(family, family)
    if library in LIBRARIES and library != "convnext":
        with contextlib.suppress(ConvNeXtError):  # a network in that library's names which it cannot build, say
            return outputs(library, express(source, library), source, x), library
    return outputs("convnext", source.state, source, x), "convnext"


def _size(values: Tensor) -> str:
    return f"{values.abs().max().item():.2g}"


def _file_of_run(source: str | Path, weights: str) -> str | Path:
    """The checkpoint in a run's folder; anything else as it is."""
    path = Path(source)
    if not str(source).startswith("hub:") and (last_of(path) or any((path / name).is_file() for name in BEST.values())):
        return weights_file(path, weights)
    return source


def _held(source: str | Path) -> Weights:
    """The weights of `source`, also of a run that was cut off while its processes held parts."""
    if str(source).startswith("hub:") or not (Path(source) / INDEX).is_file():
        return read_weights(source)
    with tempfile.TemporaryDirectory(prefix="convnext-") as room:
        checkpoint.save(Path(room) / LAST, *checkpoint.read(Path(source)))
        return read_weights(Path(room) / LAST)


def _container(out: Path, library: str) -> Save | None:
    """How to write `out`, or None for a folder. Raises ConvNeXtError where suffix and library do not fit."""
    if library not in LIBRARIES:
        return _save_safetensors  # `express` names the library and the nearest
    if (out.suffix == ".npz") != (library == "keras-npz"):
        wanted = ".npz" if library == "keras-npz" else ".safetensors (or .pth)"
        raise ConvNeXtError(f"'{out}' cannot hold weights for {library}. Let its name end in {wanted}.")
    if out.suffix == ".npz":
        return _save_npz
    if out.suffix == ".safetensors":
        return _save_safetensors
    if out.suffix in PICKLES:
        return _save_pickle
    if library == "transformers" and (out.is_dir() or not out.suffix or not out.exists()):
        return None
    raise ConvNeXtError(f"'{out}' does not say how to write it. Let its name end in .safetensors (or .pth).")


def _header(weights: Weights, library: str) -> dict[str, str]:
    """A file's metadata; 'format' is what transformers asks a safetensors file for."""
    names = {"classes": to_json(weights.classes)} if weights.classes else {}
    if weights.record:
        names[RUN] = to_json(_record(weights))
    return {
        "format": "pt",
        "library": library,
        "architecture": weights.config.name,
        "kind": weights.kind,
        "written_by": f"convnext {__version__}",
        **weights.provenance.as_text(),
        **names,
    }


def _record(weights: Weights) -> dict[str, object]:
    """A run's own metadata, less what only going on with the run needs: the result predicts as the run does."""
    kept = {key: value for key, value in weights.record.items() if key not in ("state", "scaler")}
    return kept | weights.provenance.as_text()


def _save_safetensors(tensors: dict[str, Tensor], header: dict[str, str], path: Path) -> None:
    checkpoint.write(path, tensors, header)


def _save_pickle(tensors: dict[str, Tensor], header: dict[str, str], path: Path) -> None:
    """A state dict alone, or in the entry where the official code looks; notes where torch keeps module versions."""
    state = OrderedDict((name, tensor.contiguous().clone()) for name, tensor in tensors.items())
    state._metadata = {PROVENANCE: header}  # type: ignore[attr-defined]
    dense = header["kind"] == "backbone"
    wrapped = {"state_dict" if dense else "model": state} if header["library"] in ("official", "mmpretrain") else state
    stream = io.BytesIO()  # what torch writes itself, it fails to write in words of its own
    torch.save(wrapped, stream)
    path.write_bytes(stream.getbuffer())


def _save_npz(tensors: dict[str, Tensor], header: dict[str, str], path: Path) -> None:
    lacking = next((str(t.dtype) for t in tensors.values() if t.dtype == torch.bfloat16), None)
    if lacking:
        raise CheckpointError(f"NumPy has no {lacking}. Convert the weights to float32 first, or take --to convnext.")
    arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in tensors.items()}
    arrays[NPZ_METADATA] = np.array(to_json(header))
    with path.open("wb") as file:
        np.savez(file, **arrays)


def _write_folder(tensors: dict[str, Tensor], header: dict[str, str], out: Path, weights: Weights) -> None:
    """model.safetensors and config.json: a new folder appears whole, in an old one the two are replaced."""
    if not out.exists():
        with appearing(out) as folder:
            folder.mkdir()
            _write_folder(tensors, header, folder, weights)
        return
    config = transformers_config(weights, eps=weights.eps or EPS) | {"dtype": _dtype(tensors)}
    with appearing(out / "model.safetensors") as made:
        _save_safetensors(tensors, header, made)
    write_bytes(out / "config.json", (to_json(config, indent=2) + "\n").encode())


def _dtype(tensors: dict[str, Tensor]) -> str:
    return str(next(iter(tensors.values())).dtype).removeprefix("torch.")
