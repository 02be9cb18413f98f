"""Ask `convnext serve` from a program: only the standard library.

convnext serve runs/demo
python examples/ask_server.py http://127.0.0.1:8000 image.png
"""

import json
import sys
from pathlib import Path
from urllib.request import Request, urlopen

address, image = sys.argv[1:3]
question = Request(
    f"{address}/v1/predict?top=3", Path(image).read_bytes(), {"Content-Type": "application/octet-stream"}
)
with urlopen(question, timeout=30) as answer:
    for row in json.load(answer)["results"]:
        print(row["path"], row["predictions"])
