"""Scikit-learn's handwritten digits (UCI Optdigits, 1,797 scans of 8 x 8) as a folder of images: the embedded data."""

from pathlib import Path

import numpy as np
from PIL import Image

from convnext.extras import needs


def write_digits(folder: Path) -> None:
    """Write train/<digit>/*.png (1,442) and val/<digit>/*.png (355) below `folder`; every fifth scan of a digit is val."""
    bunch = needs("sklearn.datasets", "`convnext demo`").load_digits()  # an extra: only the demo needs it
    seen = [0] * 10
    for number, (scan, digit) in enumerate(zip(bunch.images, bunch.target.tolist(), strict=True)):
        split = "val" if seen[digit] % 5 == 4 else "train"
        seen[digit] += 1
        path = folder / split / str(digit) / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((scan * (255 / 16)).astype(np.uint8)).save(path)
