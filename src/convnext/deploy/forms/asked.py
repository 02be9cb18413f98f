"""What export is asked for, and whether it fits together: known before torch is loaded."""

from dataclasses import dataclass
from pathlib import Path

from convnext.deploy.forms import table
from convnext.errors import ConvNeXtError, nearest
from convnext.files import from_json
from convnext.integrity import read_header

WEB = "web"  # a folder around a file of one of the forms
_INSIDE = "onnx"  # that form


@dataclass(frozen=True)
class Options:
    """What `export` is asked for beside run, form and place."""

    weights: str = "best"
    backend: str = "auto"
    half: bool = False
    int8: str | None = None  # data to calibrate and to judge on
    calibrate: int = 300  # images
    max_loss: float = 0.5  # points of top-1, of several labels of mean average precision
    compare_on: str | None = None  # images; None: fixed noise
    workers: int = -1


def form_for(to: str, options: Options) -> table.Form:
    """The form called `to`, of WEB that of its file. Raises ConvNeXtError for options that do not fit together."""
    name = _INSIDE if to == WEB else to
    form = next((form for form in table.FORMS if form.name == name), None)
    if form is None:
        *others, last = names = (*table.names(), WEB)
        raise ConvNeXtError(f"There is no form '{to}': {', '.join(others)} or {last}.{nearest(to, names)}")
    if options.int8 and (options.half or not form.quantizer):
        raise _refused("int8", "--half" if form.quantizer else f"--to {to}", "quantizer")
    if options.half and not form.half:
        raise _refused("half", f"--to {to}", "half")
    wrong = not form.opener and options.backend != "auto"
    if wrong or (options.int8 and options.backend not in ("auto", form.backend)):
        raise ConvNeXtError(f"--backend {options.backend} does not go with --to {to}. Leave it out.")
    if not 0 <= options.max_loss <= 100:
        raise ConvNeXtError(f"--max-loss {options.max_loss:g} must be from 0 to 100 points.")
    return form


def refuse_task(task: str, source: str | Path, to: str, options: Options) -> None:
    """Raise ConvNeXtError where `source`, a network for `task` ('' if unknown), is not exported to the form `to` or in int8."""
    if task in ("", "classification"):
        return
    what = "detector" if task == "detection" else "segmenter"
    if to == WEB:
        raise ConvNeXtError(
            f"'{source}' is for {task}, and --to {WEB} is for classifiers. `convnext serve` has a page for it."
        )
    if options.int8:
        raise ConvNeXtError(
            f"--int8 is judged by top-1 or mean average precision, and '{source}' is a {what}. Leave it out."
        )
    able = [f"--to {form.name}" for form in table.FORMS if form.detector]
    if task == "detection" and f"--to {to}" not in able:
        raise ConvNeXtError(f"--to {to} is not for detectors, and '{source}' is one. Take {' or '.join(able)}.")


def task_of(run: str | Path) -> str:
    """What a run or one of its checkpoints was trained for, as it says itself; '' where it does not."""
    path = Path(run)
    try:
        if path.is_dir():
            recipe = from_json((path / "recipe.json").read_text("utf-8"))
        else:
            recipe = from_json(read_header(path).metadata["metadata"])["recipe"]
        return str(recipe["task"])
    except (OSError, ValueError, KeyError, TypeError, ConvNeXtError):
        return ""  # whoever loads it says what is wrong


def _refused(option: str, other: str, column: str) -> ConvNeXtError:
    """What to say of an option that does not go with another; `column` of the table says which forms have it."""
    able = ", ".join(f"--to {form.name}" for form in table.FORMS[::-1] if getattr(form, column))
    return ConvNeXtError(f"--{option} does not go with {other}. It is for {able}.")
