"""The front door: what `import convnext` offers and each verb of the command line stands on.

What needs torch is imported when it is called, so that exported files answer where torch is not installed.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Unpack

from convnext import recipes
from convnext.config import Recipe
from convnext.data.source import Annotations
from convnext.deploy.finished import Run
from convnext.deploy.images import ChannelOrder, ManyImages, OneImage
from convnext.deploy.load import Source, load
from convnext.deploy.output import refuse_among
from convnext.deploy.prediction import Prediction
from convnext.errors import ConvNeXtError
from convnext.tasks.result import Evaluation

if TYPE_CHECKING:
    import torch
    from torch import nn

    from convnext.deploy.embed import Embedded, Reading
    from convnext.deploy.export.run import Done as Exported
    from convnext.models.network import Network
    from convnext.studies.similar.search import Similar
    from convnext.tasks.train import Done

_DENSE = ("detection", "segmentation")
_TOLD = {"form": _DENSE, "colours": ("segmentation",)}  # argument -> the tasks that know it; `images` is for all
_TOLD |= dict.fromkeys(("promise", "sets", "keep", "label_column", "path_column"), ("classification",))
__all__ = ["Run", "create", "embed", "evaluate", "export", "load", "optimize", "predict", "recipe", "similar", "train"]


def create(
    name: str | None = None,
    *,
    classes: int | None = None,
    in_channels: int | None = None,
    weights: Source | None = None,
    drop_path: float = 0.0,
    info: Callable[[str], None] | None = None,
    **fields: Any,
) -> "Network":
    """The network called `name` ('tiny', 'v2_atto', 'iso_small', 'timm:resnet18'), with `weights` loaded when given.

    `weights` is a file, a folder, 'hub:OWNER/NAME', 'timm:NAME.TAG', or a run: of the same network, its classes and fields
    are taken over where they are not given. Else `classes` are 1000 and `in_channels` 3. Without a name the network is
    that of the weights. `fields` are any others of ConvNeXtConfig, e.g. stem="overlap". What was adapted on loading goes
    to `info`, by default the standard error. Raises ConvNeXtError for an unknown name or field, CheckpointError for
    weights that cannot be read or do not fit.
    """
    from convnext.models import create as networks

    source = None if weights is None else os.fspath(weights)
    given: dict[str, Any] = {"classes": classes, "in_channels": in_channels, "drop_path": drop_path}
    told: dict[str, Any] = {} if info is None else {"info": info}
    return networks.create(name, weights=source, **given, **told, **fields)


def train(
    data: str | Path,
    *,
    model: str | None = None,
    recipe: str | Recipe | None = None,
    weights: Source | None = None,
    out: str | Path | None = None,
    epochs: float | None = None,
    minutes: float | None = None,
    balance: Literal["auto", "none", "sampler", "weights", "logits"] = "auto",
    metric: str | None = None,
    overrides: Mapping[str, object] = MappingProxyType({}),
    val_share: float = 0.2,
    seed: int = 0,
    device: str = "auto",
    workers: int = -1,
    progress: bool = True,
    images: str | Path | None = None,
    form: Annotations | None = None,
    colours: str | Path | None = None,
    bands: Sequence[str | int] = (),
    labels: Literal["single", "multi"] | None = None,
    label_column: str | None = None,
    path_column: str | None = None,
    group_column: str | None = None,
    corrections: str | Path | None = None,
    promise: float | None = None,
    sets: float | None = None,
) -> Run:
    """Train a classifier, a detector or a segmenter, by what `data` are, and evaluate its best weights.

    `model`: the network or backbone (that of `weights`, else 'atto'); `recipe`: a name, by default 'transfer' for a
    classifier with `weights` and else the small one of the task, or a value, whose network and seed stay; `weights`: a run,
    a folder, a file or 'hub:OWNER/NAME' to start from; `out`: the run's folder (runs/<data>_<model>), where the same call
    goes on with what stopped; `epochs`: short for 'schedule.epochs'; `minutes`: fit the recipe to end in so many, with fewer
    epochs, then smaller images; `balance`: what makes up for uneven classes, `metric`: the figure that chooses the
    best weights, `labels`: one or several an image, all by the data; `overrides`: dotted fields, e.g. {"optim.lr": 1e-3};
    `bands`: channels in order, numbers in a file from 1 or ends of names (all). Of annotations and tables, `images`: the
    folder or zip of their images, if not beside them; of annotations `form`, if not recognised; `colours`: a file of the
    classes and their colours in the masks. Of a table, `label_column`, `path_column`: which columns are meant (guessed);
    `group_column`: what images have in common, such as a patient, that keeps them in one part. `corrections`: a table such
    as audit.csv, whose images are left out or get the class of its column label. Of a classifier, `promise`: the share of
    its answers that shall be right, measured on the test part or else on the held-out images; `sets`: the share of its sets
    of classes that shall hold the right one. Raises ConvNeXtError for what the caller can mend.
    """
    from convnext.reports.predictions import watching
    from convnext.tasks import train as tasks
    from convnext.tasks.arguments import requested

    how: dict[str, Any] = {"model": model, "recipe": recipe, "weights": weights, "out": out, "epochs": epochs}
    how |= {"minutes": minutes, "balance": balance, "metric": metric, "overrides": overrides, "val_share": val_share}
    how |= {"seed": seed, "device": device, "workers": workers, "progress": progress, "images": images, "form": form}
    how |= {"colours": colours, "bands": bands, "labels": labels, "corrections": corrections}
    how |= {"label_column": label_column, "path_column": path_column, "group_column": group_column}
    request, options = requested(data, **how, promise=promise, sets=sets)
    refuse_among(options.out, [data] if images is None else [data, images])
    return concluded(tasks.train(request, options, watch=watching))


def concluded(done: "Done") -> Run:
    """A run that the tasks have trained and evaluated, with its report and its card."""
    from convnext.deploy.push.run_card import write_run_card
    from convnext.studies.explain.report import write_run_page

    page = write_run_page(done.out, done.task, done.splits.val)
    write_run_card(done.out)
    return Run(done.out, done.finished.step, done.evaluation.scores, done.evaluation, page)


def evaluate(
    run: Source,
    data: str | Path,
    part: str | None = None,
    *,
    weights: str = "best",
    device: str = "auto",
    workers: int = 0,
    progress: bool = False,
    images: str | Path | None = None,
    form: Annotations | None = None,
    colours: str | Path | None = None,
    label_column: str | None = None,
    path_column: str | None = None,
    promise: float | None = None,
    sets: float | None = None,
    keep: bool = False,
) -> Evaluation:
    """The scores of a run on labelled images, as `Predictor.evaluate` gives them; `images`, `form`, `colours`: as `train`.

    `label_column`, `path_column`: as `train`, of a table with others than the run's own, which it knows.

    `promise` and `sets` are measured on these images; with `keep` the run holds them, for predictors and exports. Raises
    ConvNeXtError for one of these that says nothing about the run's task.
    """
    predictor = load(run, weights=weights, device=device)
    task = predictor.recipe.task
    given = {"images": images, "form": form, "colours": colours, "promise": promise, "sets": sets, "keep": keep or None}
    given |= {"label_column": label_column, "path_column": path_column}
    told: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    for name in told:
        if task not in _TOLD.get(name, (task,)):
            raise ConvNeXtError(
                f"{name} = '{told[name]}' is for {' and '.join(_TOLD[name])}; '{os.fspath(run)}' is for {task}."
            )
    return predictor.evaluate(data, part, workers=workers, progress=progress, **told)


def predict(
    run: Source,
    images: ManyImages,
    *,
    top: int | None = None,
    weights: str = "best",
    device: str = "auto",
    channel_order: ChannelOrder = "rgb",
    workers: int = 0,
    skipped: dict[str, str] | None = None,
) -> Iterator[Prediction]:
    """What a run says of many images, one after the other, as `Predictor.predict` does."""
    predictor = load(run, weights=weights, device=device)
    return predictor.predict(images, top=top, channel_order=channel_order, workers=workers, skipped=skipped)


def embed(
    run: Source, images: str | Path | Sequence[str | Path], out: str | Path, **how: "Unpack[Reading]"
) -> "Embedded":
    """Write the features of many images into `out`, a new .npz (`features`, `paths`) or .parquet.

    `run`: a run, a checkpoint, or weights of any family; `images`: files, folders, globs or zips. Memory holds a block of
    features and the paths. Raises ConvNeXtError where nothing can be read, or `out` cannot be written.
    """
    from convnext.deploy import embed as embedding

    return embedding.embed(run, images, out, **how)


def similar(
    run: Source,
    query: OneImage,
    images: str | Path | Sequence[str | Path],
    *,
    top: int = 10,
    out: str | Path | None = None,
    **how: "Unpack[Reading]",
) -> "Similar":
    """The `top` images nearest to `query` by the cosine of their features, found by exact search; `out`: a page of them.

    `images` are those of `embed`, and files that it wrote by the same `run`. Raises ConvNeXtError for features by another
    run, DataError for a query that cannot be read.
    """
    from convnext.studies.similar import page

    return page.similar(run, query, images, top=top, out=out, **how)


def export(
    run: Source,
    to: Literal["onnx", "openvino", "convnext", "torch", "web"],
    out: str | Path | None = None,
    *,
    weights: str = "best",
    half: bool = False,
    int8: str | None = None,
    calibrate: int = 300,
    max_loss: float = 0.5,
    compare_on: str | Path | None = None,
    backend: Literal["auto", "onnxruntime", "openvino", "torch"] = "auto",
    workers: int = -1,
    runtime: str | Path | None = None,
) -> "Exported":
    """Write a network as a file that runs elsewhere, a detector as ONNX or for OpenVINO; compare both on images.

    It is RUN/model.onnx and so on unless `out` names another.

    The file takes decoded images of any size and number. `half`: weights in 16 bits; `int8`: labelled data to calibrate
    on with `calibrate` images and to judge on, where it may cost `max_loss` points of top-1; `compare_on`: images on which
    both networks are compared; `backend`: the runtime of the file on this machine. 'convnext' is a file for the CPU kernels
    of this package. 'web' writes a folder, RUN/web, whose
    page answers in the browser; `runtime`: a folder that holds onnxruntime-web, by default npm brings it. Raises
    ConvNeXtError where the packages are missing, the network cannot be traced, or the answers differ; nothing is written
    then.
    """
    from convnext.deploy.forms import asked

    options = asked.Options(
        weights=weights,
        backend=backend,
        half=half,
        int8=int8,
        calibrate=calibrate,
        max_loss=max_loss,
        compare_on=None if compare_on is None else str(compare_on),
        workers=workers,
    )
    place = os.fspath(run)
    asked.form_for(to, options)
    asked.refuse_task(asked.task_of(place), place, to, options)  # before the seconds of torch
    from convnext.deploy.export import run as exporting
    from convnext.deploy.export.web.folder import export_web

    if to == asked.WEB:
        return export_web(place, out, options, runtime)
    if runtime is not None:
        raise ConvNeXtError(f"runtime = '{runtime}' is for to = 'web'. Leave it out.")
    return exporting.export(place, to, out, options)


def optimize(
    model: "nn.Module",
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    matmul_dtype: "torch.dtype | None" = None,
    info: Callable[[str], None] | None = None,
) -> "Network":
    """A new network that answers as `model` in evaluation mode does, in fewer operations; `model` stays as it is.

    With `mean` and `std`, one value per channel, it takes images that are not yet normalised, in the scale of these
    values. `matmul_dtype`: torch.bfloat16 lets the blocks' matmuls take bf16 values in the compiled kernels, where this
    processor multiplies them faster. What is left unfolded is told to `info`, by default the standard error. Raises
    ConvNeXtError for a network that is not of this package.
    """
    from convnext.deploy import optimize as folding

    told: dict[str, Any] = {} if info is None else {"info": info}
    return folding.optimize(model, mean=mean, std=std, matmul_dtype=matmul_dtype, **told)


def recipe(
    name: str,
    model: str = "atto",
    *,
    images: int = 1000,
    image_px: int = 224,
    classes: int = 1000,
    batch: int | None = None,
    in_channels: int = 3,
    seed: int = 0,
) -> Recipe:
    """Recipe `name` for network `model`, fitted to data of `images` training images of about `image_px` a side.

    Raises ConvNeXtError for an unknown recipe or network, with the nearest valid name.
    """
    about: dict[str, Any] = {"images": images, "image_px": image_px, "classes": classes}
    return recipes.recipe(name, model, **about, batch=batch, in_channels=in_channels, seed=seed)
