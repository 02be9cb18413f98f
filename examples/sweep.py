"""Three learning rates, two seeds each: is the difference larger than the spread?

python examples/sweep.py runs/demo/images runs/sweep
"""

import sys
from statistics import mean, stdev

import convnext

data, out = sys.argv[1:3]
for lr in (3e-4, 1e-3, 3e-3):
    scores = []
    for seed in (0, 1):
        changed = {"optim.lr": lr, "input.size_px": 32}
        run = convnext.train(data, model="atto", epochs=1, seed=seed, overrides=changed, out=f"{out}/{lr:g}_{seed}")
        scores.append(run.scores["top1"])  # a run that is done is read, not trained again
    print(f"lr {lr:g}: {mean(scores):.1%} ± {stdev(scores) / 2**0.5:.1%}")
