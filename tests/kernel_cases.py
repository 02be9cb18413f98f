"""Runs the GPU kernels in Triton's interpreter and prints what was found as one JSON line.

    TRITON_INTERPRET=1 python tests/kernel_cases.py

A process of its own, because Triton decides when it is loaded whether it interprets. Called by test_kernels_gpu.py.
"""

import json
import traceback
from collections.abc import Callable
from typing import Any

import torch

from convnext.kernels import gpu
from convnext.kernels.gpu import reference, tuning
from convnext.kernels.gpu.checks import CHECKS, Case
from convnext.models.convnext import Block
from convnext.models.fused import weights_of

FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16
CASES = {  # name: (check, case, which setting)
    "norm, odd size, 3 x 16 channels": ("norm", Case(1, 40, 2, 9), 0),
    "norm, 5x5, one row": ("norm", Case(1, 19, 1, 3, kernel=5), 1),
    "norm, 9x9 in bands": ("norm", Case(1, 16, 3, 2, kernel=9), 2),
    "norm, bfloat16": ("norm", Case(2, 24, 4, 3, kernel=3, dtype=BF16), 3),
    "gelu, float32": ("gelu", Case(1, 19, 3, 5), 3),
    "gelu, float16": ("gelu", Case(2, 40, 4, 4, dtype=FP16), 5),
    "gelu, bfloat16": ("gelu", Case(1, 33, 4, 4, dtype=BF16), 6),
    "residual, float32": ("residual", Case(3, 20, 3, 3), 0),
    "residual, bfloat16, 3 x 16 channels": ("residual", Case(3, 48, 3, 3, dtype=BF16), 6),
    "residual, no factors": ("residual", Case(2, 19, 3, 3, keep=False, affine=False), 1),
    "gelu_backward, float32": ("gelu_backward", Case(3, 19, 3, 5), 2),
    "gelu_backward, bfloat16": ("gelu_backward", Case(2, 40, 4, 4, dtype=BF16), 4),
    "mlp_backward, float32, no factors": ("mlp_backward", Case(2, 19, 3, 5, keep=False), 0),
    "mlp_backward, float16, 3 x 16 channels": ("mlp_backward", Case(3, 40, 5, 9, dtype=FP16), 1),
    "mlp_backward, bfloat16": ("mlp_backward", Case(2, 32, 4, 9, dtype=BF16), 4),
    "block, 7x7, odd size": ("block", Case(2, 24, 1, 9), 0),
    "block, 3 x 16 channels, float16": ("block", Case(3, 40, 1, 5, kernel=3, dtype=FP16), 1),
    "block, bfloat16": ("block", Case(2, 20, 2, 3, kernel=5, dtype=BF16), 2),
    "block, the library's matmuls": ("block", Case(2, 264, 1, 2, kernel=3, dtype=FP16), 1),
    "block, nothing optional": ("block", Case(1, 17, 2, 2, kernel=3, keep=False, affine=False), 3),
    "fp8": ("fp8", Case(2, 36, 3, 5, kernel=3), 0),
    "fp8, bfloat16": ("fp8", Case(1, 32, 4, 4, kernel=3, dtype=BF16), 3),
}


def measured(name: str) -> object:
    """The errors of one case."""
    check, case, setting = CASES[name]
    with tuning.forced(setting):
        return CHECKS[check](case)


def block_of(width: int = 16) -> tuple[Block, torch.Tensor]:
    """A block whose branch matters, and an input."""
    made = Block(width, kernel=3, layer_scale=0.7, grn=False, drop_path=0.0)
    return made, torch.randn(2, width, 2, 3).contiguous(memory_format=torch.channels_last)


def as_the_block() -> object:
    """How far the kernels are from the network's own block, forward and backward; also compiled, without a graph break.

    Inductor's code looks whether an operator's answers lie in memory as it has promised; aot_eager takes any.
    """
    made, x = block_of()
    (made(x) * 2).square().sum().backward()
    wanted = [each.grad.clone() for each in made.parameters()]
    found = {}

    def plain(x: torch.Tensor, weights: Any) -> torch.Tensor:
        return gpu.block(x, weights) * 2

    for mode in ("eager", "aot_eager", "inductor"):
        made.zero_grad()
        run = plain if mode == "eager" else torch.compile(plain, backend=mode, fullgraph=True)
        answer = run(x, weights_of(made))
        found[mode] = float((answer - made(x) * 2).abs().max())
        answer.square().sum().backward()
        pairs = zip(made.parameters(), wanted, strict=True)
        found[f"{mode}, gradients"] = max(float((a.grad - b).norm() / b.norm()) for a, b in pairs)
    return found


