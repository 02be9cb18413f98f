"""The published recipes: Liu et al. 2022, arXiv 2201.03545, tables 5 and 6, with what only the released code tells.

Every learning rate belongs to the batch beside it; the released code does not scale one with the other, nor do we.
Values that nobody has published (the small V1 networks, V2 under these recipes) are ours, and `source` says so.
"""

from convnext.config import (
    AugmentConfig,
    ClassificationRecipe,
    ConvNeXtConfig,
    GFNetConfig,
    InputConfig,
    ModelConfig,
    OptimConfig,
    RoadmapConfig,
    ScheduleConfig,
    TimmConfig,
)
from convnext.recipes.architectures import architecture

PAPER = "arXiv 2201.03545"

# Stochastic depth of the last block, by network. Paper, tables 5 and 6; isotropic: appendix.
DROP_PATH_1K = {
    "tiny": 0.1,
    "small": 0.4,
    "base": 0.5,
    "large": 0.5,
    "iso_small": 0.1,
    "iso_base": 0.2,
    "iso_large": 0.5,
}
DROP_PATH_22K = {"tiny": 0.0, "small": 0.0, "base": 0.1, "large": 0.1, "xlarge": 0.2}
DROP_PATH_FINETUNE = {"tiny": 0.0, "small": 0.1, "base": 0.2, "large": 0.3, "xlarge": 0.4}  # from 22K, 224 and 384
DROP_PATH_FINETUNE_1K = {"base": 0.8, "large": 0.95}  # from 1K, 384

# Not published, so ours: V2 does as V1 of its size, 'huge' and 'xlarge' as 'large'; what a table lacks altogether takes
# its rate of the 1K table; networks below 'tiny' underfit in these runs and take none.
LIKE = {"v2_tiny": "tiny", "v2_base": "base", "v2_large": "large", "v2_huge": "large", "xlarge": "large"}

STRONG = AugmentConfig(
    rand_augment="rand-m9-mstd0.5-inc1",
    erasing=0.25,
    mixup=0.8,
    cutmix=1.0,
    mix_prob=1.0,
    mix_switch=0.5,
    smoothing=0.1,
)
UNMIXED = STRONG.model_copy(update={"mixup": 0.0, "cutmix": 0.0})  # fine-tuning


def imagenet1k(model: str) -> ClassificationRecipe:
    """300 epochs of ImageNet-1K from random weights, batch 4096 (table 5); isotropic networks warm up longer."""
    network, known = _network(model, DROP_PATH_1K)
    isotropic = isinstance(network, ConvNeXtConfig) and len(network.depths) == 1
    return ClassificationRecipe(
        name="imagenet1k",
        source=_source(f"{PAPER}, {'section 3.3 and table 5' if isotropic else 'table 5'}, ImageNet-1K", model, known),
        model=network,
        input=_input(224),
        augment=STRONG,
        optim=OptimConfig(lr=4e-3, batch=4096, weight_decay=0.05, ema=0.9999),
        schedule=ScheduleConfig(epochs=300, warmup_epochs=50 if isotropic else 20, min_lr=1e-6),
    )


def imagenet22k(model: str) -> ClassificationRecipe:
    """90 epochs of ImageNet-22K from random weights, batch 4096, no EMA (table 5)."""
    network, known = _network(model, DROP_PATH_22K, classes=21_841)
    return ClassificationRecipe(
        name="imagenet22k",
        source=_source(f"{PAPER}, table 5, ImageNet-22K", model, known),
        model=network,
        input=_input(224),
        augment=STRONG,
        optim=OptimConfig(lr=4e-3, batch=4096, weight_decay=0.05),
        schedule=ScheduleConfig(epochs=90, warmup_epochs=5, min_lr=1e-6),
    )


def finetune(model: str) -> ClassificationRecipe:
    """30 epochs at 224 px from ImageNet-22K weights (table 6, the released commands)."""
    return _finetune("finetune", model, 224)


