"""What can be known of the GPU kernels without a GPU: that they compile and fit, what memory they take, how a search picks
their tiles.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("triton", reason="Triton is not installed: the GPU kernels are NOT compiled")
from convnext.kernels.gpu import mlp, operators, tuning
from convnext.kernels.gpu.checks import Case

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
launches = pytest.importorskip("gpu_launches", reason="the benchmarks do not come with the package").launches
keep = pytest.importorskip("gpu_compile", reason="the benchmarks do not come with the package").keep
search = pytest.importorskip("gpu_search", reason="the benchmarks do not come with the package")

PRODUCTS = {
    "linear_gelu", "linear_residual", "gelu_backward", "mlp", "mlp_input_gradient", "mlp_weight_gradient", "scaled_product",
}  # fmt: skip
STACKED = {("residual", 96)}  # the fastest tile of the search all the same


def test_the_kernels_of_tiny_compile_for_an_h100_fit_and_keep_their_values_in_registers(tmp_path):
    out = tmp_path / "rows.jsonl"
    command = [sys.executable, str(BENCHMARKS / "gpu_compile.py"), "--models", "tiny", "--widths", "96", "384"]
    command += ["--capabilities", "90", "--jobs", "1", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(each) for each in out.read_text().splitlines()]
    assert {row["channels"] for row in rows} == {96, 384} and len(rows) > 24
    for row in rows:
        assert not row["stack"] or (row["what"], row["channels"]) in STACKED, row
        products = row["kernel"] in PRODUCTS
        assert row["tensor_cores"] == (("QGMMA" if "float8" in row["what"] else "HGMMA") if products else None), row


def test_rows_take_the_place_of_older_ones_of_their_gpu_and_width_alone(tmp_path):
    def row(sm: int, channels: int, what: str, tile: int, *, first: bool = True, stack: int = 0) -> dict[str, object]:
        place = {"sm": sm, "channels": channels, "side": 5376 // channels}
        return {**place, "what": what, "first": first, "stack": stack, "setting": {"rows": tile}}

    out = tmp_path / "rows.jsonl"
    held = [row(80, 96, "norm", 1), row(80, 96, "norm", 2, first=False), row(80, 96, "gone", 1), row(90, 96, "norm", 1)]
    keep(out, held[:3], every=True)
    keep(out, held[3:], every=False)
    keep(out, [row(80, 192, "norm", 5)], every=False)
    keep(out, [row(80, 192, "norm", 5) | {"side": 56}], every=False)  # B and XL share widths, not sizes
    keep(out, [row(80, 96, "norm", 3, stack=8)], every=False)
    found = [json.loads(each) for each in out.read_text().splitlines()]
    assert [(each["sm"], each["channels"], each["setting"]["rows"]) for each in found] == [
        (80, 96, 2), (80, 96, 3), (80, 192, 5), (80, 192, 5), (90, 96, 1),
    ]  # fmt: skip
    keep(out, [row(80, 96, "norm", 3), row(80, 96, "norm", 4, first=False)], every=True)
    found = [json.loads(each) for each in out.read_text().splitlines()]
    assert [each["setting"]["rows"] for each in found if each["sm"] == 80 and each["channels"] == 96] == [3, 4]


def noted(channels: int = 96) -> dict[str, object]:
    return launches(Case(2, channels, 8, 8, dtype=torch.bfloat16, device="meta"))


def test_a_noted_launch_names_its_kernel_and_runs_nothing():
    found = noted()
    assert {each.name for each in found.values()} == {
        "convolve_norm", "convolve_add", "filter_gradient", "norm_backward", *PRODUCTS - {"scaled_product"},
    }  # fmt: skip
    assert {"apply_gelu", "add_residual", "apply_derivative"} < {each.name for each in noted(384).values()}


@pytest.mark.parametrize("channels", [96, 768])
def test_a_search_begins_with_what_the_launcher_names_and_tries_nothing_twice(channels):
    for launch in noted(channels).values():
        settings = search.candidates(launch, channels, 8)
        assert settings[0] == launch.settings[0] and all(each in settings for each in launch.settings)
        assert len(settings) > len(launch.settings)
        assert len({tuple(sorted(each.items())) for each in settings}) == len(settings)
        assert {frozenset(each) for each in settings} == {frozenset(launch.settings[0])}


def test_a_summary_has_the_fastest_of_each_kernel_and_size_without_what_follows_from_the_tile():
    shape = {"kernel": "convolve_norm", "n": 128, "channels": 96, "side": 56}
    rows = [{**shape, "ms": ms, "setting": {"rows": i, "strips": 3}} for i, ms in enumerate((3.0, 1.0, 2.00004))]
    rows.append({**shape, "channels": 192, "ms": 5.0, "setting": {"rows": 9}})
    found = search.summarise(rows, best=2)
    assert [(row["channels"], row["ms"], row["timed"]) for row in found] == [(96, 1.0, 3), (96, 2.0, 3), (192, 5.0, 1)]
    assert all(not set(row["setting"]) & set(search.DERIVED) for row in found) and search.tile_of(rows[0]) == "rows=0"


BF16, E = torch.bfloat16, 4  # hidden channels a channel


def on_meta(n: int, c: int, dtype: torch.dtype = BF16) -> Tensor:
    """(N, 16, 16, C) without values."""
    return torch.empty(n, 16, 16, c, dtype=dtype, device="meta")


def layers(c: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """expand and project."""
    wide, narrow = (torch.empty(each, dtype=BF16, device="meta") for each in (E * c, c))
    return (torch.empty(E * c, c, dtype=BF16, device="meta"), wide), (
        torch.empty(c, E * c, dtype=BF16, device="meta"),
        narrow,
    )


@pytest.mark.parametrize("c", [96, 256, 384])
def test_a_block_keeps_for_its_backward_its_input_and_normed_map_and_only_a_wide_one_what_stood_before_gelu(c):
    kept: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        kept[id(x.untyped_storage())] = x.untyped_storage().nbytes()
        return x

    weights = Case(4, c, 16, 16, device="meta").weights().map(lambda each: each.float().requires_grad_())
    x = on_meta(4, c, torch.float32).permute(0, 3, 1, 2).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        operators.block_training(x, *weights, None, BF16, c <= operators.RECOMPUTED)
    of_weights = sum(each.nbytes for each in weights.tensors if each is not None)
    a_position = 4 * c + 2 * c + 4 + (2 * E * c if c > 256 else 0)  # float32 residual, bf16 normed map, rstd
    assert sum(kept.values()) - of_weights == a_position * 4 * 16 * 16


class Made(TorchDispatchMode):
    """Counts the bytes of all tensors that are made."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, function, types, given=(), named=None):
        answer = function(*given, **(named or {}))
        if not any(each.alias_info for each in function._schema.returns):  # a view is nothing new
            self.total += answer.nbytes
        return answer


