"""Time and memory of commands as their input grows: images, classes, pixels, objects and threads, each alone.

    python benchmarks/scaling.py [images classes pixels objects threads] [--least N] [--most N] [--steps ...] [--quick]

    images   100 to 1,000,000 images of 32 px in ten classes, hard links of 64
    classes  10 to 20,000 class folders that share 20,000 images
    pixels   photographs of 250 to 8,000 px a side, four of each
    objects  1 to 1,000 objects on each of 20 images of 256 px, with outlines
    threads  1 to all: 5,000 images of 32 px

Steps: 'open' (from the path to its parts), 'pre-flight' (the look at all images before the first step), 'evaluate', 'report'
(the page of an evaluation) and 'predict', the last of detectors and segmenters, too. Each figure is a process of its own, a
fork of one that has answered for four images, so that imports count nowhere: the processor's seconds of it and its workers,
the clock's, the highest memory beyond what it held before. Networks are tiny and have fresh weights: what is around them is
measured. A line of results/scaling.jsonl each; the chart is results/scaling.svg, which `--draw` makes of all lines. Status 1
where something grows faster than its input and `WHY` gives no reason.
"""

import argparse
import contextlib
import json
import os
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

import scaling_chart
import scaling_data as made
from convnext.cli import main as convnext
from convnext.data.opening import open_dense_splits, open_splits, recognise
from convnext.engine.machine import machine
from convnext.reports.report import write_page_of
from convnext.studies.benchmark.memory import Peak
from convnext.tasks.opening import look, scored_source

RESULTS = Path(__file__).parent / "results" / "scaling.jsonl"
CHART = RESULTS.with_suffix(".svg")
AXES: dict[str, tuple[int, ...]] = {
    "images": (100, 1_000, 10_000, 100_000, 1_000_000),
    "classes": (10, 100, 1_000, 5_000, 20_000),
    "pixels": (250, 500, 1_000, 2_000, 4_000, 8_000),  # of a side
    "objects": (1, 10, 100, 1_000),
    "threads": (1, 2, 4, 8, 16, 32),
}
TASKS = {  # axis -> the tasks that are measured along it
    "images": ("classification",),
    "classes": ("classification",),
    "pixels": ("classification", "detection", "segmentation"),
    "objects": ("detection",),
    "threads": ("classification",),
}
STEPS = ("open", "pre-flight", "evaluate", "report", "predict")
LONG_S, ROUNDS = 5.0, 3  # what takes longer is measured once, the rest so often: the least counts


