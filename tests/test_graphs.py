"""Which batches are recorded as CUDA graphs, without a GPU: what records stands in for it."""

from typing import Any, ClassVar

import pytest
import torch

from checkpoints import checkpoint_of
from convnext.deploy.folded import Folded
from convnext.deploy.load import load
from convnext.engine import room
from convnext.engine.room import images_together
from convnext.kernels import graphs
from convnext.models.network import Network
from far_device import FAR, far_device


class Recorded:
    """Stands for a recorded run: one of each kind of input."""

    made: ClassVar[list[tuple[int, ...]]] = []
    refusing = False

    def __init__(self, model, example):
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
    monkeypatch.setattr(Recorded, "refusing", True)
    told = []
    run = graphs.Graphs(lambda x: x + 1, told.append)
    assert answers(run, 4, 4, 4, 3, 3) == ["itself"] * 5
    (line,) = told
    assert line.startswith("Batches are not recorded as CUDA graphs: operation not permitted") and "\n" not in line


def test_elsewhere_nothing_is_recorded(recorded, monkeypatch):
    monkeypatch.setattr(graphs.transfer, "queued", lambda device: False)
    assert answers(graphs.Graphs(lambda x: x + 1, pytest.fail), 4, 4) == ["itself"] * 2


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
    monkeypatch.setattr(graphs, "Graphed", lambda model, example: lambda x: model(x))
    shown = images(3, classifier.recipe.input.size_px)
    near = classifier.logits(shown)
    plain = load(classifier.source, device="cpu", plain=True)
    with torch.inference_mode():
        given = plain.logits(shown)
    monkeypatch.setattr("convnext.deploy.trained.classifier.answering", lambda recipe, device: torch.no_grad())
    with far_device(monkeypatch) as queue:
        far = load(classifier.source, device="cpu")
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
