"""The page on which people see what a network makes of their images: of a server, and of a folder for the browser alone.

Files of this package, as they are, with nothing from elsewhere; the one text that differs is filled in.
"""

from collections.abc import Mapping
from importlib.resources import files as resources
from string import Template

from convnext.drawing.palette import style

SHARED = ("page.css", "palette.css", "cards.js", "drawn.js", "icon.svg")  # what the page loads, besides its own script


def shared(name: str) -> str:
    """The text of one of SHARED."""
    return style() if name == "palette.css" else content(__name__, name)


def page(fields: Mapping[str, str]) -> str:
    """The page itself.

    `fields`: 'root', what the addresses of its files begin with; 'script', which of them answers; HTML for 'head', 'where'
    (who sees the images), 'without' (a script), 'unopened' (what is said until a script runs) and 'foot'.
    """
    return Template(content(__name__, "page.html")).substitute(fields)


def content(package: str, name: str) -> str:
    """The text of a file of a package."""
    return resources(package).joinpath(name).read_text("utf-8")
