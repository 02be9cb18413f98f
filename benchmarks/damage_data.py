"""Damaged images and annotations: none may end in a traceback, take ten seconds, or more memory than the cap.

    python benchmarks/damage_data.py [--images 10000] [--annotations 5000] [--seed 0] [--quiet]

An image is one of some dozens of small ones, of every format, mode and compression that is read; one thing is done to its
bytes that a disk, a network or an attacker might do: flipped bits, a cut, bytes more, swapped and zeroed blocks, extreme
numbers in the header, a PNG's checksums mended afterwards. It is then read by its header, decoded in colour, in grey and at a
reduced size, and as a mask. Of annotations one file of a data set is damaged, of every form that is read, as bytes or as what
they say: numbers like 10**400, NaN and infinity, half characters, NUL, depth, wrong types. The data set is then recognised,
opened, looked at and its images are read, as training does. Counted is what came of it: 'read', 'refused' in one line, or a
failure. Chunks run in processes of their own, under a limit of memory. It needs what the tests need. A line of
results/damage_data.jsonl.
"""

import argparse
import contextlib
import io
import json
import platform
import random
import re
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin, features

from convnext.data.dataset import read_sample
from convnext.data.decode import decode, decode_mask, holds_12_bit, read_size
from convnext.data.opening import open_dense_splits, open_splits, recognise
from convnext.errors import ConvNeXtError
from convnext.tasks.opening import look

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import foreign  # writers of the tests, in independent code

RESULTS = Path(__file__).parent / "results" / "damage_data.jsonl"
SLOW_S = 10.0
CAP_BYTES = 4 << 30  # of address space beyond what the process had before it began
CHUNK = 500
ODD: list[Any] = [
    None, True, -1, 0, 1e308, -1e308, 10**30, -(10**30), 10**400, float("nan"), float("inf"), float("-inf"), 2**63, 2**31,
    1e-320, "", "\0", "a\0b", "\ud800", "\x1b[2J\n", "../../../etc/passwd", "/dev/zero", "x" * 5000, [], {}, [[]], [None],
    [[1]], {"a": []}, [1, 2], "1e999", "nan", 999999999, "train", 3.5,
]  # fmt: skip
WORDS = [
    "nan", "inf", "-1", "1e400", "9" * 400, "", "\0", "\ud800", "x" * 200_000, "0", "99999999999", "/dev/zero", "&a;", "{", "[",
    "'", '"', "1000000000", "-", "\n", "%s", "<", ">", "0x10", "1_0", "\u0663",
]  # fmt: skip
Failure = tuple[str, str]  # what was damaged and how; the traceback, or what else was wrong


def images() -> dict[str, bytes]:
    """Small images of every kind that is read, by a name."""
    random = np.random.default_rng(0)
    noise = Image.fromarray(random.integers(0, 256, (40, 56, 3), np.uint8))
    wide = Image.fromarray(random.integers(0, 60000, (40, 56), np.uint16))
    clear = noise.convert("RGBA")
    clear.putalpha(128)
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "x" * 10_000, zip=True)
    text.add_itxt("Note", "y" * 10_000, "de", "n", zip=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    shades = noise.convert("P")
    made: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "jpeg": (noise, "JPEG", {}), "jpeg progressive": (noise, "JPEG", {"progressive": True}),
        "jpeg grey": (noise.convert("L"), "JPEG", {}), "jpeg cmyk": (noise.convert("CMYK"), "JPEG", {}),
        "jpeg exif": (noise, "JPEG", {"exif": exif.tobytes()}),
        "png": (noise, "PNG", {}), "png grey": (noise.convert("L"), "PNG", {}), "png clear": (clear, "PNG", {}),
        "png palette": (shades, "PNG", {"transparency": 0}), "png 16": (wide, "PNG", {}),
        "png text": (noise, "PNG", {"pnginfo": text}),
        "png bits": (noise.convert("1"), "PNG", {}),
        "webp": (noise, "WEBP", {}), "webp lossless": (clear, "WEBP", {"lossless": True}),
        "webp animated": (noise, "WEBP", {"save_all": True, "append_images": [clear]}),
        "gif": (shades, "GIF", {}), "gif animated": (shades, "GIF", {"save_all": True, "append_images": [shades.rotate(90)]}),
        "bmp": (noise, "BMP", {}), "bmp palette": (shades, "BMP", {}), "ppm": (noise, "PPM", {}), "pgm": (wide, "PPM", {}),
        "tiff": (noise, "TIFF", {}), "tiff lzw": (noise, "TIFF", {"compression": "tiff_lzw"}),
        "tiff deflate": (wide, "TIFF", {"compression": "tiff_adobe_deflate"}), "tiff float": (wide.convert("F"), "TIFF", {}),
        "tiff jpeg": (noise, "TIFF", {"compression": "jpeg"}), "tiff packbits": (noise, "TIFF", {"compression": "packbits"}),
        "tiff group4": (noise.convert("1"), "TIFF", {"compression": "group4"}),
    }  # fmt: skip
    if features.check("avif"):
        made["avif"] = (noise, "AVIF", {})
    found = {}
    for name, (image, form, options) in made.items():
        held = io.BytesIO()
        image.save(held, form, **options)
        found[name] = held.getvalue()
    return found