def finetune384(model: str) -> ClassificationRecipe:
    """30 epochs at 384 px from ImageNet-22K weights (table 6)."""
    return _finetune("finetune384", model, 384)


def finetune384_1k(model: str) -> ClassificationRecipe:
    """30 epochs at 384 px from ImageNet-1K weights (table 6; published for base and large)."""
    network, known = _network(model, DROP_PATH_FINETUNE_1K, head_scale=0.001)
    return _tuned("finetune384_1k", f"{PAPER}, table 6, 1K to 1K at 384", model, network, known, 384, layer_decay=0.7)


def resnet_original(model: str) -> ClassificationRecipe:
    """The recipe that gives ResNet-50 its 76.13 %: SGD, 90 epochs, a tenth of the rate every 30.

    One difference: like everywhere here, 1-D parameters (norms, biases) do not decay.
    """
    return ClassificationRecipe(
        name="resnet_original",
        source="torchvision's reference training of ResNet-50 (76.13 %)",
        model=architecture(model),
        input=_input(224),
        optim=OptimConfig(name="sgd", lr=0.1, batch=256, momentum=0.9, weight_decay=1e-4),
        schedule=ScheduleConfig(epochs=90, kind="step", step_epochs=30, step_factor=0.1),
    )


def _finetune(name: str, model: str, size_px: int) -> ClassificationRecipe:
    network, known = _network(model, DROP_PATH_FINETUNE, head_scale=0.001)
    source = f"{PAPER}, table 6, 22K to 1K at {size_px}"
    ema = 0.9999 if network.name == "xlarge" else 0.0  # the only one published with EMA
    return _tuned(name, source, model, network, known, size_px, layer_decay=0.8, ema=ema)


def _tuned(
    name: str,
    source: str,
    model: str,
    network: ModelConfig,
    known: bool,
    size_px: int,
    *,
    layer_decay: float,
    ema: float = 0.0,
) -> ClassificationRecipe:
    layered = isinstance(network, ConvNeXtConfig)  # layer-wise decay needs the names of our own network
    return ClassificationRecipe(
        name=name,
        source=_source(source, model, known),
        model=network,
        input=_input(size_px),
        augment=UNMIXED,
        optim=OptimConfig(lr=5e-5, batch=512, weight_decay=1e-8, layer_decay=layer_decay if layered else 1.0, ema=ema),
        schedule=ScheduleConfig(epochs=30, min_lr=1e-6),
    )


def _network(
    model: str, rates: dict[str, float], *, classes: int = 1000, head_scale: float = 1.0
) -> tuple[ModelConfig, bool]:
    """The network with its stochastic depth for this recipe, and whether that rate is a published one."""
    network = architecture(model)
    if isinstance(network, TimmConfig | GFNetConfig):  # not every baseline has stochastic depth
        return network.model_copy(update={"classes": classes}), False
    if isinstance(network, RoadmapConfig):  # the paper trains every step with the rate of the ConvNeXt at its end
        end = "base" if network.name.startswith("roadmap_b") else "tiny"
        rate = rates.get(end, DROP_PATH_1K[end])
        return network.model_copy(update={"classes": classes, "drop_path": rate}), False
    like = LIKE.get(network.name, network.name)
    defaults = (rates.get(like), DROP_PATH_1K.get(like), 0.0)
    rate = rates.get(network.name, next(rate for rate in defaults if rate is not None))
    changes = {"drop_path": rate, "classes": classes, "head_scale": head_scale}
    return network.model_copy(update=changes), network.name in rates


def _source(published: str, model: str, known: bool) -> str:
    if isinstance(architecture(model), TimmConfig | GFNetConfig):
        return f"{published}; for '{model}' without drop_path, layer decay and head scale"
    return published if known else f"{published}; drop_path for '{model}' is not published: a default of this package"


def _input(size_px: int) -> InputConfig:
    """Below 384: shorter side to size / 0.875, then the centre. From 384 on: both sides to size, nothing cut off."""
    return InputConfig(size_px=size_px, eval_size_px=size_px, eval_resize="crop" if size_px < 384 else "warp")
