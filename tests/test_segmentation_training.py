"""The segmentation task in the loop: it learns, micro-batches and restarts change nothing, and broken files are named."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from commands import rows
from convnext.config import Recipe, override
from convnext.data.dataset import read_sample
from convnext.data.opening import DenseSplits, open_dense_splits, recognise
from convnext.engine.distributed import World
from convnext.engine.fit import fit
from convnext.errors import ConvNeXtError, DataError
from convnext.recipes import recipe
from convnext.tasks.segmentation import inference
from convnext.tasks.segmentation.build import build
from convnext.tasks.segmentation.inference import log_probabilities, predict
from convnext.tasks.segmentation.metrics import confusion, metrics
from convnext.tasks.segmentation.parts import Logits
from convnext.tasks.segmentation.scoring import evaluate
from convnext.tasks.segmentation.task import Labelled
from loaded import told
from runs import CPU, bits, task_of, train
from shapes import CLASSES, write_shapes


def small(**changes: Any) -> Recipe:
    """Four blocks at 32 px, three steps an epoch."""
    made = recipe("small_segmentation", "atto", images=12, image_px=40, classes=3, batch=4)
    fields = {
        "model.depths": (1, 1, 1, 1),
        "model.widths": (8, 12, 16, 24),
        "head.width": 16,
        "head.aux_width": 8,
        "input.crop_px": 32,
        "augment.scale": (0.8, 1.25),
        "schedule.epochs": 4,
        "schedule.warmup_epochs": 0.5,
        "schedule.eval_epochs": 1,
    }
    return override(made, fields | {name.replace("__", "."): value for name, value in changes.items()})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DenseSplits:
    return open_dense_splits(recognise(write_shapes(tmp_path_factory.mktemp("shapes"))))


def test_it_learns_shapes_from_a_dozen_images(data, tmp_path):
    easy = {"head.dropout": 0, "model.drop_path": 0, "augment.photometric": False, "augment.scale": (1, 1)}
    wide = {"head.width": 32, "head.aux_width": 16, "optim.name": "adamw", "optim.lr": 4e-3, "optim.ema": 0.9}
    chosen = override(small(schedule__epochs=20, schedule__eval_epochs=20), easy | wide)
    finished = train(data, chosen, tmp_path / "run")
    assert finished.metric == "miou" and finished.score > 0.6
    losses = [row["loss"] for row in rows(tmp_path / "run")]
    assert sum(losses[-6:]) < 0.5 * sum(losses[:6])
    (raw, _) = rows(tmp_path / "run", "eval")
    assert {"miou", "mean_accuracy", "pixel_accuracy", "loss"} <= set(raw)


def test_a_run_that_was_killed_goes_on_to_the_same_bits(data, tmp_path):
    chosen = small(model__drop_path=0.3)
    train(data, chosen, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(data, chosen, tmp_path / "killed", last_step=7, checkpoint_steps=2)  # step 7 is done and not saved
    assert json.loads((tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()[-1])["step"] < 8
    train(data, chosen, tmp_path / "killed", checkpoint_steps=2)
    assert bits(tmp_path / "killed") == bits(tmp_path / "whole")


@pytest.mark.parametrize("micro", [1, 3])
def test_micro_batches_train_to_the_losses_of_the_whole_batch(data, tmp_path, micro):
    same = {"head.norm": "group", "head.dropout": 0.3, "model.drop_path": 0.3}  # no norm that looks at the whole batch
    chosen = override(small(optim__name="sgd", optim__lr=0.01, schedule__epochs=2), same)
    for name, size in (("whole", 0), ("pieces", micro)):
        train(data, chosen, tmp_path / name, micro_batch=size)
    whole, pieces = ([row["loss"] for row in rows(tmp_path / name)] for name in ("whole", "pieces"))
    assert pieces == pytest.approx(whole, rel=1e-4)


def test_a_batch_depends_on_its_step_alone_and_two_ranks_share_it(data, tmp_path):
    task = task_of(data, small(), tmp_path)
    every = list(task.batches(range(9), World()))
    later = list(task.batches(range(5, 9), World()))
    halves = [list(task.batches(range(5, 9), World(rank, 2))) for rank in (0, 1)]
    for whole, same, first, second in zip(every[5:], later, *halves, strict=True):
        assert whole.indices == same.indices == first.indices + second.indices
        shared = [*first.samples, *second.samples]
        for a, b, c in zip(whole.samples, same.samples, shared, strict=True):
            assert (a.image == b.image).all() and (a.semantic == c.semantic).all() and (a.image == c.image).all()


ONE_RANK = """
import json
import sys
import torch
from convnext.config import Recipe, RunOptions, parse
from convnext.data.opening import open_dense_splits, recognise
from convnext.engine.distributed import join
from convnext.engine.fit import fit
from convnext.tasks.segmentation.build import build
from convnext.tasks.segmentation.task import Segmentation
data, out = open_dense_splits(recognise(sys.argv[1])), sys.argv[3]
chosen = parse(Recipe, json.loads(sys.argv[2]), where="it")
torch.manual_seed(chosen.seed)
task = Segmentation(build(chosen), chosen, RunOptions(out=out, workers=0), data)
with join(torch.device("cpu")) as world:
    fit(task, chosen, task.options, device=torch.device("cpu"), world=world)
