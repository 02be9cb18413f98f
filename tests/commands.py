"""The commands, called inside the test's own process, and a training run that takes about a second."""

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convnext.cli import main


@dataclass(frozen=True)
class Done:
    """What a command left: its exit status, its results and what it said."""

    status: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line of a refusal."""
        assert self.status == 2, self.err
        assert self.out == ""
        assert self.err.startswith("convnext: ") and self.err.count("\n") == 1, self.err
        return self.err.removeprefix("convnext: ").strip()

    @property
    def refusal(self) -> str:
        """The last line, of a refusal that follows from the data; those before it are what was found in them."""
        assert (self.status, self.out) == (2, ""), self.err
        *found, last = self.err.removesuffix("\n").split("\n")
        assert found and not [line for line in found if line.startswith("convnext: ") or not line.endswith(".")], (
            self.err
        )
        assert last.startswith("convnext: ")
        return last.removeprefix("convnext: ")


def convnext(*arguments: object) -> Done:
    """`convnext WORDS...`"""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as end:  # --help and --version
            status = int(end.code or 0)
    return Done(status, out.getvalue(), err.getvalue())


def tiny(data: Path | str, out: Path, *more: object) -> list[object]:
    """Words that train two blocks on 16 px, on every machine in the same numbers; `more` comes last and wins."""
    arguments = ["train", data, "--out", out, "--batch", 6, "--size", 16, "--workers", 0]
    arguments += [] if "--schedule.steps" in more else ["--epochs", 2]
    arguments += [] if "--precision" in more else ["--precision", "fp32"]
    arguments += ["--model.depths", "1,1", "--model.widths", "8,16", "--model.patch", 2]
    return [*arguments, *more]


def trained(data: Path | str, out: Path, *more: object) -> Done:
    """A finished tiny run."""
    done = convnext(*tiny(data, out, *more))
    assert done.status == 0, done.err
    return done


def rows(run: Path, kind: str = "train") -> list[dict[str, Any]]:
    """The rows of metrics.jsonl of one kind."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]
