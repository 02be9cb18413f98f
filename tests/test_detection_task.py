"""The detection task in the loop: it learns, restarts change nothing, broken files are named, and a request is a run."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from commands import rows
from convnext.config import Recipe, RunOptions, parse
from convnext.data.annotated import AnnotatedImage, Objects
from convnext.data.annotated_preflight import preflight_dense
from convnext.data.dataset import DenseDataset
from convnext.data.opening import DenseSplits, open_dense_splits, recognise
from convnext.engine.distributed import World
from convnext.engine.fit import fit
from convnext.errors import CheckpointError, ConvNeXtError, DataError
from convnext.models.build import build_model
from convnext.recipes import recipe
from convnext.tasks.detection.build import build
from convnext.tasks.detection.facts import fitted
from convnext.tasks.detection.metrics import Outcomes, metrics
from convnext.tasks.detection.row import ROW
from convnext.tasks.detection.scoring import evaluate
from convnext.tasks.train import Examined, Request, choose_recipe
from convnext.tasks.train import train as train_by
from convnext.tasks.weights import load_best
from loaded import told
from runs import CPU, bits, task_of, train
from shape_objects import FIELDS, IDS, NAMES, small, write_objects
from shapes import CLASSES, write_shapes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_objects(tmp_path_factory.mktemp("objects"))


@pytest.fixture(scope="module")
def data(folder: Path) -> DenseSplits:
    return open_dense_splits(recognise(folder))


def test_it_learns_six_images_by_heart_and_writes_figures_by_boxes_and_by_masks(data, tmp_path):
    plain = {"augment__photometric": False, "input__short_px": (40,), "optim__name": "adamw", "optim__lr": 4e-3}
    chosen = small(**plain, schedule__epochs=40, schedule__eval_epochs=40, model__drop_path=0)
    finished = train(DenseSplits(data.train, data.train), chosen, tmp_path / "run")
    assert finished.metric == "mask_ap" and finished.score > 0.25
    losses = [row["loss"] for row in rows(tmp_path / "run")]
    assert sum(losses[-6:]) < 0.5 * sum(losses[:6])
    raw, averaged = rows(tmp_path / "run", "eval")
    assert {"box_ap", "box_ap50", "box_ar_1", "mask_ap", "mask_ap75", "loss"} <= set(raw)
    assert raw["weights"] == "raw" and averaged["weights"] == "ema" and raw["box_ap50"] > 0.4


@pytest.mark.parametrize("kind", ["mask_rcnn", "cascade"])
def test_a_run_that_was_killed_goes_on_to_the_same_bits(data, tmp_path, kind):
    chosen = small(model__drop_path=0.3, head__kind=kind, head__head_norm="group", schedule__epochs=2.7)
    train(data, chosen, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(data, chosen, tmp_path / "killed", last_step=5, checkpoint_steps=2)  # step 5 is done and not saved
    assert json.loads((tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()[-1])["step"] < 6
    train(data, chosen, tmp_path / "killed", checkpoint_steps=2)
    assert bits(tmp_path / "killed") == bits(tmp_path / "whole")


def test_micro_batches_are_the_batch_in_pieces_and_train(data, tmp_path):
    task = task_of(data, small(optim__batch=5), tmp_path)
    (batch,) = task.batches(range(1), World())
    ready = task.prepare(batch, step=0, slots=task.slots(World()), device=CPU)
    pieces = ready.split(2)
    assert [len(piece) for piece in pieces] == [2, 2, 1]
    assert torch.equal(torch.cat([piece.images.x for piece in pieces]), ready.images.x)
    assert sum((piece.images.sizes for piece in pieces), ()) == ready.images.sizes
    assert sum((piece.targets for piece in pieces), ()) == ready.targets
    train(data, small(schedule__epochs=1), tmp_path / "run", micro_batch=1)


def test_a_batch_depends_on_its_step_alone_and_two_ranks_share_it(data, tmp_path):
    task = task_of(data, small(), tmp_path)
    every = list(task.batches(range(6), World()))
    later = list(task.batches(range(3, 6), World()))
    halves = [list(task.batches(range(3, 6), World(rank, 2))) for rank in (0, 1)]
    for whole, same, first, second in zip(every[3:], later, *halves, strict=True):
        assert whole.indices == same.indices == first.indices + second.indices
        for a, b, c in zip(whole.samples, same.samples, [*first.samples, *second.samples], strict=True):
            assert (a.image == b.image).all() and (a.image == c.image).all()
            assert (a.instances.boxes == c.instances.boxes).all() and (a.instances.masks == b.instances.masks).all()


def test_prepared_images_are_padded_with_zeros_and_their_objects_stay_in_their_pixels(data, tmp_path):
    task = task_of(data, small(optim__batch=6), tmp_path)
    (batch,) = task.batches(range(1), World())
    ready = task.prepare(batch, step=0, slots=task.slots(World()), device=CPU)
    assert ready.images.x.shape[-1] % 16 == 0 and len(ready) == 6
    for sample, x, size, objects in zip(batch.samples, ready.images.x, ready.images.sizes, ready.targets, strict=True):
        height, width = size
        assert sample.image.shape[:2] == size
        assert not x[:, height:].any() and not x[:, :, width:].any() and x[:, :height, :width].all()
        assert objects.masks.shape == (len(objects.labels), height, width)
        assert (objects.boxes.numpy() == sample.instances.boxes).all()
    assert sorted(len(objects.labels) for objects in ready.targets) == [0, 2, 2, 2, 2, 2]
    assert task.names(batch) == [sample.path for sample in batch.samples]


def test_the_parts_of_the_loss_are_those_of_the_detector(data, tmp_path):
    task = task_of(data, small(model__drop_path=0), tmp_path)
    (batch,) = task.batches(range(1), World())
    ready = task.prepare(batch, step=0, slots=task.slots(World()), device=CPU)
    with torch.no_grad():
        torch.manual_seed(1)
        parts = task.model(ready.images, ready.targets)
        torch.manual_seed(1)
        losses = task.loss(task.model, ready)
    assert {name: float(loss) for name, loss in losses.items()} == {name: float(loss) for name, loss in parts.items()}
    assert set(parts) == {"rpn_score", "rpn_box", "score", "box", "mask"}
    assert task.chance_loss == float("inf")  # no guard against flat losses: 0.98 times it is never reached


def test_images_without_objects_are_trained_on_unless_the_recipe_leaves_them_out(data, tmp_path):
    assert len(task_of(data, small(), tmp_path).train.entries) == 6
    assert len(task_of(data, small(input__empty=False), tmp_path).train.entries) == 5
    assert not recipe("coco_cascade_3x", "tiny", images=9, image_px=9, classes=2).input.empty


def test_boxes_alone_are_learnt_without_masks_and_a_mask_head_for_them_is_refused(tmp_path):
    plain = open_dense_splits(recognise(write_objects(tmp_path / "data", masks=False)))
    with pytest.raises(ConvNeXtError, match=r"boxes alone. Set --head.masks false"):
        task_of(plain, small(), tmp_path)
    assert train(plain, small(head__masks=False, schedule__epochs=1), tmp_path / "run").metric == "box_ap"
    (raw, _) = rows(tmp_path / "run", "eval")
    assert "box_ap" in raw and "mask_ap" not in raw


@dataclass(frozen=True)
class Part(World):
    """A process whose results are looked at instead of gathered."""

    kept: list[Outcomes] = field(default_factory=list)

    def gather(self, value: Any) -> list[Any]:
        self.kept.append(value)
        return [value]


def test_processes_evaluate_shares_that_together_are_the_whole(data, tmp_path):
    chosen = small(head__score=0.0)
    model = task_of(data, chosen, tmp_path).model.eval()
    with torch.inference_mode():
        whole = evaluate(model, data.val, chosen)
        parts = [evaluate(model, data.val, chosen, world=Part(rank, 3)) for rank in range(3)]
        again = task_of(data, chosen, tmp_path).evaluate(model, World())
    joined = Outcomes.join(parts[::-1])
    assert joined.indices == whole.indices == (0, 1, 2, 3) and joined.losses == whole.losses
    for one, other in zip(joined.found, whole.found, strict=True):
        assert (one.boxes == other.boxes).all() and one.masks == other.masks and len(one)
    assert metrics(whole, data.val) == again


def test_half_precision_trains_and_evaluates(data, tmp_path):
    finished = train(data, small(precision="bf16", schedule__epochs=1), tmp_path / "run")
    assert 0 <= finished.score <= 1
    assert all(np.isfinite(row["loss"]) for row in rows(tmp_path / "run"))


def test_a_broken_image_is_named_skipped_and_not_missed(tmp_path):
    folder = write_objects(tmp_path / "data")
    for broken in ("train/001.png", "val/000.png"):
        (folder / broken).write_bytes((folder / broken).read_bytes()[:60])
    broken_data = open_dense_splits(recognise(folder))
    task = task_of(broken_data, small(schedule__epochs=2), tmp_path / "run")
    fit(task, task.recipe, task.options, device=CPU, world=World())
    assert sorted(Path(path).name for path in task.skipped) == ["000.png", "001.png"]
    with torch.inference_mode():
        assert evaluate(task.model.eval(), broken_data.val, task.recipe).indices == (1, 2, 3)
    with pytest.raises(DataError, match="001"):
        list(task_of(broken_data, small(), tmp_path, strict_images=True).batches(range(3), World()))


def test_norms_over_processes_need_gpus_and_a_recipe_of_another_task_is_refused(data, tmp_path):
    chosen = small(head__box_head="convolutional", head__head_norm="sync")
    with pytest.raises(ConvNeXtError, match=r"needs GPUs.*--head.head_norm group"):
        next(task_of(data, chosen, tmp_path).batches(range(1), World(0, 2)))
    with pytest.raises(ConvNeXtError, match=r"is for segmentation\. Take one for detection"):
        build(recipe("small_segmentation", "atto", images=12, image_px=40, classes=3))


def test_the_checkpoint_says_what_the_classes_are_and_which_images_they_were(data, tmp_path):
    described = task_of(data, small(), tmp_path).describe()
    assert described["task"] == "detection" and json.loads(json.dumps(described)) == described
    assert dict(zip(described["classes"], described["category_ids"], strict=True)) == dict(zip(NAMES, IDS, strict=True))
    other = DenseSplits(data.val, data.val)
    assert task_of(other, small(), tmp_path).describe()["images"] != described["images"]


def request(folder: Path, *, more: dict[str, Any] | None = None, **fields: Any) -> Request:
    changes = FIELDS | {"optim.batch": "2", "schedule.epochs": "1", "schedule.warmup_epochs": 0} | (more or {})
    return Request(data=recognise(folder, annotated=True), changes=changes, **fields)


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one epoch."""
    out = tmp_path_factory.mktemp("run") / "run"
    train_by(request(folder), RunOptions(out=str(out), workers=0))
    return out


