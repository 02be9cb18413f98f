"""Answers of a network that are no numbers: the best of them is nobody's answer, and one that finds nothing says nothing."""

from convnext.data.store import printable
from convnext.errors import ConvNeXtError


class NotFinite(ConvNeXtError):
    """A network answers inf or nan for the image `path`; `who`: what people call it."""

    def __init__(self, path: str, who: str = "The network"):
        super().__init__(
            f"{who} answers inf or nan for '{printable(path)}': its numbers grow beyond what its precision holds. "
            "Take other weights, or --precision fp32 where they are trained."
        )
