"""`convnext export RUN --to web`: the page, the network and what runs it, in one folder.

Axes: N images, H W pixel rows and columns, C channels.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from convnext import __version__
from convnext.config import ClassificationRecipe, Recipe, parse
from convnext.data.store import printable
from convnext.deploy.export.run import Done, export
from convnext.deploy.export.web.runtime import FILES, LICENCE, PACKAGE, VERSION, runtime_files
from convnext.deploy.exported.opened import open_exported
from convnext.deploy.forms.asked import WEB, Options, form_for, refuse_task
from convnext.deploy.page import SHARED, content, page, shared
from convnext.deploy.trained.checkpoint import read_trained
from convnext.drawing.palette import colour_of
from convnext.errors import ConvNeXtError
from convnext.files import appearing, refuse_unusable, to_json, told
from convnext.tasks.classification.decision import Decision

_MODEL = "model.onnx"
_OWN = ("web.js", "worker.js", "pixels.js", "answer.js")
_ABOUT = "network.json"
_PAGE = "index.html"
_ALL = {_PAGE, _ABOUT, _MODEL, *_OWN, *SHARED, *FILES}
_POLICY = (  # what the page, and the worker that it starts, may load and ask: the place that it came from, and nobody else
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; connect-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; media-src 'self' blob:; base-uri 'none'; form-action 'none'"
)
_FIELDS = {
    "root": "./",
    "script": "web.js",
    "head": f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
    + "".join(f'<link rel="modulepreload" href="{name}">\n' for name in ("cards.js", "drawn.js")),
    "where": "They stay on this device: the network runs here, in the browser.",
    "without": "",
    "unopened": '<span class="late">Browsers run no such page from a file. In its folder type '
    "<code>python -m http.server</code> and open http://localhost:8000.</span>",
    "foot": f"Written by convnext {__version__}; the network runs on {PACKAGE} {VERSION}. Once loaded, it asks nobody.",
}


def export_web(
    run: str | Path,
    out: str | Path | None = None,
    options: Options | None = None,
    runtime: str | Path | None = None,
) -> Done:
    """Write a classifier as the folder `out`, RUN/web by default, that any web server serves; its browser answers.

    `options` are those of `export`; `runtime` is a folder with the files of onnxruntime-web, by default npm's. A folder of
    an earlier export is replaced. Raises ConvNeXtError for a network that does not see images as browsers decode them,
    where files of others are in `out`, and what `runtime_files` and `export` raise; `out` is then untouched.
    """
    options = options or Options()
    form_for(WEB, options).require(WEB, int8=bool(options.int8))  # before npm is asked
    path = _place(run, out)
    _require_images(run, options)
    files = runtime_files(runtime)
    with told(path), appearing(path) as made:
        made.mkdir()
        done = export(run, WEB, made / _MODEL, options)
        files |= {name: shared(name).encode() for name in SHARED}
        files |= {name: content(__package__, name).encode() for name in _OWN}
        about = _about(made / _MODEL, _name(run), done.precision)
        files |= {_ABOUT: to_json(about).encode(), _PAGE: page(_FIELDS).encode()}
        for name, data in files.items():
            (made / name).write_bytes(data)
        size_mb = sum(file.stat().st_size for file in made.iterdir()) / 1e6
        if path.exists():  # an earlier one
            os.replace(path, made.parent / "earlier")
    note = f"any web server serves it: python -m http.server --directory '{path}', then http://localhost:8000"
    return replace(done, out=path, form=WEB, megabytes=size_mb, notes=(*done.notes, note))


def _place(run: str | Path, out: str | Path | None) -> Path:
    """Where the folder goes. Raises ConvNeXtError where files of others are."""
    folder = Path(run) if Path(run).is_dir() else Path(run).parent
    path = Path(out) if out is not None else folder / WEB
    refuse_unusable(path, folder=True)
    others = sorted(set(os.listdir(path)) - _ALL) if path.is_dir() else []
    if others:
        raise ConvNeXtError(
            f"'{path}' holds '{printable(others[0])}', which is none of this export. Name a new folder."
        )
    return path


def _require_images(run: str | Path, options: Options) -> None:
    """Raise ConvNeXtError for another task than classification, and for bands, which no browser decodes."""
    trained = read_trained(run, options.weights)
    recipe = trained.recipe
    refuse_task(recipe.task, run, WEB, options)
    assert isinstance(recipe, ClassificationRecipe)
    if recipe.input.bands or len(recipe.input.mean) not in (1, 3):
        raise ConvNeXtError(
            f"'{run}' reads bands of files, which no browser decodes, and --to {WEB} is for greys and colours. "
            "`convnext serve` answers for it."
        )


def _name(run: str | Path) -> str:
    """What the network is called: as its run."""
    place = Path(run).resolve()
    return printable((place if place.is_dir() else place.parent).name)


def _about(model: Path, name: str, precision: str) -> dict[str, Any]:
    """What the page and the worker need to know, from what travels in the exported file."""
    described = open_exported(model).description
    recipe: ClassificationRecipe = parse(Recipe, described["recipe"] | {"precision": "fp32"}, where=f"'{model}'")
    config, decision = recipe.input, Decision.of(described, model)
    warp = config.eval_resize == "warp"
    classes = [printable(each) for each in described["classes"]]
    return {
        "name": name,
        "precision": precision,
        "task": recipe.task,
        "classes": classes,
        "colours": ["#{:02x}{:02x}{:02x}".format(*colour_of(number)) for number in range(len(classes))],
        "explains": False,
        "several": recipe.labels == "multi",
        "promised": decision.promise is not None,
        "sets": decision.sets.to_dict() if decision.sets else None,
        "channels": len(config.mean),
        "warp": warp,
        "size_px": config.eval_size_px,
        "shorter_px": None if warp else int(config.eval_size_px / config.eval_crop),
        "written_by": f"convnext {__version__}",
        "runtime": {"package": PACKAGE, "version": VERSION, "licence": LICENCE},
    }
