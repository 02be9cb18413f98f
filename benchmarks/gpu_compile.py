"""Do all GPU kernels compile? Registers, stack and shared memory of each, without a GPU.

    python benchmarks/gpu_compile.py                         # every width of T, B and XL with the setting taken first
    python benchmarks/gpu_compile.py --models tiny --all     # every setting that the launchers name

The compiler is Triton's own, for sm_80 (A100) and sm_90 (H100, H200), with NVIDIA's assembler behind it. A setting that
asks for more shared memory than the GPU has is skipped at a launch; the first one must fit, and all must compile. A stack
means that values did not fit into registers: slower as a rule, and for the tile of a wide search still the fastest that was
timed. One line a kernel and setting goes to benchmarks/results/gpu_compile.jsonl, in place of older ones of the same GPU and
size; those of others stay.
"""

import argparse
import functools
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from convnext.files import write_text
from convnext.kernels.gpu.checks import Case
from convnext.kernels.gpu.tuning import Launch, Setting

RESULTS = Path(__file__).parent / "results" / "gpu_compile.jsonl"
SHARED = {80: 166_912, 90: 232_448}  # bytes a program may ask for
WIDTHS = {"tiny": (96, 192, 384, 768), "base": (128, 256, 512, 1024), "xlarge": (256, 512, 1024, 2048)}
BATCH = 128
PLACE = ("sm", "channels", "side")  # what the rows of one call of `compiled` have in common
Row = dict[str, Any]


class Offline:
    """Stands for the driver: a GPU to compile for, where there is none to run on."""

    def __init__(self, capability: int):
        self.capability = capability

    def get_current_target(self) -> Any:
        """What the compiler is asked for."""
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        """A number of its own for each capability: by it Triton remembers what it has compiled."""
        return self.capability

    def get_current_stream(self, device: int = 0) -> int:
        """The default one."""
        return 0

    def get_active_torch_device(self) -> torch.device:
        """Where shapes live without memory."""
        return torch.device("meta")

    def map_python_to_cpp_type(self, kind: str) -> str:
        """As the real driver does."""
        from triton.backends.nvidia.driver import ty_to_cpp

        return ty_to_cpp(kind)


