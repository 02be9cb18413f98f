"""Which batches are recorded as CUDA graphs, without a GPU: what records stands in for it."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch

from checkpoints import checkpoint_of
from convnext.deploy.folded import Folded
from convnext.deploy.load import load
from convnext.deploy.trained import replayed
from convnext.engine import room
from convnext.engine.room import images_together
from convnext.kernels import graphs
from convnext.models.network import Network
from far_device import FAR, far_device


class Recorded:
    """Stands for a recorded run: one of each kind of input."""

    made: ClassVar[list[tuple[int, ...]]] = []
    refusing = False

    def __init__(self, model, example, beside):
        if self.refusing:
            raise RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors might be late")
        self.made.append(tuple(example.shape))

    def __call__(self, x):
        return x + 2


@pytest.fixture
def recorded(monkeypatch):
    monkeypatch.setattr(graphs, "Graphed", Recorded)
    monkeypatch.setattr(graphs.transfer, "queued", lambda device: True)
    monkeypatch.setattr(Recorded, "made", [])


def answers(run: graphs.Graphs, *sizes: int) -> list[str]:
    return ["recorded" if run(torch.zeros(size))[0] == 2 else "itself" for size in sizes]


def test_a_shape_is_recorded_when_it_comes_again_and_only_so_many_are_kept(recorded, monkeypatch):
    monkeypatch.setattr(graphs, "MOST", 2)
    run = graphs.Graphs(lambda x: x + 1, pytest.fail)
    assert answers(run, 4, 4, 4, 3, 4) == ["itself", "recorded", "recorded", "itself", "recorded"]
    assert answers(run, 5, 3, 4) == ["itself"] * 3  # 3 went when 5 came, 4 when 3 did
    assert Recorded.made == [(4,)]


def test_where_nothing_can_be_recorded_the_network_answers_and_one_line_says_why(recorded, monkeypatch):
    told = []
    run = graphs.Graphs(lambda x: x + 1, told.append)
    assert answers(run, 5, 5) == ["itself", "recorded"]
    monkeypatch.setattr(Recorded, "refusing", True)
    assert answers(run, 4, 4, 4, 3, 3, 5) == ["itself"] * 6
    assert run._runs == {}  # the memory of what was recorded is free
    (line,) = told
    assert line.startswith("Batches are not recorded as CUDA graphs: operation not permitted") and "\n" not in line


def test_elsewhere_nothing_is_recorded(recorded, monkeypatch):
    monkeypatch.setattr(graphs.transfer, "queued", lambda device: False)
    assert answers(graphs.Graphs(lambda x: x + 1, pytest.fail), 4, 4) == ["itself"] * 2


class Card:
    """Stands for what torch records with: the network runs once in place of the capture, and a replay is noted."""

    def __init__(self, monkeypatch):
        self.pools, self.replays, self.usual = [], 0, MagicMock()
        self.stream, card = self.usual, self

        class Graph:
            def pool(self):
                return self

            def replay(self):
                card.replays += 1

        @contextmanager
        def capture(graph, pool, stream, capture_error_mode):
            assert not torch.is_autocast_cache_enabled()
            assert capture_error_mode == "thread_local"  # page-locked memory is taken in another thread meanwhile
            self.pools.append((graph, pool))
            self.stream = stream
            yield
            self.stream = self.usual  # torch does not where the capture has failed

        stands = {"CUDAGraph": Graph, "graph": capture, "device": lambda _: nullcontext(), "Stream": MagicMock}
        stands |= {"stream": lambda _: nullcontext(), "current_stream": lambda: self.usual}
        stands |= {"set_stream": lambda stream: setattr(self, "stream", stream)}
        for name, value in stands.items():
            monkeypatch.setattr(torch.cuda, name, value)


def test_a_recorded_run_shares_memory_gives_new_tensors_and_reads_the_weights_themselves_under_autocast(monkeypatch):
    card, layer, seen = Card(monkeypatch), torch.nn.Linear(2, 2), []

    def network(x: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        seen.append(torch.is_autocast_cache_enabled())
        return [layer(x)], x * 2

    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        first = graphs.Graphed(network, torch.ones(1, 2))
        graphs.Graphed(network, torch.ones(3, 2), first)
        assert torch.is_autocast_cache_enabled() and seen == [False] * 2 * (graphs.WARM + 1)
        ([one], two), ([again], _) = first(torch.ones(1, 2)), first(torch.ones(1, 2))
        assert torch.equal(one, layer(torch.ones(1, 2))) and torch.equal(two, torch.full((1, 2), 2.0))
    assert card.replays == 2 and one.data_ptr() != again.data_ptr()
    assert [pool for _, pool in card.pools] == [None, card.pools[0][0]]


def test_a_capture_that_fails_leaves_the_stream_that_was_current_and_the_next_one_is_made(monkeypatch):
    card, asked = Card(monkeypatch), []

    def waits_in_the_capture(x: torch.Tensor) -> torch.Tensor:
        asked.append(x)
        if len(asked) == graphs.WARM + 1:
            raise RuntimeError("operation not permitted when stream is capturing")
        return x

    with pytest.raises(RuntimeError, match="capturing"):
        graphs.Graphed(waits_in_the_capture, torch.ones(1))
    assert len(card.pools) == 1 and card.stream is card.usual
    graphs.Graphed(lambda x: x, torch.ones(1))
    assert len(card.pools) == 2


# A classifier on a GPU


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load(checkpoint_of("classification", tmp_path_factory.mktemp("run")), device="cpu")


def images(count: int, side: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, side, side, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_a_classifier_answers_there_folded_recorded_and_with_one_copy_each_way(classifier, monkeypatch):
    asked: list[Network] = []

    class Kept(graphs.Graphs):
        def __init__(self, model, tell):
            asked.append(model)
            super().__init__(model, tell)

    monkeypatch.setattr("convnext.deploy.trained.classifier.Graphs", Kept)
    monkeypatch.setattr(graphs, "Graphed", lambda model, example, beside: model)
    shown = images(3, classifier.recipe.input.size_px)
    near = classifier.logits(shown)
    plain = load(classifier.source, device="cpu", plain=True)
    with torch.inference_mode():
        given = plain.logits(shown)
    monkeypatch.setattr("convnext.deploy.trained.classifier.answering", lambda recipe, device: torch.no_grad())
    far = load(classifier.source, device="cpu")
    with far_device(monkeypatch) as queue:
        far.model, far.device = far.model.to(FAR), FAR
        monkeypatch.setattr("convnext.deploy.trained.classifier.queued", lambda device: device == FAR)
        for _ in range(3):
            queue.copies.clear()
            queue.waits.clear()
            found = far.logits(shown)
        assert len(queue.copies) == 1 and queue.waits == []  # the answer is copied by whoever asked
        assert torch.allclose(found.near, near, atol=1e-5) and torch.allclose(found.near, given, atol=1e-5)
    assert len(asked) == 1 and isinstance(asked[0], Folded)


def test_a_batch_that_does_not_fit_goes_by_halves(classifier, monkeypatch):
    whole, shown, seen = classifier.model, images(5, classifier.recipe.input.size_px), []
    expected = classifier.logits(shown)

    def limited(x: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        if len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return whole(x)

    monkeypatch.setattr(classifier, "_network", limited)
    monkeypatch.setattr(classifier, "_takes_pixels", False)
    assert torch.allclose(classifier.logits(shown), expected, atol=1e-5)
    assert seen[0] == 5 and max(seen[1:]) <= 3


def test_so_many_images_go_together_as_the_memory_of_a_gpu_allows(monkeypatch):
    assert images_together(torch.device("cpu"), 3 * 224**2, 32) == 32
    monkeypatch.setattr(room, "queued", lambda device: True)
    found = []
    for free in (80 * 2**30, 8 * 2**30, 2**20):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 2 * free))
        found.append(images_together(torch.device("cuda", 0), 3 * 224**2, 32))
    assert found == [room.MOST, 71, 1]


# Detectors and segmenters on a GPU


def near_and_far(task: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any, list[torch.Size]]:
    """The predictor of fresh weights here and on the far device, and the shapes whose runs are recorded there."""
    file = checkpoint_of(task, folder)
    recorded: list[torch.Size] = []

    def record(model: Any, example: torch.Tensor, beside: object) -> Any:
        recorded.append(example.shape)
        return model

    near, far = load(file, device="cpu"), load(file, device="cpu")
    monkeypatch.setattr(graphs, "Graphed", record)
    monkeypatch.setattr(replayed, "images_together", lambda device, values, usual: 2 if device == FAR else usual)
    monkeypatch.setattr(f"{type(near).__module__}.answering", quiet)
    return near, far, recorded


@contextmanager
def quiet(recipe: Any, device: torch.device) -> Iterator[None]:
    with torch.no_grad():  # torch's autocast knows no far device
        yield


SIZES = ((40, 56), (40, 56), (40, 56), (56, 40), (40, 56), (40, 56))


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_dense_tasks_answer_there_folded_recorded_and_some_images_of_one_size_at_once(task, tmp_path, monkeypatch):
    near, far, recorded = near_and_far(task, tmp_path, monkeypatch)
    rng = np.random.default_rng(0)
    shown = [rng.integers(0, 256, (*size, 3), np.uint8) for size in SIZES]
    expected, passed = list(near.predict(shown)), []
    with far_device(monkeypatch) as queue:
        far.model, far.device = far.model.to(FAR), FAR
        network: Any = far._network
        dense = network.detector if task == "detection" else network.model
        assert isinstance(dense.backbone.network, Folded) and not isinstance(far.model.backbone.network, Folded)
        assert {id(part) for part in far.model.children()} - {id(part) for part in dense.children()} == {
            id(far.model.backbone)
        }
        dense.backbone.register_forward_hook(lambda module, given, made: passed.append(len(given[0])))
        found = list(far.predict(shown))
        fetched = [name for name, _ in queue.waits if name == "_to_copy from the device"]
    assert passed == [2, 1, 1, 2] and [shape[0] for shape in recorded] == [2]
    assert len(fetched) == len(passed)
    assert len(found) == len(expected) == len(SIZES)
    for one, other in zip(found, expected, strict=True):
        assert np.allclose(one.scores, other.scores, atol=1e-4) and one.size == other.size
        if task == "detection":
            assert len(one.scores) == len(other.scores) and np.allclose(one.boxes, other.boxes, atol=1e-2)
        else:
            assert (one.mask == other.mask).mean() > 0.99
