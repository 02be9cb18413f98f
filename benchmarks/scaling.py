"""Time and memory of commands as their input grows: images, classes, pixels, objects and threads, each alone.

    python benchmarks/scaling.py [images classes pixels objects threads] [--least N] [--most N] [--steps ...] [--go-on]

    images   100 to 1,000,000 images of 32 px in ten classes, hard links of 64
    classes  10 to 20,000 class folders that share 20,000 images
    pixels   photographs of 250 to 8,000 px a side, four of each
    objects  1 to 1,000 objects on each of 20 images of 256 px, with outlines
    threads  1 to twice the cores: 100 photographs of 500 px, atto at 224 px; so many threads of torch and readers of images

Steps: 'open' (from the path to its parts), 'pre-flight' (the look at all images before the first step), 'evaluate', 'report'
(the page of an evaluation) and 'predict', the last of detectors and segmenters, too; along the images also 'draw' (predict
with --out), 'embed', 'similar' (one image in the file of all features), 'shard', 'verify' (of the shards) and 'audit' (with
weights); along the threads 'train' (20 steps) and 'serve' (100 requests of sixteen clients, from the start of the server to
its end). Each figure is a process of its own, a fork of one that has answered for four images, so that imports count nowhere:
the processor's seconds of it and its workers, the clock's, the highest memory beyond what it held before, and the MB of what
it wrote. Networks are tiny, but along the threads, and have fresh weights: what is around them is measured. A line of
results/scaling.jsonl each; the chart is results/scaling.svg, which `--draw` makes of all lines. `--go-on` leaves out what
this machine has measured already, `--quick` takes two points an axis. Status 1 where something grows faster than its input
and `WHY` gives no reason.
"""

import argparse
import contextlib
import http.client
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch

import scaling_chart
import scaling_data as made
from convnext.api import create
from convnext.cli import main as convnext
from convnext.cores import cores, let_threads_sleep
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
STEPS = ("open", "pre-flight", "predict", "evaluate", "report", "embed", "similar", "shard", "verify", "draw", "audit")
THREADED = ("train", "serve")
WARMED = {"classification": STEPS, "detection": STEPS[:5], "segmentation": ("predict",)}
MOST = {"draw": 100_000, "audit": 100_000}  # images, of what writes a file for each or compares all with all
LONG_S, ROUNDS = 5.0, 3  # what takes longer is measured once, the rest so often: the least counts


