"""The section of what a run predicted of some held-out images when it was last evaluated."""

import io

from PIL import Image

from convnext.drawing.markup import Html, join, tag
from convnext.drawing.thumbnails import as_uri
from convnext.reports.layout import Section
from convnext.reports.run_files import PREDICTIONS, RunFiles


def predicted_sections(files: RunFiles) -> list[Section]:
    """The one section; none where nothing was drawn."""
    there = files.predictions is not None or PREDICTIONS in files.notes
    return [Section("Predictions", PREDICTIONS, predicted)] if there else []


def predicted(files: RunFiles) -> Html:
    """The image as it is. Raises ValueError where it is damaged."""
    data = files.predictions or b""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except OSError as error:
        raise ValueError(str(error)) from None
    lead = (
        "Some held-out images, the same ones after each evaluation, with what was predicted at the last one; its weights "
        "may be others than those that are kept."
    )
    shown = tag("img", src=as_uri(data), alt="Held-out images with what was predicted of them", class_="whole")
    return join([tag("p", lead, class_="lead"), shown])