def autocast() -> object:
    """Under autocast: the dtypes of the answer and of a gradient, and the error."""
    made, x = block_of()
    with torch.autocast("cpu", dtype=BF16):
        answer = gpu.block(x, weights_of(made))
    answer.sum().backward()
    error = float((answer - made(x)).norm() / made(x).norm())
    return {"answer": str(answer.dtype), "gradient": str(made.expand.weight.grad.dtype), "error": error}


def repeated() -> object:
    """Whether two runs give the same bits."""
    made, x = block_of(40)
    found = []
    for _ in range(2):
        made.zero_grad()
        gpu.block(x, weights_of(made)).square().sum().backward()
        found.append([each.grad.clone() for each in made.parameters()])
    return all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def dropped() -> object:
    """What a dropped sample's branch adds and learns, and whether channels-first memory gives the same answer."""
    made, x = block_of()
    x = x.requires_grad_()
    keep = torch.tensor([0.0, 2.0])
    answer = gpu.block(x, weights_of(made), keep)
    answer[0].sum().backward()
    learned = max(float(each.grad.abs().max()) for each in made.parameters())
    plain = gpu.block(x.detach().contiguous(), weights_of(made), keep)
    return {"same": torch.equal(answer[0], x[0]), "learned": learned, "layout": torch.equal(plain, answer)}


def fast_gelu() -> object:
    """The largest error of the 16-bit GELU over all float16 numbers from -12 to 12, in units of what float16 can tell."""
    from convnext.kernels.gpu import gemm

    every = torch.arange(-(2**15), 2**15).to(torch.int16).view(FP16)
    every = every[every.abs() <= 12]
    x = torch.cat((every, every.new_zeros(-len(every) % 16))).view(-1, 16)
    answer, _ = gemm.linear_gelu(x, torch.eye(16, dtype=FP16), torch.zeros(16))
    wanted = reference.linear_gelu(x.double(), torch.eye(16, dtype=torch.float64), torch.zeros(16, dtype=torch.float64))
    apart = (answer.double() - wanted).abs()
    small, large = wanted.abs() < 1e-3, wanted.abs() >= 1e-3
    return {"absolute": float(apart[small].max()), "relative": float((apart / wanted.abs())[large].max())}


def reasons() -> object:
    """Why tensors are refused."""
    return {
        "fits": gpu.unavailable(torch.ones(1, 8, 2, 2)),
        "double": gpu.unavailable(torch.ones(1, 8, 2, 2, dtype=torch.float64)),
        "flat": gpu.unavailable(torch.ones(8)),
        "empty": gpu.unavailable(torch.ones(0, 8, 2, 2)),
        "wide": gpu.unavailable(torch.ones(1, 5000, 1, 1)),
        "large": gpu.unavailable(torch.empty(1, 4096, 1024, 1024, device="meta")),
    }


def schema() -> object:
    """What torch's own examination of the operators finds."""
    made, x = block_of()
    given = weights_of(made).map(torch.Tensor.detach)
    operators = torch.ops.convnext
    tests = ("test_schema", "test_faketensor", "test_autograd_registration")
    both = [(operators.block_training, (x, *given, None, FP32, again)) for again in (True, False)]
    both += [
        (operators.block_inference, (x, *given, None, FP32)),
        (operators.norm_forward, (x, *given[:4], given.eps, FP32)),
    ]
    found = [torch.library.opcheck(each.default, arguments, test_utils=tests) for each, arguments in both]
    return sorted({str(value) for each in found for value in each.values()})


OTHERS = (as_the_block, autocast, repeated, dropped, fast_gelu, reasons, schema)


def attempt(run: Callable[[], object]) -> object:
    """Its answer, or the failure as text."""
    try:
        return run()
    except Exception:  # noqa: BLE001 - whatever it is, one test reports it and the others go on
        return traceback.format_exc()


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)  # also fills new memory with not-a-number: what is not written shows
    answers = {name: attempt(lambda name=name: measured(name)) for name in CASES}
    answers |= {each.__name__: attempt(each) for each in OTHERS}
    print(json.dumps(answers))
