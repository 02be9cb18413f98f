"""Where on an image are the reasons for a class?

python examples/explain.py runs/demo image.png map.png
"""

import sys

import convnext

run, image, out = sys.argv[1:4]
explanation = convnext.load(run).explain(image)
explanation.save(out)
print(explanation.text())
