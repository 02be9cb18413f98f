"""Masks, a file for each object, as a COCO file to train a detector on.

    python examples/masks_to_coco.py stage1_train nuclei    # of the Data Science Bowl 2018: BBBC038, CC0
    convnext train nuclei

stage1_train/NAME/images/NAME.png is an image, stage1_train/NAME/masks/*.png have its objects in white.
"""

import json
import sys
from itertools import groupby
from pathlib import Path

import numpy as np
from PIL import Image

images, annotations = [], []
source, out = map(Path, sys.argv[1:3])
(out / "images").mkdir(parents=True)
for folder in sorted(path for path in source.iterdir() if path.is_dir()):
    (file,) = (folder / "images").iterdir()
    image = Image.open(file).convert("RGB")  # some are RGBA
    image.save(out / "images" / f"{folder.name}.png")
    name = f"{folder.name}.png"
    images.append({"id": len(images), "file_name": name, "width": image.width, "height": image.height})
    for each in sorted((folder / "masks").iterdir()):
        mask = np.asarray(Image.open(each).convert("L")) > 0  # (H, W)
        rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
        box = [int(columns[0]), int(rows[0]), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1]  # x, y, width, height
        runs = [(value, len(list(run))) for value, run in groupby(mask.T.ravel().tolist())]  # column by column
        counts = [0] * runs[0][0] + [length for _, length in runs]  # the first run is one of background
        about = {"id": len(annotations), "image_id": len(images) - 1, "category_id": 1, "iscrowd": 0, "bbox": box}
        outline = {"size": list(mask.shape), "counts": counts}
        annotations.append({**about, "area": int(mask.sum()), "segmentation": outline})
categories = [{"id": 1, "name": "nucleus"}]
coco = {"images": images, "annotations": annotations, "categories": categories}
(out / "annotations.json").write_text(json.dumps(coco), "utf-8")
print(f"{len(images)} images with {len(annotations)} objects: {out / 'annotations.json'}")
