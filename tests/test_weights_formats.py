"""Names and shapes of every format: recognised by content, carried over and back without a changed bit."""

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    ConvNextV2Config,
    ConvNextV2ForImageClassification,
)

from convnext.config import ConvNeXtConfig
from convnext.errors import CheckpointError, ConvNeXtError
from convnext.models.convnext import ConvNeXt
from convnext.models.formats import FORMATS, recognise
from convnext.models.infer import infer_config
from convnext.models.tensors import read_tensors
from convnext.models.weights import from_ours, published_format, to_ours
from convnext.recipes.architectures import ARCHITECTURES

DEPTHS, WIDTHS, CLASSES = (1, 2, 1, 1), (4, 8, 12, 16), 10
V1 = ConvNeXtConfig(depths=DEPTHS, widths=WIDTHS, classes=CLASSES)
V2 = V1.model_copy(update={"layer_scale": None, "grn": True})
ISOTROPIC = ConvNeXtConfig(depths=(2,), widths=(4,), patch=16, stem_norm=False, classes=CLASSES)


def official(*, grn: bool) -> dict[str, Tensor]:
    """The names and shapes of the released files, written out by hand."""
    shapes: dict[str, tuple[int, ...]] = {}
    for i, c in enumerate(WIDTHS):
        conv, norm = ((c, 3, 4, 4), c) if i == 0 else ((c, WIDTHS[i - 1], 2, 2), WIDTHS[i - 1])
        place = (0, 1) if i == 0 else (1, 0)  # the stem's convolution comes first, the others' norm does
        shapes |= {f"downsample_layers.{i}.{place[0]}.weight": conv, f"downsample_layers.{i}.{place[0]}.bias": (c,)}
        shapes |= {f"downsample_layers.{i}.{place[1]}.{leaf}": (norm,) for leaf in ("weight", "bias")}
        for b in range(DEPTHS[i]):
            shapes |= official_block(f"stages.{i}.{b}", c, grn=grn)
    return filled(shapes | official_end(WIDTHS[-1]))


def official_isotropic() -> dict[str, Tensor]:
    blocks = official_block("blocks.0", 4, grn=False) | official_block("blocks.1", 4, grn=False)
    return filled({"stem.weight": (4, 3, 16, 16), "stem.bias": (4,)} | blocks | official_end(4))


def official_block(name: str, c: int, *, grn: bool) -> dict[str, tuple[int, ...]]:
    scale = {"grn.gamma": (1, 1, 1, 4 * c), "grn.beta": (1, 1, 1, 4 * c)} if grn else {"gamma": (c,)}
    shapes = {
        "dwconv.weight": (c, 1, 7, 7),
        "dwconv.bias": (c,),
        "norm.weight": (c,),
        "norm.bias": (c,),
        "pwconv1.weight": (4 * c, c),
        "pwconv1.bias": (4 * c,),
        "pwconv2.weight": (c, 4 * c),
        "pwconv2.bias": (c,),
    }
    return {f"{name}.{key}": shape for key, shape in (shapes | scale).items()}


def official_end(c: int) -> dict[str, tuple[int, ...]]:
    return {"norm.weight": (c,), "norm.bias": (c,), "head.weight": (CLASSES, c), "head.bias": (CLASSES,)}