def made_by(run: object, n: int, c: int) -> int:
    """The bytes of all tensors that a backward of the MLP makes for n images."""
    expand, project = layers(c)
    given = (on_meta(n, c), on_meta(n, c))
    with tuning.noted(), Made() as made:
        run(*given, expand, project[0])
    return made.total


@pytest.mark.parametrize("c", [96, 128])
def test_gradients_that_compute_the_hidden_layer_again_make_nothing_of_its_size(c):
    """Bytes a position, from two sizes, so that what does not grow with them falls out."""
    rows, positions = (256, 512), 256 * 16 * 16
    found = {}
    for name, run in (
        ("stored", lambda x, push, expand, project: mlp.stored_mlp_backward(x, expand, None, push, project, None)),
        ("fused", lambda x, push, expand, project: mlp.fused_mlp_backward(x, expand, push, project, None)),
    ):
        small, large = (made_by(run, n, c) for n in rows)
        found[name] = (large - small) / positions
    a_tile_of_16 = 4 * E * c / 16  # the sums of the gradient before GELU
    assert found == {"stored": 2 * (2 * E * c + c) + a_tile_of_16, "fused": 2 * c}


def names_of(run: object) -> list[str]:
    with tuning.noted() as made:
        run()
    return [each.name for each in made]


def test_the_librarys_matmul_and_the_hidden_layer_computed_again_run_where_they_won_on_a_gpu(monkeypatch):
    def answers(c: int) -> list[str]:
        (expand, project), x = layers(c), on_meta(2, c)
        forward = names_of(lambda: mlp.mlp(x, expand, project, None, None, x))
        return forward + names_of(lambda: mlp.mlp_backward(x, expand, None, x, project[0], None))

    assert answers(384) == ["linear_gelu", "linear_residual", "gelu_backward"]
    assert answers(96) == ["mlp", "gelu_backward"]
    won = {("linear_gelu", 384): 1, ("gelu_backward", 384): 1, ("mlp_backward", 96): 1, ("mlp", 96): 1}
    monkeypatch.setattr(mlp, "WON", won)
    assert answers(384) == ["apply_gelu", "linear_residual", "apply_derivative"]
    assert answers(96) == ["linear_gelu", "linear_residual", "mlp_input_gradient", "mlp_weight_gradient"]


def test_rivals_are_measured_once_where_measuring_is_asked_for_and_the_fastest_is_taken(monkeypatch):
    times = iter([2.0, 1.0, 1.0, 2.0])  # gelu: the library's, residual: ours
    monkeypatch.setattr(tuning, "_CHOSEN", {})
    monkeypatch.setattr(tuning, "_may_measure", lambda: True)
    monkeypatch.setattr(tuning, "milliseconds", lambda run: next(times))
    (expand, project), x = layers(384), on_meta(2, 384)
    for _ in range(2):
        assert names_of(lambda: mlp.mlp(x, expand, project, None, None, x)) == ["apply_gelu", "linear_residual"]
    assert [each["way"] for each in tuning.chosen().values()] == [1, 0]