def main() -> int:
    """Measure what is asked for, a row at a time; draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("axes", nargs="*", default=list(AXES))
    parser.add_argument("--least", type=int, default=0, help="of what varies (0)")
    parser.add_argument("--most", type=int, default=1_000_000, help="of what varies (1000000)")
    parser.add_argument("--steps", nargs="+", choices=[*STEPS, *THREADED], default=[*STEPS, *THREADED])
    parser.add_argument("--data", type=Path, help="where the images are made (a folder that is removed afterwards)")
    parser.add_argument("--go-on", action="store_true", help="leave out the points that this machine has a line of")
    parser.add_argument("--quick", action="store_true", help="two points an axis; nothing is kept in results/")
    parser.add_argument("--draw", action="store_true", help="draw the results there are, and stop")
    args = parser.parse_args()
    if args.draw:
        return drawn([json.loads(line) for line in RESULTS.read_text().splitlines()], CHART)
    unknown = set(args.axes) - set(AXES)
    if unknown:
        parser.error(f"there is no axis {', '.join(unknown)}; there are {', '.join(AXES)}")
    if "GOMP_SPINCOUNT" not in os.environ:  # as the command line has it, which torch reads when it is loaded
        let_threads_sleep()
        os.execv(sys.executable, [sys.executable, *sys.argv])
    with tempfile.TemporaryDirectory(prefix="scaling-") as temporary:
        data = args.data or Path(temporary)
        file = Path(temporary) / "scaling.jsonl" if args.quick else RESULTS
        rows: list[dict[str, Any]] = []
        done = known(RESULTS) if args.go_on else set()
        torch.set_num_threads(1)  # before the forks: a pool of threads does not outlive one
        for task in dict.fromkeys(task for axis in args.axes for task in TASKS[axis]):
            warmed(task, data)
        for axis in args.axes:
            for value in points(axis, args):
                for task in TASKS[axis]:
                    steps = [step for step in args.steps if (axis, value, task, step) not in done]
                    rows += list(at(axis, value, task, steps, data, file)) if steps else []
        return drawn(rows, file.with_suffix(".svg")) if args.quick else drawn(kept(RESULTS), CHART)


def points(axis: str, args: argparse.Namespace) -> tuple[int, ...]:
    """The values of an axis that are asked for and that this machine has."""
    most = min(args.most, 2 * cores()) if axis == "threads" else args.most
    values = tuple(value for value in AXES[axis] if args.least <= value <= most)
    return values[:2] if args.quick else values


def kept(file: Path) -> list[dict[str, Any]]:
    """All rows of a file, the last one of each point."""
    return [json.loads(line) for line in file.read_text().splitlines()]


def known(file: Path) -> set[tuple[str, int, str, str]]:
    """The points that this machine has measured."""
    here = machine()
    return {
        (row["axis"], row["value"], row["task"], row["step"])
        for row in kept(file)
        if all(row[name] == here[name] for name in ("processor", "cores"))
    }


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
        if not meant(axis, value, task, step):
            continue
        threads = value if axis == "threads" else 0
        found = apart(lambda step=step, threads=threads: measured(step, task, place, run, threads))
        row = {"axis": axis, "value": value, "task": task, "step": step, "threads": max(1, threads), **found}
        print(json.dumps(row), flush=True)
        with file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(row | machine() | {"command": "scaling.py"}) + "\n")
        yield row


def meant(axis: str, value: int, task: str, step: str) -> bool:
    """Whether a step is measured there: it sees what varies, and walks a road of its own."""
    if axis == "images":
        return step in STEPS and value <= MOST.get(step, value)
    if axis == "pixels":
        return step == "predict" or (task == "classification" and step in ("pre-flight", "evaluate"))
    if axis == "threads":
        return step in ("pre-flight", "evaluate", "predict", *THREADED)
    return step in STEPS[:5]


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
    for step in WARMED[task]:
        WORK[step](task, names, run, 0)()


def prepared(axis: str, value: int, task: str, data: Path) -> tuple[Path, Path]:
    """(data, run) of a point."""
    names = ("a", "b")
    run = data / f"run_{axis}_{value}_{task}"
    if axis == "pixels":
        return made.write_photos(data / f"photos_{value}", 4, value), made.write_run(run, task, names)
    if axis == "objects":
        most: dict[str, Any] = {"head.most": value, "head.candidates_test": 4000, "head.proposals_test": 1000}
        return made.write_objects(data / f"objects_{value}", 20, value), made.write_run(run, task, names, **most)
    if axis == "threads":
        place = made.write_links(data / "photos", 100, 2, side_px=500)
        return place, made.write_run(run, task, ("class_00000", "class_00001"), fields={"input.eval_size_px": 224})
    images, classes = {"images": (value, 10), "classes": (20_000, value)}[axis]
    place = made.write_links(data / f"links_{images}_{classes}", images, classes)
    return place, made.write_run(run, task, tuple(f"class_{label:05d}" for label in range(classes)))


def measured(step: str, task: str, data: Path, run: Path, threads: int) -> dict[str, float]:
    """In a process of its own, as often as it is short: the least seconds, the most memory."""
    torch.set_num_threads(max(1, threads))
    rounds = []
    while not rounds or (len(rounds) < ROUNDS and rounds[-1]["wall_s"] < LONG_S):
        ready = WORK[step](task, data, run, threads)
        peak, before, clock = Peak("cpu"), worked_s(), time.perf_counter()
        peak.restart()
        ready()
        rounds.append({"cpu_s": worked_s() - before, "wall_s": time.perf_counter() - clock, "peak_mb": peak.mb()})
    wrote = sum(file.stat().st_size for name in WRITTEN.get(step, ()) for file in files_at(run / name)) / 1e6
    least = {name: round(min(each[name] for each in rounds), 3) for name in ("cpu_s", "wall_s")}
    return least | {
        "peak_mb": round(max(each["peak_mb"] for each in rounds), 1),
        "rounds": len(rounds),
        "written_mb": round(wrote, 3),
    }


def files_at(path: Path) -> list[Path]:
    """A file, or those of a folder."""
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]


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
    return lambda: command(["predict", str(run), str(data), "--json", *workers(threads)], run / "predictions.json")


def drawn_on(task: str, data: Path, run: Path, threads: int) -> Callable[[], Any]:
    """`convnext predict RUN FOLDER --out DIR`: a file for each image."""
    out = made_anew(run / "drawn")
    return lambda: command(["predict", str(run), str(data), "--out", str(out), *workers(threads)], NOWHERE)


def embedded(task: str, data: Path, run: Path, threads: int) -> Callable[[], Any]:
    """`convnext embed RUN FOLDER --out FILE`."""
    out = made_anew(run / FEATURES)
    return lambda: command(["embed", str(run), str(data), "--out", str(out), "--json", *workers(threads)], NOWHERE)


def sought(task: str, data: Path, run: Path, threads: int) -> Callable[[], Any]:
    """`convnext similar RUN IMAGE FILE --out PAGE`, of the features of all."""
    if not (run / FEATURES).is_file():
        embedded(task, data, run, threads)()
    out, query = made_anew(run / "similar.html"), next(data.rglob("*.jpg"))
    return lambda: command(["similar", str(run), str(query), str(run / FEATURES), "--out", str(out)], NOWHERE)


def sharded(task: str, data: Path, run: Path, threads: int) -> Callable[[], Any]:
    """`convnext shard FOLDER OUT`."""
    out = made_anew(run / "shards")
    return lambda: command(["shard", str(data), str(out), "--json"], NOWHERE)


def verified(task: str, data: Path, run: Path, threads: int) -> Callable[[], Any]:
    """`convnext verify OUT`, of the shards."""
    if not (run / "shards").is_dir():
        sharded(task, data, run, threads)()
    return lambda: command(["verify", str(run / "shards"), "--json"], NOWHERE)


def audited(task: str, data: Path, run: Path, threads: int) -> Callable[[], Any]:
    """`convnext audit FOLDER --weights RUN --out DIR`."""
    out = made_anew(run / "audit")
    how = ["--weights", str(run), "--folds", "2", "--json", *workers(threads)]
    return lambda: command(["audit", str(data), "--out", str(out), *how], NOWHERE)


def trained(task: str, data: Path, run: Path, threads: int) -> Callable[[], Any]:
    """20 training steps of 16 images of 64 px."""
    model = create("atto").train()
    optimizer, images = torch.optim.AdamW(model.parameters()), torch.rand(16, 3, 64, 64)

    def steps() -> None:
        for _ in range(20):
            model(images).logsumexp(1).mean().backward()
            optimizer.step()
            optimizer.zero_grad()

    return steps


def served(task: str, data: Path, run: Path, threads: int) -> Callable[[], Any]:
    """A server of the run that answers 100 requests of sixteen clients, and ends."""
    bodies = [file.read_bytes() for file in sorted(data.rglob("*.jpg"))]

    def answers() -> None:
        command = [sys.executable, "-m", "convnext", "serve", str(run), "--port", "0"]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as server:
            assert server.stderr
            found = next(match for line in server.stderr if (match := re.search(r"http://([^/:\s]+):(\d+)", line)))
            try:
                with ThreadPoolExecutor(16) as pool:
                    list(pool.map(partial(answered, found[1], int(found[2])), bodies))
            finally:
                server.send_signal(signal.SIGTERM)
                server.stderr.read()

    return answers


def answered(host: str, port: int, body: bytes) -> None:
    """One request. Raises SystemExit where it is refused."""
    connection = http.client.HTTPConnection(host, port, timeout=60)
    connection.request("POST", "/v1/predict", body, {"Content-Type": "image/jpeg"})
    status = connection.getresponse().status
    connection.close()
    if status != 200:
        raise SystemExit(f"the server answered {status}")


def made_anew(path: Path) -> Path:
    """`path`, where nothing is any more."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    return path


