"""`convnext doctor`."""

import argparse

from convnext.cli.options import device_flag, json_flag, refuse_more
from convnext.cli.printing import show, show_json

HELP = "Say what this machine and installation offer, and what is missing."


def flags(parser: argparse.ArgumentParser) -> None:
    """Declare its arguments."""
    device_flag(parser)
    json_flag(parser)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Look and print."""
    refuse_more(args, rest)
    from convnext.engine.machine import compiler, extras

    facts, found = _facts(args.device), extras()
    if args.json:
        show_json({**facts, "compiler": compiler(), "extras": {k: ok for k, (ok, _) in found.items()}})
        return 0
    for name, value in facts.items():
        show(f"{name:<17} {value}")
    show(f"{'compiler':<17} {compiler() or 'none found: --compile will not work on the CPU'}")
    for name, (ok, text) in found.items():
        show(f"{name:<17} {'installed' if ok else 'missing'}: {text}")
    return 0


def _facts(device: str) -> dict[str, str]:
    """Machine and installation; with torch, also what it finds."""
    from convnext.extras import installed

    if not installed("torch"):
        from convnext.engine.machine import machine

        return machine()
    from convnext.engine.distributed import choose_device
    from convnext.engine.environment import environment

    return environment(choose_device(device))
