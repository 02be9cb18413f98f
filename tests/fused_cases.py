"""Runs the fused block's Triton path in Triton's interpreter, on the CPU, and prints what was found as one JSON line.

    TRITON_INTERPRET=1 CONVNEXT_KERNELS=triton python tests/fused_cases.py

A process of its own, because Triton decides when it is loaded whether it interprets. Called by test_fused_gpu.py.
"""

import copy
import json
import os
import traceback
from collections.abc import Callable
from unittest import mock

import torch
from torch import Tensor, nn

from convnext.config import RunOptions
from convnext.deploy.optimize import optimize
from convnext.errors import ConvNeXtError
from convnext.kernels import dispatch, gpu
from convnext.models.convnext import Block
from convnext.models.create import create
from convnext.models.fused import OnKernels, fuse, unfuse
from convnext.recipes import recipe
from convnext.tasks.fitting import with_kernels

FP16, BF16 = torch.float16, torch.bfloat16


def block_of(width: int, *, gamma: float | None = 0.7, drop_path: float = 0.0, kernel: int = 3) -> Block:
    """A block whose every part matters."""
    made = Block(width, kernel=kernel, layer_scale=gamma, grn=False, drop_path=drop_path)
    for parameter in made.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return made


def map_of(width: int, n: int = 2) -> Tensor:
    """An input that wants a gradient."""
    return torch.randn(n, width, 2, 3).contiguous(memory_format=torch.channels_last).requires_grad_()


def fits_gpu(block: nn.Module, x: Tensor) -> bool:
    """Whether the Triton kernels compute it, for whoever asks now."""
    return dispatch.fits_triton(block, x, dispatch.allowed(x.device))


def off(answer: Tensor, wanted: Tensor) -> float:
    """|answer - wanted| / |wanted|."""
    return float((answer.double() - wanted.double()).norm() / wanted.double().norm().clamp(min=1e-30))


