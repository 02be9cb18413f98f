"""The images in the body of a request: the body itself, or the files of a form. Everything stays in memory.

A form is multipart/form-data, RFC 7578. Its names are labels: no path of theirs is ever opened.
"""

import asyncio
import logging
import re

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from convnext.deploy.images import Given
from convnext.deploy.serve.limits import MB, Limits, Refused, Share
from convnext.errors import number_of, on_one_line

FORM = "multipart/form-data"
UNNAMED = "<bytes>"  # the path of a body that is an image, where no header Content-Disposition names its file
_PLAIN = re.compile(r"image/.*|application/octet-stream|")  # what a body that is one image is declared as
_LONGEST = 200  # characters of a name
_UNSAID = "application/x-www-form-urlencoded"  # what `curl --data-binary` declares, whatever it sends


async def body_of(request: Request, limits: Limits, share: Share) -> bytes:
    """The whole body, within the limits. Raises Refused where it has too many bytes, or none, or is compressed."""
    most = int(limits.body_mb * MB)
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > most:
        raise _too_large(limits)
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(415, "A compressed body is refused. Send the bytes as they are.")
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise _too_large(limits)
        share.grow(len(part))
        parts.append(part)
    return b"".join(parts)


async def images_of(request: Request, limits: Limits, share: Share) -> list[Given]:
    """The images of a request for predictions. Raises Refused where there are none, or too many."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind == FORM.encode():
        body = await body_of(request, limits, share)
        boundary = options.get(b"boundary", b"")
        return await asyncio.to_thread(_files, body, boundary, limits)
    if kind != _UNSAID.encode() and not _PLAIN.fullmatch(kind.decode("latin-1")):
        raise Refused(
            415,
            f"'{on_one_line(kind.decode('latin-1'))}' is no image. Send the bytes of one as image/* or "
            f"application/octet-stream, or several as files of {FORM}.",
        )
    body = await body_of(request, limits, share)
    if not body:
        raise Refused(400, f"The body is empty. Send the bytes of an image, or several as files of {FORM}.")
    _, disposition = parse_options_header(request.headers.get("content-disposition", ""))
    return [Given(_label(disposition.get(b"filename", b"")) or UNNAMED, body)]


def quiet() -> None:
    """Leave what the parser of forms logs to those who listen: else any client could fill stderr."""
    logging.getLogger("python_multipart").addHandler(logging.NullHandler())


def _too_large(limits: Limits) -> Refused:
    return Refused(413, f"A request has at most {limits.body_mb:g} MB here. Send fewer images, or smaller ones.")


class _Form:
    """The files of a form, as the parser finds them."""

    def __init__(self, most: int):
        self.files: list[Given] = []
        self.most = most
        self.headers: dict[str, str] = {}
        self.field = self.value = b""
        self.parts: list[bytes] = []

    def begin(self) -> None:
        self.headers, self.parts, self.field, self.value = {}, [], b"", b""

    def on_field(self, data: bytes, start: int, end: int) -> None:
        self.field += data[start:end]

    def on_value(self, data: bytes, start: int, end: int) -> None:
        self.value += data[start:end]

    def end_of_header(self) -> None:
        self.headers[self.field.decode("latin-1").lower()] = self.value.decode("utf-8", "replace")
        self.field = self.value = b""

    def on_data(self, data: bytes, start: int, end: int) -> None:
        self.parts.append(data[start:end])

    def end(self) -> None:
        _, options = parse_options_header(self.headers.get("content-disposition", "").encode("utf-8").decode("latin-1"))
        if b"filename" not in options:
            raise Refused(
                400, f"The part '{_label(options.get(b'name', b''))}' of the form is no file. Send files alone."
            )
        if len(self.files) == self.most:
            raise Refused(
                413, f"A request has at most {number_of(self.most, 'image')} here. Send the others in another."
            )
        name = _label(options[b"filename"]) or f"<bytes {len(self.files) + 1}>"
        self.files.append(Given(name, b"".join(self.parts)))


def _files(body: bytes, boundary: bytes, limits: Limits) -> list[Given]:
    """The files of a form. Raises Refused for what is none."""
    form, whole = _Form(limits.files), []
    calls = {
        "on_part_begin": form.begin,
        "on_header_field": form.on_field,
        "on_header_value": form.on_value,
        "on_header_end": form.end_of_header,
        "on_part_data": form.on_data,
        "on_part_end": form.end,
        "on_end": lambda: whole.append(True),
    }
    try:
        if not boundary:
            raise FormParserError("no boundary")
        parser = MultipartParser(boundary, calls)  # type: ignore[arg-type]
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        reason = on_one_line(str(error))[:_LONGEST]
        raise Refused(400, f"The body is no form of {FORM}, or a damaged one: {reason}.") from None
    if not whole:
        raise Refused(400, f"The body is no whole form of {FORM}: its end is missing.")
    if not form.files:
        raise Refused(400, "The form holds no files. Send images as files.")
    return form.files


def _label(name: bytes) -> str:
    """A name for people, on one line: the last part of a path, as any system writes them."""
    text = re.split(r"[/\\]", name.decode("utf-8", "replace"))[-1]
    return on_one_line(text)[:_LONGEST]