def main() -> int:
    """Measure what is asked for, a row at a time; draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("axes", nargs="*", default=list(AXES))
    parser.add_argument("--least", type=int, default=0, help="of what varies (0)")
    parser.add_argument("--most", type=int, default=1_000_000, help="of what varies (1000000)")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--data", type=Path, help="where the images are made (a folder that is removed afterwards)")
    parser.add_argument("--quick", action="store_true", help="two points an axis; nothing is kept in results/")
    parser.add_argument("--draw", action="store_true", help="draw the results there are, and stop")
    args = parser.parse_args()
    if args.draw:
        return drawn([json.loads(line) for line in RESULTS.read_text().splitlines()], CHART)
    unknown = set(args.axes) - set(AXES)
    if unknown:
        parser.error(f"there is no axis {', '.join(unknown)}; there are {', '.join(AXES)}")
    with tempfile.TemporaryDirectory(prefix="scaling-") as temporary:
        data = args.data or Path(temporary)
        file = Path(temporary) / "scaling.jsonl" if args.quick else RESULTS
        rows = []
        torch.set_num_threads(1)  # before the forks: a pool of threads does not outlive one
        for task in dict.fromkeys(task for axis in args.axes for task in TASKS[axis]):
            warmed(task, data)
        for axis in args.axes:
            for value in points(axis, args):
                for task in TASKS[axis]:
                    rows += list(at(axis, value, task, args.steps, data, file))
        return drawn(rows, file.with_suffix(".svg")) if args.quick else drawn(kept(RESULTS), CHART)


def points(axis: str, args: argparse.Namespace) -> tuple[int, ...]:
    """The values of an axis that are asked for and that this machine has."""
    most = min(args.most, os.cpu_count() or 1) if axis == "threads" else args.most
    values = tuple(value for value in AXES[axis] if args.least <= value <= most)
    return values[:2] if args.quick else values


def kept(file: Path) -> list[dict[str, Any]]:
    """All rows of a file, the last one of each point."""
    return [json.loads(line) for line in file.read_text().splitlines()]


def drawn(rows: list[dict[str, Any]], file: Path) -> int:
    """Write the chart; say what grows faster than its input; 1 where that has no reason."""
    series = scaling_chart.series_of(rows)
    file.write_text(f"{scaling_chart.chart(series, rows)}\n", encoding="utf-8")
    steep = [each for each in series if each.steep()]
    for each in steep:
        print(f"{each.name} grows faster than its {each.axis}: {each.why or 'no reason is known'}", file=sys.stderr)
    return int(any(not each.why for each in steep))


def at(axis: str, value: int, task: str, steps: list[str], data: Path, file: Path) -> Iterator[dict[str, Any]]:
    """The rows of one point: its data are made, each step is a process, what it says is kept at once."""
    place, run = prepared(axis, value, task, data)
    for step in steps:
        if axis == "pixels" and (step in ("open", "report") or (task != "classification" and step != "predict")):
            continue  # they see no pixels, or the same road
        if axis == "threads" and step in ("open", "report"):
            continue
        threads = value if axis == "threads" else 1
        found = apart(lambda step=step, threads=threads: measured(step, task, place, run, threads))
        row = {"axis": axis, "value": value, "task": task, "step": step, "threads": threads, **found}
        print(json.dumps(row), flush=True)
        with file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(row | machine() | {"command": "scaling.py"}) + "\n")
        yield row


def apart(work: Callable[[], dict[str, float]]) -> dict[str, float]:
    """What `work` returns in a fork of this process, which has loaded everything. Raises SystemExit where it fails."""
    theirs, ours = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            os.write(ours, json.dumps(work()).encode())
            status = 0
        except BaseException:  # noqa: BLE001 # a fork must end here, whatever happens
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
    os.close(ours)
    with open(theirs, "rb") as pipe:
        told = pipe.read()
    if os.waitpid(child, 0)[1]:
        raise SystemExit("it failed: see above")
    found: dict[str, float] = json.loads(told)
    return found


def warmed(task: str, data: Path) -> None:
    """Every step on four images, so that what is loaded once counts nowhere."""
    run, names = made.write_run(data / "warm" / task / "run", task, ("a", "b")), data / "warm" / task / "data"
    if task == "detection":
        made.write_objects(names, 4, 2)
    else:
        made.write_photos(names, 4, 64)
    for step in STEPS if task != "segmentation" else ("predict",):
        WORK[step](task, names, run, 1)()


def prepared(axis: str, value: int, task: str, data: Path) -> tuple[Path, Path]:
    """(data, run) of a point."""
    names = ("a", "b")
    run = data / f"run_{axis}_{value}_{task}"
    if axis == "pixels":
        return made.write_photos(data / f"photos_{value}", 4, value), made.write_run(run, task, names)
    if axis == "objects":
        most: dict[str, Any] = {"head.most": value, "head.candidates_test": 4000, "head.proposals_test": 1000}
        return made.write_objects(data / f"objects_{value}", 20, value), made.write_run(run, task, names, **most)
    images, classes = {"images": (value, 10), "classes": (20_000, value), "threads": (5_000, 10)}[axis]
    place = made.write_links(data / f"links_{images}_{classes}", images, classes)
    return place, made.write_run(run, task, tuple(f"class_{label:05d}" for label in range(classes)))


def measured(step: str, task: str, data: Path, run: Path, threads: int) -> dict[str, float]:
    """In a process of its own, as often as it is short: the least seconds, the most memory."""
    torch.set_num_threads(threads)
    rounds = []
    while not rounds or (len(rounds) < ROUNDS and rounds[-1]["wall_s"] < LONG_S):
        ready = WORK[step](task, data, run, threads)
        peak, before, clock = Peak("cpu"), worked_s(), time.perf_counter()
        peak.restart()
        ready()
        rounds.append({"cpu_s": worked_s() - before, "wall_s": time.perf_counter() - clock, "peak_mb": peak.mb()})
    least = {name: round(min(each[name] for each in rounds), 3) for name in ("cpu_s", "wall_s")}
    return least | {"peak_mb": round(max(each["peak_mb"] for each in rounds), 1), "rounds": len(rounds)}


def worked_s() -> float:
    """Seconds of the processor so far, of this process and of those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def splits_of(task: str, data: Path) -> Any:
    """The two parts of `data`."""
    if task == "classification":
        return open_splits(recognise(data, annotated=False))
    return open_dense_splits(recognise(data, annotated=True))


def opened(task: str, data: Path, run: Path, threads: int) -> Callable[[], Any]:
    """From the path to the two parts."""
    return lambda: splits_of(task, data)


def preflighted(task: str, data: Path, run: Path, threads: int) -> Callable[[], Any]:
    """The look at all images."""
    splits = splits_of(task, data)
    return lambda: look(splits, workers=threads)


def evaluated(task: str, data: Path, run: Path, threads: int) -> Callable[[], Any]:
    """`convnext evaluate RUN DATA --json`, into the run's evaluation.json, of which the next step makes a page."""
    return lambda: command(["evaluate", str(run), str(data), "--json", *workers(threads)], run / "evaluation.json")


def reported(task: str, data: Path, run: Path, threads: int) -> Callable[[], Any]:
    """The page of a run that was evaluated."""
    if not (run / "evaluation.json").is_file():
        evaluated(task, data, run, threads)()
    source = scored_source(data, task)
    held_out = splits_of(task, source.path).val
    return lambda: write_page_of(run, task, held_out)


def predicted(task: str, data: Path, run: Path, threads: int) -> Callable[[], Any]:
    """`convnext predict RUN FOLDER --json`."""
    return lambda: command(["predict", str(run), str(data), "--json", *workers(threads)], Path(os.devnull))


WORK: dict[str, Callable[[str, Path, Path, int], Callable[[], Any]]] = {
    "open": opened,
    "pre-flight": preflighted,
    "evaluate": evaluated,
    "report": reported,
    "predict": predicted,
}


def workers(threads: int) -> list[str]:
    return ["--workers", str(threads)] if threads > 1 else []


def command(words: list[str], out: Path) -> None:
    """Run a command of ours, its output in a file. Raises SystemExit where it fails."""
    with out.open("w", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        status = convnext(words)
    if status:
        raise SystemExit(f"convnext {' '.join(words)} ended with status {status}")


if __name__ == "__main__":
    sys.exit(main())
