"""What kernels in the wheel cost and save: its size, the time to import, and the time of a process to its first answer.

    make wheel; python benchmarks/wheel.py dist/convnext-*-manylinux_2_28_x86_64.whl [--model atto] [--rounds 3]

Environments of the plain wheel and of this one, with the packages of the interpreter that runs this, take turns: fresh
processes that import, build a network, fold it and answer for one image of 224 pixels. "first": no cache, so the plain wheel
compiles; "again": what it compiled is in the cache; "no compiler": the plain wheel runs on plain torch. Times are the
processor's, of the process and of the compilers that it starts, since others may use the machine. A line of
results/wheel.jsonl; medians of the rounds, and of the ratios plain / prebuilt within a round.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
import zipfile
from pathlib import Path

import torch

from convnext.engine.environment import environment

RESULTS = Path(__file__).parent / "results" / "wheel.jsonl"
PROCESS = """
import json, os, sys
def used():
    return sum(os.times()[:4])
start = used()
import convnext, torch
convnext.create
imported = used()
torch.set_num_threads(int(sys.argv[2]))
model = convnext.create(sys.argv[1], classes=10).eval()
made = used()
fast = convnext.optimize(model)
with torch.inference_mode():
    fast(torch.zeros(1, 3, 224, 224))
answered = used()
row = {"import_s": imported - start, "create_s": made - imported, "first_answer_s": answered - made}
print(json.dumps({**row, "process_s": answered}))
"""


def main() -> None:
    """Install both, measure in turn, append the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--model", default="atto")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        plain = plain_wheel(place)
        pythons = {"plain": installed(plain, place / "plain"), "prebuilt": installed(args.wheel, place / "prebuilt")}
        found = measured(pythons, place, args.model, args.threads, args.rounds)
        line = {
            "command": f"benchmarks/wheel.py --model {args.model} --rounds {args.rounds}",
            "bytes": {"plain": plain.stat().st_size, "prebuilt": args.wheel.stat().st_size, **libraries(args.wheel)},
            "seconds": {case: {name: median(rows, name) for name in rows[0]} for case, rows in found.items()},
            "ratios to prebuilt": {
                case: {name: ratio(rows, found["prebuilt, first"], name) for name in rows[0]}
                for case, rows in found.items()
                if case.startswith("plain")
            },
            "import ratio, prebuilt to plain": ratio(found["prebuilt, again"], found["plain, again"], "import_s"),
            "model": args.model,
            "rounds": args.rounds,
            "load": [round(each, 1) for each in os.getloadavg()],
            "date": time.strftime("%Y-%m-%d"),
        }
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(environment(torch.device("cpu")) | {"torch_threads": str(args.threads)} | line) + "\n")
    print(json.dumps(line, indent=1))


def plain_wheel(place: Path) -> Path:
    """The wheel that any other build makes of this checkout."""
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", str(place), str(root)]
    subprocess.run(command, check=True)
    (made,) = place.glob("*.whl")
    return made


def libraries(wheel: Path) -> dict[str, int]:
    """The bytes of the wheel's libraries, as installed, all and the largest."""
    with zipfile.ZipFile(wheel) as file:
        sizes = [each.file_size for each in file.infolist() if each.filename.endswith(".so")]
    return {"libraries": sum(sizes), "largest library": max(sizes)}


def installed(wheel: Path, place: Path) -> Path:
    """The interpreter of an environment that has the wheel, and the other packages of this one."""
    venv.create(place, with_pip=False)
    python = place / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(pip, check=True)
    (packages,) = (place / "lib").glob("python*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    return python


def measured(
    pythons: dict[str, Path], place: Path, model: str, threads: int, rounds: int
) -> dict[str, list[dict[str, float]]]:
    """Case -> a row of seconds for each round."""
    cache, nothing = place / "cache", place / "nothing"
    nothing.mkdir()
    values = {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}
    bare = values | {"PATH": str(nothing)}
    found: dict[str, list[dict[str, float]]] = {}
    for turn in range(rounds):
        shutil.rmtree(cache, ignore_errors=True)
        for name, case, given in (
            ("prebuilt", "first", bare),
            ("plain", "first", values),
            ("prebuilt", "again", bare),
            ("plain", "again", values),
            ("plain", "no compiler", bare),
        ):
            empty = case == "no compiler"
            given = {**given, "XDG_CACHE_HOME": str(nothing if empty else cache)}
            command = [str(pythons[name]), "-c", PROCESS, model, str(threads)]
            done = subprocess.run(command, env=given, capture_output=True, text=True, check=True, cwd=place)
            row = json.loads(done.stdout)
            found.setdefault(f"{name}, {case}", []).append(row)
            print(turn, name, case, {key: round(value, 2) for key, value in row.items()}, file=sys.stderr)
    return found


def median(rows: list[dict[str, float]], name: str) -> float:
    """Of one figure."""
    return round(statistics.median(row[name] for row in rows), 3)


def ratio(rows: list[dict[str, float]], others: list[dict[str, float]], name: str) -> float:
    """The median of the rounds' ratios."""
    return round(statistics.median(row[name] / other[name] for row, other in zip(rows, others, strict=True)), 3)


if __name__ == "__main__":
    main()
