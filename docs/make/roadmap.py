"""The walk from ResNet-50 to ConvNeXt-T: each step with its block drawn from the network itself, its sizes and its gain."""

import ast
import inspect
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convnext.config import RoadmapConfig
from convnext.drawing.canvas import bar, canvas, curve, line, write
from convnext.drawing.markup import Html
from convnext.models import roadmap as networks
from convnext.models.roadmap import Block, Roadmap
from convnext.recipes.roadmap import Step, roadmap, rows

_WHY = {
    "resnet_original": "Where everybody stood in 2015: 90 epochs, crops and mirror images, SGD.",
    "resnet": "Nothing of the network changes. 300 epochs with AdamW, mixup, cutmix, RandAugment, erasing, label "
    "smoothing and stochastic depth give the old network 2.7 points: much of what was said about transformers "
    "was about their training.",
    "stage_ratio": "Swin spends most of its blocks in the third stage, on a map of 14 x 14. So does this row; it costs a tenth "
    "more.",
    "patchify": "A transformer cuts the image into patches that do not overlap. One convolution of 4 x 4 with stride 4 does "
    "the same and replaces the 7 x 7 one and the pooling behind it.",
    "depthwise": "ResNeXt's idea at its end: one group a channel. Space is mixed channel by channel, channels are mixed by "
    "the 1 x 1 convolutions, as attention and MLP share the work in a transformer. The network gets small, and "
    "worse.",
    "width": "The multiply-adds that were saved are spent on width. Together with the step before: ResNeXt's motto, more "
    "groups and wider.",
    "inverted": "MLPs of transformers, and MobileNetV2, are wide inside. The depthwise convolution now sees four times the "
    "channels, but the shortcuts of the downsampling blocks get cheap, so the whole costs less.",
    "move_up": "A large kernel should see few channels, so the depthwise convolution comes first, where the block is "
    "narrow: the place of attention in front of the MLP. This row alone costs 0.7 points; it makes the next "
    "ones cheap.",
    "kernel_5": "VGG made 3 x 3 the rule. With a depthwise convolution a larger kernel costs next to nothing.",
    "kernel_7": "As large as Swin's windows. What moving up had cost is back.",
    "kernel_9": "A look further: no gain over 7 x 7.",
    "kernel_11": "And further: none either, so the paper stays with 7 x 7.",
    "gelu": "The same accuracy with the activation of the transformers; it is kept for their likeness.",
    "fewer_activations": "A transformer's block has one activation, in its MLP. So does this one, between the two 1 x 1 "
    "convolutions: 0.7 points, for nothing.",
    "fewer_norms": "One norm in a block, in front of the MLP. A second one at the start of the block did not help.",
    "layer_norm": "Put into a plain ResNet, LayerNorm is worse than BatchNorm. Here it is a little better, and no batch "
    "statistics are left: what an image gives does not depend on its neighbours.",
    "separate_downsampling": "ResNet halves the map inside of a block. Swin does it between the stages; with a norm "
    "in front of it, and "
    "one behind the stem and behind the pooling, the training is stable, and this is ConvNeXt-T, ahead of "
    "Swin-T's 81.3 %.",
}
_NAMES = {"BatchNorm2d": "BatchNorm", "ChannelNorm": "LayerNorm", "ReLU": "ReLU", "GELU": "GELU"}
_LEFT, _WIDE, _ROW = 214, 250, 26


def page(out: Path) -> str:
    """The walk; the drawings go into the folder `out`/drawn."""
    drawn = out / "drawn"
    drawn.mkdir(parents=True, exist_ok=True)
    steps, sizes = roadmap("t"), rows("t")
    (drawn / "walk.svg").write_text(str(_gains(steps)), "utf-8")
    named = {step.name: step for step in steps}
    counted: dict[str, Any] = {}
    lines = [_INTRO, "![Accuracy of every step](drawn/walk.svg)", ""]
    for step, size in zip(steps, sizes, strict=True):
        base = named.get(step.base or "")
        before = base.config if base else None
        (drawn / f"{step.name}.svg").write_text(str(_block(step.config, before)), "utf-8")
        whole = before is None or _parts(step.config) != _parts(before)
        if whole:
            (drawn / f"{step.name}_network.svg").write_text(str(_network(step.config, before)), "utf-8")
        lines += _step(step, base, size, counted.get(step.base or ""), whole=whole)
        counted[step.name] = size
    code = inspect.getsource(Block).rstrip()
    return "\n".join([*lines, _BLOCK, f"```python\n{code}\n```", _END])


