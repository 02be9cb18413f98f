"""`python docs/make/record.py PAGE FOLDER`: runs the commands of a tutorial, and writes into it what they print.

In FOLDER lie the data that the page names, as prepare.py writes them. Below each block of commands the lines that they print
replace those of the block of text: all of the last command, of the others what comes above their first empty line. Lines
that count steps or time are left out, and of many epochs the first two and the last stay. What a command has printed is kept in
FOLDER/printed, so that a page can be written again without another training.
"""

import hashlib
import re
import shlex
import subprocess
import sys
from itertools import groupby, takewhile
from pathlib import Path

_BLOCKS = re.compile(r"```bash\n([^`]*)```\n\n```text\n[^`]*```")  # no block of commands above another text
_COUNTED = re.compile(
    r"\bleft$|images/s|^This run takes about "
)  # progress, and what other work on the machine decides

_LONGEST = 240  # letters of a line


def main(page: Path, folder: Path) -> None:
    """Write the page anew."""
    text = page.read_text("utf-8")

    def recorded(found: re.Match[str]) -> str:
        commands = found[1].splitlines()
        lines = [line for command in commands[:-1] for line in takewhile(bool, printed(command, folder))]
        lines += printed(commands[-1], folder)
        return f"```bash\n{found[1]}```\n\n```text\n" + "".join(f"{line}\n" for line in lines) + "```"

    page.write_text(_BLOCKS.sub(recorded, text), "utf-8")


def printed(command: str, folder: Path) -> list[str]:
    """What a command prints for people."""
    words = shlex.split(command, comments=True)
    kept = folder / "printed" / f"{hashlib.sha256(' '.join(words).encode()).hexdigest()[:16]}.txt"
    if not kept.exists():
        kept.parent.mkdir(exist_ok=True)
        how = {"cwd": folder, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "check": True}
        kept.write_text(subprocess.run([sys.executable, "-m", *words], **how).stdout, "utf-8")
    return shortened([line for line in kept.read_text("utf-8").splitlines() if not _COUNTED.search(line)])


def shortened(lines: list[str]) -> list[str]:
    """Of many epochs in a row the first two and the last; of long lines their start."""
    found: list[str] = []
    for epochs, group in groupby(lines, lambda line: line.startswith("epoch ")):
        rows = list(group)
        found += [*rows[:2], "...", rows[-1]] if epochs and len(rows) > 4 else rows
    return [line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..." for line in found]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
