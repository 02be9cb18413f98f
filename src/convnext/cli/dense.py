"""What the verbs do with boxes, masks and label maps, after they have read their arguments."""

import argparse
import json
import os
from pathlib import Path
from typing import Any

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
    from convnext.reports.text import dense_text

    ways: dict[str, Any] = {"multi_scale": True} if args.multi_scale else {}
    result = predictor.evaluate(
        args.data, args.part, images=args.images, form=args.form, workers=args.workers, progress=not args.json, **ways
    ).to_dict()
    print(json.dumps(result) if args.json else dense_text(result))