"""


def test_two_processes_train_to_the_losses_of_one_and_evaluate_each_image_once(loaded, tmp_path):
    folder = write_shapes(tmp_path / "data")  # 5 images are held out: an odd number
    same = {"head.norm": "group", "head.dropout": 0.3, "model.drop_path": 0.3}
    chosen = override(small(optim__name="sgd", optim__lr=0.01, schedule__epochs=2), same)
    train(open_dense_splits(recognise(folder)), chosen, tmp_path / "one")
    with loaded.ranks(ONE_RANK, folder, chosen.model_dump_json(), tmp_path / "two") as ranks:
        told(ranks)
    for kind, names in {"train": ["step", "loss"], "eval": ["step", "loss", "miou", "pixel_accuracy"]}.items():
        one, two = ([[row[name] for name in names] for row in rows(tmp_path / out, kind)] for out in ("one", "two"))
        assert np.array(two) == pytest.approx(np.array(one), rel=1e-4)


def test_prepared_images_and_maps_are_padded_alike_and_padding_does_not_count(data, tmp_path):
    task = task_of(data, small(input__crop_px=0, input__multiple=16), tmp_path)
    (batch,) = task.batches(range(1), World())
    ready = task.prepare(batch, step=0, slots=task.slots(World()), device=CPU)
    assert ready.x.shape[-2:] == ready.labels.shape[-2:] and ready.x.shape[-1] % 16 == 0 and len(ready) == 4
    for sample, labels in zip(batch.samples, ready.labels, strict=True):
        height, width = sample.semantic.shape
        assert (labels[:height, :width].numpy() == sample.semantic).all()
        assert (labels[height:] == 255).all() and (labels[:, width:] == 255).all()
    assert task.names(batch) == [sample.path for sample in batch.samples]


def test_the_loss_is_a_mean_over_all_pixels_of_both_heads_and_ignored_ones_bring_nothing(data, tmp_path):
    task = task_of(data, small(), tmp_path)
    main, aux = torch.randn(1, 3, 4, 4, dtype=torch.float64), torch.randn(1, 3, 4, 4, dtype=torch.float64)
    labels = torch.tensor([[[0, 1, 2, 255]] * 4])
    piece = Labelled(torch.zeros(1, 3, 4, 4), labels)
    by_hand = {"main": 0.0, "auxiliary": 0.0}
    for head, scores, weight in (("main", main.float(), 1.0), ("auxiliary", aux.float(), 0.4)):
        for i in range(4):
            for j in range(3):
                by_hand[head] -= weight * float(scores[0, :, i, j].log_softmax(0)[labels[0, i, j]]) / 16
    losses = task.loss(lambda _: Logits(main, aux), piece)
    assert {head: float(loss) for head, loss in losses.items()} == pytest.approx(by_hand, rel=1e-5)
    assert task.chance_loss == pytest.approx(np.log(3) * 1.4)


def test_evaluation_is_in_original_pixels_and_that_of_a_plain_loop(data, tmp_path):
    chosen = small(input__eval_short_px=32, input__eval_long_px=64)
    task = task_of(data, chosen, tmp_path)
    model = task.model.eval()
    with torch.inference_mode():
        found = evaluate(model, data.val, chosen)
        table = np.zeros((3, 3), int)
        for i in range(len(data.val.entries)):
            sample = read_sample(data.val, i)
            ((labels, _),) = predict(model, [sample.image], chosen)
            assert labels.shape == sample.semantic.shape
            table += confusion(labels, sample.semantic, 3)
    assert (found.table == table).all() and len(found) == len(data.val.entries)
    assert found.table.sum() == sum((read_sample(data.val, i).semantic != 255).sum() for i in range(len(found)))
    with torch.inference_mode():
        scores = task.evaluate(model, World())
    assert scores == metrics(found) and scores["loss"] == pytest.approx(np.log(3), abs=0.5)


def test_an_image_whose_logits_are_not_held_at_once_gets_the_same_answers_and_scores(data, tmp_path, monkeypatch):
    chosen = small(input__eval_short_px=32, input__eval_long_px=64)
    model = task_of(data, chosen, tmp_path).model.eval()
    sample = read_sample(data.val, 0)
    with torch.inference_mode():
        ((labels, scores),) = predict(model, [sample.image], chosen)
        whole = evaluate(model, data.val, chosen)
        monkeypatch.setattr(inference, "MOST_LOGITS", 1)
        (in_strips,) = predict(model, [sample.image], chosen)
        found = evaluate(model, data.val, chosen)
    assert (in_strips[0] == labels).mean() > 0.999 and in_strips[1] == pytest.approx(scores, abs=1e-5)
    assert np.abs(found.table - whole.table).sum() <= 0.002 * whole.table.sum()
    assert metrics(found)["loss"] == pytest.approx(metrics(whole)["loss"], rel=1e-5)


def test_probabilities_of_an_image_do_not_depend_on_the_window_when_it_holds_the_image(data, tmp_path):
    chosen = small()
    model = task_of(data, chosen, tmp_path).model.eval()
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    with torch.inference_mode():
        whole = log_probabilities(model, image, chosen, (50, 70))
        slid = log_probabilities(model, image, override(chosen, {"head.window_px": 64}), (50, 70))
        many = log_probabilities(model, image, chosen, (50, 70), multi_scale=True)
    assert torch.equal(whole, slid) and whole.shape == many.shape == (3, 50, 70)
    assert F.mse_loss(many.exp().sum(0), torch.ones(50, 70)) < 1e-9


def test_a_broken_map_is_named_and_skipped_in_training_and_evaluation(tmp_path):
    folder = write_shapes(tmp_path / "data")
    (folder / "train" / "labels" / "003.png").write_bytes(b"no image")
    (folder / "val" / "images" / "001.png").write_bytes((folder / "val" / "images" / "001.png").read_bytes()[:60])
    broken = open_dense_splits(recognise(folder))
    task = task_of(broken, small(schedule__epochs=1), tmp_path / "run")
    fit(task, task.recipe, task.options, device=CPU, world=World())
    assert sorted(Path(path).stem for path in task.skipped) == ["001", "003"]
    with pytest.raises(DataError, match="003"):
        list(task_of(broken, small(), tmp_path, strict_images=True).batches(range(3), World()))


@pytest.mark.parametrize(("norm", "batch", "micro"), [("batch", 1, 0), ("sync", 4, 1), ("batch", 4, 3)])
def test_a_batch_norm_that_would_see_one_image_is_refused_with_the_way_out(data, tmp_path, norm, batch, micro):
    task = task_of(data, small(head__norm=norm, optim__batch=batch), tmp_path, micro_batch=micro)
    with pytest.raises(ConvNeXtError, match=r"needs two images or more.*Set --head.norm group"):
        next(task.batches(range(1), World()))


def test_sync_norms_of_several_processes_need_gpus_and_group_norms_take_a_batch_of_one(data, tmp_path):
    with pytest.raises(ConvNeXtError, match="needs GPUs"):
        next(task_of(data, small(head__norm="sync"), tmp_path).batches(range(1), World(0, 2)))
    chosen = small(head__norm="group", optim__batch=1, schedule__epochs=1, schedule__warmup_epochs=0)
    train(data, chosen, tmp_path / "one")


def test_a_recipe_of_another_task_is_refused(data, tmp_path):
    other = recipe("small_detection", "atto", images=12, image_px=40, classes=3)
    with pytest.raises(ConvNeXtError, match=r"is for detection\. Take one for segmentation"):
        build(other)


def test_the_checkpoint_says_what_the_classes_are_and_which_images_they_were(data, tmp_path):
    described = task_of(data, small(), tmp_path).describe()
    assert described["task"] == "segmentation" and described["classes"] == list(CLASSES)
    other = DenseSplits(data.val, data.val)
    assert task_of(other, small(), tmp_path).describe()["images"] != described["images"]