def main() -> None:
    """Compile, print a line each, write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=tuple(WIDTHS), default=tuple(WIDTHS))
    parser.add_argument("--widths", nargs="+", type=int, help="only these of the models' (all)")
    parser.add_argument("--capabilities", nargs="+", type=int, choices=tuple(SHARED), default=tuple(SHARED))
    parser.add_argument("--all", action="store_true", help="every setting, not only the first")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    sizes = sorted({(c, 56 >> stage) for model in args.models for stage, c in enumerate(WIDTHS[model])})
    sizes = [(c, side) for c, side in sizes if not args.widths or c in args.widths]
    given = [(capability, *size, args.all) for capability in args.capabilities for size in sizes]
    found: list[Row] = []
    args.out.parent.mkdir(exist_ok=True)
    with ProcessPoolExecutor(args.jobs, get_context("spawn")) as pool:
        for rows in pool.map(compiled, *zip(*given, strict=True)):
            print("\n".join(map(line, rows)), flush=True)
            keep(args.out, rows, every=args.all)
            found += rows
    wrong = sum("error" in row or bool(row["first"] and fault(row)) for row in found)
    large = sum("error" not in row and not row["first"] and bool(fault(row)) for row in found)
    spilled = sum(bool(row["first"] and row.get("stack")) for row in found)
    print(
        f"{wrong} settings do not compile, or are taken first and do not fit; {large} others do not fit and are skipped"
    )
    print(f"{spilled} that are taken first need a stack")
    sys.exit(bool(wrong))


def keep(out: Path, rows: list[Row], *, every: bool) -> None:
    """Write `rows`, all of one GPU and size, in place of older ones; of these the other settings stay, but for `every`."""
    held = [json.loads(each) for each in out.read_text().splitlines()] if out.exists() else []
    new = {_key(row) for row in rows}
    held = [row for row in held if _place(row) != _place(rows[0]) or not (every or row["first"] or _key(row) in new)]
    whole = sorted([*held, *rows], key=_place)  # stable: kernels stay in their order
    write_text(out, "".join(json.dumps(row) + "\n" for row in whole))


def _place(row: Row) -> tuple[int, ...]:
    return tuple(row[name] for name in PLACE)


def _key(row: Row) -> str:
    return json.dumps([row["what"], row["setting"]])


def compiled(capability: int, channels: int, side: int, every: bool = False) -> list[Row]:
    """A row for each kernel of a block at this size, or for each setting of each."""
    from triton.runtime import driver

    driver.set_active(Offline(capability))
    return [
        report((capability, channels, side), what, launch, setting, first=setting is launch.settings[0])
        for what, launch in noted(capability, channels, side)
        for setting in (launch.settings if every else launch.settings[:1])
    ]


def noted(capability: int, channels: int, side: int) -> Iterator[tuple[str, Launch]]:
    """The launches of a block in bf16, and in float8 where the GPU has it."""
    from gpu_launches import fp8_launches, launches

    case = Case(BATCH, channels, side, side, dtype=torch.bfloat16, device="meta")
    yield from launches(case).items()
    if capability >= 89:
        yield from fp8_launches(case).items()


def report(place: tuple[int, int, int], what: str, launch: Launch, setting: Setting, *, first: bool) -> Row:
    """What the compiler says of one kernel with one setting."""
    import triton

    row: Row = {**dict(zip(PLACE, place, strict=True)), "what": what, "kernel": launch.name, "first": first}
    try:
        made = launch.compile(setting)
    except Exception as failure:  # noqa: BLE001 - whatever the compiler raises is the finding
        return row | {"setting": setting, "error": f"{type(failure).__name__}: {str(failure).strip()[:300]}"}
    used, code = resources(made.asm["cubin"]), dump(made.asm["cubin"], "-sass")
    return row | {
        "triton": triton.__version__, "registers": used["REG"], "stack": used["STACK"], "shared": made.metadata.shared,
        "tensor_cores": next((name for name in ("HGMMA", "QGMMA", "HMMA") if name in code), None),
        "setting": setting,
    }  # fmt: skip


def resources(cubin: bytes) -> dict[str, int]:
    """REG, STACK and the like of a compiled kernel."""
    found = dump(cubin, "--dump-resource-usage").rsplit("Function", 1)[1].split(":", 1)[1].split()
    return {name: int(value) for name, value in (each.split(":") for each in found) if name.isalpha()}


def dump(cubin: bytes, what: str) -> str:
    """What NVIDIA's own tool, which Triton brings along, tells of a compiled kernel."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run([tool(), what, file.name], capture_output=True, text=True, check=True).stdout


@functools.cache
def tool() -> str:
    """Where cuobjdump is."""
    import triton

    return str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump")


def fault(row: Row) -> str | None:
    """Why a compiled kernel cannot run on its GPU; None where it can."""
    if "error" in row:
        return row["error"]
    limit = SHARED[row["sm"]]
    return f"{row['shared']:,} bytes of shared memory, the GPU has {limit:,}" if row["shared"] > limit else None


def line(row: Row) -> str:
    """A row for reading."""
    setting = " ".join(f"{name}={value}" for name, value in row["setting"].items())
    head = f"sm_{row['sm']} C={row['channels']:<5}{row['side']:>2} px  {row['what']:<19}"
    if "error" in row:
        return f"{head} FAILED {row['error']}  {setting}"
    numbers = f"registers {row['registers']:>3}  stack {row['stack']:>4}  shared {row['shared']:>7,}"
    found = f"{numbers}  {row['tensor_cores'] or '':<8}  {setting}"
    return f"{head} {found}{'  ! does not fit' if fault(row) else ''}"


if __name__ == "__main__":
    main()
