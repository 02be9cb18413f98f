"""Weights from the Hugging Face Hub or a mirror of it, cached where huggingface_hub keeps its files."""

import os
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
)

from convnext.errors import CheckpointError

FILES = (  # in this order
    *("model.safetensors", "model.safetensors.index.json", "open_clip_model.safetensors"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json", "open_clip_pytorch_model.bin"),
)
PUBLIC = "https://huggingface.co"


def download(name: str, files: Sequence[str] = FILES) -> Path:
    """The local copy of the first of `files` that repository `name` has, e.g. 'timm/convnext_atto.d2_in1k'.

    It is fetched when not cached. HF_ENDPOINT names a mirror, HF_HUB_OFFLINE=1 allows the cache only. Raises
    CheckpointError, in one line, for a repository that does not exist or holds no weights, and without a network.
    """
    endpoint, why = _place()
    for file in files:
        try:
            why = why or _unreachable(hf_hub_url(name, file, endpoint=endpoint), endpoint)
            return Path(hf_hub_download(name, file, endpoint=endpoint, local_files_only=bool(why)))
        except EntryNotFoundError:  # no such file there or, without a network, in the cache
            continue
        except HFValidationError:
            raise CheckpointError(
                f"'hub:{name}' is not a repository's name. Write hub:OWNER/NAME, e.g. hub:timm/convnext_atto.d2_in1k."
            ) from None
        except GatedRepoError:
            raise CheckpointError(
                f"hub:{name} asks for its terms to be accepted. Accept them at {endpoint}/{name} and set HF_TOKEN."
            ) from None
        except RepositoryNotFoundError:
            raise CheckpointError(
                f"hub:{name}: {endpoint} has no such repository, or it is private. Check the name, or set HF_TOKEN."
            ) from None
        except Exception as error:  # noqa: BLE001 - the library lets the errors of its HTTP client through
            raise CheckpointError(f"hub:{name} cannot be fetched from {endpoint}: {_line(error)}.") from None
    if why:
        raise CheckpointError(
            f"hub:{name}: {why}, and the weights are not in the local cache. Fetch {files[0]} where there is a network "
            "and give its path instead, or name a mirror in HF_ENDPOINT."
        )
    if tuple(files) != FILES:
        raise CheckpointError(f"hub:{name} does not hold {files[0]}, a part of its weights. Take another repository.")
    raise CheckpointError(
        f"hub:{name} holds neither {FILES[0]} nor pytorch_model.bin. Give a repository of PyTorch weights."
    )


def download_beside(name: str, files: Sequence[str]) -> None:
    """Fetch what describes the weights of a repository, as far as there is any: they are weights without it, too."""
    endpoint, why = _place()
    for file in files:
        try:
            why = why or _unreachable(hf_hub_url(name, file, endpoint=endpoint), endpoint)
            hf_hub_download(name, file, endpoint=endpoint, local_files_only=bool(why))
        except EntryNotFoundError:
            continue
        except Exception:  # noqa: BLE001 - as above
            return


def _place() -> tuple[str, str]:
    """The server to ask, and why it may not be asked; '' where it may."""
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    return os.environ.get("HF_ENDPOINT") or PUBLIC, "HF_HUB_OFFLINE is set" if offline else ""


def _unreachable(url: str, endpoint: str) -> str:
    """Why no answer comes from `url`, or '' when one does. Asked once: a download retries for half a minute."""
    try:
        get_hf_file_metadata(url)
    except HfHubHTTPError:
        raise  # an answer, if not the one we want
    except Exception as error:  # noqa: BLE001 - as above
        return f"{endpoint} cannot be reached ({_line(error)})"
    return ""


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
