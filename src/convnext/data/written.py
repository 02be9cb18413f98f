"""Text as people and their tools write it: a path in a table or a zip as a stored name, and files in other encodings.

A stored name counts from the folder of the data, with forward slashes, and never leads out of it.
"""

import codecs
import json
import re
import unicodedata
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

from convnext.errors import DataError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_ZIP_CODECS = ("utf-8", "cp437", "gb2312", "cp932", "euc_kr", "cp850", "cp866", "cp1252", "big5", "gbk")
_EUROPEAN = {"cp437", "cp850", "cp1252"}
_ODD = {"\u00aa", "\u00ba"}  # letters by name, which no word is written with
_HALFWIDTH = range(0xFF61, 0xFFA0)
_LISTED = re.compile(r"(?i)(.+?\.(?:jpe?g|png|bmp|tiff?))\s")
_UPLOADED = re.compile(r"(?:^|(?<=/))[0-9a-f]{8}-(?=[^/]+$)")
_WORD = re.compile(r"[^\W\d_]+")


def stored_name(path: str) -> str:
    """A written path as a name below the data's own folder: slashes turned, '.', '..', '/' and 'C:' in front dropped."""
    kept: list[str] = []
    for word in path.replace("\\", "/").split("/"):
        if word == ".." and kept:
            kept.pop()
        elif word not in ("", ".", ".."):
            kept.append(word)
    if kept and re.fullmatch(r"[A-Za-z]:", kept[0]):
        kept = kept[1:]
    return "/".join(kept)


def local_path(text: str, where: str) -> str:
    """A path, also one that is written as a file:// URL. Raises DataError for what lies elsewhere; `where` names it."""
    if text.startswith("file:/"):
        rest = text.removeprefix("file:")  # file:/a, file:///a and file://localhost/a are the same
        host, _, path = rest[2:].partition("/") if rest.startswith("//") else ("", "", rest[1:])
        if host not in ("", "localhost"):
            raise DataError(f"{where} names '{text}', a file of another machine ('{host}'). Write a path of this one.")
        path = unquote(path)
        return path if re.match(r"[A-Za-z]:", path) else f"/{path}"
    if re.match(r"data:\w+/", text):
        raise DataError(f"{where} holds its image as text ('{text[:20]}...'). Save the images as files and name these.")
    if "://" in text and (scheme := re.match(r"[A-Za-z][\w+.-]*(?=://)", text)):
        raise DataError(
            f"{where} names '{text[:80]}', and nothing is downloaded ({scheme[0].lower()}). Download the images and write "
            "their paths."
        )
    return text


def spellings(path: str) -> Iterable[str]:
    """What a written path can mean as a stored name: as it stands, without %20, without a query behind '?'.

    Label Studio writes a path behind '?d=', or puts eight digits and '-' before the name of what was uploaded.
    """
    name = stored_name(path)
    asked = stored_name(path.split("?", 1)[0])
    served = stored_name(unquote(path.partition("?d=")[2]))
    names = [name, stored_name(unquote(path)), asked, stored_name(unquote(asked)), served]
    return dict.fromkeys(filter(None, (*names, *(_UPLOADED.sub("", name) for name in names))))


def listed_names(line: str) -> tuple[str, ...]:
    """What a line of ImageSets may call an image, the likeliest first: all of it, or what stands before a space.

    Behind the name may be 1, 0 or -1 (Pascal VOC), or the path of a mask (CVAT); the name may hold spaces itself.
    """
    line = line.strip()
    ends, before = line.rsplit(maxsplit=1), _LISTED.match(line)
    marked = ends[0] if len(ends) > 1 and ends[1] in ("0", "1", "-0", "-1") else ""
    return tuple(
        dict.fromkeys(filter(None, (line, marked or (before[1] if before else ""), *line.split(maxsplit=1)[:1])))
    )