def filled(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def of_timm(**options) -> dict[str, Tensor]:
    model = timm.models.convnext.ConvNeXt(depths=DEPTHS, dims=WIDTHS, num_classes=CLASSES, **options)
    return filled({name: tuple(value.shape) for name, value in model.state_dict().items()})


def of_torchvision() -> dict[str, Tensor]:
    settings = [
        torchvision.models.convnext.CNBlockConfig(width, after, depth)
        for width, after, depth in zip(WIDTHS, (*WIDTHS[1:], None), DEPTHS, strict=True)
    ]
    model = torchvision.models.ConvNeXt(settings, num_classes=CLASSES)
    return filled({name: tuple(value.shape) for name, value in model.state_dict().items()})


def of_transformers(model_class, config_class) -> dict[str, Tensor]:
    model = model_class(config_class(depths=list(DEPTHS), hidden_sizes=list(WIDTHS), num_labels=CLASSES))
    return filled({name: tuple(value.shape) for name, value in model.state_dict().items()})


CASES = {  # name: (state, format, network)
    "convnext v1": (lambda: ConvNeXt(V1).state_dict(), "convnext", V1),
    "convnext v2": (lambda: ConvNeXt(V2).state_dict(), "convnext", V2),
    "convnext overlap": (
        lambda: ConvNeXt(V1.model_copy(update={"stem": "overlap"})).state_dict(),
        "convnext",
        V1.model_copy(update={"stem": "overlap"}),
    ),
    "official v1": (lambda: official(grn=False), "official", V1),
    "official v2": (lambda: official(grn=True), "official", V2),
    "official isotropic": (official_isotropic, "official_isotropic", ISOTROPIC),
    "timm v1": (of_timm, "timm", V1),
    "timm v1 convolutions": (lambda: of_timm(conv_mlp=True), "timm_conv", V1),
    "timm v2": (lambda: of_timm(use_grn=True, ls_init_value=None), "timm", V2),
    "timm v2 convolutions": (lambda: of_timm(use_grn=True, ls_init_value=None, conv_mlp=True), "timm_conv", V2),
    "torchvision": (of_torchvision, "torchvision", V1),
    "transformers v1": (lambda: of_transformers(ConvNextForImageClassification, ConvNextConfig), "transformers", V1),
    "transformers v2": (
        lambda: of_transformers(ConvNextV2ForImageClassification, ConvNextV2Config),
        "transformers_v2",
        V2,
    ),
}
each_case = pytest.mark.parametrize("case", CASES)


def identical(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        value.shape == other[key].shape and value.dtype == other[key].dtype and torch.equal(value, other[key])
        for key, value in one.items()
    )


@each_case
def test_a_format_is_recognised_by_its_names_and_shapes(case):
    make, name, _ = CASES[case]
    assert recognise(make()) == name


@each_case
def test_there_and_back_is_identical_to_the_bit(case):
    make, name, config = CASES[case]
    state = make()
    ours = to_ours(state, name, config)
    assert identical(from_ours(ours, name, config), state)
    model = ConvNeXt(config)
    model.load_state_dict(ours)
    assert identical(to_ours(from_ours(model.state_dict(), name, config), name, config), dict(model.state_dict()))


@each_case
def test_the_network_is_read_off_its_tensors(case):
    make, _, config = CASES[case]
    assert infer_config(make()) == config


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_published_network_is_known_by_name_from_its_tensors(name):
    with torch.device("meta"):
        state = ConvNeXt(ARCHITECTURES[name]).state_dict()
    assert infer_config(state) == ARCHITECTURES[name]


@pytest.mark.parametrize(
    ("wrap", "suffix"),
    [
        (lambda state: state, ".pth"),
        (lambda state: {"model": state}, ".pth"),
        (lambda state: {"state_dict": state, "epoch": 3}, ".pt"),
        (lambda state: {"model_ema": state}, ".bin"),
        (lambda state: {"model": state, "model_ema": {}, "optimizer": {"state": {}}}, ".pth"),
        (lambda state: {"model": {f"module.{key}": value for key, value in state.items()}}, ".pth"),
        (lambda state: {f"backbone.{key}": value for key, value in state.items()}, ".pth"),
        (lambda state: {"state_dict": {f"module._orig_mod.{key}": value for key, value in state.items()}}, ".pth"),
    ],
)
def test_wrappers_and_prefixes_around_the_tensors_are_taken_off(tmp_path, wrap, suffix):
    state = official(grn=False)
    torch.save(wrap(state), tmp_path / f"file{suffix}")
    assert identical(read_tensors(tmp_path / f"file{suffix}")[0], state)


def test_a_safetensors_file_keeps_its_metadata_whatever_its_suffix(tmp_path):
    state = official(grn=True)
    save_file(state, tmp_path / "file.weights", metadata={"recipe": "small"})
    tensors, metadata = read_tensors(tmp_path / "file.weights")
    assert identical(tensors, state) and metadata == {"recipe": "small"}


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("torchvision", V2),
        ("transformers", V2),
        ("transformers_v2", V1),
        ("timm", ISOTROPIC),
        ("official", ISOTROPIC),
        ("official_isotropic", V1),
        ("official", V1.model_copy(update={"stem": "overlap"})),
    ],
)
def test_a_format_refuses_a_network_that_it_cannot_hold(name, config):
    with pytest.raises(CheckpointError, match="Take 'convnext'"):
        from_ours(ConvNeXt(config).state_dict(), name, config)


@pytest.mark.parametrize(
    ("library", "network", "name"),
    [
        ("official", "tiny", "official"),
        ("official", "iso_small", "official_isotropic"),
        ("timm", "nano", "timm_conv"),
        ("timm", "v2_tiny", "timm"),
        ("transformers", "v2_tiny", "transformers_v2"),
        ("torchvision", "tiny", "torchvision"),
    ],
)
def test_a_library_has_one_format_for_a_published_network(library, network, name):
    assert published_format(library, ARCHITECTURES[network]) == name


@pytest.mark.parametrize(
    "name", ["convnext_atto", "convnext_nano", "convnext_tiny", "convnextv2_nano", "convnextv2_tiny"]
)
def test_the_published_format_is_the_one_timm_builds(name):
    with torch.device("meta"):
        theirs = timm.create_model(name).state_dict()
        config = infer_config(theirs)
        ours = ConvNeXt(config).state_dict()
    written = from_ours(ours, published_format("timm", config), config)
    assert {key: value.shape for key, value in written.items()} == {key: value.shape for key, value in theirs.items()}


def test_an_unknown_format_is_refused_with_the_nearest():
    with pytest.raises(ConvNeXtError, match="Did you mean 'torchvision'"):
        to_ours({}, "torchvison", V1)


def test_tensors_of_another_network_are_recognised_as_none():
    with pytest.raises(CheckpointError, match="not named as in any ConvNeXt"):
        recognise(timm.create_model("resnet18").state_dict())


def test_every_format_names_each_of_our_tensors_once():
    for form in FORMATS.values():
        assert len(set(form.names.values())) == len(form.names)
