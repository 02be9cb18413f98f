"""What the site is built of: every page has its place, and the written pages name all that there is."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import convnext
from children import environment
from convnext.cli import VERBS
from convnext.cli.options import parser_of
from convnext.recipes.listing import classifiers, recipe_fields, recipes, shown_recipe
from convnext.recipes.roadmap import STEPS

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages as `make docs` gathers them, without the program that builds HTML of them."""
    folder = tmp_path_factory.mktemp("site") / "site"
    subprocess.run([sys.executable, str(ROOT / "docs" / "make"), str(folder)], check=True, env=environment())
    return folder


def read(site: Path, page: str) -> str:
    return (site / "pages" / page).read_text("utf-8")


def test_every_page_has_its_place_and_every_place_a_page(site):
    shape = tomllib.loads((site / "zensical.toml").read_text("utf-8"))
    placed = set(re.findall(r"'([\w/]+\.md)'", str(shape["project"]["nav"])))
    there = {path.relative_to(site / "pages").as_posix() for path in (site / "pages").rglob("*.md")}
    assert placed == {page for page in there if not page.startswith(("files/", "examples/", "recipes/"))}


def test_every_command_with_every_option_is_in_the_reference(site):
    page = read(site, "commands.md")
    assert re.findall(r"^## convnext (\S+)", page, re.MULTILINE) == list(VERBS)
    assert "`--weights WEIGHTS`" in page and "`--json`" in page


def test_every_option_says_what_it_is_before_its_default():
    for name, parser in parser_of(VERBS).verbs.items():
        for action in parser._actions:
            assert re.match(r"[^(\s]", action.help or ""), (name, action.option_strings or action.dest)


def test_every_recipe_with_every_field_is_in_the_reference(site):
    assert re.findall(r"^### (\S+)", read(site, "recipes.md"), re.MULTILINE) == [row["name"] for row in recipes()]
    first: dict[str, dict[str, object]] = {}
    for made in recipes():
        fields = {row["field"]: row["value"] for row in recipe_fields(shown_recipe(made["name"]))}
        known = first.setdefault(made["task"], {})
        wanted = [name for name, value in fields.items() if name not in known or value != known[name]]
        shown = re.findall(r"^\| `([\w.]+)`<br>", read(site, f"recipes/{made['name']}.md"), re.MULTILINE)
        assert sorted(shown) == sorted(wanted)
        first[made["task"]] = known or fields


def test_every_network_and_every_public_name_is_in_the_reference(site):
    assert all(f"`{row['name']}`" in read(site, "networks.md") for row in classifiers())
    named = re.findall(r"^### (\S+)", read(site, "python.md"), re.MULTILINE)
    assert set(named) == {name for name in convnext.__all__ if not name.startswith("_")}


def test_a_network_has_the_accuracy_of_the_paper_beside_it(site):
    rows = {row.split("`")[1]: row for row in read(site, "networks.md").splitlines() if row.startswith("| `")}
    assert rows["tiny"].endswith("| 224 px | 82.1 %; from 22K 82.9 % |")  # table 1
    assert rows["iso_base"].endswith(" 82.0 % |") and rows["swin_tiny"].endswith(" 81.3 % |")  # tables 2 and 1
    start = {row.split("`")[1]: row for row in read(site, "index.md").splitlines() if row.startswith("| `")}
    for name in ("tiny", "small", "base"):
        for figure in re.findall(r"(\d\d\.\d) %", rows[name]):
            assert figure in start[name]


def test_every_step_of_the_roadmap_has_its_section_and_its_drawing(site):
    page = read(site, "roadmap.md")
    assert re.findall(r"^## (.*)", page, re.MULTILINE)[:-2] == [step.replace("_", " ") for step in STEPS]
    for step in STEPS:
        assert "<svg" in read(site, f"drawn/{step}.svg")
    for section in page.split("\n## ")[3:-2]:  # behind the two of ResNet itself
        assert "](drawn/" in section and "```python\n" in section and "config." in section, section


def test_no_command_of_a_page_is_torn_by_the_comment_behind_it(site):
    shown = "".join(path.read_text("utf-8") for path in (site / "pages").rglob("*.md") if "files" not in path.parts)
    for block in re.findall(r"^```bash\n(.*?)^```$", shown, re.MULTILINE | re.DOTALL):
        assert not [line for line in block.splitlines() if len(line) > 78 and re.search(r"\S +# ", line)], block
    assert re.search(r"^``` \{ \.text \.columns \}\n.*?^ground truth .* predicted ", shown, re.MULTILINE | re.DOTALL)


def test_what_pages_link_to_outside_of_docs_comes_along(site):
    pages = [path for path in (site / "pages").rglob("*.md") if "files" not in path.parts]  # those are code
    for page in pages:
        for link in re.findall(r"\]\(([^)#:]+?)\)", page.read_text("utf-8")):
            assert (page.parent / link).exists(), (page.name, link)