WORK: dict[str, Callable[[str, Path, Path, int], Callable[[], Any]]] = {
    "open": opened,
    "pre-flight": preflighted,
    "evaluate": evaluated,
    "report": reported,
    "predict": predicted,
    "draw": drawn_on,
    "embed": embedded,
    "similar": sought,
    "shard": sharded,
    "verify": verified,
    "audit": audited,
    "train": trained,
    "serve": served,
}
FEATURES, NOWHERE = "features.npz", Path(os.devnull)
WRITTEN = {  # step -> what it writes into the run's folder
    "evaluate": ("evaluation.json",),
    "report": ("report.html",),
    "predict": ("predictions.json",),
    "draw": ("drawn",),
    "embed": (FEATURES,),
    "similar": ("similar.html",),
    "shard": ("shards",),
    "audit": ("audit",),
}


def workers(threads: int) -> list[str]:
    """Of a command; 0: as many as it takes by itself."""
    return ["--workers", str(threads)] if threads else []


def command(words: list[str], out: Path) -> None:
    """Run a command of ours, its output in a file. Raises SystemExit where it fails."""
    with out.open("w", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        status = convnext(words)
    if status:
        raise SystemExit(f"convnext {' '.join(words)} ended with status {status}")


if __name__ == "__main__":
    sys.exit(main())
