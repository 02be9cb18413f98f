"""What `import convnext` offers: signatures and docstrings as they stand in the code."""

import ast
import inspect
import re
import textwrap
from typing import Any, get_args

import convnext
from commands import cell

_INTRO = """# Python

`import convnext` gives these names and no others. torch is loaded by the first one that needs it. Every mistake that
a person can mend is a `ConvNeXtError` whose text is one line.
"""


def page() -> str:
    """Functions first, in the order of the work, then the values that they return, then errors."""
    every = {name: getattr(convnext, name) for name in convnext.__all__ if not name.startswith("_")}
    functions = {name: value for name, value in every.items() if inspect.isfunction(value)}
    errors = {name: value for name, value in every.items() if isinstance(value, type) and issubclass(value, Exception)}
    values = {name: value for name, value in every.items() if name not in functions and name not in errors}
    lines = [_INTRO]
    for title, group in (("Functions", functions), ("Values", values), ("Errors", errors)):
        lines += [f"## {title}", ""]
        for name, value in group.items():
            lines += _entry(name, value)
    return "\n".join(lines) + "\n"


def _entry(name: str, value: Any) -> list[str]:
    lines = [f"### {name}", ""]
    if inspect.isfunction(value):
        lines += [_code(name, value), "", _text(value), ""]
        return lines
    if not isinstance(value, type):  # an alias of several
        return [*lines, "One of " + ", ".join(f"`{each.__name__}`" for each in get_args(value)) + ".", ""]
    lines += [_text(value), ""]
    if issubclass(value, Exception):
        return lines
    members = [(key, member) for key, member in vars(value).items() if not key.startswith("_") and _own(member)]
    lines += _fields(value)
    if "__call__" in vars(value):
        members.insert(0, ("__call__", vars(value)["__call__"]))
    for key, member in members:
        member = inspect.unwrap(getattr(member, "__func__", member))
        if isinstance(member, property):
            lines += [f"- **`.{key}`**: {_text(member)}"]
        elif inspect.isfunction(member):
            lines += [f"- **`.{key}{_short(member)}`**: {_first(member)}"]
    return [*lines, ""]


def _fields(value: type) -> list[str]:
    """What a value holds, with the comment that stands behind each field."""
    source = textwrap.dedent(inspect.getsource(value))
    body, written = ast.parse(source).body[0], source.splitlines()
    assert isinstance(body, ast.ClassDef)
    rows = []
    for each in body.body:
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name) and not each.target.id.startswith("_"):
            comment = written[(each.end_lineno or 1) - 1].partition("  # ")[2]
            rows.append(
                f"- **`.{each.target.id}: {_bare(each.annotation)}`**" + (f": {cell(comment)}" if comment else "")
            )
    return rows


def _bare(node: ast.expr) -> str:
    return re.sub(r"'([A-Z]\w+)'", r"\1", ast.unparse(node))


def _own(member: Any) -> bool:
    found = getattr(member, "__func__", member)
    return isinstance(found, property) or (inspect.isfunction(found) and bool(found.__doc__))


def _parts(function: Any) -> tuple[list[str], str]:
    """The parameters and the returned type of a function, as its source writes them."""
    node = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(node, ast.FunctionDef)
    given = node.args
    plain = [*given.posonlyargs, *given.args]
    defaults: list[ast.expr | None] = [None] * (len(plain) - len(given.defaults)) + list(given.defaults)
    rows = [_row(each, default) for each, default in zip(plain, defaults, strict=True) if each.arg != "self"]
    if given.vararg:
        rows.append(f"*{_row(given.vararg, None)}")
    elif given.kwonlyargs:
        rows.append("*")
    rows += [_row(each, default) for each, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    if given.kwarg:
        rows.append(f"**{_row(given.kwarg, None)}")
    return rows, f" -> {_bare(node.returns)}" if node.returns else ""


def _row(argument: ast.arg, default: ast.expr | None) -> str:
    text = argument.arg + (f": {_bare(argument.annotation)}" if argument.annotation else "")
    return text if default is None else f"{text} = {ast.unparse(default)}"


def _short(function: Any) -> str:
    rows, returned = _parts(function)
    return f"({', '.join(rows)}){returned}"


def _code(name: str, function: Any) -> str:
    rows, returned = _parts(function)
    whole = f"{name}({', '.join(rows)}){returned}"
    if len(whole) > 100:
        whole = f"{name}(\n" + "".join(f"    {row},\n" for row in rows) + f"){returned}"
    return f"```python\n{whole}\n```"


def _first(value: Any) -> str:
    return _text(value).split("\n\n")[0].replace("\n", " ")


def _text(value: Any) -> str:
    return (inspect.getdoc(value) or "").replace("<", "&lt;")
