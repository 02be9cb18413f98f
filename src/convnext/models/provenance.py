"""Where weights come from and under which licence, as far as that can be known; never guessed.

The released V1 weights (facebookresearch/ConvNeXt) are MIT, those of V2 (facebookresearch/ConvNeXt-V2) CC-BY-NC 4.0:
not for commercial use. Other people's weights under the same architecture have their own terms: 'unknown' here;
a run from random weights has those of whoever trained it: 'own weights'.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from convnext.models.licences import DINOV3, FAIR_NC, MIT, NON_COMMERCIAL, OWN, UNKNOWN
from convnext.models.sources import RUN, find
from convnext.models.tensors import record_of

_WRITTEN = {  # as timm's configurations spell them
    "apache-2.0": "Apache-2.0",
    "mit": MIT,
    "cc-by-nc-4.0": NON_COMMERCIAL,
    "dinov3-license": DINOV3,
    "fair-noncommercial-research-license": FAIR_NC,
}
_SIZES = r"(tiny|small|base|large|xlarge)"
_V2_SIZES = r"(atto|femto|pico|nano|tiny|base|large|huge)"
HUBS = (  # repositories of the released weights; timm's 'fb' and 'fcmae' tags are conversions of them
    (rf"facebook/convnext-{_SIZES}-\d+(-22k(-1k)?)?", MIT),
    (rf"timm/convnext_{_SIZES}\.fb_in\w+", MIT),
    (rf"facebook/convnextv2-{_V2_SIZES}-[\w-]+", NON_COMMERCIAL),
    (rf"timm/convnextv2_{_V2_SIZES}\.fcmae\w*", NON_COMMERCIAL),
    (rf"facebook/dinov3-convnext-{_SIZES}-pretrain-lvd1689m", DINOV3),
    (rf"timm/convnext_{_SIZES}\.dinov3_lvd1689m", DINOV3),
)
STEMS = (  # names of the released files, less their suffix
    (rf"convnext_{_SIZES}_(1k|22k|22k_1k)_\d+(_ema)?", MIT),
    (r"convnext_iso_(small|base|large)_1k_224_ema", MIT),
    (rf"(cascade_)?mask_rcnn_convnext_{_SIZES}_(1k|22k)_3x", MIT),
    (rf"upernet_convnext_{_SIZES}_(1k|22k)_(512x512|640x640)", MIT),
    (rf"convnextv2_{_V2_SIZES}_(1k|22k)_\d+_(ema|fcmae)", NON_COMMERCIAL),
    (rf"dinov3_convnext_{_SIZES}_pretrain_lvd1689m-[0-9a-f]{{8}}", DINOV3),
)


@dataclass(frozen=True)
class Provenance:
    """Written into every converted file."""

    origin: str  # 'hub:OWNER/NAME', or the name of the first file in the chain of conversions
    licence: str = UNKNOWN
    known_by: str = ""  # 'the name of the repository', 'the name of the file', 'the metadata of the file'

    def as_text(self) -> dict[str, str]:
        """Entries for a file's metadata; `license` as package registries spell it."""
        return {"origin": self.origin, "license": self.licence, "license_known_by": self.known_by}


def provenance(source: str, metadata: Mapping[str, str], *, config: Mapping[str, Any] | None = None) -> Provenance:
    """Of the weights in `source`, a path or 'hub:OWNER/NAME', whose file carries `metadata`.

    What an earlier conversion or the run that started from them wrote comes first, then the hub's name, then the name
    of a released file, then what timm's `config`.json beside the file says.
    """
    record = record_of(metadata)
    metadata = {
        **metadata,
        **{key: str(record[key]) for key in ("origin", "license", "license_known_by") if key in record},
    }
    if metadata.get("license") and metadata.get("origin"):
        by = metadata.get("license_known_by", "") if metadata["license"] == UNKNOWN else "the metadata of the file"
        return Provenance(metadata["origin"], metadata["license"], by)
    said = Provenance("", *_said(config or {}))
    if source.startswith("hub:"):
        licence = _match(source.removeprefix("hub:"), HUBS)
        known = Provenance("", licence, "the name of the repository") if licence != UNKNOWN else said
        return replace(known, origin=source)
    if record:  # of a run from random weights; every run calls its files the same
        return Provenance("/".join(Path(source).absolute().parts[-2:]), OWN, "the run, which began with random weights")
    licence = _match(Path(source).stem, STEMS)
    known = Provenance("", licence, "the name of the file") if licence != UNKNOWN else said
    return replace(known, origin=Path(source).name)


def read_provenance(source: str) -> Provenance:
    """Of the weights in `source`, as `sources.find` takes it, by its name and by what the files say.

    Raises CheckpointError for a file that cannot be read.
    """
    files = find(source)
    return provenance(files.name, files.header(), config=files.beside.get("config.json"))


def name_of_source(source: str) -> str:
    """What weights are called whatever they were made from: 'hub:OWNER/NAME', 'w.pth', or 'run/best.safetensors' of a run.

    Raises CheckpointError where there is nothing to read.
    """
    name = find(source).name
    path = Path(name)
    return name if name.startswith("hub:") else "/".join(path.absolute().parts[-2:]) if path.name in RUN else path.name


def _said(config: Mapping[str, Any]) -> tuple[str, str]:
    """The licence that a config.json names, and by what it is known."""
    cfg = config.get("pretrained_cfg")
    written = cfg.get("license") if isinstance(cfg, Mapping) else None
    if not isinstance(written, str) or not written:
        return UNKNOWN, ""
    return _WRITTEN.get(written.lower(), written), "the config.json beside the file"


def _match(name: str, table: tuple[tuple[str, str], ...]) -> str:
    return next((licence for pattern, licence in table if re.fullmatch(pattern, name)), UNKNOWN)
