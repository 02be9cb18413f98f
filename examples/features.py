"""Use a network as eyes: features of images, and any classifier of scikit-learn on them.

python examples/features.py runs/demo runs/demo/images
"""

import sys
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

import convnext

run, data = sys.argv[1:3]
predictor = convnext.load(run)  # weights of timm, DINOv3 or CLIP will do as well


def part(name: str) -> tuple[np.ndarray, list[str]]:
    """Features (N, C) of the images in one part, and the folders that they lie in."""
    files = sorted(path for path in (Path(data) / name).rglob("*") if path.is_file())
    return np.stack(list(predictor.embed(files))), [path.parent.name for path in files]


x, labels = part("train")
judge = LogisticRegression(max_iter=1000).fit(x, labels)
print(f"{judge.score(*part('val')):.1%} of the held-out images are named right, from {x.shape[1]} features each")
