"""The Triton kernels on a GPU: `make test-gpu`.

With TRITON_INTERPRET=1 and `-m gpu` they run tiny on the CPU, to try the tests themselves.
"""

import threading
from pathlib import Path
from typing import get_args

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

pytest.importorskip("triton", reason="Triton is not installed: the GPU kernels are NOT tested")
from convnext.errors import ConvNeXtError
from convnext.kernels import block, dispatch, gpu
from convnext.kernels.gpu import mlp, tuning
from convnext.kernels.gpu.available import interpreted
from convnext.kernels.gpu.checks import CHECKS, Case, bound, off
from convnext.kernels.graphs import graphed
from convnext.models.create import create
from convnext.models.fused import fuse

pytestmark = pytest.mark.gpu
DRY = interpreted()
DEVICE = "cpu" if DRY else "cuda"
BF16 = torch.bfloat16
STAGES = [(c, 56 >> i) for row in ((96, 192, 384, 768), (256, 512, 1024, 2048)) for i, c in enumerate(row)]
CASES = [Case(3, c, side, side, dtype=BF16, device=DEVICE) for c, side in STAGES]
CASES += [
    Case(3, *size, dtype=dtype, device=DEVICE)
    for size in ((40, 13, 9), (96, 1, 57), (333, 7, 5))
    for dtype in (BF16, torch.float16, torch.float32)
]
TILED = [Case(2, 96, 15, 13, dtype=BF16, device=DEVICE), Case(2, 40, 9, 7, device=DEVICE)]
if DRY:
    CASES = TILED = [Case(2, 20, 3, 5, kernel=3)]


@pytest.fixture(autouse=True)
def kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton is asked for, and in its interpreter the CPU stands for the GPU."""
    monkeypatch.setenv(dispatch.SWITCH, "triton")
    monkeypatch.setattr(dispatch, "on_gpu", lambda device: device.type == DEVICE)
    torch.manual_seed(0)


def network(**options: object) -> nn.Module:
    """Four blocks in two stages, whose branches matter."""
    small = {"depths": (1, 1), "widths": (16, 24), "kernel": 3} if DRY else {"depths": (2, 2), "widths": (96, 192)}
    return create("atto", classes=5, layer_scale=1.0, **small, **options).to(DEVICE)


def images(n: int = 4) -> Tensor:
    side = 16 if DRY else 64
    return torch.randn(n, 3, side, side, device=DEVICE).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_kernel_answers_as_its_reference_in_float64(case):
    for name, check in CHECKS.items():
        if name != "fp8" or gpu.unavailable_fp8(torch.empty(1, 8, 2, 2, device=DEVICE)) is None:
            errors = check(case)
            assert max(errors.values()) <= bound(name, case), (name, errors)


@pytest.mark.parametrize("setting", range(1 if DRY else 7))
def test_every_tile_size_gives_the_same_answer(setting):
    with tuning.forced(setting):
        for case in TILED:
            for name in ("norm", "gelu", "residual", "gelu_backward", "mlp_backward"):
                try:
                    errors = CHECKS[name](case)
                except ConvNeXtError:
                    continue  # the GPU is too small for this one, which is then never chosen
                assert max(errors.values()) <= bound(name, case), (name, errors)


@pytest.mark.parametrize("c", (20, 264) if DRY else (96, 384))
def test_a_block_answers_the_same_by_the_ways_that_are_not_taken_yet(c, monkeypatch):
    monkeypatch.setattr(mlp, "WON", dict.fromkeys([(what, c) for what in get_args(mlp.What)], 1))
    case = (
        Case(2, c, 2, 3, kernel=3, dtype=BF16, device=DEVICE) if DRY else Case(2, c, 14, 14, dtype=BF16, device=DEVICE)
    )
    errors = CHECKS["block"](case)
    assert max(errors.values()) <= bound("block", case), errors


@pytest.mark.whole_gpu
def test_offsets_beyond_two_to_the_31_are_reached():
    if DRY or torch.cuda.get_device_properties(0).total_memory < 40 * 2**30:
        pytest.skip("takes 40 GiB of the GPU's memory")
    case = Case(1, 96, 128, 128, dtype=BF16, device=DEVICE)
    weights = case.weights().map(case.low)
    x = torch.randn(1400, 128, 128, 96, dtype=BF16, device=DEVICE).permute(0, 3, 1, 2)  # 2.2e9 values
    with torch.no_grad():
        answer = gpu.block(x, weights)
        assert torch.allclose(answer[-1:], gpu.block(x[-1:], weights), atol=1e-2, rtol=1e-2)


def test_the_plain_block_in_float64_is_the_reference():
    case = Case(2, 24, 9, 7, device=DEVICE)
    assert block.plain(case.map().permute(0, 3, 1, 2), case.weights()).dtype == torch.float64


class Compiled:
    """A backend of torch.compile that counts the blocks' operators in what it compiles."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.compile = torch._dynamo.lookup_backend("aot_eager" if DRY else "inductor")

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        self.calls.append(sum("convnext" in str(node.target) for node in graph.graph.nodes))
        return self.compile(graph, inputs)


