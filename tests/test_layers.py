"""The shape of the code: imports follow the arrows of CONTRIBUTING, torch stays out of `--help`, every file says what it is."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import convnext

SRC = Path(convnext.__file__).parent
FILES = sorted(SRC.rglob("*.py"))
BELOW: dict[str, set[str]] = {"errors": set()}
BELOW |= {
    name: {"errors"} for name in ("cores", "extras", "files", "processes", "streams")
}  # siblings, for every layer to use
BELOW |= {name: {*BELOW} for name in ("integrity", "ranks")}
BELOW |= {"config": {*BELOW}}
BELOW |= {"recipes": {*BELOW}}
BELOW |= {"kernels": {*BELOW}}
SIDE = {*BELOW}  # siblings: none of these three imports another
BELOW |= {"models": SIDE, "data": SIDE, "engine": SIDE}
BELOW |= {"tasks": SIDE | {"models", "data", "engine"}}
BELOW |= {"drawing": {"errors", "data"}}  # NumPy and Pillow, no torch
BELOW |= {"deploy": {*BELOW}, "reports": {*BELOW}}  # siblings
BELOW |= {"studies": {*BELOW}}
BELOW |= {"api": {*BELOW}}
BELOW |= {"cli": {*BELOW}, "__main__": {"cli"}}  # who may import whom
ASIDE = {"drawing": "deploy"}  # a layer outside the row -> the first of the row that may import it
TORCHLESS = (
    "__init__",
    "__main__",
    "cli",
    "config",
    "cores",
    "errors",
    "extras",
    "files",
    "integrity",
    "processes",
    "ranks",
    "recipes",
    "streams",
)
HEAVY = ("torch", "torchvision", "timm", "numpy", "PIL")


def name_of(file: Path) -> str:
    return str(file.relative_to(SRC))


def layer_of(file: Path) -> str:
    return file.relative_to(SRC).with_suffix("").parts[0]


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything that is imported, anywhere in a file; also `import_module("...")`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: a relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "import_module":
            yield from ((node.lineno, str(word.value)) for word in node.args if isinstance(word, ast.Constant))


def at_import(tree: ast.Module) -> list[tuple[int, str]]:
    """What is imported when the file is: everything outside functions."""

    class WithoutFunctions(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
            return None

    return list(imports(WithoutFunctions().visit(tree)))


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_imports_follow_the_arrows(file):
    layer = layer_of(file)
    if layer == "__init__":
        return  # the public names, loaded on first use: see below
    wrong = []
    for line, name in imports(ast.parse(file.read_text("utf-8"))):
        package, _, inside = name.partition(".")
        there = inside.partition(".")[0]
        if package == "convnext" and there != "__version__" and there not in BELOW[layer] | {layer}:
            wrong.append(f"line {line}: {layer} -> {there}")
    assert not wrong


def test_the_arrows_are_those_of_contributing():
    page = SRC.parents[1] / "CONTRIBUTING.md"
    drawn = re.search(r"`(errors -> [^`]*)`", page.read_text("utf-8"))
    assert drawn
    layers = [set(re.findall(r"\w+", step)) for step in drawn[1].split("->")]
    below: set[str] = set()
    for step in layers:
        below |= {layer for layer, first in ASIDE.items() if first in step}
        assert all(BELOW[layer] == below for layer in step)
        below |= step
    assert {*below, "__main__"} == {*BELOW}


def test_drawing_loads_no_torch():
    names = ", ".join(
        f"convnext.drawing.{file.stem}" for file in (SRC / "drawing").glob("*.py") if file.stem != "__init__"
    )
    code = f"import sys, {names}; sys.exit(bool({{'torch', 'torchvision', 'timm', 'rich'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_layer_is_drawn():
    assert {layer_of(file) for file in FILES} == {*BELOW, "__init__"}


@pytest.mark.parametrize("file", [file for file in FILES if layer_of(file) in TORCHLESS], ids=name_of)
def test_nothing_heavy_is_imported_below_the_networks(file):
    names = {name.split(".")[0] for _, name in at_import(ast.parse(file.read_text("utf-8")))}
    assert names.isdisjoint(HEAVY)


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["train", "--help"], ["export", "--help"], ["--version"], ["train", "x", "--optim.lrr", "1"], []],
)
def test_help_and_a_wrong_option_answer_without_torch(arguments):
    code = (
        "import sys\nfrom convnext.cli import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit: pass\n"
        f"sys.exit(bool(set({HEAVY}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout + done.stderr


def test_importing_the_package_loads_nothing_and_every_public_name_is_there():
    code = f"import sys, convnext; sys.exit(bool(set({HEAVY}) & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert all(getattr(convnext, name) is not None for name in convnext.__all__)
    assert set(convnext.__all__) <= set(dir(convnext))
    with pytest.raises(AttributeError, match="no attribute 'creat'"):
        _ = convnext.creat


def test_one_image_waits_for_no_form_of_data_no_recipe_and_no_progress_bar():
    code = "import sys, convnext.deploy.load, convnext.deploy.exported.classifier\n"
    unneeded = ("convnext.data.formats", "convnext.data.opening", "convnext.recipes", "rich", "filelock", "torch")
    code += f"sys.exit(', '.join(set({unneeded}) & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_a_file_says_what_it_is_and_is_not_long(file):
    text = file.read_text("utf-8")
    assert ast.get_docstring(ast.parse(text))
    assert text.count("\n") <= 320


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_public_functions_and_classes_have_docstrings(file):
    silent = [
        node.name
        for node in ast.parse(file.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_" and not ast.get_docstring(node)
        if not any(isinstance(sign, ast.Name) and sign.id == "overload" for sign in node.decorator_list)
    ]
    assert not silent


@pytest.mark.parametrize(("call", "home"), [("json.dumps", "files.py"), ("print", "cli/printing.py")])
def test_json_and_lines_for_people_are_written_in_one_place(call, home):
    wrong = [
        f"{name_of(file)}:{node.lineno}"
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == call and file != SRC / home
    ]
    assert not wrong  # `to_json` writes no NaN, `show` no escape codes


def test_names_say_what_is_inside():
    names = {part for file in FILES for part in file.relative_to(SRC).with_suffix("").parts}
    assert names.isdisjoint({"utils", "util", "helpers", "helper", "common", "misc"})