def loose(name: str) -> str:
    """`name` without what differs between systems: accents composed, in small letters."""
    return name.casefold() if name.isascii() else composed(composed(name).casefold())


def composed(text: str) -> str:
    """Accents as one character with their letter (NFC), as all but macOS write them."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def decomposed(text: str) -> str:
    """Accents as a character of their own behind their letter (NFD), as macOS writes them."""
    return unicodedata.normalize("NFD", text)


def matched(names: Iterable[str], known: Iterable[str]) -> tuple[str, ...]:
    """`names`, each as it is written among `known` where the two differ in their accents' form alone."""
    same = {composed(name): name for name in known}
    exact = set(same.values())
    return tuple(name if name in exact else same.get(composed(name), name) for name in names)


def one_each(names: Iterable[str]) -> dict[str, str]:
    """Name -> what it is called: those that differ in their accents' form alone are one, with accents composed."""
    written: dict[str, set[str]] = {}
    for name in dict.fromkeys(names):
        written.setdefault(composed(name), set()).add(name)
    return {name: key if len(group) > 1 else name for key, group in written.items() for name in group}


def decoded(data: bytes) -> tuple[str, str]:
    """The text of a file, and the name of its encoding where that is neither UTF-8 nor marked as what it is."""
    for mark, codec in _MARKS:
        if data.startswith(mark):
            return data.decode(codec, "replace" if codec != "utf-8-sig" else "surrogateescape"), ""
    if b"\0" in data[:400]:
        codec = "utf-16-be" if data[:1] == b"\0" else "utf-16-le"
        return data.decode(codec, "replace"), codec
    try:
        return data.decode(), ""
    except UnicodeDecodeError:
        return "".join(map(_WINDOWS.__getitem__, data)), "cp1252"


def json_in(data: bytes) -> Any:
    """What a JSON file says. Raises DataError with the reason where it is none, or nested too deep to be read."""
    try:
        return json.loads(decoded(data)[0])
    except RecursionError:
        raise DataError("it is nested too deep") from None
    except ValueError as error:
        raise DataError(f"not JSON: {error}") from None


def as_bytes_were(text: str) -> str:
    """A text that `decoded` read as cp1252 as a name on the disk that has the same bytes."""
    try:
        return bytes(map(_BYTES.__getitem__, text)).decode("utf-8", "surrogateescape")
    except KeyError:
        return text


def member_codec(names: Iterable[bytes]) -> str:
    """What names of a zip that are not marked as UTF-8 are written in: the first encoding that makes words of them."""
    given = [name for name in names if not name.isascii()]
    return next((codec for codec in _ZIP_CODECS if all(_reads(name, codec) for name in given)), "cp437")


def _reads(name: bytes, codec: str) -> bool:
    try:
        text = name.decode(codec)
    except UnicodeDecodeError:
        return False
    if codec == "utf-8":
        return not _has_bare_accents(text, 1)
    signs = [sign for sign in text if not sign.isascii()]
    if codec in _EUROPEAN:
        return all(map(_is_latin, signs)) and not _has_bare_accents(text, 2)
    if codec == "cp866":
        return all("CYRILLIC" in unicodedata.name(sign, "") for sign in signs)
    return all(sign.isalnum() and ord(sign) not in _HALFWIDTH for sign in signs)


def _is_latin(sign: str) -> bool:
    return sign.isalpha() and sign not in _ODD and "LATIN" in unicodedata.name(sign, "")


def _has_bare_accents(text: str, least: int) -> bool:
    """Whether a word of `least` letters or more has accents on all of them: bytes of another encoding look like that."""
    words = (word for word in _WORD.findall(text) if len(word) >= least)
    return any(all(not sign.isascii() and _is_latin(sign) for sign in word) for word in words)


_WINDOWS = [bytes([value]).decode("cp1252", "ignore") or chr(value) for value in range(256)]
_BYTES = {sign: value for value, sign in enumerate(_WINDOWS)}
