"""Weights from a hub: a small server on this machine answers as the real one does."""

import socket

import pytest
import torch
from safetensors.torch import save

from convnext.config import ConvNeXtConfig
from convnext.errors import CheckpointError
from convnext.models.convnext import ConvNeXt
from convnext.models.weights import from_ours, load_weights
from hub import serving

SMALL = ConvNeXtConfig(depths=(1, 1, 1, 1), widths=(4, 8, 12, 16), classes=10)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with serving(tmp_path / "cache", monkeypatch) as server:
        yield server


def load(source: str) -> ConvNeXt:
    model = ConvNeXt(SMALL)
    load_weights(model, source, info=lambda message: None)
    return model


def refusal(source: str) -> str:
    with pytest.raises(CheckpointError) as error:
        load(source)
    assert "\n" not in str(error.value)
    return str(error.value)


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_safetensors_of_a_repository_are_loaded_once_and_then_cached(hub, monkeypatch):
    source = ConvNeXt(SMALL)
    hub.files["timm/some/model.safetensors"] = save(from_ours(source.state_dict(), "timm", SMALL))
    assert torch.equal(load("hub:timm/some").head.weight, source.head.weight)
    assert torch.equal(load("hub:timm/some").head.weight, source.head.weight)
    assert [line for line in hub.asked if line.startswith("GET")] == ["GET /timm/some/resolve/main/model.safetensors"]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.asked.clear()
    assert torch.equal(load("hub:timm/some").head.weight, source.head.weight)
    assert not hub.asked


def test_a_repository_of_pickled_weights_alone_is_read_without_running_them(hub, tmp_path):
    source = ConvNeXt(SMALL)
    torch.save(from_ours(source.state_dict(), "transformers", SMALL), tmp_path / "file")
    hub.files["facebook/old/pytorch_model.bin"] = (tmp_path / "file").read_bytes()
    assert torch.equal(load("hub:facebook/old").head.weight, source.head.weight)


def test_an_unknown_repository_and_one_without_weights_are_named(hub):
    hub.files["timm/cards/README.md"] = b"# a card"
    assert "has no such repository" in refusal("hub:timm/nothing")
    assert "holds neither model.safetensors nor pytorch_model.bin" in refusal("hub:timm/cards")


def test_a_name_that_no_repository_can_have_is_explained(hub):
    assert "Write hub:OWNER/NAME" in refusal("hub:a/b/c")
    assert "Write hub:OWNER/NAME" in refusal("hub:")


def test_without_a_network_one_line_says_what_to_do(hub, monkeypatch):
    address = f"http://127.0.0.1:{closed_port()}"
    monkeypatch.setenv("HF_ENDPOINT", address)
    line = refusal("hub:timm/some")
    assert f"{address} cannot be reached" in line and "give its path" in line and "HF_ENDPOINT" in line


def test_offline_one_line_says_that_the_cache_lacks_the_weights(hub, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE is set" in refusal("hub:timm/some")
    assert not hub.asked


def test_a_broken_download_is_refused_like_a_broken_file(hub):
    hub.files["timm/broken/model.safetensors"] = save(ConvNeXt(SMALL).state_dict())[:100]
    assert "truncated" in refusal("hub:timm/broken")
