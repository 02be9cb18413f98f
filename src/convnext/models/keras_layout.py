"""Arrays of keras.applications.convnext, as '<layer>/<variable>' in an .npz, and the same in PyTorch's layout.

A layer is called '<model>_<place>', e.g. 'convnext_tiny_stage_0_block_1_pointwise_conv_1'; FORMATS['keras'] lists the
places. Without a head (include_top=False) the last norm has Keras's automatic name 'layer_normalization'.

    layer                variable, shape                        in PyTorch
    Conv2D               kernel (k, k, C_in / groups, C_out)    weight (C_out, C_in / groups, k, k)
      depthwise          kernel (7, 7, 1, C)                    weight (C, 1, 7, 7)
    Dense                kernel (C_in, C_out)                   weight (C_out, C_in)
    both                 bias (C_out)                           bias
    LayerNormalization   gamma (C), beta (C)                    weight, bias
    LayerScale           gamma (C)                              the parameter itself

In Keras the networks normalise their input inside and want pixels of 0 to 255; that layer has no trained array.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from convnext.errors import CheckpointError

_LAYER = re.compile(
    r"(?:(?P<model>.+?)_)??"
    r"(?P<layer>stem_(?:conv|layernorm)|downsampling_(?:conv|layernorm)_\d+|head_(?:layernorm|dense)"
    r"|stage_\d+_block_\d+_(?:depthwise_conv|layernorm|pointwise_conv_[12]|layer_scale)|layer_normalization(?:_\d+)?)"
    r"/(?P<variable>kernel|bias|gamma|beta)"
)
_HEADLESS_NORM = "layer_normalization"
_LAST_NORM = "head_layernorm"


def from_keras(arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`arrays` named and laid out as FORMATS['keras'] has them: 'stage_0_block_1_pointwise_conv_1.weight'.

    A name that is not Keras's stays as it is.
    """
    state = {}
    for name, value in arrays.items():
        match = _LAYER.fullmatch(name)
        if not match:
            state[name] = value
            continue
        layer, variable = match["layer"], match["variable"]
        layer = _LAST_NORM if layer.startswith(_HEADLESS_NORM) else layer
        leaf = {"kernel": ".weight", "gamma": ".weight"}.get(variable, ".bias")
        state[layer + ("" if layer.endswith("layer_scale") else leaf)] = _swapped(value, (3, 2, 0, 1))
    return state


def to_keras(state: Mapping[str, Tensor], model: str) -> dict[str, Tensor]:
    """The reverse of `from_keras`, for a Keras model of that name."""
    headless = not any(name.startswith("head_dense") for name in state)
    arrays = {}
    for name, value in state.items():
        layer, _, leaf = name.partition(".")
        norm = "norm" in layer
        layer = _HEADLESS_NORM if headless and layer == _LAST_NORM else f"{model}_{layer}"
        variable = {"": "gamma", "weight": "gamma" if norm else "kernel", "bias": "beta" if norm else "bias"}.get(leaf)
        if variable is None:
            raise CheckpointError(f"Keras has no variable '{leaf}' of a layer '{layer}'.")
        arrays[f"{layer}/{variable}"] = _swapped(value, (2, 3, 1, 0))
    return arrays


def _swapped(value: Tensor, order: tuple[int, int, int, int]) -> Tensor:
    """A kernel of a convolution with its axes in `order`, of a dense layer transposed; vectors stay."""
    if value.ndim == 4:
        return value.permute(*order).contiguous()
    return value.T.contiguous() if value.ndim == 2 else value
