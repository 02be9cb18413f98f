"""`python docs/make SITE`: gathers the pages of the site in the folder SITE; `make docs` builds and checks them.

What stands in docs/ is copied, what the code itself can say is written here: commands, recipes, networks, the Python names,
the roadmap and the charts of benchmarks/results.
"""

import shutil
import sys
from pathlib import Path

import blocks
import charts
import examples
import names
import networks
import recipes
import sources

import commands
import roadmap

ROOT = Path(__file__).parents[2]


def main(site: Path) -> None:
    """Write every page of the site into `site`/pages, anew, and the site's shape beside them."""
    out = site / "pages"
    shutil.rmtree(site, ignore_errors=True)
    shutil.copytree(ROOT / "docs", out, ignore=shutil.ignore_patterns("make", "__pycache__", "*.toml"))
    written = {
        "commands.md": commands.page(),
        "recipes.md": recipes.page(out),
        "networks.md": networks.page(),
        "python.md": names.page(),
        "roadmap.md": roadmap.page(out),
        "gallery.md": charts.page(ROOT / "benchmarks" / "results", out),
        "changelog.md": (ROOT / "CHANGELOG.md").read_text("utf-8").replace("](docs/", "]("),
    }
    for name, text in written.items():
        (out / name).write_text(text, "utf-8")
    examples.write(ROOT / "examples", out)
    sources.bring(ROOT, out)
    blocks.fit(out)
    shutil.copyfile(ROOT / "docs" / "zensical.toml", site / "zensical.toml")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
