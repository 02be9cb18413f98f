"""Weights from the Hugging Face Hub or a mirror of it, cached where huggingface_hub keeps its files."""

import os
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

FILES = ("model.safetensors", "pytorch_model.bin")  # in this order
PUBLIC = "https://huggingface.co"


def download(name: str) -> Path:
    """The local copy of the weights of repository `name`, e.g. 'timm/convnext_atto.d2_in1k'; fetched when not cached.

    HF_ENDPOINT names a mirror, HF_HUB_OFFLINE=1 allows the cache only. Raises CheckpointError, in one line, for a
    repository that does not exist or holds no weights, and without a network.
    """
    endpoint = os.environ.get("HF_ENDPOINT") or PUBLIC
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    why = "HF_HUB_OFFLINE is set" if offline else ""
    for file in FILES:
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
            f"hub:{name}: {why}, and the weights are not in the local cache. Fetch {FILES[0]} where there is a network "
            "and give its path instead, or name a mirror in HF_ENDPOINT."
        )
    raise CheckpointError(f"hub:{name} holds neither {' nor '.join(FILES)}. Give a repository of PyTorch weights.")


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
