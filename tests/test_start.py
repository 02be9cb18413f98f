"""What weights say of themselves, family by family: the network by its shapes, and the same answer as the library's."""

import re

import pytest
import timm
import torch
import torchvision
import transformers
from safetensors.torch import save_file
from torch import Tensor, nn

from convnext.config import ConvNeXtConfig, parse
from convnext.deploy.graph import prepared
from convnext.deploy.optimize import optimize
from convnext.errors import CheckpointError, ConvNeXtError
from convnext.models.convnext import ConvNeXt
from convnext.models.fused import fuse
from convnext.models.infer import infer_config
from convnext.models.start import Start, read_start
from convnext.tasks.backbone import Backbone

DEPTHS, WIDTHS, CLASSES = (1, 2, 1, 1), (8, 16, 24, 32), 5
SHAPE = {"depths": DEPTHS, "dims": WIDTHS, "num_classes": CLASSES}


def filled(model: nn.Module) -> nn.Module:
    """`model` in float64 with values of everyday size: at its birth a block is an identity, and proves nothing."""
    generator = torch.Generator().manual_seed(11)
    model = model.double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(0.3 * noise + ("norm" in name and name.endswith("weight")))
    return model


def of_timm(**options) -> nn.Module:
    return filled(timm.models.convnext.ConvNeXt(**SHAPE | options))


def saved(path, state: dict[str, Tensor]):
    save_file({key: value.contiguous().clone() for key, value in state.items()}, path)
    return path


def ours(start: Start) -> ConvNeXt:
    model = ConvNeXt(start.config).double().eval()
    missing, extra = model.load_state_dict(start.tensors, strict=False)
    assert not extra and all(key.startswith(("norm.", "head.")) for key in missing)
    return model


