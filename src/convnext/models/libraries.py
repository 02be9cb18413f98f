"""Other libraries' own ConvNeXt, filled with converted tensors and run: what a conversion is checked against.

Every function loads strictly, so a name or shape that the library does not have is an error here, too. The libraries
load when they are asked for; none of them is needed to convert.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from convnext.config import ConvNeXtConfig
from convnext.errors import ConvNeXtError
from convnext.models.convert import Weights, keras_name
from convnext.models.convnext import EPS, ChannelNorm, ConvNeXt

MODULES = {"timm": "timm", "torchvision": "torchvision", "transformers": "transformers", "keras-npz": "keras"}
SIDE_PX = 224  # of the fixed image
_TIMM_NORMS = {"layer": "layernorm", "rms": "rmsnorm", "simple": "simplenorm"}
DEFAULT_EPS = 1e-12  # of the final norm in transformers' ConvNextConfig; in all other networks it is EPS


class NotComparable(ConvNeXtError):
    """This library's network cannot be run here; the message says why."""


def image(config: ConvNeXtConfig, side_px: int = SIDE_PX) -> Tensor:
    """(1, in_channels, side_px, side_px): the same normal noise every time, as a normalised image would be."""
    return torch.randn(1, config.in_channels, side_px, side_px, generator=torch.Generator().manual_seed(2022))


def outputs(library: str, tensors: Mapping[str, Tensor], weights: Weights, x: Tensor, *, eps: float = EPS) -> Tensor:
    """What `library`'s network answers to `x` in float32: logits (N, K), features (N, C), or (N, all stages' values).

    `tensors` are in that library's names, `weights` says of which network; `eps` is that of the final norm, which
    transformers alone lets its config choose. Raises NotComparable with the reason.
    """
    if library not in (*MODULES, "convnext"):
        raise NotComparable(f"the code of '{library}' is no installable package")
    state = {name: tensor.float() for name, tensor in tensors.items()}
    with torch.inference_mode():
        if library == "keras-npz":
            return _keras(_module(library), state, weights, x)
        run = {"convnext": _ours, "timm": _timm, "torchvision": _torchvision, "transformers": _transformers}[library]
        return run(state, weights, x, eps)


def transformers_config(weights: Weights, *, eps: float = EPS) -> dict[str, Any]:
    """The config.json with which transformers' classes build this network.

    `eps` is the final norm's alone. Its default there is 1e-12; the released networks, and ours, were trained with
    1e-6, so that is what is written where the source does not say otherwise, and the logits agree.
    """
    config, v2 = weights.config, weights.config.grn
    family = "ConvNextV2" if v2 else "ConvNext"
    ending = {"classifier": "ForImageClassification", "features": "Model", "backbone": "Backbone"}[weights.kind]
    names = weights.classes or tuple(f"LABEL_{i}" for i in range(config.classes))
    values: dict[str, Any] = {
        "architectures": [family + ending],
        "model_type": family.lower(),
        "num_channels": config.in_channels,
        "patch_size": config.patch,
        "num_stages": len(config.depths),
        "hidden_sizes": list(config.widths),
        "depths": list(config.depths),
        "hidden_act": "gelu",
        "initializer_range": 0.02,
        "layer_norm_eps": eps,
        "drop_path_rate": 0.0,
        "image_size": SIDE_PX,
    }
    if not v2:
        values["layer_scale_init_value"] = config.layer_scale or 0.0
    if weights.kind == "classifier":
        values["id2label"] = {str(i): name for i, name in enumerate(names)}
        values["label2id"] = {name: i for i, name in enumerate(names)}
    if weights.dense:
        values["out_features"] = [f"stage{s + 1}" for s in range(len(config.depths))]
    return values


def _module(library: str) -> Any:
    try:
        return import_module(MODULES[library])
    except ImportError:
        raise NotComparable(f"{MODULES[library]} is not installed") from None


def _ours(state: dict[str, Tensor], weights: Weights, x: Tensor, eps: float) -> Tensor:
    model = ConvNeXt(weights.config.model_copy(update={"drop_path": 0.0})).eval()
    if eps != EPS:
        model.norm.eps = eps
    if not weights.dense:
        model.load_state_dict(state)
        return model(x)
    own = {name: value for name, value in model.state_dict().items() if name.startswith(("norm.", "head."))}
    norms = nn.ModuleList(ChannelNorm(width) for width in weights.config.widths)
    norms.load_state_dict({k.removeprefix("norms."): v for k, v in state.items() if k.startswith("norms.")})
    model.load_state_dict({k: v for k, v in state.items() if not k.startswith("norms.")} | own)
    maps = model.features(x).values()
    return _flat([norm(each) for norm, each in zip(norms, maps, strict=True)])