def damaged(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """`data` with one thing done to it, and what."""
    found = bytearray(data)
    how = rng.choice(("flips", "cut", "more", "swap", "zeros", "number", "number", "many flips"))
    place, size = rng.randrange(max(1, len(found))), len(found)
    if how in ("flips", "many flips"):
        for _ in range(rng.randint(1, 4) if how == "flips" else 1 + size // 50):
            found[rng.randrange(size)] ^= 1 << rng.randrange(8)
    elif how == "cut":
        del found[place:]
    elif how == "more":
        found[place:place] = rng.randbytes(rng.randint(1, 2000))
    elif how == "swap":
        other, length = rng.randrange(size), rng.randint(1, 64)
        found[place : place + length], found[other : other + length] = (
            found[other : other + length],
            found[place : place + length],
        )
    elif how == "zeros":
        found[place : place + 64] = bytes(min(64, size - place))
    else:  # an extreme number near the head, in either order of bytes
        place = rng.randrange(min(size, 256))
        kind = rng.choice(("<H", ">H", "<I", ">I", "<Q", ">Q"))
        most = 2 ** (8 * struct.calcsize(kind)) - 1
        value = struct.pack(
            kind, rng.choice((0, 1, most, most // 2, most // 2 + 1, 65_500, 16_383, min(most, 100_000)))
        )
        found[place : place + len(value)] = value
    return bytes(found), f"{how} at {place}"


def mended(data: bytes) -> bytes:
    """A PNG with the right checksum behind each piece, so that its reader goes on."""
    if data[:4] != b"\x89PNG":
        return data
    found, place = bytearray(data), 8
    while place + 12 <= len(found):
        end = place + 8 + int.from_bytes(found[place : place + 4], "big")
        if end + 4 > len(found):
            break
        found[end : end + 4] = struct.pack(">I", zlib.crc32(found[place + 4 : end]))
        place = end + 4
    return bytes(found)


def attack_images(n: int, seed: int, first: int = 0) -> tuple[Counter[str], list[Failure]]:
    """Trials `first` to `first + n`: what came of them, and the failures."""
    known = images()
    names = list(known)
    counts, failures = Counter[str](), list[Failure]()
    for number in range(first, first + n):
        rng = random.Random(f"{seed} image {number}")
        name = rng.choice(names)
        data, how = damaged(known[name], rng)
        data = mended(data) if rng.random() < 0.7 else data

        def read(data: bytes = data) -> None:
            read_size(data)
            decode(data)
            decode(data, channels=1, least_px=16)

        for what, ask in (
            ("image", read),
            ("mask", lambda data=data: decode_mask(data)),
            ("bits", lambda data=data: holds_12_bit(data)),
        ):
            tried(f"{name}, {how}, as {what} (trial {number})", ask, counts, failures)
    return counts, failures


def tried(what: str, ask: Callable[[], object], counts: Counter[str], failures: list[Failure]) -> None:
    """Ask, and note what came of it."""
    begun = time.process_time()  # the machine may have other work
    try:
        ask()
        counts["read"] += 1
    except ConvNeXtError as error:
        counts["refused"] += 1
        said = str(error)
        if "\n" in said or len(said) > 3000:
            failures.append((what, f"not one line: {said[:500]!r}"))
    except Exception:  # noqa: BLE001 # that is what is looked for
        failures.append((what, traceback.format_exc()))
    spent = time.process_time() - begun
    if spent > SLOW_S:
        failures.append((what, f"took {spent:.1f} s"))


def data_sets(folder: Path) -> dict[str, Path]:
    """A small data set of every form, by a name."""
    boxes, outlines, masks = (foreign.small(kind, single=True) for kind in ("boxes", "polygons", "masks"))
    writers: dict[str, Callable[[Path], None]] = {
        "coco": lambda at: foreign.write_coco(at, outlines), "coco masks": lambda at: foreign.write_coco(at, masks),
        "coco lists": lambda at: foreign.write_coco(at, masks, counts="list"),
        "cvat": lambda at: foreign.write_cvat(at, outlines), "cvat masks": lambda at: foreign.write_cvat(at, masks),
        "voc": lambda at: foreign.write_voc(at, boxes), "yolo": lambda at: foreign.write_yolo(at, outlines),
        "yolo pose": lambda at: foreign.write_yolo(at, boxes, points=2),
        "labelme": lambda at: foreign.write_labelme(at, masks),
        "labelme inside": lambda at: foreign.write_labelme(at, outlines, embedded=True),
        "via": lambda at: foreign.write_via(at, outlines), "via project": lambda at: foreign.write_via(at, boxes, project=True),
        "supervisely": lambda at: foreign.write_supervisely(at, masks),
        "supervisely outlines": lambda at: foreign.write_supervisely(at, outlines),
        "datumaro": lambda at: foreign.write_datumaro(at, masks),
        "datumaro outlines": lambda at: foreign.write_datumaro(at, outlines),
        "shapes of cvat": write_cvat_shapes, "shapes of via": write_via_shapes, "shapes of labelme": write_labelme_shapes,
        "shapes of datumaro": write_datumaro_shapes, "shapes of supervisely": write_supervisely_shapes,
        "masks": lambda at: write_masks(at, boxes), "csv": lambda at: write_table(at, boxes, ".csv"),
        "json lines": lambda at: write_table(at, boxes, ".jsonl"), "parquet": lambda at: write_arrow(at, boxes, ".parquet"),
        "arrow": lambda at: write_arrow(at, boxes, ".arrow"), "objects": lambda at: write_objects(at, boxes),
        "zip": lambda at: write_zip(at, boxes),
    }  # fmt: skip
    made = {}
    for name, write in writers.items():
        made[name] = folder / name
        made[name].mkdir()
        write(made[name])
    made["zip"] = made["zip"] / "set.zip"
    return made


JPEG = images()["jpeg"]  # 56 x 40


def photos(folder: Path) -> list[str]:
    """Four photos below a folder, and their names."""
    names = [f"p{number}.jpg" for number in range(4)]
    for name in names:
        foreign.put(folder / name, JPEG)
    return names


def write_cvat_shapes(folder: Path) -> None:
    """Every kind of shape."""
    shapes = (
        '<box label="a" xtl="3" ytl="4" xbr="20" ybr="22" rotation="30" z_order="2" group_id="1"/>'
        '<ellipse label="b" cx="20" cy="20" rx="8" ry="5" z_order="1"/><points label="a" points="1,2"/>'
        '<mask label="a" rle="2, 3, 4, 3" left="2" top="3" width="4" height="3" group_id="1"/><tag label="b"/>'
    )
    rows = (
        f'<image id="{place}" name="{name}" width="56" height="40">{shapes}</image>'
        for place, name in enumerate(photos(folder))
    )
    foreign.put(folder / "annotations.xml", f"<annotations>{''.join(rows)}</annotations>")


def write_via_shapes(folder: Path) -> None:
    """Circles, ellipses and points."""
    shapes: list[dict[str, Any]] = [
        {"name": "circle", "cx": 20, "cy": 20, "r": 7}, {"name": "ellipse", "cx": 20, "cy": 15, "rx": 9, "ry": 4, "theta": 0.5},
        {"name": "point", "cx": 1, "cy": 2}, {"name": "rect", "x": 3, "y": 4, "width": 9, "height": 8},
    ]  # fmt: skip
    regions = [{"shape_attributes": shape, "region_attributes": {"class": "a"}} for shape in shapes]
    content = {name: {"filename": name, "regions": regions, "file_attributes": {}} for name in photos(folder)}
    foreign.put(folder / "via.json", json.dumps(content))


def write_labelme_shapes(folder: Path) -> None:
    """Circles, turned rectangles, groups, lines."""
    shapes: list[dict[str, Any]] = [
        {"shape_type": "circle", "points": [[20, 20], [26, 20]]}, {"shape_type": "line", "points": [[1, 2], [3, 4]]},
        {"shape_type": "rectangle", "points": [[3, 4], [20, 6], [18, 20], [2, 18]]},
        {"shape_type": "polygon", "points": [[3, 4], [20, 6], [18, 20]], "group_id": 1},
        {"shape_type": "polygon", "points": [[30, 4], [40, 6], [38, 20]], "group_id": 1},
    ]  # fmt: skip
    for name in photos(folder):
        rows = [shape | {"label": "a"} for shape in shapes]
        content = {"shapes": rows, "imagePath": name, "imageData": None, "imageHeight": 40, "imageWidth": 56}
        foreign.put(folder / f"{Path(name).stem}.json", json.dumps(content))


def write_datumaro_shapes(folder: Path) -> None:
    """Ellipses and run lengths as a list."""
    rows: list[dict[str, Any]] = [
        {"type": "ellipse", "points": [4.0, 5.0, 20.0, 15.0]},
        {"type": "mask", "rle": {"counts": [100, 9, 2131], "size": [40, 56]}},
        {"type": "bbox", "bbox": [3, 4, 8, 9]}, {"type": "polygon", "points": [3.0, 4.0, 20.0, 6.0, 18.0, 20.0]},
        {"type": "points"},
    ]  # fmt: skip
    shapes = [row | {"label_id": place % 2, "group": 1, "z_order": place} for place, row in enumerate(rows)]
    items = [
        {"id": Path(name).stem, "annotations": shapes, "image": {"path": name, "size": [40, 56]}}
        for name in photos(folder)
    ]
    labels = [{"name": "a"}, {"name": "b"}]
    foreign.put(
        folder / "annotations/all.json", json.dumps({"categories": {"label": {"labels": labels}}, "items": items})
    )


def write_supervisely_shapes(folder: Path) -> None:
    """Polygons with holes."""
    points = {"exterior": [[3, 4], [40, 4], [40, 30], [3, 30]], "interior": [[[6, 8], [20, 8], [20, 20]]]}
    rows = [{"classTitle": "a", "geometryType": kind, "points": points} for kind in ("polygon", "rectangle", "line")]
    for name in photos(folder / "ds" / "img"):
        content = {"size": {"height": 40, "width": 56}, "objects": rows}
        foreign.put(folder / "ds" / "ann" / f"{name}.json", json.dumps(content))


def write_masks(folder: Path, shown: list[foreign.Shown]) -> None:
    """part/images/x.jpg, part/masks/x.png and classes.json."""
    for image in shown:
        pixels = np.zeros(image.size, np.uint8)
        for number, thing in enumerate(image.things, 1):
            x0, y0, x1, y1 = map(int, thing.box)
            pixels[y0:y1, x0:x1] = number
        held = io.BytesIO()
        Image.fromarray(pixels).save(held, "PNG")
        foreign.put(folder / image.part / "images" / image.name, image.data)
        foreign.put(folder / image.part / "masks" / f"{Path(image.name).stem}.png", held.getvalue())
    foreign.put(folder / "classes.json", json.dumps({"classes": ["ground", "a", "b", "c"], "ignore_index": 255}))


def rows_of(shown: list[foreign.Shown]) -> list[dict[str, Any]]:
    """A path, a class and a part of each image."""
    return [
        {"path": f"pix/{image.name}", "label": "ab"[place % 2], "split": image.part}
        for place, image in enumerate(shown)
    ]


def write_table(folder: Path, shown: list[foreign.Shown], ending: str) -> None:
    """table.csv or table.jsonl, and the images."""
    rows = rows_of(shown)
    lines = (
        ["path,label,split", *(",".join(row.values()) for row in rows)] if ending == ".csv" else map(json.dumps, rows)
    )
    foreign.put(folder / f"table{ending}", "\n".join(lines))
    for image in shown:
        foreign.put(folder / "pix" / image.name, image.data)


def write_arrow(folder: Path, shown: list[foreign.Shown], ending: str) -> None:
    """Images in the rows of a file."""
    import pyarrow
    from pyarrow import parquet

    rows = [
        {"image": {"bytes": image.data, "path": image.name}, "label": "ab"[place % 2], "split": image.part}
        for place, image in enumerate(shown)
    ]
    table = pyarrow.Table.from_pylist(rows)
    if ending == ".parquet":
        parquet.write_table(table, folder / "data.parquet", row_group_size=3)
        return
    with pyarrow.OSFile(str(folder / "data.arrow"), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)


def write_objects(folder: Path, shown: list[foreign.Shown]) -> None:
    """train/metadata.jsonl with a column of objects beside the images."""
    for part in ("train", "val"):
        lines = []
        for image in (image for image in shown if image.part == part):
            boxes = [[t.box[0], t.box[1], t.box[2] - t.box[0], t.box[3] - t.box[1]] for t in image.things]
            objects = {"bbox": boxes, "category": [t.label for t in image.things]}
            lines.append(json.dumps({"file_name": image.name, "objects": objects}))
            foreign.put(folder / part / image.name, image.data)
        foreign.put(folder / part / "metadata.jsonl", "\n".join(lines))


def write_zip(folder: Path, shown: list[foreign.Shown]) -> None:
    """Class folders in a zip."""
    with zipfile.ZipFile(folder / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for place, image in enumerate(shown * 2):
            archive.writestr(f"{'ab'[place % 2]}/{place} {image.name}", image.data)


def files_of(path: Path) -> list[Path]:
    """The files of a data set that are not images."""
    if path.is_file():
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file() and file.suffix != ".jpg")


def misled(data: bytes, suffix: str, rng: random.Random) -> tuple[bytes, str]:
    """A file that says something else in one place, and what."""
    if suffix == ".json" or suffix == ".jsonl":
        lines = data.split(b"\n") if suffix == ".jsonl" else [data]
        place = rng.randrange(len(lines))
        content, how = json.loads(lines[place]), ""
        for _ in range(rng.randint(1, 2)):
            spots = list(spots_of(content))
            holder, key = rng.choice(spots)
            value = rng.choice(ODD)
            how += f"{key!r} = {str(value)[:40]!r}; "
            if rng.random() < 0.15:
                deep = 100_000
                text = json.dumps(content, allow_nan=True)
                old = json.dumps(holder[key])
                lines[place] = text.replace(old, "[" * deep + "]" * deep, 1).encode("utf-8", "surrogatepass")
                return b"\n".join(lines), f"{key!r} is deep"
            holder[key] = value
        lines[place] = json.dumps(content, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
        return b"\n".join(lines), how
    text = data.decode("utf-8", "surrogateescape")
    words = list(re.finditer(r"[\w.+-]+", text))
    spot, word = rng.choice(words), rng.choice(WORDS)
    changed = text[: spot.start()] + word + text[spot.end() :]
    if suffix == ".xml" and rng.random() < 0.1:
        changed = '<!DOCTYPE x [<!ENTITY a "aaaa">' + "".join(
            f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefghi", "bcdefghij", strict=True)
        ) + f"]>{text.replace(spot[0], '&j;', 1)}"  # fmt: skip
    if rng.random() < 0.05:
        changed = text.replace(spot[0], "<a>" * 100_000 if suffix == ".xml" else "[" * 100_000, 1)
    return changed.encode(
        "utf-8", "surrogatepass" if "\ud800" in changed else "surrogateescape"
    ), f"{spot[0]} -> {word[:40]!r}"


def spots_of(content: Any) -> Iterator[tuple[Any, Any]]:
    """(holder, key) of every value in JSON."""
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in pairs:
        yield content, key
        yield from spots_of(value)


def attack_annotations(folder: Path, n: int, seed: int, first: int = 0) -> tuple[Counter[str], list[Failure]]:
    """The same for data sets in `folder`, one file of which is damaged in each trial."""
    sets = data_sets(folder)
    names = list(sets)
    counts, failures = Counter[str](), list[Failure]()
    for number in range(first, first + n):
        rng = random.Random(f"{seed} annotation {number}")
        name = rng.choice(names)
        file = rng.choice(files_of(sets[name]))
        whole = file.read_bytes()
        texts = file.suffix in (".json", ".jsonl", ".csv", ".xml", ".txt", ".yaml")
        data, how = (
            misled(whole, file.suffix, rng) if texts and whole and rng.random() < 0.7 else damaged(whole or b"\0", rng)
        )
        file.write_bytes(data)
        task = rng.choice((None, None, "segmentation", "detection"))
        try:
            what = f"{name}: {file.name}, {how}, task {task} (trial {number})"
            tried(what, lambda path=sets[name], task=task: opened(path, task), counts, failures)
        finally:
            file.write_bytes(whole)
    return counts, failures


def opened(path: Path, task: str | None) -> None:
    """What training does with data before its first step."""
    source = recognise(path, task=task)
    if source.task == "classification":
        splits = open_splits(source)
        look(splits, workers=1)
        for entry in splits.train.entries:
            with contextlib.suppress(ConvNeXtError, OSError):
                decode(splits.train.store.read(entry.path))
        return
    dense = open_dense_splits(source)
    look(dense, workers=1)
    for part in (dense.train, dense.val):
        for place in range(len(part.entries)):
            with contextlib.suppress(ConvNeXtError, OSError):
                read_sample(part, place)


def chunk(kind: str, n: int, seed: int, first: int) -> dict[str, Any]:
    """Some trials in this process, under a limit of memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    if pages:
        most = pages * resource.getpagesize() + CAP_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    folder = Path(tempfile.mkdtemp(prefix="damage-"))
    try:
        counts, failures = (
            attack_images(n, seed, first) if kind == "images" else attack_annotations(folder, n, seed, first)
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {"counts": counts, "failures": failures, "peak_mb": peak}


def main() -> int:
    """Damage, count; 1 where a trial failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--annotations", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet", action="store_true", help="write no line of results")
    parser.add_argument("--chunk", nargs=3, metavar=("KIND", "N", "FIRST"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.chunk:
        kind, n, first = args.chunk
        print(json.dumps(chunk(kind, int(n), args.seed, int(first))))
        return 0
    begun, failed, total = time.monotonic(), 0, {}
    for kind, n in (("images", args.images), ("annotations", args.annotations)):
        counts, peak = Counter[str](), 0
        for first in range(0, n, CHUNK):
            words = [
                sys.executable,
                __file__,
                "--seed",
                str(args.seed),
                "--chunk",
                kind,
                str(min(CHUNK, n - first)),
                str(first),
            ]
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            if done.returncode:
                failed += 1
                print(f"{kind} from {first} on ended with {done.returncode}: {done.stderr[-2000:]}", file=sys.stderr)
                continue
            found = json.loads(done.stdout)
            counts.update(found["counts"])
            peak = max(peak, found["peak_mb"])
            failed += len(found["failures"])
            for what, why in found["failures"]:
                print(f"{what}\n{why}\n", file=sys.stderr)
        total[kind] = {"n": n, **counts, "peak_mb": peak}
        print(f"{kind}: {n:,} damaged, {dict(counts)}, at most {peak:,} MB", flush=True)
    row = {"benchmark": "damage_data", "seed": args.seed, "failures": failed, **total, "python": platform.python_version(),
           "system": platform.platform(), "seconds": round(time.monotonic() - begun)}  # fmt: skip
    if not args.quiet:
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    print(f"{failed} failures")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
