"""The steps of gpu.py that run what users run: whole training steps of each task by its recipe, and answers of a
predictor.

Images are made here, so that a card needs no data. A step is that of the engine, from a read batch to the new
weights; its batch is read once, but for the rows of `feed`, which read as a run does. One card shares no weights with
another: `--shard-weights` shows what parts of one process cost.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from PIL import Image

from convnext.config import Recipe, RunOptions, override
from convnext.data.opening import recognise
from convnext.data.shards.write import write_shards
from convnext.deploy.images import many_images
from convnext.deploy.trained.checkpoint import Trained
from convnext.deploy.trained.classifier import TrainedClassifier
from convnext.deploy.trained.detector import TrainedDetector
from convnext.deploy.trained.segmenter import TrainedSegmenter
from convnext.engine.distributed import ALONE
from convnext.engine.learning import learn, update_of
from convnext.engine.optim import Optimizers
from convnext.engine.precision import capability_of, float32_of
from convnext.engine.sharding import Sharding
from convnext.engine.update import Update
from convnext.kernels import graphs
from convnext.kernels.transfer import queued
from convnext.recipes import recipe
from convnext.tasks.splits import splits_of
from convnext.tasks.table import row_of
from gpu_timing import DEVICE, DRY, Row, attempt, failed, milliseconds, peak, warm

PRECISIONS = ("bf16", "fp32", "fp16")  # the default of a card from Ampere on first; beside bf16 and fp16 TF32
BATCH = {"classification": 128, "detection": 4, "segmentation": 16}
SIDE = {"classification": 224, "detection": 800, "segmentation": 512}  # pixels
RECIPES = {"classification": "small", "detection": "small_detection", "segmentation": "small_segmentation"}
FED = ("shards", "folders")  # what training reads from
WAYS = ("plain", "folded", "folded+graph")
ANSWERED = {"classification": (1, 2), "segmentation": (1, 2), "detection": (1, 2)}  # images of a batch, in a dry run
if not DRY:
    ANSWERED = {"classification": (256, 1, 8, 32), "segmentation": (1, 8), "detection": (1, 8)}
PREDICTORS = {"classification": TrainedClassifier, "segmentation": TrainedSegmenter, "detection": TrainedDetector}
Made = tuple[Callable[[], Any], int]
SMALL = {"model.depths": (1, 1, 1, 1), "model.widths": (8, 8, 8, 8)}
SMALL_HEADS = {"head.channels": 16, "head.hidden": 16, "head.candidates_train": 30, "head.proposals_train": 20}


def runs(model: str, args: argparse.Namespace) -> Iterator[Row]:
    """Every row, what matters most first; a failure is one."""
    with tempfile.TemporaryDirectory() as room:
        for what, make in cases(model, Path(room)):
            if what in args.without:
                continue
            found = attempt(what, lambda make=make: measured(*make(), args.rounds))
            kind, _, name = what.partition(" ")
            yield found if failed(found) else {"kind": kind, "what": name, "model": model, **found}
            if found.get("fatal"):
                return


def cases(model: str, room: Path) -> Iterator[tuple[str, Callable[[], Made]]]:
    """(name of a row, what makes (its run, the images of one run)): first what nobody has timed, last what compiles."""
    for task in ("classification", "segmentation", "detection"):
        yield f"step {task} bf16", partial(steps, task, model, room, "bf16")
        if task != "detection":
            yield f"step {task} bf16+graph", partial(steps, task, model, room, "bf16", graphs=True)
    for task, sizes in ANSWERED.items():
        for size in sizes:
            ways = WAYS if task == "classification" else (WAYS[0], WAYS[-1])
            for way in ways:
                yield f"predict {task} {way} at {size}", partial(answers, task, model, way, size)
    for form in FED:
        yield f"feed classification {form}", partial(fed, model, room, form)
    for precision in PRECISIONS[1:]:
        yield f"step classification {precision}", partial(steps, "classification", model, room, precision)
    yield "step classification bf16+shard-weights", partial(steps, "classification", model, room, "bf16", sharded=True)
    for task in ("classification", "segmentation"):
        yield f"step {task} bf16+compile", partial(steps, task, model, room, "bf16", compiled=True)
        yield f"step {task} bf16+compile+graph", partial(steps, task, model, room, "bf16", compiled=True, graphs=True)


def measured(run: Callable[[], Any], images: int, rounds: int) -> Row:
    """Images/s of each round, and the most memory of a run."""
    warm(run)
    times = [milliseconds(run) for _ in range(rounds)]
    return {"batch": images, "ms": times, "peak_mb": peak(run), "images_per_s": 1e3 * images / statistics.median(times)}


def answers(task: str, model: str, way: str, size: int) -> Made:
    """What `predict` does with images of the host, (H, W, 3) uint8 of one size, once they are read.

    To logits on the host of a classifier, to what is found of the others.
    """
    side = 64 if DRY else SIDE[task]
    named = {"images": 10_000, "image_px": side, "classes": 1000 if task == "classification" else 80}
    chosen = small(recipe(RECIPES[task], "atto" if DRY else model, **named), "bf16")
    place, row = torch.device(DEVICE), row_of(task)
    about = Trained(chosen, tuple(map(str, range(named["classes"]))), Path("none"), {}, {})
    network = row.build(chosen).to(place, memory_format=torch.channels_last).eval()
    found: Any = PREDICTORS[task](network, chosen, about.classes, place, about.source, about.metadata)
    images = np.random.default_rng(0).integers(0, 256, (size, side, side, 3), np.uint8)
    if way == "plain":
        found._network = network
    if way == "folded":
        found._network = found._folded  # without the recorded runs
    run = partial(asked, found, images) if task == "classification" else partial(found_in, found, images)
    if way.endswith("graph") and queued(place):
        run()
        run()
        recorded = found._network._look if task == "detection" else found._network
        if not any(isinstance(each, graphs.Graphed) for each in recorded._runs.values()):
            raise RuntimeError("nothing was recorded")
    return run, size


def asked(predictor: TrainedClassifier, images: NDArray[np.uint8]) -> Any:
    """(N, K) logits."""
    return predictor.logits(torch.from_numpy(images)).cpu()


def found_in(predictor: Any, images: NDArray[np.uint8]) -> Any:
    """The predictions of a detector or a segmenter, as many images at once as there are."""
    read = [
        predictor.read(given) for given in next(many_images(list(images), len(images), predictor.recipe.input, "rgb"))
    ]
    return list(predictor.answers(read))


def small(chosen: Recipe, precision: str) -> Recipe:
    """A recipe of a GPU; in a dry run one for a CPU."""
    fields: dict[str, Any] = {"precision": "fp32" if DRY else precision}
    if DRY:
        fields |= SMALL | (SMALL_HEADS if chosen.task == "detection" else {})
    return override(chosen, fields)


def steps(
    task: str,
    model: str,
    room: Path,
    precision: str,
    *,
    compiled: bool = False,
    graphs: bool = False,
    sharded: bool = False,
) -> Made:
    """One step of the engine after the other."""
    batch, side = 2 if DRY else BATCH[task], 48 if DRY else SIDE[task]
    folder = written(task, room / task, 2 * batch + 4, side)
    learning, update, chosen = opened(task, model, folder, precision, batch, compiled=compiled, graphs=graphs)
    if sharded:
        update = parts_of(update, learning, chosen)
    read = next(iter(learning.batches(range(1), ALONE)))
    return stepping(learning, update, chosen, batch, lambda: read), batch


def fed(model: str, room: Path, form: str) -> Made:
    """The same with every batch read from `form` as a run reads it, by as many processes as it takes of itself."""
    task = "classification"
    batch, side = 2 if DRY else BATCH[task], 2 * (48 if DRY else SIDE[task])  # larger than what is shown, as photos are
    folder = written(task, room / "photos", 8 * batch + 4, side)
    if form == "shards":
        write_shards(recognise(folder), room / "shards", per_shard=2 * batch)
        folder = room / "shards"
    learning, update, chosen = opened(task, model, folder, "bf16", batch, workers=0 if DRY else -1)
    batches = learning.batches(range(100_000), ALONE)
    return stepping(learning, update, chosen, batch, lambda: next(batches)), batch


def opened(
    task: str,
    model: str,
    folder: Path,
    precision: str,
    batch: int,
    *,
    compiled: bool = False,
    graphs: bool = False,
    workers: int = 0,
) -> tuple[Any, Update, Recipe]:
    """A run of a task on the images of `folder`, before its first step."""
    data = splits_of(recognise(folder), val_share=0.2, seed=0)
    side = 48 if DRY else SIDE[task]
    named = {"images": 2 * batch, "image_px": side, "classes": len(data.train.classes), "batch": batch}
    chosen = small(recipe(RECIPES[task], "atto" if DRY else model, **named), precision)
    how: dict[str, Any] = {"device": DEVICE, "workers": workers, "cache": "off", "kernels": "plain"}
    how |= {"compile": compiled and not DRY, "cuda_graphs": graphs and not DRY}
    options = RunOptions(out=str(folder.parent / "run"), **how)
    row = row_of(task)
    learning = row.task(row.build(chosen), chosen, options, data)
    return learning, update_of(learning, chosen, options, device=torch.device(DEVICE), world=ALONE), chosen


def stepping(learning: Any, update: Update, chosen: Recipe, batch: int, read: Callable[[], Any]) -> Callable[[], None]:
    """Takes the next step with what `read` gives."""
    place = torch.device(DEVICE)
    numbers, last = count(), learning.steps_per_epoch - 1

    def step() -> None:
        how: dict[str, Any] = {"device": place, "world": ALONE, "micro": batch}
        with float32_of(chosen.precision, capability_of(place)):
            learn(learning, update, chosen, min(next(numbers), last), read(), **how)

    return step


def parts_of(update: Update, learning: Any, chosen: Recipe) -> Update:
    """The same with the weights in parts, all of them of this process."""
    if not dist.is_initialized():
        store = dist.HashStore()
        dist.init_process_group("nccl" if DEVICE == "cuda" else "gloo", store=store, rank=0, world_size=1)
    sharding = Sharding(learning.model, compiled=False)
    optimizers = Optimizers(learning.model, chosen.optim)
    return Update(learning.model, chosen, optimizers, None, learning.loss, update.slots, 1, sharding)


def written(task: str, folder: Path, images: int, side: int) -> Path:
    """So many images of noise with a square in each: class folders, COCO's file or masks."""
    if folder.exists():
        return folder
    rng = np.random.default_rng(0)
    rows: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": []}
    corner = side // 4
    box = [corner, corner, 2 * corner, 2 * corner]
    outline = [corner, corner, 3 * corner, corner, 3 * corner, 3 * corner, corner, 3 * corner]
    for number in range(images):
        pixels = rng.integers(0, 80, (side, side, 3), np.uint8)
        pixels[corner : 3 * corner, corner : 3 * corner] += 100
        name = f"{number:04d}.jpg" if task == "classification" else f"{number:04d}.png"
        place = {"classification": f"{number % 2}", "detection": ".", "segmentation": "images"}[task]
        (folder / place).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / place / name)
        if task == "segmentation":
            mask = np.zeros((side, side), np.uint8)
            mask[corner : 3 * corner, corner : 3 * corner] = 1
            (folder / "labels").mkdir(exist_ok=True)
            Image.fromarray(mask).save(folder / "labels" / name)
        rows["images"].append({"id": number + 1, "file_name": name, "width": side, "height": side})
        about = {"id": number + 1, "image_id": number + 1, "category_id": 1, "iscrowd": 0, "area": 4 * corner**2}
        rows["annotations"].append({**about, "bbox": box, "segmentation": [outline]})
    if task == "detection":
        (folder / "objects.json").write_text(json.dumps({**rows, "categories": [{"id": 1, "name": "square"}]}))
    return folder
