"""How long a run will take, from its own first steps: nothing is run for it, so that nothing of the run changes."""

import math
from collections.abc import Callable
from dataclasses import dataclass

ENOUGH_S = 10.0  # of training to judge by
ENOUGH_STEPS = 3
SHORT_S = 180.0  # a run that takes less is over before the person has read how long it takes
_MINUTES = (2, 5, 10, 20, 30, 60, 120, 240, 480, 960, 1440)  # that people ask for


@dataclass(frozen=True)
class Work:
    """What a run asks of a machine, in a unit of its own: pixels that pass the network forward and back."""

    phases: tuple[tuple[int, float], ...]  # (the step that ends it, the work of each of its steps), in order
    evaluation: float  # of the held-out images, once
    evaluations: int  # of the whole run, also that of the best weights at its end

    def between(self, first: int, last: int) -> float:
        """The work of the steps from `first` to before `last`."""
        total, start = 0.0, 0
        for end, each in self.phases:
            total += each * max(0, min(last, end) - max(first, start))
            start = end
        return total

    @property
    def steps(self) -> int:
        """Of the whole run."""
        return self.phases[-1][0]


class Forecast:
    """Watches the first steps of a run and tells, once, how long it takes. The first step, which prepares, is left out.

    `faster`: whether bf16 would be, on this processor; asked when a run is long enough for it to matter.
    """

    def __init__(self, work: Work, *, faster: Callable[[], bool] = lambda: False):
        self.work, self.faster = work, faster
        self._first: tuple[int, float] | None = None  # step, when it was done
        self._aside_s = 0.0  # of evaluations meanwhile
        self._evaluation_s: float | None = None
        self._told = False

    def passed(self, step: int, now: float, *, tell: Callable[[str], None]) -> None:
        """So many steps were done at `now`, in seconds of a clock."""
        if self._told:
            return
        if self._first is None:
            self._first = step, now
            return
        first, started = self._first
        elapsed = now - started - self._aside_s
        if step - first < ENOUGH_STEPS or elapsed < ENOUGH_S:
            return
        self._told = True
        seconds = self.seconds(elapsed / self.work.between(first, step))
        if seconds >= SHORT_S:
            tell(sentence(seconds, faster=self.faster()))

    def evaluated(self, seconds: float) -> None:
        """An evaluation took so long."""
        self._evaluation_s = seconds
        if self._first is not None:
            self._aside_s += seconds

    def seconds(self, pace: float) -> float:
        """Of the whole run, where a unit of work takes `pace` seconds."""
        one = self.work.evaluation * pace if self._evaluation_s is None else self._evaluation_s
        return pace * self.work.between(0, self.work.steps) + one * self.work.evaluations


def sentence(seconds: float, *, faster: bool = False) -> str:
    """What is told of a run that takes so long; `faster`: in bf16 it would take less."""
    shorter = [minutes for minutes in _MINUTES if 180 * minutes <= seconds]
    ways = ["`--precision bf16` is faster on this processor"] if faster else []
    ways += [f"`--minutes {shorter[-1]}` fits a shorter run"] if shorter else []
    return "; ".join([f"This run takes about {in_words(seconds)} on this machine", *ways]) + "."


def in_words(seconds: float) -> str:
    """'45 s', '4 min', '1 h 50 min', '3 d 4 h': as exact as an estimate is."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    minutes = 5 * math.ceil(minutes / 5)
    hours, rest = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {rest} min" if rest else f"{hours} h"
    return f"{hours // 24} d {hours % 24} h"