_INTRO = """# The walk from ResNet to ConvNeXt

The paper's question: how far does a convolutional network come if it takes over one design decision of the
transformers after the other, and nothing else? Here each decision is one field of one network, so each row below can
be built, counted and trained. The axis below starts at 75.5 %. The drawings are made from these networks: a block of
the second stage, as wide as its channels, and the whole where a step changes it. Orange is what the step changed.

Accuracy is the paper's, on ImageNet-1K at 224 px, the mean of three seeds where a spread stands beside it. Parameters
and multiply-adds are counted here; the code is that of
[`models/roadmap.py`](../src/convnext/models/roadmap.py) which reads the field.
"""

_BLOCK = """
## The whole block

Every step is a value of these fields, so one block is enough for all of them:
"""

_END = """
## On your own images

```bash
convnext roadmap --train pets --width-factor 0.25 --seeds 3
```

trains the steps on your images and draws the same chart with error bars. Below: Imagenette, a quarter of the width, 6
epochs at 64 px, two seeds. With a tenth of the images and a fiftieth of the epochs not every step shows its gain; the
order of the large ones is the paper's.

![The roadmap on Imagenette](../benchmarks/results/roadmap.svg)
"""


def _step(step: Step, base: Step | None, size: Any, before: Any, *, whole: bool) -> list[str]:
    spread = "" if step.paper_std is None else f" ± {step.paper_std:.2f}"
    gain = "" if base is None else f" ({step.paper_top1 - base.paper_top1:+.2f})".replace("-", "\N{MINUS SIGN}")
    changed = {} if base is None else _changes(step.config, base.config)
    code = ", ".join(f"{key}={value!r}" for key, value in changed.items())
    lines = [f"## {step.name.replace('_', ' ')}", "", step.change, "", _WHY[step.name], ""]
    lines += [
        "| top-1 | parameters | multiply-adds | field of `RoadmapConfig` |",
        "|---|---|---|---|",
        f"| {step.paper_top1:.2f} %{spread}{gain} | {size['params'] / 1e6:.2f} M{_more(size, before, 'params')} | "
        f"{size['macs'] / 1e9:.2f} G{_more(size, before, 'macs')} | "
        f"{f'`{code}`' if code else 'the recipe' if base else 'its defaults'} |",
        "",
    ]
    if step.misprint:
        lines += [f"In the paper's table: {step.misprint}.", ""]
    if whole:
        lines += [f"![The network after this step](drawn/{step.name}_network.svg)", ""]
    if base is None or _layers(step.config) != _layers(base.config):
        lines += [f"![A block after this step](drawn/{step.name}.svg)", ""]
    if read := _read(changed):
        lines += ["```python", *read, "```", ""]
    return [*lines, f"```bash\nconvnext train pets --model roadmap_t:{step.name}\n```", ""]


def _more(size: Any, before: Any, what: str) -> str:
    """By how much it grew, ' (+11 %)'; nothing where it did not."""
    share = 0.0 if before is None else 100 * (size[what] / before[what] - 1)
    return "" if abs(share) < 0.05 else f" ({share:+.{1 if abs(share) < 1 else 0}f} %)".replace("-", "\N{MINUS SIGN}")


def _read(changed: dict[str, object]) -> list[str]:
    """The lines of the network's code that read these fields, once each, and below a condition what it decides."""
    source = inspect.getsource(networks)
    told = {each for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Expr) for each in _lines_of(node)}
    lines = [each for number, each in enumerate(source.splitlines(), 1) if number not in told]
    fields = re.compile(rf"\bconfig\.({'|'.join(changed)})\b") if changed else None
    found: dict[str, None] = {}
    for each, below in pairwise([*lines, ""]):
        if fields and fields.search(each):
            found[each.strip()] = None
            if each.endswith(":"):
                found[f"    {below.strip()}"] = None
    return list(found)


def _lines_of(node: ast.Expr) -> range:
    """The lines of a docstring; none of another expression."""
    told = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    return range(node.lineno, (node.end_lineno or node.lineno) + 1) if told else range(0)


def _changes(config: RoadmapConfig, base: RoadmapConfig) -> dict[str, object]:
    before = base.model_dump()
    return {key: value for key, value in config.model_dump().items() if value != before[key] and key != "name"}


