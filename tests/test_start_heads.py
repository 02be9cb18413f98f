"""The head of some weights: taken over row by row, by the names of its classes, and never a foreign one in silence."""

import json

import timm
import torch
from torch import nn

from convnext.config import ConvNeXtConfig
from convnext.models.convnext import ConvNeXt
from convnext.models.create import create
from convnext.models.heads import matched
from convnext.models.weights import load_weights


def test_the_rows_of_a_head_go_to_the_classes_of_the_same_name():
    rows = matched(3, 4, ("cat", "dog", "owl"), ("dog", "fox", "cat", "hen"))
    assert rows.taken == {0: 1, 2: 0} and rows.note == "head: 2 of 4 classes matched by name, 2 fresh"
    held, fresh = torch.arange(3.0)[:, None] + 10, torch.zeros(4, 1)
    assert rows.fit({"head.weight": held}, {"head.weight": fresh})["head.weight"].flatten().tolist() == [11, 0, 10, 0]
    with_background = rows.fit({"score.bias": torch.arange(4.0) + 10}, {"score.bias": torch.zeros(5)})
    assert with_background["score.bias"].tolist() == [11, 0, 10, 0, 13]
    sides = rows.fit({"delta.bias": torch.arange(12.0)}, {"delta.bias": torch.zeros(16)})["delta.bias"].tolist()
    assert sides == [4, 5, 6, 7, 0, 0, 0, 0, 0, 1, 2, 3, 0, 0, 0, 0]


def test_a_foreign_head_is_never_taken_over_in_silence():
    other = matched(2, 2, ("cat", "dog"), ("shirt", "shoe"))
    assert other.none() and "no class has the name of one of these" in other.note
    unnamed = matched(2, 2, None, ("shirt", "shoe"))
    assert unnamed.none() and "the weights do not name their classes" in unnamed.note
    assert matched(2, 2, ("cat", "dog"), ("cat", "dog")).note == "" and matched(2, 2, None, ()).whole()
    imagenet = [f"n{i:08}" for i in range(1000)]
    assert matched(1000, 1000, None, imagenet).whole() and matched(1000, 1000, None, imagenet[::-1]).none()
    assert matched(1, 1, ("Cafe\u0301",), ("Caf\u00e9",)).whole()  # one accent, written in two ways


def test_tensors_read_counts_what_was_read(tmp_path):
    state = timm.models.convnext.ConvNeXt(depths=(1, 1, 1, 1), dims=(4, 8, 12, 16), num_classes=3).state_dict()
    torch.save(state, tmp_path / "w.pth")
    model = ConvNeXt(ConvNeXtConfig(depths=(1, 1, 1, 1), widths=(4, 8, 12, 16), classes=3))
    fresh, said = model.head.weight.clone(), []
    load_weights(model, tmp_path / "w.pth", info=said.append, classes=("x", "y", "z"))
    assert torch.equal(model.head.weight, fresh)
    assert said[-1].endswith(f"{len(state) - 2} tensors read ('timm' names).")


def test_a_baseline_takes_its_head_by_name_too(tmp_path):
    theirs = timm.create_model("test_byobnet", num_classes=2).state_dict()
    (tmp_path / "config.json").write_text(json.dumps({"label_names": ["cat", "dog"]}))
    torch.save(theirs, tmp_path / "pytorch_model.bin")
    model, said = create("timm:test_byobnet", classes=2, info=lambda _: None), []
    load_weights(model, tmp_path, info=said.append, classes=("dog", "cat"))
    head: nn.Linear = model.network.head.fc
    assert torch.equal(head.weight, theirs["head.fc.weight"].flip(0))
    assert said[0] == "head: 2 of 2 classes matched by name"
