"""Every network from ResNet to ConvNeXt as a value, in the order of Liu et al. 2022, arXiv 2201.03545, tables 10 and 11.

Two regimes: 't' goes from ResNet-50 to ConvNeXt-T, 'b' from ResNet-200 to ConvNeXt-B. Each row changes one decision of
another row, its `base`: the row before it, but for GELU, which goes on from kernel 7 and not from kernel 11.

Choices where the paper is silent: ResNet's stem grows with the width of regime 'b'; what is kept and what leaves with
which step is told in `models.roadmap`. The last row changes three fields: the downsampling layers that give it its name, and
biases and layer scale, which ConvNeXt has and ResNet has not, and for which the paper names no step.
"""

from dataclasses import dataclass
from typing import Any, Literal

from convnext.config import RoadmapConfig
from convnext.errors import ConvNeXtError, nearest
from convnext.recipes.sizes import STEP_SIZES

Regime = Literal["t", "b"]
REGIMES: tuple[Regime, ...] = ("t", "b")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One row of the roadmap."""

    name: str
    group: str  # the section of the paper's Figure 2
    change: str  # in one sentence
    base: str | None  # the row that it changes; None for the first
    config: RoadmapConfig
    recipe: Literal["original", "modern"] = "modern"  # how it is trained; only the first row has the original one
    paper_gflops: float  # as printed
    paper_top1: float  # percent, ImageNet-1K, EMA off; mean of three seeds in 't', one run in 'b'
    paper_std: float | None  # over the seeds; None where the paper gives none
    misprint: str | None = None  # what is most likely wrong with paper_gflops
    likely_gflops: float | None = None  # what the cell should say, where it is most likely misprinted


@dataclass(frozen=True)
class _Row:
    name: str
    group: str
    change: str | dict[Regime, str]
    fields: dict[Regime, dict[str, Any]]
    t: tuple[float, float, float | None]  # GFLOPs, top-1, std
    b: tuple[float, float]
    base: str | None = None  # None: the row before


def _both(**fields: Any) -> dict[Regime, dict[str, Any]]:
    return {"t": fields, "b": fields}


START = {"t": RoadmapConfig(depths=(3, 4, 6, 3)), "b": RoadmapConfig(depths=(3, 24, 36, 3))}

_ROWS = (
    _Row(
        "resnet_original", "ResNet", "ResNet under its original recipe.", _both(), (4.09, 76.13, None), (15.01, 78.20)
    ),
    _Row(
        "resnet",
        "ResNet",
        "The same network under the modern recipe.",
        _both(),
        (4.09, 78.82, 0.07),
        (15.01, 81.14),
    ),
    _Row(
        "stage_ratio",
        "macro design",
        {
            "t": "Blocks per stage in Swin's ratio 1:1:3:1.",
            "b": "Blocks per stage in Swin's ratio 1:1:9:1; the width goes from 64 to 84 to keep the cost.",
        },
        {"t": {"depths": (3, 3, 9, 3)}, "b": {"depths": (3, 3, 27, 3), "width": 84}},
        (4.53, 79.36, 0.07),
        (14.52, 81.33),
    ),
    _Row(
        "patchify",
        "macro design",
        "The stem is a 4x4 convolution of stride 4, not 7x7 of stride 2 and a max pool.",
        _both(stem="patch"),
        (4.42, 79.51, 0.18),
        (14.38, 81.59),
    ),
    _Row(
        "depthwise",
        "ResNeXt",
        "The spatial convolution is depthwise.",
        _both(depthwise=True),
        (2.35, 78.28, 0.08),
        (7.23, 80.54),
    ),
    _Row(
        "width",
        "ResNeXt",
        {"t": "The width goes from 64 to Swin's 96.", "b": "The width goes from 84 to Swin's 128."},
        {"t": {"width": 96}, "b": {"width": 128}},
        (5.27, 80.50, 0.02),
        (16.76, 81.85),
    ),
    _Row(
        "inverted",
        "inverted bottleneck",
        "A block is four times wider inside than outside, not narrower.",
        _both(bottleneck="inverted"),
        (4.64, 80.64, 0.03),
        (15.68, 82.64),
    ),
    _Row(
        "move_up",
        "large kernel",
        "The depthwise convolution moves up, before the two pointwise ones.",
        _both(order="spatial_first"),
        (4.07, 79.92, 0.08),
        (14.63, 82.04),
    ),
    _Row("kernel_5", "large kernel", "Its kernel is 5x5.", _both(kernel=5), (4.10, 80.35, 0.08), (14.70, 82.32)),
    _Row("kernel_7", "large kernel", "Its kernel is 7x7.", _both(kernel=7), (4.15, 80.57, 0.14), (14.81, 82.30)),
    _Row(
        "kernel_9",
        "large kernel",
        "Its kernel is 9x9; not taken up.",
        _both(kernel=9),
        (4.21, 80.57, 0.06),
        (14.95, 82.27),
    ),
    _Row(
        "kernel_11",
        "large kernel",
        "Its kernel is 11x11; not taken up.",
        _both(kernel=11),
        (4.29, 80.47, 0.11),
        (15.13, 82.18),
    ),
    _Row(
        "gelu",
        "micro design",
        "From kernel 7: every ReLU becomes a GELU.",
        _both(activation="gelu"),
        (4.15, 80.62, 0.14),
        (14.81, 82.19),
        base="kernel_7",
    ),
    _Row(
        "fewer_activations",
        "micro design",
        "One activation a block, between the pointwise convolutions.",
        _both(activations_per_block=1),
        (4.15, 81.27, 0.06),
        (14.81, 82.71),
    ),
    _Row(
        "fewer_norms",
        "micro design",
        "One norm a block, behind the depthwise convolution.",
        _both(norms_per_block=1),
        (4.15, 81.41, 0.09),
        (14.81, 83.17),
    ),
    _Row(
        "layer_norm",
        "micro design",
        "LayerNorm instead of BatchNorm.",
        _both(norm="layer"),
        (4.46, 81.47, 0.09),
        (14.81, 83.35),
    ),
    _Row(
        "separate_downsampling",
        "micro design",
        "Norm and 2x2 convolution of stride 2 between stages, norm behind the pooling, biases and layer scale: ConvNeXt.",
        _both(downsample="layer", bias=True, layer_scale=1e-6),
        (4.49, 81.97, 0.06),
        (15.35, 83.60),
    ),
)

STEPS: tuple[str, ...] = tuple(row.name for row in _ROWS)

# Both values stand one row too high: 4.46 is ConvNeXt-T (4.4555), 4.49 is Swin-T (4.4906). Our reading; no erratum is
# known. Figure 2 itself labels the first row 4.2, and regime 'b' keeps 14.81 across the change to LayerNorm.
_MISPRINTS: dict[tuple[Regime, str], tuple[float, str]] = {
    ("t", "layer_norm"): (4.15, "printed 4.46, most likely the value of the row below; LayerNorm adds no MACs: 4.15"),
    ("t", "separate_downsampling"): (4.46, "printed 4.49, most likely the value of Swin-T; this network has 4.46"),
}


def roadmap(regime: Regime = "t") -> tuple[Step, ...]:
    """The 17 rows of a regime, 't' (table 10) or 'b' (table 11), in order.

    Raises ConvNeXtError for another regime.
    """
    if regime not in REGIMES:
        raise ConvNeXtError(f"regime = '{regime}' must be one of {', '.join(REGIMES)}.{nearest(str(regime), REGIMES)}")
    steps: dict[str, Step] = {}
    before = None
    for row in _ROWS:
        base = row.base or before
        config = steps[base].config if base else START[regime]
        changes = {**row.fields[regime], "name": f"roadmap_{regime}:{row.name}"}
        gflops, top1, std = row.t if regime == "t" else (*row.b, None)
        likely, misprint = _MISPRINTS.get((regime, row.name), (None, None))
        steps[row.name] = Step(
            name=row.name,
            group=row.group,
            change=row.change if isinstance(row.change, str) else row.change[regime],
            base=base,
            config=RoadmapConfig.model_validate(config.model_dump() | changes),
            recipe="modern" if base else "original",
            paper_gflops=gflops,
            paper_top1=top1,
            paper_std=std,
            misprint=misprint,
            likely_gflops=likely,
        )
        before = row.name
    return tuple(steps.values())


def rows(regime: Regime = "t") -> list[dict[str, Any]]:
    """{'step', 'params', 'macs', 'paper_gflops', 'paper_top1'} of the 17 rows in order, at 224 px and 1000 classes.

    'macs' is in units of one, 'paper_gflops' in 1e9 and as printed, 'paper_top1' in percent.
    Raises ConvNeXtError for a regime that is neither 't' nor 'b'.
    """
    found = []
    for step in roadmap(regime):
        params, macs, _ = STEP_SIZES[step.config.name]
        sizes = {"step": step.name, "params": params, "macs": macs}
        found.append({**sizes, "paper_gflops": step.paper_gflops, "paper_top1": step.paper_top1})
    return found


def chosen_steps(regime: Regime, names: tuple[str, ...] = ()) -> tuple[Step, ...]:
    """The rows called `names` in the roadmap's order; all of them when there are none.

    Raises ConvNeXtError for a name that is no step.
    """
    every = roadmap(regime)
    for name in names:
        if name not in STEPS:
            raise ConvNeXtError(
                f"No step of the roadmap is called '{name}'.{nearest(name, STEPS)} There are: {', '.join(STEPS)}."
            )
    return tuple(step for step in every if step.name in names or not names)


def narrower(config: RoadmapConfig, factor: float) -> RoadmapConfig:
    """`config` at `factor` times its width, rounded to a multiple of four channels; 1 leaves it as it is.

    Raises ConvNeXtError unless 1/8 <= factor <= 4: below, widths that a step tells apart would round to the same.
    """
    if not 0.125 <= factor <= 4:
        raise ConvNeXtError(f"width_factor = {factor:g} must be from 0.125 to 4; 0.25 makes small networks.")
    if factor == 1:
        return config
    return config.model_copy(update={"width": 4 * round(config.width * factor / 4)})
