"""Train on a folder of classes, and ask the result.

python examples/train.py runs/demo/images runs/example
"""

import sys

import convnext

data, out = sys.argv[1:3]
run = convnext.train(data, model="atto", epochs=2, overrides={"input.size_px": 32}, out=out)
print(f"{run.scores['top1']:.1%} of the held-out images are named right; the page is {run.path / 'report.html'}")

predictor = convnext.load(run.path)
for answer in predictor.predict(f"{data}/val", top=2):
    (label, score), *_ = answer.predictions
    print(f"{answer.path}: {label} with {score:.0%}")
    break
