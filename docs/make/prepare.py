"""`python docs/make/prepare.py CLOTHING.zip NUCLEI.zip FOLDER`: the data of the tutorials, as their pages name them.

Both sets are CC0. holiday/: a photograph of the test part in each of four classes; kinds/: 80 of the training part in each of
five (`timm_atto.safetensors` is made by `convnext convert ... --to timm`); cells/: nuclei as masks of 0 and 1; some/: four of
the images that are held out.
"""

import json
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from convnext.data.masks import decompress, mask_of


def main(clothing: Path, nuclei: Path, folder: Path) -> None:
    """Write them into `folder`; what is there already stays."""
    folder.mkdir(exist_ok=True)
    shutil.copyfile(clothing, folder / "clothing.zip")
    shutil.copyfile(nuclei, folder / "nuclei.zip")
    (folder / "holiday").mkdir(exist_ok=True)
    with zipfile.ZipFile(clothing) as pack:
        for name in ("dress", "hat", "shirt", "shoes"):
            first = min(each for each in pack.namelist() if f"/test/{name}/" in f"/{each}" and each.endswith(".jpg"))
            (folder / "holiday" / f"{name}.jpg").write_bytes(pack.read(first))
        for name in ("dress", "hat", "pants", "shoes", "t-shirt"):
            (folder / "kinds" / name).mkdir(parents=True, exist_ok=True)
            found = sorted(
                each for each in pack.namelist() if f"/train/{name}/" in f"/{each}" and each.endswith(".jpg")
            )
            for each in found[:80]:
                (folder / "kinds" / name / Path(each).name).write_bytes(pack.read(each))
    with zipfile.ZipFile(nuclei) as pack:
        for part in ("train", "val"):
            _cells(pack, part, folder)


def _cells(pack: zipfile.ZipFile, part: str, folder: Path) -> None:
    (found,) = (name for name in pack.namelist() if name.endswith(f"instances_{part}.json"))
    about = json.loads(pack.read(found))
    places = {kind: folder / "cells" / kind / part for kind in ("images", "labels")}
    for place in (*places.values(), folder / "some"):
        place.mkdir(parents=True, exist_ok=True)
    objects: dict[int, list[dict[str, str]]] = {}
    for each in about["annotations"]:
        objects.setdefault(each["image_id"], []).append(each["segmentation"])
    for place, row in enumerate(about["images"]):
        (inside,) = (name for name in pack.namelist() if name.endswith(f"{part}/{Path(row['file_name']).name}"))
        mask = np.zeros((row["height"], row["width"]), np.uint8)
        for outline in objects.get(row["id"], []):
            mask |= mask_of(decompress(outline["counts"].encode()), *mask.shape).astype(np.uint8)
        stem = Path(inside).stem
        (places["images"] / f"{stem}.jpg").write_bytes(pack.read(inside))
        if part == "val" and place % 40 == 0:
            (folder / "some" / f"{stem}.jpg").write_bytes(pack.read(inside))
        Image.fromarray(mask).save(places["labels"] / f"{stem}.png")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
