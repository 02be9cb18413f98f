"""Answer only where it is safe: from which score on are 95 of 100 answers right?

python examples/promise.py runs/demo runs/demo/images
"""

import sys

import convnext

run, data = sys.argv[1:3]
measured = convnext.evaluate(run, data, promise=0.95)
print(measured.to_dict()["promise"])