@pytest.mark.parametrize("low", [False, True], ids=["float32", "bfloat16"])
def test_a_compiled_network_runs_the_kernels_in_inference_and_in_training(low):
    plain, x = network(), images()
    fused = network()
    fused.load_state_dict(plain.state_dict())
    blocks, backend = fuse(fused), Compiled()
    assert blocks == (2 if DRY else 4)
    compiled = torch.compile(fused, backend=backend, fullgraph=True, dynamic=False)
    answers = []
    for each in (plain, compiled):
        with torch.autocast(DEVICE, dtype=BF16, enabled=low):
            with torch.no_grad():
                alone = each(x)
            answer = each(x)
        answer.float().square().sum().backward()
        answers.append((alone, answer))
    assert backend.calls == [blocks, blocks]
    allowed = 3e-2 if low else 1e-4
    for found, wanted in zip(answers[1], answers[0], strict=True):
        assert off(found.float(), wanted.double()) < allowed
    for (name, found), wanted in zip(fused.named_parameters(), plain.parameters(), strict=True):
        assert off(found.grad, wanted.grad.double()) < 5 * allowed, name


def test_a_graph_answers_as_its_network_also_after_its_weights_change_in_place():
    made = network().eval()
    fuse(made)
    run = graphed(made, images())
    for _ in range(2):
        with torch.no_grad():
            for each in (images(), images(1)):
                assert torch.allclose(run(each), made(each), atol=1e-4)
            for parameter in made.parameters():
                parameter.mul_(0.9)


def test_what_another_thread_does_while_a_graph_is_recorded_goes_on():
    if DRY:
        pytest.skip("nothing is recorded on the CPU")
    made, over, failed = network().eval(), threading.Event(), []

    def read_images() -> None:
        try:
            while not over.is_set():  # as a loader does: page-locked memory, copies, and memory of the GPU
                torch.randn(int(torch.randint(1, 2**20, ()))).pin_memory().to(DEVICE, non_blocking=True)
        except RuntimeError as error:
            failed.append(error)

    thread = threading.Thread(target=read_images)
    thread.start()
    try:
        for _ in range(3):
            x = images()
            with torch.no_grad():
                assert torch.allclose(graphed(made, x)(x), made(x), atol=1e-4)
    finally:
        over.set()
        thread.join()
    assert not failed


def test_one_rank_learns_under_ddp_what_it_learns_alone(tmp_path: Path):
    x, found = images(), []
    dist.init_process_group("gloo" if DRY else "nccl", init_method=f"file://{tmp_path}/rank", rank=0, world_size=1)
    try:
        for wrap in (DistributedDataParallel, lambda made: made):
            torch.manual_seed(0)
            made = network(drop_path=0.2)
            fuse(made)
            torch.manual_seed(1)
            with torch.autocast(DEVICE, dtype=BF16):
                wrap(made)(x).float().square().sum().backward()
            found.append([each.grad for each in made.parameters()])
    finally:
        dist.destroy_process_group()
    assert all(off(a, b.double()) < 1e-3 for a, b in zip(*found, strict=True))
