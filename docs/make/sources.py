"""Links that leave docs/: the files they mean come along, so that a site without its repository is whole."""

import re
import shutil
from pathlib import Path

_LINK = re.compile(r"\]\((\.\./[^)#\s]+)")


def bring(root: Path, out: Path) -> None:
    """Copy what pages name as ../path under files/, Python as a page of its own, and mend the links.

    Raises SystemExit for a link to a file that is not there.
    """
    for page in sorted(out.rglob("*.md")):
        text = page.read_text("utf-8")
        depth = len(page.relative_to(out).parents) - 1

        def mended(found: re.Match[str], page: Path = page, depth: int = depth) -> str:
            target = (root / "docs" / page.relative_to(out)).parent / found[1]
            target = Path(*_plain(target.parts))
            if (root / "docs") in target.parents:
                return found[0]
            if not target.is_file():
                raise SystemExit(f"docs/{page.relative_to(out)}: '{found[1]}' is not a file.")
            return "](" + "../" * depth + _brought(target, root, out)

        page.write_text(_LINK.sub(mended, text), "utf-8")


def _plain(parts: tuple[str, ...]) -> list[str]:
    kept: list[str] = []
    for part in parts:
        if part == "..":
            kept.pop()
        else:
            kept.append(part)
    return kept


def _brought(target: Path, root: Path, out: Path) -> str:
    name = target.relative_to(root)
    if target.suffix == ".py":
        copy = out / "files" / name.with_suffix(".md")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(f"# {name}\n\n```python\n{target.read_text('utf-8')}```\n", "utf-8")
    else:
        copy = out / "files" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(target, copy)
    return copy.relative_to(out).as_posix()