def step(made: nn.Module, x: Tensor, seed: int = 3) -> list[Tensor]:
    """The answer and every gradient, x's first; the same draws and the same gradient for everyone."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    made.zero_grad()
    torch.manual_seed(seed)
    answer = made(x)
    gradient = torch.linspace(-1, 1, answer.numel()).view(answer.shape)
    (answer * gradient).sum().backward()
    return [answer.detach(), x.grad, *(p.grad.clone() for p in made.parameters())]


def compared(made: Block, x: Tensor) -> dict[str, float]:
    """Fused in its dtype beside plain in float64: the errors by name."""
    exact = step(copy.deepcopy(made).double(), x.double())
    names = ["answer", "x", *(name for name, _ in made.named_parameters())]
    assert fuse(made) == 1 and fits_gpu(made, x)
    found = step(made, x)
    return {name: off(a, b) for name, a, b in zip(names, found, exact, strict=True)}


def training() -> object:
    """Answer and every gradient of blocks of several widths, with and without layer scale."""
    return {
        "7x7": compared(block_of(24, kernel=7), map_of(24, 1)),
        "odd width": compared(block_of(19), map_of(19)),
        "no layer scale": compared(block_of(16, gamma=None), map_of(16)),
        "hidden layer kept": compared(block_of(264), map_of(264, 1)),
    }


def drop_path() -> object:
    """Errors under stochastic depth, and whether the generator stands where the plain block leaves it."""
    made, x = block_of(16, drop_path=0.5), map_of(16, 8)
    plain = copy.deepcopy(made).double()
    fuse(made)
    sides = []
    for each, given in ((made, x), (plain, x.double())):
        found = step(each, given)
        sides.append((found, torch.rand(1)))
    (found, drawn), (exact, wanted) = sides
    errors = [off(a, b) for a, b in zip(found, exact, strict=True)]
    untouched = sum(torch.equal(a, b) for a, b in zip(found[0], x, strict=True))
    return {"errors": errors, "same draw": torch.equal(drawn, wanted), "dropped": untouched}


def inference() -> object:
    """Errors without gradients, by dtype; and whether the Triton operator answered."""
    found = {}
    for name, dtype in (("float32", torch.float32), ("float16", FP16), ("bfloat16", BF16)):
        made, x = block_of(24).eval().to(dtype), map_of(24).detach().to(dtype)
        exact = copy.deepcopy(made).double()(x.double())
        fuse(made)
        with torch.inference_mode(), mock.patch.object(gpu, "block", wraps=gpu.block) as called:
            answer = made(x)
        found[name] = {"error": off(answer, exact), "dtype": str(answer.dtype), "calls": called.call_count}
    return found


def autocast() -> object:
    """Under autocast: the errors of plain and fused against float64, and their dtypes; x of two dtypes."""
    found = {}
    for name, gamma, dtype in (("float32", 0.7, torch.float32), ("bfloat16", 0.7, BF16), ("unscaled", None, BF16)):
        made, x = block_of(24, gamma=gamma), map_of(24).detach().to(dtype)
        plain = copy.deepcopy(made)
        exact = step(copy.deepcopy(made).double(), x.double())
        fuse(made)
        sides = []
        for each in (made, plain):
            with torch.autocast("cpu", dtype=BF16):
                sides.append(step(each, x))
        errors = [max(off(a, b) for a, b in zip(side, exact, strict=True)) for side in sides]
        dtypes = [[str(each.dtype) for each in side] for side in sides]
        with torch.autocast("cpu", dtype=BF16), mock.patch.object(gpu, "block", wraps=gpu.block) as called:
            made(x)
        found[name] = {"errors": errors, "same dtypes": dtypes[0] == dtypes[1], "calls": called.call_count}
    return found


def counting(calls: list[int]) -> Callable[..., object]:
    """A backend of torch.compile that notes how many of our operators are in each graph."""

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        calls.append(sum("convnext" in str(node.target) for node in graph.graph.nodes))
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    return backend


def network() -> object:
    """A whole network: names, state, and its logits; compiled without a graph break; undone."""
    made = create("atto", depths=(1, 1), widths=(16, 24), kernel=3, classes=5, layer_scale=1.0).eval()
    x = torch.randn(1, 3, 16, 16)
    exact = copy.deepcopy(made).double()(x.double())
    before = {name: each.clone() for name, each in made.state_dict().items()}
    fused = fuse(made)
    after = made.state_dict()
    calls: list[int] = []
    answers = [made(x), torch.compile(made, backend=counting(calls), fullgraph=True)(x)]
    same = list(before) == list(after) and all(torch.equal(before[name], after[name]) for name in before)
    kinds = [type(each.kernels) for each in made.modules() if isinstance(each, Block)]
    alike = copy.deepcopy(made)(x)
    undone = unfuse(made)
    plain = [each.kernels is None for each in made.modules() if isinstance(each, Block)]
    return {
        "fused": fused, "kinds": kinds == [OnKernels] * 2, "same state": same, "undone": undone, "plain": all(plain),
        "errors": [off(each, exact) for each in answers], "copied": torch.equal(alike, answers[0]),
        "afterwards": off(made(x), exact), "operators in the compiled graph": calls,
    }  # fmt: skip


def folded() -> object:
    """`convnext.optimize` of a network on a GPU: its errors, and how often the kernels were called in each way."""
    made = create("atto", depths=(1, 2), widths=(16, 24), kernel=3, classes=5, layer_scale=1.0).eval()
    x = torch.randn(1, 3, 16, 16)
    exact = copy.deepcopy(made).double()(x.double())
    fuse(made)
    fast = optimize(made)
    with torch.no_grad():
        graphs: list[int] = []
        errors = {"compiled": off(torch.compile(fast, backend=counting(graphs), fullgraph=True)(x), exact)}
    calls = {"in the compiled graph": sum(graphs)}
    for name, dtype in (("eager", None), ("autocast", BF16), ("not fused", None)):
        fast.fused = name != "not fused"
        with (
            torch.no_grad(),
            torch.autocast("cpu", dtype, enabled=dtype is not None),
            mock.patch.object(gpu, "block", wraps=gpu.block) as called,
        ):
            errors[name] = off(fast(x), exact)
        calls[name] = called.call_count
    second = optimize(create("v2_atto", depths=(1,), widths=(16,), kernel=3, classes=5))
    with torch.no_grad(), mock.patch.object(gpu, "block", wraps=gpu.block) as called:
        second(x)
    return {"errors": errors, "calls": calls, "V2": called.call_count > 0}


def exported() -> object:
    """Whether an exported block is one of plain torch."""
    made, x = block_of(16).eval(), map_of(16).detach()
    fuse(made)
    graph = torch.export.export(made, (x,))
    return not any("convnext" in str(node.target) for node in graph.graph.nodes)


def plain_instead() -> object:
    """Where the kernels do not fit, the plain block answers: which cases did not call them."""
    found = {}
    for name, width, dtype in (("float64", 8, torch.float64), ("too wide", 4100, torch.float32)):
        made = block_of(width, kernel=1).to(dtype)
        fuse(made)
        found[name] = fits_gpu(made, torch.zeros(1, width, 1, 1, dtype=dtype))
    made, x = block_of(16), map_of(16)
    fuse(made)
    found["fits"] = fits_gpu(made, x)
    found["mixed"] = fits_gpu(made, x.to(BF16))
    handle = made.norm.register_forward_hook(lambda *given: None)
    found["hooked"] = fits_gpu(made, x)
    handle.remove()
    unfuse(made)
    with mock.patch("convnext.kernels.gpu.available._has_triton", return_value=False):
        found["no triton"] = bool(fuse(made)) or fits_gpu(made, x)
        answer = made(x)
    return {**found, "the same": torch.equal(answer, made.plain(x))}


def asking() -> object:
    """Who asks, and for what: how many blocks are fused, and the reason where none is."""
    here, found = torch.device("cpu"), {}
    for value in ("triton", "plain", ""):
        with mock.patch.dict(os.environ, {dispatch.SWITCH: value}):
            told = {asked: fuse(block_of(16), triton=asked) for asked in (False, True)}
            found[value] = [told[False], told[True], dispatch.without_kernels(here)]
    with mock.patch.dict(os.environ, {dispatch.SWITCH: "tritn"}):
        try:
            found["tritn"] = fuse(block_of(16), triton=True)
        except ConvNeXtError as error:
            found["tritn"] = str(error)
    chosen = recipe("small", "atto", images=100, image_px=32, classes=2)
    with mock.patch.dict(os.environ, {dispatch.SWITCH: ""}):
        for choice in ("auto", "plain", "triton"):
            model = with_kernels(nn.Sequential(block_of(16)), chosen, RunOptions(out="x", kernels=choice), here)
            found[f"train {choice}"] = type(model[0].kernels).__name__
    return found


CASES = (training, drop_path, inference, autocast, network, folded, exported, plain_instead, asking)


def attempt(run: Callable[[], object]) -> object:
    """Its answer, or the failure as text."""
    try:
        return run()
    except Exception:  # noqa: BLE001 - whatever it is, one test reports it and the others go on
        return traceback.format_exc()


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)
    dispatch.on_gpu = lambda device: device.type == "cpu"  # the interpreter's tensors lie where a GPU's would
    print(json.dumps({each.__name__: attempt(each) for each in CASES}))