def _timm(state: dict[str, Tensor], weights: Weights, x: Tensor, _: float) -> Tensor:
    _module("timm")
    config = weights.config
    arguments = timm_arguments(weights, state)
    model = import_module("timm.models.convnext").ConvNeXt(num_classes=config.classes, **arguments)
    return _filled(model, state)(x)


def timm_arguments(weights: Weights, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What timm's ConvNeXt is built with beside the classes, ready for JSON; `state` is in its names."""
    config = weights.config
    return {
        "in_chans": config.in_channels,
        "depths": list(config.depths),
        "dims": list(config.widths),
        "kernel_sizes": config.kernel,
        "patch_size": config.patch,
        "ls_init_value": config.layer_scale,
        "use_grn": config.grn,
        "stem_type": _timm_stem(config),
        "norm_layer": _TIMM_NORMS[config.norm],
        "norm_eps": config.eps,
        "head_norm_first": config.norm_first,
        "head_hidden_size": config.head_width or None,
        "conv_mlp": any(value.ndim == 4 for name, value in state.items() if name.endswith("mlp.fc1.weight")),
    }


def _timm_stem(config: ConvNeXtConfig) -> str:
    """timm's name of the stem; the 'tiered' one has half of the width between its convolutions, in multiples of 8."""
    if config.stem == "patch":
        return "patch"
    return "overlap_act" if config.stem_activation else "overlap_tiered" if config.stem_width else "overlap"


def _torchvision(state: dict[str, Tensor], weights: Weights, x: Tensor, _: float) -> Tensor:
    models, config = _module("torchvision").models, weights.config
    after = (*config.widths[1:], None)
    settings = [models.convnext.CNBlockConfig(*each) for each in zip(config.widths, after, config.depths, strict=True)]
    model = models.ConvNeXt(settings, num_classes=config.classes or 1)
    if not config.classes:
        model.classifier[2] = nn.Identity()
    return _filled(model, state)(x)


def _transformers(state: dict[str, Tensor], weights: Weights, x: Tensor, eps: float) -> Tensor:
    library = _module("transformers")
    values = transformers_config(weights, eps=eps)
    build = getattr(library, values["architectures"][0])
    values["id2label"] = {int(i): name for i, name in values.get("id2label", {}).items()}
    family = "ConvNextV2Config" if weights.config.grn else "ConvNextConfig"
    model = _filled(build(getattr(library, family)(**values)), state)
    answer = model(x)
    if weights.dense:
        return _flat(list(answer.feature_maps))
    return answer.logits if weights.kind == "classifier" else answer.pooler_output


def _keras(keras: Any, state: dict[str, Tensor], weights: Weights, x: Tensor) -> Tensor:
    config, name = weights.config, keras_name(weights.config)
    build = getattr(keras.applications.convnext, "ConvNeXt" + name.removeprefix("convnext_").title(), None)
    build = keras.applications.convnext.ConvNeXtXLarge if name == "convnext_xlarge" else build
    if build is None or name == "convnext":
        raise NotComparable("keras.applications builds tiny, small, base, large and xlarge only")
    if config.in_channels != 3:
        raise NotComparable(f"keras.applications builds for 3 channels, not {config.in_channels}")
    options: dict[str, Any] = {"include_top": bool(config.classes), "include_preprocessing": False, "weights": None}
    if config.classes:
        options |= {"classes": config.classes, "classifier_activation": None}
    else:
        options |= {"pooling": "avg", "input_shape": (*x.shape[2:], 3)}
    model = build(name=name, **options)
    fill_keras(model, state)
    answer = model(x.permute(0, 2, 3, 1).numpy())
    return torch.as_tensor(keras.ops.convert_to_numpy(answer))


def fill_keras(model: Any, arrays: Mapping[str, Tensor]) -> None:
    """Set every weight of a Keras model from '<layer>/<variable>' arrays. Raises KeyError for one that they lack."""
    for layer in model.layers:
        if hasattr(layer, "layers"):  # the stem and the downsampling layers are models of their own
            fill_keras(layer, arrays)
        elif layer.weights:
            variables = [w.path.rpartition("/")[2] for w in layer.weights]
            variables = ["gamma" if each.startswith("variable") else each for each in variables]  # of a LayerScale
            name = "layer_normalization" if layer.name.startswith("layer_normalization") else layer.name
            layer.set_weights([arrays[f"{name}/{variable}"].numpy() for variable in variables])


def _filled(model: Any, state: dict[str, Tensor]) -> Any:
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        library = type(model).__module__.partition(".")[0]
        reason = " ".join(str(error).split())[:300]
        raise ConvNeXtError(f"The installed {library} does not take the tensors written for it: {reason}") from None
    return model.eval()


def _flat(maps: list[Tensor]) -> Tensor:
    return torch.cat([each.flatten(1) for each in maps], 1)
