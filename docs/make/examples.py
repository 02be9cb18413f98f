"""The scripts of examples/ as pages, and a page that lists them."""

import ast
from pathlib import Path

_INTRO = """# Examples

Short scripts on `import convnext`. Each is run by a test; the first lines say how to call it.

| script | what it shows |
|---|---|
"""


def write(scripts: Path, out: Path) -> None:
    """`out`/examples.md and `out`/examples/NAME.md."""
    (out / "examples").mkdir()
    rows = []
    for path in sorted(scripts.glob("*.py")):
        text = path.read_text("utf-8")
        title = (ast.get_docstring(ast.parse(text)) or "").splitlines()[0].rstrip(".")
        rows.append(f"| [`{path.name}`](examples/{path.stem}.md) | {title}. |\n")
        (out / "examples" / f"{path.stem}.md").write_text(f"# {title}\n\n```python\n{text}```\n", "utf-8")
    (out / "examples.md").write_text(_INTRO + "".join(rows), "utf-8")
