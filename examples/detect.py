"""Boxes of a detector as numbers, for whatever comes next.

python examples/detect.py runs/nuclei cells
"""

import sys

import convnext

run, images = sys.argv[1:3]
detector = convnext.load(run, task="detection")
for answer in detector.predict(images, score=0.5):
    print(f"{answer.path}: {len(answer.predictions)} objects")
    for (label, score), (left, top, right, bottom) in zip(answer.predictions, answer.boxes, strict=True):
        print(f"  {label} {score:.2f} from ({left:.0f}, {top:.0f}) to ({right:.0f}, {bottom:.0f})")
