"""Change one decision of the network and count what it costs: the paper's method, in a few lines.

python examples/roadmap.py
"""

import torch

import convnext

for name, changed in {
    "ConvNeXt-T": {},
    "without layer scale": {"layer_scale": None},
    "kernel of 3": {"kernel": 3},
    "kernel of 11": {"kernel": 11},
    "V2's normalisation in the MLP": {"grn": True, "layer_scale": None},
}.items():
    with torch.device("meta"):  # nothing is allocated
        model = convnext.create("tiny", **changed)
    print(f"{name:<32}{sum(each.numel() for each in model.parameters()) / 1e6:8.2f} M parameters")

with torch.device("meta"):
    step = convnext.create("roadmap_t:depthwise")  # any step between ResNet-50 and ConvNeXt-T
print(f"{'roadmap, depthwise':<32}{sum(each.numel() for each in step.parameters()) / 1e6:8.2f} M parameters")