def test_a_request_becomes_a_folder_that_says_everything(folder, run):
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert evaluation["task"] == "detection" and evaluation["n"] == 4 and set(evaluation["classes"]) == set(NAMES)
    assert {row["name"] for row in evaluation["per_class"]} == set(NAMES) and evaluation["most"] == 100
    best = [row for row in rows(run, "eval") if row["weights"] == evaluation["weights"]][-1]
    assert best["box_ap"] == pytest.approx(evaluation["box_ap"], abs=1e-12) and best["loss"] == evaluation["loss"]
    described = json.loads((run / "data.json").read_text())
    assert described["train"] == {
        "n": 6,
        "per_class": dict.fromkeys(NAMES, 5),
        "images": dict.fromkeys(NAMES, 5),
    }
    assert described["task"] == "detection" and not described["skipped"]
    assert json.loads((run / "recipe.json").read_text())["head"]["classes"] == 2
    done = train_by(request(folder), RunOptions(out=str(run), workers=0))
    assert done.evaluation.to_dict() == evaluation and done.task == "detection" and done.first
    assert done.finished.step == 3 and len(done.splits.val.entries) == 4


def test_the_recipe_follows_the_data_and_the_person_has_the_last_word(data, folder, tmp_path):
    source = recognise(write_objects(tmp_path, masks=False))
    boxes = open_dense_splits(source)
    looked_at = Examined("detection", boxes, preflight_dense(boxes))
    chosen = choose_recipe(Request(data=source), None, looked_at)
    assert chosen.name == "small_detection" and not chosen.head.masks and chosen.input.eval_short_px == 64
    objects = boxes.train.entries[0].objects
    many = np.arange(2).repeat(65)
    several = Objects(
        *(getattr(objects, name)[many] for name in ("boxes", "labels", "crowd", "area", "ids")), (None,) * 130
    )
    crowded = DenseDataset("detection", NAMES, (AnnotatedImage("x", 1, None, several),), boxes.train.store)
    assert fitted(crowded, looked_at.findings) == {"head.masks": False, "head.most": 200}
    assert fitted(data.train, looked_at.findings) == {}
    asked = Request(data=source, changes={"head.most": 7, "schedule.epochs": "12"}, size_px=96)
    chosen = choose_recipe(asked, None, looked_at)
    assert chosen.head.most == 7 and chosen.input.eval_short_px == 96
    assert chosen.schedule.warmup_epochs == pytest.approx(12 / 20)


