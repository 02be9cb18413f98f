"""What README and pages show is true: every command is understood, every Python line runs, every listed file is written."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from PIL import Image

import convnext
from commands import trained
from convnext.cli import VERBS
from convnext.cli.options import fields_apart, parser_of
from convnext.cli.train import check
from convnext.models.create import create
from convnext.recipes.listing import recipe_fields, recipes, shown_recipe
from images import write_colours

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
DOCS = {page: page.read_text("utf-8") for page in sorted((ROOT / "docs").rglob("*.md"))}
PAGES = [README, *DOCS.values()]
WRITTEN = set(re.findall(r'"(\w+\.md)":', (ROOT / "docs/make/__main__.py").read_text("utf-8")))


def blocks(language: str, page: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


COMMANDS = [
    line[line.index("convnext ") :]
    for page in PAGES
    for block in blocks("bash", page)
    for line in block.replace("\\\n", " ").splitlines()
    if re.match(r"(convnext|torchrun .*-m convnext) ", line)
]


def test_the_readme_shows_commands():
    assert len(COMMANDS) > 4


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_readme_is_understood(line):
    fields, others = fields_apart(shlex.split(line, comments=True)[1:])
    args, rest = parser_of(VERBS).parse_known_args(others)
    if args.verb == "train":
        check(args, fields + rest)
    else:
        assert not fields + rest


def test_every_option_that_a_page_names_is_one():
    """Also between commands: of this program, a field of a recipe, or in a line that names the program that it is of."""
    parsers = parser_of(VERBS).verbs.values()
    known = {option for parser in parsers for action in parser._actions for option in action.option_strings}
    known |= {f"--{row['field']}" for made in recipes() for row in recipe_fields(shown_recipe(made["name"]))}
    launchers = {
        "--nnodes",
        "--max-restarts",
        "--rdzv-conf",
        "--rdzv-endpoint",
        "--shutdown-timeout",
    }  # torchrun's, in sentences
    launchers |= {"--signal", "--no-kill", "--cpus-per-task"}  # and those of Slurm
    others = re.compile(
        r"torchrun|srun|#SBATCH|--rdzv|-m pip|--platform|curl|http\.server|benchmarks/|clock cpu|--run RUN|mypy|`--memory"
    )
    pages = {**DOCS, ROOT / "README.md": README}
    pages |= {
        ROOT / name: (ROOT / name).read_text("utf-8") for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
    }
    for page, text in pages.items():
        for line in text.splitlines():
            for option in re.findall(r"(?<![\w-])--[A-Za-z][\w-]*(?:\.\w+)*", line):
                assert option in known | launchers or others.search(line), (page.name, option)


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_colours(tmp_path / "pets")
    torch.save(create("tiny", classes=10).state_dict(), "convnext_tiny_22k_224.pth")
    Path("holiday").mkdir()
    for file in ("cat.jpg", "holiday/dog.jpg"):
        Image.new("RGB", (40, 30), "red").save(file)
    _, code = blocks("python")
    smaller = 'epochs=1, overrides={"model.depths": (1, 1, 1, 1), "model.widths": (8, 8, 8, 8), "optim.batch": 8}'
    assert "epochs=30" in code
    code = code.replace("epochs=30", smaller)
    names = {"images": torch.zeros(1, 3, 64, 64), "convnext": convnext}
    exec(code, names)
    assert names["maps"]["stage3"].shape == (1, 768, 2, 2)
    (first_page,) = blocks("python", DOCS[ROOT / "docs/index.md"])
    exec(first_page.replace("epochs=30", smaller), names)  # the same run: it is there already
    assert (names["run"].path / "report.html").is_file() and names["answer"].path.endswith("dog.jpg")


def test_ten_lines_of_onnx_runtime_give_the_classes_of_the_run(tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxscript", reason="the extra 'export' is not installed")
    monkeypatch.chdir(tmp_path)
    data = write_colours(tmp_path / "pets")
    trained(data, tmp_path / "runs" / "pets", "--epochs", 3)
    convnext.export("runs/pets", "onnx")
    tilted = Image.open(next((data / "val" / "green").iterdir())).resize((57, 40))
    exif = Image.Exif()
    exif[0x0112] = 6  # on its side
    tilted.save("cat.jpg", exif=exif, quality=95)
    code, _ = blocks("python")
    assert "convnext" not in code
    exec(code, {})
    told = [line.split() for line in capsys.readouterr().out.splitlines()]
    expected = convnext.load("runs/pets")("cat.jpg").predictions
    assert [name for name, _ in told] == [name for name, _ in expected]
    assert [float(score) for _, score in told] == pytest.approx([score for _, score in expected], abs=1e-5)


def test_a_run_leaves_the_listed_files_and_no_others(tmp_path):
    trained(write_colours(tmp_path / "pets"), tmp_path / "run")
    (listing,) = (block for block in blocks("text", DOCS[ROOT / "docs/runs.md"]) if "recipe.json" in block)
    listed = set(re.findall(r"[\w.]+\.(?:jsonl?|safetensors|html|md|digests|jpg)\b", listing))
    assert {file.name for file in (tmp_path / "run").iterdir() if file.name != ".lock"} == listed


def test_every_folder_of_the_code_is_in_the_architecture():
    (tree,) = (block for block in blocks("text", DOCS[ROOT / "docs/architecture.md"]) if "src/convnext/" in block)
    there = {path.name for path in (Path(__file__).parents[1] / "src/convnext").iterdir() if path.is_dir()}
    assert there - {"__pycache__"} <= set(re.findall(r"(\w+)/", tree))


def test_every_link_of_the_pages_leads_somewhere():
    for page, folder in ((README, ROOT), *((text, path.parent) for path, text in DOCS.items())):
        for link in re.findall(r"\]\(([^)#]+)", page):
            assert link.startswith("https://") or (folder / link).exists(), link


def test_a_page_that_make_docs_writes_says_so_where_docs_is_read_without_the_site():
    stood_for = [page for page in DOCS if page.parent == ROOT / "docs" and page.name in WRITTEN]
    assert len(stood_for) > 4
    for page in stood_for:
        assert (
            DOCS[page].startswith("# ") and "`make docs`" in DOCS[page] and f"site/html/{page.stem}.html" in DOCS[page]
        )


@pytest.mark.parametrize("page", ["README.md", "docs/comparison.md"])
def test_a_figure_beside_a_peer_stands_where_it_was_measured(page):
    """Every number of a row of a table that has one in decimals or in percent."""
    measured = "".join(DOCS[ROOT / "docs" / name] for name in ("benchmarks.md", "serve.md"))
    rows = [line for line in (ROOT / page).read_text("utf-8").splitlines() if re.match(r"\| .*\d\.\d", line)]
    assert len(rows) > 2
    for row in rows:
        for number in re.findall(r"(?<![\w.])\d+[.]\d+(?![\w.])", row):
            assert re.search(rf"(?<![\d.]){re.escape(number)}(?![\d])", measured), (row, number)


def test_the_readme_is_short():
    assert len(README.splitlines()) < 130
