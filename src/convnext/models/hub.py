"""Weights from the Hugging Face Hub or a mirror of it, cached where huggingface_hub keeps its files."""

import os
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
)

from convnext.errors import CheckpointError
from convnext.models.sources import FILES

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


def upload(folder: Path, name: str, *, private: bool) -> str:
    """Put the files of `folder` into repository `name` by the user's own token, and return its address.

    One that is not there is made, private or not. Raises CheckpointError, in one line, where the hub refuses, and for a
    repository that everybody can read already where it is to be private.
    """
    endpoint, why = _place()
    if why:
        raise CheckpointError(f"hub:{name} cannot be written: {why}.")
    api = HfApi(endpoint=endpoint)
    try:
        if private and not _hidden(api, name):
            raise CheckpointError(
                f"hub:{name} is there, and everybody can read it. Add --public, or take another name."
            )
        api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="Pushed by convnext")
    except CheckpointError:
        raise
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status == 401:
            raise CheckpointError(
                f"{endpoint} takes no token from here. Run `hf auth login`, or set HF_TOKEN."
            ) from None
        if status == 403:
            raise CheckpointError(
                f"hub:{name}: your token may not write there. Take one that may, or your own name."
            ) from None
        raise CheckpointError(f"hub:{name} cannot be written at {endpoint}: {_line(error)}.") from None
    except Exception as error:  # noqa: BLE001 - as above
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        raise CheckpointError(f"hub:{name} cannot be written at {endpoint}: {_line(cause)}.") from None
    return f"{endpoint}/{name}"


def _hidden(api: HfApi, name: str) -> bool:
    """Whether a repository is private, or is not there."""
    try:
        return bool(api.model_info(name).private)
    except RepositoryNotFoundError:
        return True


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