@pytest.mark.parametrize(
    ("fields", "changes", "message"),
    [
        ({"recipe": "small_segmentation"}, {}, "is for segmentation, and the data are for detection. Take 'small_det"),
        ({}, {"head.classes": "80"}, "the data have 2 classes. Leave it out"),
        ({}, {"head.mots": "80"}, "Did you mean 'head.most'"),
        ({"val_share": 0.0}, {}, "held out"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused_in_one_line(folder, tmp_path, fields, changes, message):
    place = folder / "train" if "val_share" in fields else folder
    asked = Request(data=recognise(place), changes=changes, **fields)
    if "val_share" in fields:
        asked = Request(data=recognise(folder / "annotations" / "instances_train.json", place), **fields)
    with pytest.raises(ConvNeXtError, match=message) as refused:
        train_by(asked, RunOptions(out=str(tmp_path / "run"), workers=0))
    assert "\n" not in str(refused.value)


def test_a_run_starts_from_a_detector_of_other_classes_and_from_a_classifier(run, tmp_path):
    target = build(small(head__classes=5))
    said: list[str] = []
    fresh = {key: value.clone() for key, value in target.state_dict().items()}
    ROW.load(target, str(run / "best.safetensors"), info=said.append)
    assert said[0] == "head of 2 classes replaced by a new one for 5"
    held = load_file(run / "best.safetensors")
    for key, value in target.state_dict().items():
        assert torch.equal(value, held[key] if held[key].shape == value.shape else fresh[key])
    classifier = build_model(small().model.model_copy(update={"classes": 7}))
    torch.save(classifier.state_dict(), tmp_path / "classifier.pth")
    ROW.load(target, str(tmp_path / "classifier.pth"), info=said.append)
    assert torch.equal(target.backbone.network.stem.layers[0].weight, classifier.stem.layers[0].weight)
    with pytest.raises(CheckpointError, match="does not fit"):
        ROW.load(build(small(head__channels=8)), str(run / "best.safetensors"), info=said.append)


def test_maps_of_classes_become_a_run_of_the_other_task_in_the_same_way(tmp_path):
    changes = {"model.depths": (1, 1, 1, 1), "model.widths": (8, 12, 16, 24), "head.width": 16, "head.aux_width": 8}
    changes |= {"input.crop_px": 32, "schedule.epochs": 1, "schedule.warmup_epochs": 0, "optim.batch": 4}
    asked = Request(data=recognise(write_shapes(tmp_path / "data", train=4, val=2)), changes=changes)
    done = train_by(asked, RunOptions(out=str(tmp_path / "run"), workers=0))
    assert done.finished.metric == "miou" and done.task == done.evaluation.task == "segmentation"
    assert done.evaluation.n == 2 and done.evaluation.classes == CLASSES


PROCESS = """
import json, sys
from convnext.config import RunOptions
from convnext.tasks.train import Request, train
changes, data, out = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
train(Request(data=data, changes=changes), RunOptions(out=out, workers=0, device="cpu"))
"""


def test_two_processes_train_one_detector_and_score_all_images(loaded, folder, tmp_path):
    asked, out = request(folder), tmp_path / "run"
    with loaded.ranks(PROCESS, json.dumps(dict(asked.changes)), folder, out) as ranks:
        (_, said), _ = told(ranks)
    assert "fp32 on cpu x 2" in said
    evaluation = json.loads((out / "evaluation.json").read_text())
    chosen = parse(Recipe, json.loads((out / "recipe.json").read_text()), where="recipe.json")
    val = open_dense_splits(recognise(folder)).val
    with torch.inference_mode():
        alone = evaluate(load_best(build(chosen), out, evaluation["weights"]), val, chosen)
    assert evaluation["n"] == len(alone) == 4
    assert metrics(alone, val)["box_ap50"] == pytest.approx(evaluation["box_ap50"], abs=1e-3)
    assert metrics(alone, val)["loss"] == pytest.approx(evaluation["loss"], rel=1e-4)
