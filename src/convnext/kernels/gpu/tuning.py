"""Which tile sizes a kernel runs with: the first that runs of those that its launcher names.

The launchers name first what was fastest in a wide search on a GPU, so a run compiles one setting a kernel and equal
inputs give equal bits from run to run. Inside `measured` all of them are compiled and timed instead, for the benchmark.
A setting that the GPU refuses (too much shared memory, a compiler's failure) is skipped. Inside `noted` nothing runs: the
launches are collected, for a search over other settings or for compiling without a GPU.
"""

import math
import statistics
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from convnext.errors import ConvNeXtError
from convnext.kernels.gpu.available import interpreted

Setting = dict[str, int]  # block sizes by argument name, and num_warps, num_stages
ROUNDS = 5  # timed runs of a setting
FLUSHED = 2**28  # bytes: more than any L2 cache, and some 90 microseconds of work to queue launches behind
_CHOSEN: dict[tuple[Any, ...], Setting] = {}
_FORCED: int | None = None  # a test's wish
_MEASURED = False
_NOTED: list["Launch"] | None = None


class Launch(NamedTuple):
    """A kernel with its arguments; which setting it runs with is open."""

    kernel: Any
    programs: Callable[[Setting], int]  # how many a setting takes
    settings: Sequence[Setting]  # that its launcher names, the best first
    arguments: dict[str, Any]  # those that all settings share

    @property
    def name(self) -> str:
        """The kernel's."""
        return self.kernel.fn.__name__

    def run(self, setting: Setting) -> None:
        """Queue it on the current device."""
        with _quiet_numbers() if interpreted() else nullcontext():
            self.kernel[(self.programs(setting),)](**self.arguments, **setting, enable_fp_fusion=True)

    def compile(self, setting: Setting) -> Any:
        """Triton's compiled kernel, in its cache from then on; nothing runs."""
        return self.kernel.warmup(**self.arguments, **setting, enable_fp_fusion=True, grid=(self.programs(setting),))


def launch(
    kernel: Any,
    programs: Callable[[Setting], int],
    settings: Sequence[Setting],
    key: tuple[Any, ...],
    where: Tensor,
    arguments: dict[str, Any],
) -> Setting:
    """Run `kernel` on `where`'s device with the best of `settings` for `key`, and return the one that was taken.

    `programs` counts the programs of a setting; `arguments` are those that all settings share. The kernel must not
    read what it writes. Raises ConvNeXtError where no setting runs.
    """
    if _NOTED is not None:
        _NOTED.append(Launch(kernel, programs, settings, arguments))
        return settings[0]
    name = (kernel.fn.__name__, where.device, *key)
    settings = settings if _FORCED is None else [settings[_FORCED % len(settings)]]
    made = Launch(kernel, programs, settings, arguments)
    with _on(where):
        chosen = None if _FORCED is not None else _CHOSEN.get(name)
        if chosen is None and _may_measure() and len(settings) > 1:
            chosen = _fastest(made)
        if chosen is not None:
            made.run(chosen)
        for setting in settings if chosen is None else ():
            failure = _try(made, setting)
            if failure is None:
                chosen = setting
                break
        if chosen is not None:
            if _FORCED is None:
                _CHOSEN[name] = chosen
            return chosen
    raise ConvNeXtError(f"The kernel {name[0]} runs with none of its settings for {key}: {failure}")


def faster(name: tuple[Any, ...], where: Tensor, ways: Sequence[Callable[[], Any]], recorded: int = 0) -> int:
    """The index of the fastest of `ways` to the same answer, measured as settings are; `recorded` where nothing is measured."""
    if len(ways) == 1:
        return 0
    if _FORCED is not None:
        return _FORCED % len(ways)
    key = (*name, where.device)
    if key not in _CHOSEN:
        if not _may_measure():
            return recorded
        with _on(where):
            times = [_milliseconds_of(way) for way in ways]
        _CHOSEN[key] = {"way": times.index(min(times))}
    return _CHOSEN[key]["way"]


def chosen() -> dict[tuple[Any, ...], Setting]:
    """What was taken so far, by kernel, device and shape."""
    return dict(_CHOSEN)


@contextmanager
def measured() -> Iterator[None]:
    """Time every setting of a kernel and shape at its first launch in here, and take the fastest from then on."""
    global _MEASURED
    before, _MEASURED = _MEASURED, True
    _CHOSEN.clear()
    try:
        yield
    finally:
        _MEASURED = before


@contextmanager
def forced(index: int | None) -> Iterator[None]:
    """Take the `index`-th setting of every kernel, counted round, instead of the fastest; None changes nothing."""
    global _FORCED
    before, _FORCED = _FORCED, index
    try:
        yield
    finally:
        _FORCED = before


@contextmanager
def noted() -> Iterator[list[Launch]]:
    """Run no kernel in here: the list has the launches, and what they would have written stays as it was."""
    global _NOTED
    before, _NOTED = _NOTED, []
    try:
        yield _NOTED
    finally:
        _NOTED = before


def milliseconds(run: Callable[[], None]) -> float:
    """Median time on the device. All rounds are queued behind a flush of the L2 cache each, which hides the launches."""
    run()
    flushed = torch.empty(FLUSHED, dtype=torch.uint8, device="cuda")
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(ROUNDS)]
    for begin, end in events:
        flushed.zero_()
        begin.record()
        run()
        end.record()
    torch.cuda.synchronize()
    return statistics.median(begin.elapsed_time(end) for begin, end in events)


def size_class(count: int) -> int:
    """Counts of one power of two share their settings, so that each batch size does not measure anew."""
    return count.bit_length()


def _may_measure() -> bool:
    return _MEASURED and not interpreted() and not torch.cuda.is_current_stream_capturing()


def _fastest(made: Launch) -> Setting | None:
    """The setting with the smallest median time, or None where all fail."""
    found: list[tuple[float, int]] = []
    for index, setting in enumerate(made.settings):
        if _try(made, setting) is None:  # this also compiles it
            found.append((milliseconds(lambda s=setting: made.run(s)), index))  # type: ignore[misc]
    return made.settings[min(found)[1]] if found else None


def _milliseconds_of(way: Callable[[], Any]) -> float:
    try:
        return milliseconds(way)
    except ConvNeXtError:
        return math.inf


def _try(made: Launch, setting: Setting) -> Exception | None:
    """The failure of one run, or None."""
    from triton.errors import TritonError  # type: ignore[import-untyped,unused-ignore]

    try:
        made.run(setting)
    except (TritonError, RuntimeError) as failure:
        if interpreted():
            raise  # Python's own failure: a mistake in a kernel, not in a setting
        return failure
    return None


def _on(where: Tensor) -> Any:
    return torch.cuda.device(where.device) if where.device.type == "cuda" else nullcontext()


@contextmanager
def _quiet_numbers() -> Iterator[None]:
    """The interpreter computes in NumPy, which warns of the masked lanes' overflows; a GPU does not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield
