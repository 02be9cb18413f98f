"""The Triton kernels against plain torch in float64: in Triton's interpreter; test_gpu.py has them on a GPU."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from unittest import mock

import pytest
import torch

from convnext.errors import ConvNeXtError
from convnext.kernels import gpu, graphs
from convnext.kernels.block import BlockWeights
from convnext.kernels.gpu import depthwise_norm, tuning
from convnext.kernels.gpu.available import precision
from convnext.models.convnext import Block
from convnext.models.fused import weights_of

pytest.importorskip("triton", reason="Triton is not installed: the GPU kernels are NOT tested")
from convnext.kernels.gpu import depthwise
from convnext.kernels.gpu.checks import bound

sys.path.insert(0, str(Path(__file__).parent))
from interpreted import answers_of, of
from kernel_cases import CASES

STAGES = {"tiny": (96, 192, 384, 768), "xlarge": (256, 512, 1024, 2048)}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What kernel_cases.py prints."""
    return answers_of("kernel_cases.py", tmp_path_factory)


@pytest.mark.parametrize("name", CASES)
def test_a_kernel_answers_as_its_reference_in_float64(found, name):
    check, case, _ = CASES[name]
    errors = of(found, name)
    assert errors and max(errors.values()) <= bound(check, case), errors


@pytest.mark.parametrize("name", [name for name, (check, case, _) in CASES.items() if check == "mlp_backward"])
def test_gradients_of_hidden_values_computed_again_are_no_further_from_float64_than_those_of_stored_ones(found, name):
    if CASES[name][1].dtype == torch.bfloat16:
        pytest.skip("the interpreter cuts bfloat16 off, where a GPU and torch.mm round")
    errors = of(found, name)
    for each in ("normal", "expand", "expand_bias", "project"):
        assert errors[f"{each}, fused"] < 1.1 * errors[f"{each}, stored"], errors


def test_the_kernels_answer_as_the_networks_block_eager_and_compiled_without_a_graph_break(found):
    assert max(of(found, "as_the_block").values()) < 1e-5


def test_autocast_decides_the_products_and_leaves_the_stream_and_the_gradients_in_their_dtype(found):
    answer = of(found, "autocast")
    assert (answer["answer"], answer["gradient"]) == ("torch.float32", "torch.float32") and 0 < answer["error"] < 0.01


def test_equal_inputs_give_equal_bits_also_in_the_gradients(found):
    assert of(found, "repeated") is True


def test_a_dropped_samples_branch_adds_nothing_and_learns_nothing_and_the_layout_does_not_matter(found):
    assert of(found, "dropped") == {"same": True, "learned": 0.0, "layout": True}


def test_the_16_bit_gelu_is_exact_to_a_rounding_of_float16_and_a_ten_thousandth(found):
    answer = of(found, "fast_gelu")
    assert answer["absolute"] < 2e-6 and answer["relative"] < 2**-10 + 1.5e-4  # the interpreter cuts off, a GPU rounds


def test_a_tensor_that_does_not_fit_is_refused_with_its_reason(found):
    answer = of(found, "reasons")
    assert answer["fits"] is None
    assert "float64" in answer["double"] and "(8,)" in answer["flat"] and "(0, 8, 2, 2)" in answer["empty"]
    assert "5000" in answer["wide"] and "4,294,967,296" in answer["large"]


def test_torch_finds_the_operators_well_formed(found):
    assert of(found, "schema") == ["SUCCESS"]


def block_and_input() -> tuple[Block, torch.Tensor, BlockWeights]:
    made = Block(8, kernel=7, layer_scale=0.5, grn=False, drop_path=0.0)
    return made, torch.randn(2, 8, 5, 6), weights_of(made)


def test_where_there_is_no_gpu_plain_torch_answers_to_the_bit_and_the_reason_is_named():
    made, x, weights = block_and_input()
    reason = gpu.unavailable(x)
    assert reason and "cuda" in reason
    assert torch.equal(gpu.block(x, weights), made(x))
    y = made.spatial(x).permute(0, 2, 3, 1)
    assert torch.equal(depthwise_norm(x, *weights[:4], weights.eps), made.norm(y))


def test_without_float8_the_rounded_weights_answer_in_the_dtype_of_the_image():
    made, x, weights = block_and_input()
    assert gpu.unavailable_fp8(x)
    answer = gpu.block_fp8(x, gpu.prepare(weights))
    assert (answer - made(x)).norm() < 0.05 * (made(x) - x).norm()


def test_a_network_is_itself_where_no_graph_can_be_recorded_and_training_is_refused():
    model = torch.nn.Linear(2, 2)
    with pytest.raises(ConvNeXtError, match="eval"):
        graphs.graphed(model, torch.ones(1, 2))
    assert graphs.graphed(model.eval(), torch.ones(1, 2)) is model


def test_a_graph_is_recorded_and_replayed_on_the_device_of_its_example(monkeypatch):
    """And in its own stream: torch's default one belongs to the device of the first graph of the process."""
    current, seen, streams = ["cuda:0"], [], []

    @contextmanager
    def within(device: str) -> Iterator[None]:
        current.append(device)
        yield
        current.pop()

    @contextmanager
    def recording(graph: object, *, pool: object, stream: object, capture_error_mode: str) -> Iterator[None]:
        streams.append(stream)
        yield

    cuda = mock.MagicMock()
    cuda.device.side_effect, cuda.graph.side_effect, cuda.stream.side_effect = (
        within,
        recording,
        lambda _: nullcontext(),
    )
    cuda.Stream.side_effect = lambda: mock.MagicMock(device=current[-1])
    cuda.CUDAGraph.return_value.replay.side_effect = lambda: seen.append(current[-1])
    monkeypatch.setattr(torch, "cuda", cuda)
    example = mock.MagicMock(device="cuda:1")
    example.clone.return_value = example

    def model(x: object) -> object:
        seen.append(current[-1])
        return mock.MagicMock()

    graphs.Graphed(model, example)(
        mock.MagicMock(shape=example.shape, dtype=example.dtype, device="cuda:1", requires_grad=False)
    )
    assert (
        seen == ["cuda:1"] * (graphs.WARM + 2)
        and [each.device for each in streams] == ["cuda:1"]
        and current == ["cuda:0"]
    )


def test_tf32_is_taken_only_where_torch_is_told_to():
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    try:
        matmul.fp32_precision = "ieee"
        assert precision(torch.float32) == "ieee"
        matmul.fp32_precision = "tf32"
        assert precision(torch.float32) == "tf32"
    finally:
        matmul.fp32_precision = before


class Recorded:
    """Stands for a kernel: notes its settings, refuses the first as a GPU with too little shared memory would."""

    def __init__(self):
        self.fn, self.ran = type(self).__init__, []

    def __getitem__(self, grid: tuple[int]):
        def run(size: int, **_: object) -> None:
            if size == 1:
                raise RuntimeError("out of resources")
            self.ran.append((grid, size))

        return run


def test_the_fastest_setting_that_runs_is_measured_once_and_remembered(monkeypatch):
    kernel, settings, x = Recorded(), [{"size": 1}, {"size": 2}, {"size": 3}], torch.ones(1)
    times = iter([5.0, 4.0])
    monkeypatch.setattr(tuning, "_CHOSEN", {})
    monkeypatch.setattr(tuning, "_may_measure", lambda: True)
    monkeypatch.setattr(tuning, "milliseconds", lambda run: next(times))
    for _ in range(2):
        assert tuning.launch(kernel, lambda s: 10 * s["size"], settings, ("a",), x, {}) == {"size": 3}
    assert kernel.ran[-2:] == [((30,), 3)] * 2 and list(tuning.chosen().values()) == [{"size": 3}]
    with pytest.raises(ConvNeXtError, match="none of its settings"):
        tuning.launch(kernel, lambda s: 1, settings[:1], ("b",), x, {})


def test_where_nothing_is_measured_the_first_setting_that_runs_is_taken_and_remembered(monkeypatch):
    monkeypatch.setattr(tuning, "_CHOSEN", {})
    kernel, settings = Recorded(), [{"size": 1}, {"size": 2}, {"size": 3}]
    for _ in range(2):
        assert tuning.launch(kernel, lambda s: 1, settings, ("c",), torch.ones(1), {}) == {"size": 2}
    assert kernel.ran == [((1,), 2)] * 2
    assert tuning.faster(("d",), torch.ones(1), [lambda: 1, lambda: 2]) == 0
    assert tuning.faster(("d",), torch.ones(1), [lambda: 1, lambda: 2], recorded=1) == 1


@pytest.mark.parametrize("channels", [1, 24, 40, 80, 96, 100, 192, 384, 768, 1024, 1536, 2048, 3072, 4096])
def test_channels_are_covered_with_less_than_a_half_idle(channels):
    block, chunks = depthwise.split(channels)
    assert block * chunks >= channels and block & (block - 1) == 0
    assert channels < 16 or 2 * block * chunks < 3.1 * channels
    assert depthwise.tiles(7, 7, block, chunks, 7)


def test_the_widths_of_tiny_leave_no_lane_idle():
    assert [depthwise.split(c) for c in STAGES["tiny"]] == [(32, 3), (64, 3), (128, 3), (256, 3)]
