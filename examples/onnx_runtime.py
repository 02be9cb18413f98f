"""A classifier without torch and without this package: ONNX Runtime, NumPy and Pillow.

convnext export runs/demo --to onnx
python examples/onnx_runtime.py runs/demo/model.onnx image.png
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
pixels = np.asarray(ImageOps.exif_transpose(Image.open(sys.argv[2])).convert("RGB"))
scores, answers = session.run(["scores", "answers"], {"images": pixels[None]})
if not answers.any():  # no score reaches what was promised
    print("not sure")
for k in np.argsort(-scores[0])[:3]:
    print(f"{classes[k]}: {scores[0, k]:.1%}")
