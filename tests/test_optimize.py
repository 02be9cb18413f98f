"""The folded network answers as the plain one does."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import convnext
from commands import trained
from convnext.config import ConvNeXtConfig
from convnext.deploy import compiled, folded
from convnext.deploy.load import load
from convnext.errors import ConvNeXtError
from convnext.kernels import cpu, dispatch
from convnext.kernels.dispatch import without_compiled
from convnext.models.away import away
from convnext.models.build import build_model
from convnext.models.convnext import ConvNeXt
from convnext.recipes.architectures import ARCHITECTURES
from images import write_colours

needs_kernels = pytest.mark.skipif(without_compiled() is not None, reason="the compiled kernels are not here")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SMALL = {
    "v1": ConvNeXtConfig(depths=(1, 2), widths=(8, 16), classes=5, layer_scale=1e-6),
    "v2": ConvNeXtConfig(depths=(1, 2), widths=(8, 16), classes=5, layer_scale=None, grn=True),
    "both": ConvNeXtConfig(depths=(1, 1), widths=(8, 16), classes=5, layer_scale=0.5, grn=True),
    "isotropic": ConvNeXtConfig(depths=(2,), widths=(8,), classes=5, patch=8, stem_norm=False, layer_scale=None),
    "overlap": ConvNeXtConfig(depths=(1, 1), widths=(8, 16), classes=5, stem="overlap"),
    "overlap_2": ConvNeXtConfig(depths=(1, 1), widths=(8, 16), classes=5, stem="overlap", patch=2),
    "antialias": ConvNeXtConfig(depths=(1, 1, 1), widths=(8, 16, 24), classes=5, antialias=True),
    "headless": ConvNeXtConfig(depths=(1, 1), widths=(8, 16), classes=0),
    "small_kernel": ConvNeXtConfig(depths=(1, 1), widths=(8, 16), classes=5, kernel=3, patch=2, drop_path=0.5),
    "grey": ConvNeXtConfig(depths=(1, 1), widths=(8, 16), classes=5, in_channels=1),
    "atto": ARCHITECTURES["atto"],
    "tiny": ARCHITECTURES["tiny"].model_copy(update={"depths": (1, 1, 2, 1)}),
}


def network(name: str = "v1") -> ConvNeXt:
    """One whose every parameter matters: nothing is left at 0 or 1."""
    torch.manual_seed(0)
    model = build_model(SMALL[name])
    for parameter in model.parameters():
        spread = 0.3 if parameter.ndim == 1 else (2 / parameter[0].numel()) ** 0.5
        parameter.data.add_(spread * torch.randn_like(parameter))
    return model


def images(model: ConvNeXt, size: int = 40) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, model.config.in_channels, size, size, generator=generator)


def exact(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return copy.deepcopy(model).double().eval()(x.double())


def apart(got: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((got.double() - wanted).detach().abs().max() / wanted.detach().abs().max())


@pytest.mark.parametrize("name", SMALL)
def test_the_outputs_are_those_of_the_source_in_float64(name):
    model = network(name)
    x = images(model)
    assert apart(convnext.optimize(model)(x), exact(model, x)) < 1e-5


@pytest.mark.parametrize("name", SMALL)
def test_in_float64_the_folding_is_exact(name):
    model = network(name).double()
    x = images(model).double()
    assert apart(convnext.optimize(model)(x), exact(model, x)) < 1e-12


@pytest.mark.parametrize("name", ["v1", "v2", "isotropic", "overlap", "grey"])
@pytest.mark.parametrize("size", [40, 43])
def test_the_normalisation_of_the_input_is_inside_where_it_is_asked_for(name, size):
    model = network(name)
    x = images(model, size)
    mean, std = MEAN[: x.shape[1]], STD[: x.shape[1]]
    normal = (x.double() - torch.tensor(mean)[:, None, None].double()) / torch.tensor(std)[:, None, None].double()
    assert apart(convnext.optimize(model, mean=mean, std=std)(x), exact(model, normal)) < 1e-5
    pixels = (255 * x).to(torch.uint8)
    normal = (pixels / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    scaled = convnext.optimize(model, mean=[255 * value for value in mean], std=[255 * value for value in std])
    assert apart(scaled(pixels), exact(model, normal)) < 1e-5


def test_a_mean_alone_and_a_deviation_alone_are_taken():
    model = network()
    x = images(model)
    shifted = x - torch.tensor(MEAN)[:, None, None]
    assert apart(convnext.optimize(model, mean=MEAN)(x), exact(model, shifted)) < 1e-5
    assert apart(convnext.optimize(model, std=STD)(x), exact(model, x / torch.tensor(STD)[:, None, None])) < 1e-5


@pytest.mark.parametrize("name", SMALL)
def test_features_and_embed_answer_as_before(name):
    model, fast = network(name), convnext.optimize(network(name))
    x = images(model)
    model.eval()
    assert apart(fast.embed(x), model.embed(x).double()) < 1e-4
    wanted, got = model.features(x), fast.features(x)
    assert list(got) == list(wanted)
    assert all(apart(got[stage], wanted[stage].double()) < 1e-4 for stage in wanted)


@pytest.mark.parametrize("size", [4, 5, 31, 33])
def test_odd_and_smallest_images_pass(size):
    model = network()
    x = images(model, size)
    assert apart(convnext.optimize(model)(x), exact(model, x)) < 1e-5


def test_the_given_network_stays_as_it_is():
    model = network("both").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fast = convnext.optimize(model, mean=MEAN, std=STD)
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    own = {tensor.data_ptr() for tensor in model.parameters()}
    assert not any(tensor.data_ptr() in own for tensor in fast.parameters())
    assert not fast.training and not any(parameter.requires_grad for parameter in fast.parameters())


def test_the_maps_stay_channels_last():
    fast = convnext.optimize(network())
    for each in fast.features(images(network())).values():
        assert each.is_contiguous(memory_format=torch.channels_last)


def test_identities_and_constants_are_gone():
    kinds = {type(part).__name__ for part in convnext.optimize(network("small_kernel")).modules()}
    assert kinds.isdisjoint({"DropPath", "Block", "Downsample", "GlobalResponseNorm"})


def test_bfloat16_before_and_after():
    model = network()
    x = images(model)
    wanted = exact(model, x)
    after, before = convnext.optimize(model).bfloat16(), convnext.optimize(copy.deepcopy(model).bfloat16())
    assert after(x.bfloat16()).dtype == before(x.bfloat16()).dtype == torch.bfloat16
    assert apart(after(x.bfloat16()), wanted) < 0.05
    assert apart(before(x.bfloat16()), wanted) < 0.05
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert apart(convnext.optimize(model)(x), wanted) < 0.05


@pytest.mark.parametrize("name", ["v1", "v2", "overlap"])
def test_it_exports_to_plain_operations(name):
    model = network(name)
    x = images(model)
    fast = convnext.optimize(model, mean=MEAN, std=STD)
    program = torch.export.export(fast, (x,), dynamic_shapes={"x": {0: torch.export.Dim("n", min=1, max=64)}})
    calls = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert calls and all(call.startswith(("aten.", "<built-in", "_operator")) for call in calls)
    assert torch.allclose(program.module()(x), fast(x), atol=1e-4, rtol=1e-4)


def test_it_compiles_without_a_break():
    model = network()
    x = images(model)
    compiled = torch.compile(convnext.optimize(model), backend="eager", fullgraph=True)
    assert apart(compiled(x), exact(model, x)) < 1e-4


@pytest.mark.filterwarnings("ignore")  # tracing is deprecated, and says much
def test_a_traced_network_answers_the_same():
    fast = convnext.optimize(network())
    x = images(network())
    with torch.inference_mode():
        assert torch.allclose(torch.jit.trace(fast, x)(x), fast(x), atol=1e-4)


def test_a_gradient_still_reaches_the_image():
    model, x = network(), images(network()).requires_grad_()
    convnext.optimize(model)(x).sum().backward()
    got, x.grad = x.grad, None
    model.eval()(x).sum().backward()
    assert torch.allclose(got, x.grad, atol=1e-4)


def test_it_can_be_made_in_inference_mode_copied_and_pickled():
    model, x = network(), images(network())
    with torch.inference_mode():
        fast = convnext.optimize(model)
        wanted = fast(x)
    copied, read = copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))
    assert torch.equal(copied(x), wanted) and torch.equal(read(x), wanted)
    assert torch.equal(convnext.optimize(fast)(x), wanted)


def test_a_head_of_ones_own_is_kept():
    model = network()
    model.head = nn.Sequential(nn.Linear(16, 7), nn.ReLU(), nn.Linear(7, 3))
    x = images(model)
    assert apart(convnext.optimize(model)(x), exact(model, x)) < 1e-5


class SlowBlock(nn.Module):
    """What a fused block must compute, from the tensors that it is given."""

    made = 0
    exact = False

    def __init__(self, weights):
        super().__init__()
        SlowBlock.made += 1
        assert weights.norm is weights.norm_bias is weights.gamma is weights.grn_bias is None
        names = ("spatial", "spatial_bias", "expand", "expand_bias", "project", "project_bias")
        self.tensors = [getattr(weights, name).clone() for name in names]
        self.eps, self.grn = weights.eps, weights.grn

    def forward(self, x):
        assert x.dtype == torch.float32
        spatial, spatial_bias, expand, expand_bias, project, project_bias = self.tensors
        width, kernel = spatial.shape[0], spatial.shape[-1]
        y = nn.functional.conv2d(
            x.permute(0, 3, 1, 2), spatial, spatial_bias, padding=kernel // 2, groups=width
        ).permute(0, 2, 3, 1)
        y = nn.functional.gelu(nn.functional.layer_norm(y, (width,), eps=self.eps) @ expand.T + expand_bias)
        if self.grn is not None:
            energy = y.square().sum((1, 2), keepdim=True).sqrt()
            y = y + self.grn * y * (energy / (energy.mean(-1, keepdim=True) + 1e-6))
        return x + y @ project.T + project_bias


class SlowPatch(nn.Module):
    """Likewise for a convolution whose stride is its kernel."""

    exact = False

    def __init__(self, weight, bias, normalise=False, eps=1e-6, after=None):
        super().__init__()
        self.weight, self.bias, self.normalise, self.eps = weight.clone(), bias.clone(), normalise, eps
        self.after, self.patch = after, weight.shape[-1]

    def forward(self, x):
        y = nn.functional.layer_norm(x, x.shape[-1:], eps=self.eps) if self.normalise else x
        y = nn.functional.conv2d(y.permute(0, 3, 1, 2), self.weight, self.bias, stride=self.patch).permute(0, 2, 3, 1)
        return nn.functional.layer_norm(y, y.shape[-1:], *self.after, eps=self.eps) if self.after else y


class SlowStem(nn.Module):
    """Likewise for overlapping convolutions."""

    exact = False

    def __init__(self, layers):
        super().__init__()
        self.layers = layers

    def forward(self, x):
        for each in self.layers:
            x = x if each.shift is None else x - each.shift.flatten()
            y = nn.functional.conv2d(x.permute(0, 3, 1, 2), each.weight, each.bias, each.stride, each.padding)
            x = y.permute(0, 2, 3, 1)
            x = nn.functional.layer_norm(x, x.shape[-1:], *each.norm, eps=each.eps) if each.norm else x
            x = nn.functional.gelu(x) if each.gelu else x
        return x


class SlowHead(nn.Module):
    """Likewise for the end of a classifier."""

    exact = False

    def __init__(self, weight, bias, eps):
        super().__init__()
        self.weight, self.bias, self.eps = weight.clone(), bias.clone(), eps

    def forward(self, x):
        pooled = x.mean((1, 2), keepdim=True)
        return nn.functional.layer_norm(pooled, pooled.shape[-1:], eps=self.eps) @ self.weight.T + self.bias


class SlowLayers:
    """Likewise for several layers in one call."""

    def __init__(self, layers):
        self.layers = layers

    def __call__(self, x, wanted):
        maps = []
        for layer in self.layers[: wanted[-1] + 1]:
            maps.append(layer(maps[-1] if maps else x))
        return [maps[place] for place in wanted]


class SlowKernels:
    """Stands where the compiled kernels stand."""

    PackedBlock, PackedPatch, PackedHead, PackedLayers = SlowBlock, SlowPatch, SlowHead, SlowLayers
    PackedStem, StemLayer = SlowStem, cpu.StemLayer


@pytest.fixture
def kernels(monkeypatch):
    SlowBlock.made = 0
    for module in (folded, compiled):
        monkeypatch.setattr(module, "cpu", SlowKernels)
    monkeypatch.setattr(dispatch, "compiled_dtypes", lambda: (torch.float32,))


@pytest.mark.parametrize("name", ["v1", "v2", "isotropic", "overlap", "overlap_2", "headless", "small_kernel"])
def test_the_fused_kernels_get_what_they_need_for_the_same_answer(kernels, name):
    model = network(name)
    x, fast = images(model), convnext.optimize(model)
    wanted = exact(model, x)
    for _ in range(2):
        assert apart(fast(x), wanted) < 1e-4
    assert SlowBlock.made == sum(model.config.depths)  # once


def test_a_mean_that_was_changed_is_packed_anew(kernels):
    model = network("overlap")
    x, shift = images(model), [0.5, 0.25, 0.0]
    fast, other = (convnext.optimize(model, mean=mean, std=[1.0] * 3) for mean in ([0.0] * 3, shift))
    fast(x)
    fast.load_state_dict(other.state_dict())
    assert apart(fast(x), exact(model, x - torch.tensor(shift)[:, None, None])) < 1e-4


def test_the_plain_path_answers_where_the_fused_one_may_not(kernels):
    model = network()
    x, fast = images(model), convnext.optimize(model)
    fast.fused = False
    fast(x)
    fast.fused = True
    fast(x.clone().requires_grad_())
    copy.deepcopy(fast).double()(x.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fast(x)
    torch.compile(fast, backend="eager", fullgraph=True)(x)
    torch.export.export(fast, (x,))
    assert SlowBlock.made == 0


def test_new_numbers_are_packed_anew(kernels):
    first, second = network(), network()
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.mul_(1.1)
    x, fast = images(first), convnext.optimize(first)
    fast(x)
    fast.load_state_dict(convnext.optimize(second).state_dict())
    assert apart(fast(x), exact(second, x)) < 1e-4
    assert apart(copy.deepcopy(fast)(x), exact(second, x)) < 1e-4
    fast.double().float()
    assert apart(fast(x), exact(second, x)) < 1e-4


def test_a_part_that_was_changed_answers_itself(kernels):
    """A layer of another kind, a new bias, a hook: each is seen at the next call, in every output."""
    model = network()
    x, fast = images(model), convnext.optimize(model)
    plain = copy.deepcopy(fast)
    plain.fused = False

    def same():
        both = fast.features(x), plain.features(x)
        assert all(apart(both[0][name], both[1][name]) < 1e-4 for name in both[1])
        assert apart(fast(x), plain(x)) < 1e-4 and apart(fast.embed(x), plain.embed(x)) < 1e-4

    same()
    for each in (fast, plain):
        with torch.no_grad():
            each.stages[0][0].project.bias.add_(0.5)
    same()
    for each in (fast, plain):
        each.stages[1][1].expand = nn.Sequential(each.stages[1][1].expand, nn.Softplus())
    same()
    for each in (fast, plain):
        each.stages[0][0].spatial.weight = nn.Parameter(torch.ones_like(each.stages[0][0].spatial.weight))
    same()
    seen = []
    handle = fast.stages[1][0].conv.register_forward_hook(lambda *_: seen.append(1))
    same()
    assert len(seen) == 3
    handle.remove()
    same()
    assert len(seen) == 3


def test_what_is_folded_already_takes_no_more(kernels):
    fast = convnext.optimize(network())
    for more in ({"matmul_dtype": torch.bfloat16}, {"mean": MEAN}, {"std": STD}):
        with pytest.raises(ConvNeXtError, match="folded already"):
            convnext.optimize(fast, **more)


def test_the_kernels_are_allowed_when_a_network_is_folded_or_moved_and_not_asked_about_at_every_call(
    kernels, monkeypatch
):
    fast, x = convnext.optimize(network()), images(network())
    monkeypatch.setenv(dispatch.SWITCH, "plain")
    monkeypatch.setattr(dispatch, "allowed", lambda *_: pytest.fail("asked at a call"))
    fast(x)
    assert SlowBlock.made == 3
    monkeypatch.undo()
    monkeypatch.setenv(dispatch.SWITCH, "plain")
    fast.double().float()(x)
    assert SlowBlock.made == 3 and not fast._allowed.compiled


def test_our_other_networks_come_back_channels_last_and_it_is_said():
    said = []
    model = convnext.create("roadmap_t:resnet", classes=3).train()
    plain = convnext.optimize(model, info=said.append)
    assert type(plain) is type(model) and not plain.training and model.training
    assert len(said) == 1 and "no ConvNeXt" in said[0] and "\n" not in said[0]
    with pytest.raises(ConvNeXtError, match="fold into the stem of a ConvNeXt alone"):
        convnext.optimize(model, mean=MEAN)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"mean": (0.5,)}, "mean has 1 values and the network 3 channels"),
        ({"std": (0.5, 0.5)}, "std has 2 values and the network 3 channels"),
        ({"std": (0.5, 0.0, 0.5)}, "cannot normalise images"),
        ({"mean": (0.5, float("nan"), 0.5)}, "cannot normalise images"),
    ],
)
def test_a_normalisation_that_does_not_fit_is_refused_in_one_line(change, line):
    with pytest.raises(ConvNeXtError, match=line) as error:
        convnext.optimize(network(), **change)
    assert "\n" not in str(error.value)


def test_a_network_that_is_not_ours_or_was_changed_is_refused():
    with pytest.raises(ConvNeXtError, match="a Linear was given"):
        convnext.optimize(nn.Linear(2, 2))
    model = network()
    model.stages[0].blocks[0].expand = nn.Sequential(model.stages[0].blocks[0].expand, nn.Dropout())
    with pytest.raises(ConvNeXtError, match=r"the Dropout at 'stages\.0\.blocks\.0\.expand\.1'"):
        convnext.optimize(model)


def test_a_predictor_folds_on_the_cpu_and_its_scores_stay(tmp_path):
    data = tmp_path / "data"
    write_colours(data)
    assert trained(data, tmp_path / "run").status == 0
    fast, plain = (load(tmp_path / "run", device="cpu", plain=plain) for plain in (False, True))
    shown = torch.randint(0, 256, (3, 16, 16, 3), dtype=torch.uint8)
    assert fast._folded is not None and plain._folded is None
    assert torch.allclose(fast.logits(shown).softmax(1), plain.logits(shown).softmax(1), atol=1e-5)
    fast.model.stages[0].blocks[0].grn = nn.Dropout()
    del fast._folded
    assert fast._folded is None


def answered(model: ConvNeXt) -> nn.Module:
    """The folded network after its first answer."""
    fast = convnext.optimize(model)
    fast(images(model))
    return fast


@needs_kernels
@pytest.mark.parametrize("name", ["v1", "v2", "overlap", "headless"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_network_that_has_answered_holds_its_matrices_once_and_gives_them_back_to_the_bit(name, dtype):
    model = network(name).to(dtype)
    x, fast, wanted = images(model).to(dtype), convnext.optimize(model), convnext.optimize(model).state_dict()
    answer, features = fast(x), fast.features(x)
    rounded = dtype == torch.bfloat16 and cpu.bf16_matmuls()  # in pairs
    gone = ("linear",) if rounded else ("conv", "linear", "expand", "project")
    matrices = [each for each in wanted if each.endswith(tuple(f".{part}.weight" for part in gone))]
    assert away(fast) == matrices
    kept = fast.state_dict()
    assert not away(fast) and list(kept) == list(wanted)
    for key, value in wanted.items():
        assert torch.equal(kept[key], value) and kept[key].stride() == value.stride() and kept[key].dtype == dtype
    assert not any(parameter.requires_grad for parameter in fast.parameters())
    assert torch.equal(fast(x), answer) and not away(fast)  # asked for once, they stay
    assert all(torch.equal(value, features[stage]) for stage, value in fast.features(x).items())


@needs_kernels
def test_copies_moves_and_graphs_of_a_network_that_has_answered_are_whole():
    model = network()
    x, wanted = images(model), exact(model, images(model))
    fast, held = answered(model), away(answered(model))
    for copied in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        assert not away(copied) and torch.equal(copied(x), fast(x)) and away(copied) == held == away(fast)
    assert apart(answered(model).double()(x.double()), wanted) < 1e-6
    assert apart(torch.compile(answered(model), backend="eager", fullgraph=True)(x), wanted) < 1e-5
    assert apart(torch.export.export(answered(model), (x,)).module()(x), wanted) < 1e-5
    fast(x.clone().requires_grad_()).sum().backward()
    other = answered(model)
    other.load_state_dict({name: 0 * value for name, value in other.state_dict().items()})
    assert not other(x).any()


@needs_kernels
def test_a_matrix_that_somebody_holds_stays_and_what_is_done_to_it_is_seen():
    model = network()
    fast, x = convnext.optimize(model), images(model)
    views = [fast.head.linear.weight[0], fast.stages[0][0].expand.weight.detach(), fast.stages[0][0].project.weight]
    before = fast(x)
    assert not {"head.linear.weight", "stages.0.0.expand.weight", "stages.0.0.project.weight"} & {*away(fast)}
    views[0].zero_()
    fast.head.linear.bias.zero_()
    assert before[:, 0].all() and not fast(x)[:, 0].any()
    late = answered(model)
    with torch.no_grad():
        late.head.linear.weight.zero_()
        late.head.linear.bias.zero_()
    assert not late(x).any()


@needs_kernels
def test_what_is_packed_in_fewer_bits_goes_only_when_asked_to_and_is_refused_afterwards():
    model = network()
    fast, x = convnext.optimize(model, matmul_dtype=torch.bfloat16), images(model)
    strange = convnext.optimize(model)
    strange.stages[0][0].expand = nn.Sequential(strange.stages[0][0].expand)
    assert strange.release() and apart(strange(x), exact(model, x)) < 1e-5  # the part itself answers
    answer = fast(x)
    assert any("expand" in name for name in away(fast)) != cpu.bf16_matmuls()
    fast = copy.deepcopy(fast)
    assert fast.release() and any("expand" in name for name in away(fast)) and torch.equal(fast(x), answer)
    for use in (copy.deepcopy, lambda each: each.double(), pickle.dumps, lambda each: each.state_dict()):
        if cpu.bf16_matmuls():
            with pytest.raises(ConvNeXtError, match="packed weights alone") as error:
                use(fast)
            assert "\n" not in str(error.value) and torch.equal(fast(x), answer)


@needs_kernels
def test_a_predictor_holds_the_folded_weights_once_and_its_copy_answers_the_same(tmp_path):
    write_colours(tmp_path / "data")
    assert trained(tmp_path / "data", tmp_path / "run").status == 0
    predictor = load(tmp_path / "run", device="cpu")
    shown = torch.randint(0, 256, (3, 16, 16, 3), dtype=torch.uint8)
    wanted = predictor.logits(shown)
    assert "head.linear.weight" in away(predictor._folded)
    assert torch.equal(copy.deepcopy(predictor).logits(shown), wanted)
    assert torch.equal(pickle.loads(pickle.dumps(predictor)).logits(shown), wanted)


@needs_kernels
def test_bf16_matmuls_are_for_the_kernels_alone():
    """Elsewhere the network stays float32; a network in bfloat16 keeps its dtype."""
    model = network()
    x, wanted = images(model), exact(model, images(model))
    fast, low = convnext.optimize(model, matmul_dtype=torch.bfloat16), convnext.optimize(model).bfloat16()
    assert apart(fast(x), wanted) < 0.01 and fast(x).dtype == torch.float32
    assert torch.equal(copy.deepcopy(fast)(x), fast(x))
    assert (apart(fast(x), wanted) > 1e-5) == cpu.bf16_matmuls()
    assert low(x.bfloat16()).dtype == torch.bfloat16 and apart(low(x.bfloat16()), wanted) < 0.05
    fast.fused = False
    assert apart(fast(x), wanted) < 1e-5


@needs_kernels
def test_a_predictor_of_a_bfloat16_run_is_closer_to_float32_than_autocast(tmp_path):
    data = tmp_path / "data"
    write_colours(data)
    assert trained(data, tmp_path / "run").status == 0
    exact, fast, plain = (
        load(tmp_path / "run", device="cpu", plain=kind != "fast") for kind in ("exact", "fast", "plain")
    )
    for each in (fast, plain):
        each.recipe = each.recipe.model_copy(update={"precision": "bf16"})
    shown = torch.randint(0, 256, (3, 16, 16, 3), dtype=torch.uint8)
    wanted = exact.logits(shown)
    assert fast._folded is not None and fast.logits(shown).dtype == torch.float32
    assert apart(fast.logits(shown), wanted) < apart(plain.logits(shown), wanted) < 0.1


@pytest.mark.parametrize("name", SMALL)
def test_a_network_without_values_is_folded_into_its_shapes_and_nothing_is_computed(name):
    """So opens a file: torch computes on tensors without values by its compiler, which takes a second to load."""
    seen: set[str] = set()

    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.add(function.overloadpacket.__name__)
            return function(*args, **(kwargs or {}))

    with torch.device("meta"):
        model = build_model(SMALL[name]).eval()
    with Seen():
        found = convnext.optimize(model).state_dict()
    expected = convnext.optimize(build_model(SMALL[name]).eval()).state_dict()
    assert {key: (value.shape, value.dtype) for key, value in found.items()} == {
        key: (value.shape, value.dtype) for key, value in expected.items()
    }
    assert not seen & {"mul", "mv", "mm", "add", "sum", "div", "conv2d", "convolution"}, seen