def _layers(config: RoadmapConfig) -> list[tuple[str, int]]:
    """(words, channels) of a block of the second stage, first to last, as the network has them."""
    with torch.device("meta"):
        stage = Roadmap(config).stages[1]
    block = stage.blocks[1]
    layers: list[tuple[str, int]] = []
    for layer in block.branch:
        if isinstance(layer, nn.Conv2d):
            side = layer.kernel_size[0]
            kind = "depthwise " if layer.groups > 1 else ""
            layers.append((f"{kind}{side} x {side}, {layer.in_channels} to {layer.out_channels}", layer.out_channels))
        else:
            layers.append((_NAMES[type(layer).__name__], layers[-1][1]))
    if block.gamma is not None:
        layers.append(("layer scale", layers[-1][1]))
    layers.append(("add the input", layers[-1][1]))
    if not isinstance(block.last, nn.Identity):
        layers.append((_NAMES[type(block.last).__name__], layers[-1][1]))
    return layers


def _block(config: RoadmapConfig, base: RoadmapConfig | None) -> Html:
    """The layers of a block, as wide as their channels; what was not there before stands out."""
    layers = _layers(config)
    left_over = [words for words, _ in _layers(base)] if base else []
    new: list[bool] = []
    for words, _ in layers:
        new.append(base is not None and words not in left_over)
        if words in left_over:
            left_over.remove(words)
    return _column(layers, new, "The layers of a block")


def _parts(config: RoadmapConfig) -> list[tuple[str, int]]:
    """(words, blocks) of the whole network, from pixels to logits."""
    side = config.patch
    stem = "7 x 7 of stride 2, max pool" if config.stem == "conv7" else f"{side} x {side} of stride {side}"
    own = config.downsample == "layer"
    parts = [(f"stem: {stem}", 0)]
    for place, depth in enumerate(config.depths):
        if place:
            parts.append(("norm, 2 x 2 of stride 2" if own else "stride 2 in the first block", 0))
        parts.append((f"stage {place + 1}: {depth} blocks", depth))
    return [*parts, ("mean, norm, head" if own else "mean, head", 0)]


def _network(config: RoadmapConfig, base: RoadmapConfig | None) -> Html:
    """Stem, stages as wide as their blocks are many, what lies between them, and the head."""
    parts = _parts(config)
    new = [base is not None and part != before for part, before in zip(parts, _parts(base or config), strict=True)]
    return _column(parts, new, "The network")


def _column(layers: list[tuple[str, int]], new: list[bool], title: str) -> Html:
    """One bar below the other, as wide as its number says; what is `new` stands out."""
    most = max(channels for _, channels in layers)
    inside: list[object] = []
    y = 0.0
    for (words, channels), fresh in zip(layers, new, strict=True):
        old = not fresh
        wide = max(18.0, _WIDE * channels / most)
        inside.append(bar(_LEFT + (_WIDE - wide) / 2, y, wide, _ROW - 8, "fill faint" if old else "fill orange"))
        inside.append(write(_LEFT - 12, y + 13, words, "" if old else "orange", "end"))
        y += _ROW
    middle = _LEFT + _WIDE / 2
    ends = [_ROW * place + _ROW - 8 for place in range(len(layers))]
    inside += [line(middle, low, middle, low + 8, "axis") for low, _ in pairwise(ends)]
    return canvas(_LEFT + _WIDE, y, f"{title}: " + "; ".join(words for words, _ in layers), *inside)


def _gains(steps: tuple[Step, ...]) -> Html:
    """Accuracy of the steps, from top to bottom."""
    low, high = 75.5, 82.5
    inside: list[object] = []

    def across(value: float) -> float:
        return _LEFT + 20 + (value - low) / (high - low) * 420

    for value in range(76, 83):
        inside.append(line(across(value), 0, across(value), 24 * len(steps), "grid"))
        inside.append(write(across(value), 24 * len(steps) + 16, f"{value} %", "small", "middle"))
    for place, step in enumerate(steps):
        y, taken = 24 * place, "not taken up" not in step.change
        inside.append(write(_LEFT + 8, y + 13, step.name.replace("_", " "), "", "end"))
        inside.append(
            bar(across(low), y + 2, across(step.paper_top1) - across(low), 14, "fill blue" if taken else "fill silver")
        )
        inside.append(write(across(step.paper_top1) + 6, y + 13, f"{step.paper_top1:.2f}", "small"))
    end = 24 * len(steps)
    inside.append(curve([(across(81.3), 0), (across(81.3), end)], "limit"))
    inside.append(write(across(81.3), -5, "Swin-T 81.3", "small", "middle"))
    return canvas(_LEFT + 490, end + 22, "Top-1 accuracy of each step of the paper", *inside, edge=18)
