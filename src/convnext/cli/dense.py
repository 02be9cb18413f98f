"""What the verbs do with boxes, masks and label maps, after they have read their arguments."""

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convnext.cli.drawn import Folder
from convnext.config import RunOptions


def train(args: argparse.Namespace, source: Any, changes: dict[str, Any], options: RunOptions) -> None:
    """A detector or a segmenter, and what it scores on the held-out images."""
    from convnext.data.opening import recognise
    from convnext.engine.records import info
    from convnext.reports.dense import write_dense_report
    from convnext.reports.text import figures, scores_text
    from convnext.tasks.train_dense import DenseRequest, train_dense

    val = recognise(args.val, args.val_images or args.images, form=args.form, annotated=True) if args.val else None
    request = DenseRequest(
        data=source,
        val=val,
        recipe=args.recipe,
        model=args.model,
        weights=args.weights,
        channels=args.channels,
        image_px=args.size,
        val_share=args.val_share,
        seed=args.seed,
        changes=changes,
    )
    finished, splits, result = train_dense(request, options)
    if int(os.environ.get("RANK", "0")):
        return
    out, page = options.out, write_dense_report(Path(options.out), splits.val)
    if args.json:
        about = {name: result[name] for name in ("task", "n", "weights")}
        print(json.dumps({"run": out, "report": str(page), "step": finished.step, **figures(result), **about}))
    else:
        print(f"{scores_text(result)} on {result['n']:,} held-out images: {out}")
        info(f"The report: {page}")


def evaluate(args: argparse.Namespace, predictor: Any) -> None:
    """Score annotated images and print what `evaluation.json` of a run holds."""
    from convnext.data.annotated_preflight import preflight_dense
    from convnext.data.opening import recognise
    from convnext.deploy.trained import answering
    from convnext.engine.records import info
    from convnext.reports.text import dense_text
    from convnext.tasks.dense_scoring import open_scored
    from convnext.tasks.train_dense import TASKS

    recipe, metadata = predictor.recipe, predictor.metadata
    source = recognise(args.data, args.images, form=args.form, annotated=True)
    dataset = open_scored(source, recipe, metadata, part=args.part)
    for line in preflight_dense(dataset, workers=max(0, args.workers)).lines:
        info(line)
    ways: dict[str, Any] = {"multi_scale": True} if args.multi_scale else {}
    skipped: dict[str, str] = {}
    with answering(recipe, predictor.device):
        result = TASKS[recipe.task].report(
            predictor.model, dataset, recipe, workers=args.workers, skipped=skipped, progress=not args.json, **ways
        )
    result |= {"skipped": skipped, "weights": metadata.get("weights", "raw"), **ways}
    result.pop("details", None)  # what only the page of a run needs
    print(json.dumps(result) if args.json else dense_text(result))


@dataclass(frozen=True)
class Answer:
    """What is printed about one image: a line of text, and as JSON."""

    path: str
    text: str
    rows: list[dict[str, Any]]


def detect(args: argparse.Namespace, predictor: Any, images: Any, skipped: dict[str, str]) -> Iterator[Answer]:
    """The objects of each image, as JSON in COCO's form of results; drawn where a folder is named."""
    from PIL import Image

    from convnext.data.decode import decode
    from convnext.deploy.detector import SHOWN
    from convnext.drawing.overlay import colours_of, draw_objects, names_of

    paths = [entry.path for entry in images.entries]
    folder = Folder.planned(args.out, args.paths, paths, [".jpg"])
    score = SHOWN if args.score is None else args.score
    for found in predictor.predict(images, score=score, workers=args.workers, skipped=skipped):
        found = found.first(args.top or len(found))
        labels = found.labels.tolist()
        names = names_of(labels, found.scores.tolist(), predictor.classes)
        if folder:
            place = found.image_id - 1
            image = decode(images.store.read(paths[place]))
            back = slice(None, None, -1)  # the best comes last, on top of the others
            colours, masks = colours_of(labels, predictor.classes), found.masks or ()
            drawn = draw_objects(image, found.boxes[back], colours[back], names[back], masks[back])
            folder.draw(place, ".jpg", Image.fromarray(drawn))
        boxes = (" ".join(str(round(edge)) for edge in box) for box in found.boxes.tolist())
        objects = (f"{name} ({box})" for name, box in zip(names, boxes, strict=True))
        yield Answer(found.path, ", ".join(objects) or "nothing", predictor.rows(found))


def segment(args: argparse.Namespace, predictor: Any, images: Any, skipped: dict[str, str]) -> Iterator[Answer]:
    """The share of each image's pixels that a class has; index masks and overlays where a folder is named."""
    import numpy as np
    from PIL import Image

    from convnext.data.decode import decode
    from convnext.data.sample import IGNORE
    from convnext.drawing.overlay import draw_map
    from convnext.drawing.palette import colour_of

    classes = predictor.classes
    paths = [entry.path for entry in images.entries]
    folder = Folder.planned(args.out, args.paths, paths, [".png", "_overlay.jpg"], "classes.json")
    names = json.dumps({"classes": list(classes), "ignore_index": IGNORE})
    palette = [part for number in range(256) for part in colour_of(number)]
    for found in predictor.predict(images, multi_scale=args.multi_scale, skipped=skipped):
        counts = np.bincount(found.labels.ravel(), minlength=len(classes))
        order = [int(label) for label in np.argsort(-counts, kind="stable") if counts[label]]
        shares = [(classes[label], float(counts[label] / found.labels.size)) for label in order[: args.top]]
        row: dict[str, Any] = {"path": found.path, "shares": [{"label": name, "share": part} for name, part in shares]}
        if folder:
            place = found.image_id - 1
            mask = Image.fromarray(found.labels)
            mask.putpalette(palette)  # numbers as before, and colours for those who look at it
            overlay = draw_map(decode(images.store.read(paths[place])), found.labels, classes)
            row["mask"] = folder.draw(place, ".png", mask)
            folder.draw(place, "_overlay.jpg", Image.fromarray(overlay))
            folder.write_once("classes.json", names.encode())
        yield Answer(found.path, ", ".join(f"{name} {part:.1%}" for name, part in shares), [row])