def images(channels: int = 3) -> Tensor:
    return torch.randn(2, channels, 64, 64, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def equal(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


TIMM = {  # options of timm's network -> fields of ours
    "linear": ({}, {}),
    "convolutions": ({"conv_mlp": True}, {}),
    "v2": ({"use_grn": True, "ls_init_value": None}, {"grn": True, "layer_scale": None}),
    "v2 with layer scale": ({"use_grn": True}, {"grn": True}),
    "without layer scale": ({"ls_init_value": None}, {"layer_scale": None}),
    "overlap": ({"stem_type": "overlap"}, {"stem": "pair"}),
    "tiered": ({"stem_type": "overlap_tiered", "dims": (24, 16, 24, 32)}, {"stem": "pair", "stem_width": 16}),
    "activated": ({"stem_type": "overlap_act", "conv_mlp": True}, {"stem": "pair", "stem_activation": True}),
    "rms": ({"norm_layer": "rmsnorm"}, {"norm": "rms"}),
    "rms of convolutions": ({"norm_layer": "rmsnorm2d", "conv_mlp": True}, {"norm": "rms"}),
    "norm first": ({"head_norm_first": True}, {"norm_first": True}),
    "hidden": ({"head_hidden_size": 12}, {"head_width": 12}),
    "kernel": ({"kernel_sizes": 5}, {"kernel": 5}),
    "grey": ({"in_chans": 1}, {"in_channels": 1}),
    "nine channels": ({"in_chans": 9}, {"in_channels": 9}),
    "no head": ({"num_classes": 0}, {"classes": 0}),
}


@pytest.mark.parametrize("case", TIMM)
def test_every_form_of_timms_network_is_built_from_its_shapes_and_answers_the_same(tmp_path, case):
    options, fields = TIMM[case]
    theirs = of_timm(**options)
    start = read_start(saved(tmp_path / "w.safetensors", theirs.state_dict()))
    widths = options.get("dims", WIDTHS)
    asked = {"name": "custom", "depths": DEPTHS, "widths": widths, "classes": CLASSES} | fields
    assert {name: getattr(start.config, name) for name in asked} == asked
    x = images(start.config.in_channels)
    equal(ours(start)(x), theirs(x))


@pytest.mark.parametrize(
    "name", ["convnext_zepto_rms", "convnext_zepto_rms_ols", "convnext_atto_ols", "convnext_tiny_hnf"]
)
def test_a_network_that_timm_alone_publishes_is_known_by_its_shapes_with_what_no_shape_shows(tmp_path, name):
    """zepto's norm divides by the standard deviation, where RMSNorm would by the root of the mean of squares."""
    theirs = filled(timm.create_model(name, num_classes=3))
    start = read_start(saved(tmp_path / "w.safetensors", theirs.state_dict()))
    assert start.config.name == name.removeprefix("convnext_")
    equal(ours(start)(images()), theirs(images()))


@pytest.mark.parametrize("name", [each for each in timm.list_models("convnext*") if not each.startswith("convnextv2_")])
def test_every_network_of_timms_family_is_named_by_its_shapes(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    config = infer_config(model.state_dict())
    assert config.name == name.removeprefix("convnext_")
    assert config.eps == model.stages[0].blocks[0].norm.eps
    with torch.device("meta"):
        assert sum(p.numel() for p in ConvNeXt(config).parameters()) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", ["test_convnext", "test_convnext2", "test_convnext3"])
def test_timms_networks_for_its_own_tests_are_refused_because_they_compute_something_else(tmp_path, name):
    path = saved(tmp_path / "w.safetensors", timm.create_model(name).state_dict())
    with pytest.raises(CheckpointError, match=r"activation is not GELU|depthwise kernels are of 3 and 5 and 7"):
        read_start(path)


@pytest.mark.parametrize("v2", [False, True])
@pytest.mark.parametrize("kind", ["ForImageClassification", "Model"])
def test_transformers_networks_answer_the_same(tmp_path, v2, kind):
    family = "ConvNextV2" if v2 else "ConvNext"
    config = getattr(transformers, f"{family}Config")(
        depths=list(DEPTHS), hidden_sizes=list(WIDTHS), num_labels=CLASSES, layer_norm_eps=1e-6
    )
    theirs = filled(getattr(transformers, family + kind)(config))
    start = read_start(saved(tmp_path / "w.safetensors", theirs.state_dict()))
    answer = theirs(images())
    equal(ours(start)(images()), answer.logits if kind != "Model" else answer.pooler_output)


@pytest.mark.parametrize("names", ["installed", "released"])
def test_dinov3_of_transformers_answers_the_same(tmp_path, names):
    """The released files have no 'model.' before the names; transformers 5 writes it."""
    config = transformers.DINOv3ConvNextConfig(depths=list(DEPTHS), hidden_sizes=list(WIDTHS))
    theirs = filled(transformers.DINOv3ConvNextModel(config))
    state = {key.removeprefix("model.") if names == "released" else key: v for key, v in theirs.state_dict().items()}
    start = read_start(saved(tmp_path / "w.safetensors", state))
    assert start.config.classes == 0
    equal(ours(start)(images()), theirs(images()).pooler_output)


def test_metas_dinov3_registers_its_final_norm_twice_and_it_is_read_once(tmp_path):
    theirs = of_timm(num_classes=0)
    state = official(theirs.state_dict())
    state |= {"norms.3.weight": state["norm.weight"], "norms.3.bias": state["norm.bias"]}
    start = read_start(saved(tmp_path / "w.safetensors", state))
    equal(ours(start)(images()), theirs(images()))
    assert start.format == "official" and any("repeats the final norm" in note for note in start.notes)


def test_an_image_tower_of_open_clip_is_read_without_its_projection_and_its_text_tower(tmp_path):
    theirs = of_timm(num_classes=0)
    state = {f"visual.trunk.{key}": value for key, value in theirs.state_dict().items()}
    state |= {"visual.head.proj.weight": torch.zeros(64, 32), "logit_scale": torch.tensor(1.0)}
    state |= {"transformer.resblocks.0.ln_1.weight": torch.ones(4), "token_embedding.weight": torch.zeros(9, 4)}
    start = read_start(saved(tmp_path / "w.safetensors", state))
    equal(ours(start)(images()), theirs(images()))
    assert start.config.classes == 0 and start.mean == (0.48145466, 0.4578275, 0.40821073)
    assert start.notes[0] == (
        "Only 'visual.trunk.' is read; left out: logit_scale (1 tensor), token_embedding (1 tensor), "
        "transformer (1 tensor), visual.head (1 tensor)."
    )


def test_open_clip_itself_sees_the_same_in_an_image(tmp_path):
    """The projection into the space of texts, which a classifier has no use for, comes behind what our network answers."""
    tower = pytest.importorskip("open_clip.timm_model").TimmModel(
        "convnext_atto", 16, image_size=64, pool="", drop_path=0
    )
    theirs = filled(tower)
    start = read_start(saved(tmp_path / "w.safetensors", {f"visual.{k}": v for k, v in theirs.state_dict().items()}))
    assert start.config.name == "atto" and start.mean == (0.48145466, 0.4578275, 0.40821073)
    equal(ours(start)(images()) @ theirs.head.proj.weight.T, theirs(images()))


def test_torchvision_answers_the_same(tmp_path):
    after = (*WIDTHS[1:], None)
    settings = [torchvision.models.convnext.CNBlockConfig(*each) for each in zip(WIDTHS, after, DEPTHS, strict=True)]
    theirs = filled(torchvision.models.ConvNeXt(settings, num_classes=CLASSES))
    start = read_start(saved(tmp_path / "w.safetensors", theirs.state_dict()))
    equal(ours(start)(images()), theirs(images()))


def official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's tensors under the names of the released files, by hand."""
    renamed = {}
    for key, value in state.items():
        name = key.replace("stem.", "downsample_layers.0.").replace("head.norm", "norm").replace("head.fc", "head")
        name = re.sub(r"stages\.(\d)\.downsample\.(\d)", r"downsample_layers.\1.\2", name)
        name = re.sub(r"stages\.(\d)\.blocks\.(\d+)", r"stages.\1.\2", name).replace("conv_dw", "dwconv")
        name = name.replace("mlp.grn.weight", "grn.gamma").replace("mlp.grn.bias", "grn.beta")
        renamed[re.sub(r"mlp\.fc(\d)", r"pwconv\1", name)] = value.reshape(1, 1, 1, -1) if ".grn." in name else value
    return renamed


def sparse(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Official V2 tensors as the sparse convolutions of pre-training hold them, entry by entry."""
    made = {}
    for key, value in state.items():
        place, _, leaf = key.rpartition(".")
        stem = place.startswith("downsample_layers.0")
        if leaf == "weight" and value.ndim == 4 and not stem:  # (out, in, k, k) -> (k k, in, out) or (k k, C)
            out, inner, side, _ = value.shape
            kernel = torch.zeros(side * side, inner, out, dtype=value.dtype)
            for row in range(side):
                for column in range(side):
                    kernel[column * side + row] = value[:, :, row, column].T
            made[f"{place}.kernel"] = kernel[:, 0] if inner == 1 else kernel
        elif leaf == "bias" and ("dwconv" in place or re.fullmatch(r"downsample_layers\.[1-3]\.1", place)):
            made[key] = value[None]
        elif "pwconv" in place:
            made[f"{place}.linear.{leaf}"] = value
        elif "grn" in place:
            made[key] = value.reshape(1, -1)
        else:
            made[key if stem else f"{place}.ln.{leaf}"] = value
    return made


@pytest.mark.parametrize("form", ["fine-tuned", "released", "sparse"])
def test_official_v2_answers_the_same_also_as_masked_pretraining_leaves_it(tmp_path, form):
    theirs = of_timm(use_grn=True, ls_init_value=None)
    state = official(theirs.state_dict())
    if form != "fine-tuned":
        state = {key: value for key, value in state.items() if not key.startswith(("norm.", "head."))}
    if form == "sparse":
        state = {f"encoder.{key}": value for key, value in sparse(state).items()}
        state |= {"mask_token": torch.zeros(1, 8, 1, 1), "decoder.0.dwconv.weight": torch.zeros(8, 1, 7, 7)}
        state |= {"proj.weight": torch.zeros(8, 32, 1, 1), "pred.bias": torch.zeros(9)}
    start = read_start(saved(tmp_path / "w.safetensors", state))
    if form == "fine-tuned":
        equal(ours(start)(images()), theirs(images()))
    else:
        assert "The weights have no final norm: it starts fresh." in start.notes
    for own, other in zip(
        ours(start).features(images()).values(), theirs.forward_intermediates(images())[1], strict=True
    ):
        equal(own, other)
    assert start.config.grn and (form != "sparse" or "decoder (1 tensor)" in start.notes[0])


FORMS = {
    "pair": {"stem": "pair", "stem_width": 4, "stem_activation": True},
    "rms": {"norm": "rms"},
    "simple": {"norm": "simple"},
    "norm first": {"norm_first": True},
    "hidden": {"head_width": 12},
    "eps": {"eps": 1e-2},
}


@pytest.mark.parametrize("form", FORMS)
def test_a_form_that_the_kernels_do_not_know_answers_the_same_folded_fused_and_traced(form):
    model = filled(ConvNeXt(ConvNeXtConfig(depths=(1, 1), widths=(8, 16), classes=5, **FORMS[form]))).float()
    x = images().float()
    with torch.inference_mode():
        expected = model(x)
        folded = optimize(model, info=lambda _: None)
        scale = expected.abs().max()
        assert (folded(x) - expected).abs().max() < 1e-5 * scale
        assert (prepared(model, convolutions=True)(x) - expected).abs().max() < 1e-5 * scale
        fuse(model)
        assert (model(x) - expected).abs().max() < 1e-5 * scale
        backbone = Backbone(model.config)
        backbone.network.load_state_dict(
            {key: value for key, value in model.state_dict().items() if key.startswith(("stem.", "stages."))}
        )
        for own, other in zip(backbone.network.features(x).values(), model.features(x).values(), strict=True):
            assert (own - other).abs().max() < 1e-5 * other.abs().max()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stem": "pair", "patch": 2}, "a pair stem halves the image twice: patch = 2 is not 4"),
        ({"stem_width": 8}, "stem_width is for stem = pair, and the stem is 'patch'"),
        ({"stem": "overlap", "stem_activation": True}, "stem_activation is for stem = pair"),
        ({"norm": "batch"}, "must be one of layer, rms, simple"),
    ],
)
def test_forms_that_there_are_not_are_refused(fields, message):
    with pytest.raises(ConvNeXtError, match=message):
        parse(ConvNeXtConfig, {"depths": (1,), "widths": (8,)} | fields, where="model")
