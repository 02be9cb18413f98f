"""A network as a .pt2 file: a program for `torch.export.load`, the description as a file inside."""

import io
from pathlib import Path
from typing import Any

import torch

from convnext.deploy.forms.table import KEY
from convnext.files import to_json


def write(program: Any, path: Path, described: dict[str, Any], *, half: bool) -> None:
    """Write `program` to `path`; its weights have their 16 bits already where they are to have them."""
    stream = io.BytesIO()  # torch ends the process where it cannot write a file itself
    torch.export.save(program, stream, extra_files={f"{KEY}.json": to_json(described)})
    path.write_bytes(stream.getbuffer())
