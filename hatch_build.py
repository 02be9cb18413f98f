"""Hatch's hook that puts the compiled CPU kernels into a wheel for Linux on x86-64: `make wheel`.

It is off elsewhere (`enable-by-default` in pyproject.toml), so that every other build is plain Python and needs no compiler.
The libraries are called through ctypes: they depend on no version of Python and none of torch.
"""

import os
import platform
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

TAG = "py3-none-manylinux_2_28_x86_64"
INSIDE = "convnext/kernels/prebuilt"


class Kernels(BuildHookInterface[Any]):
    """Compiles one library for each instruction set."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and tell hatchling which files and which tag the wheel gets."""
        if version == "editable":  # a checkout compiles for itself, and its sources change
            return
        if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
            raise RuntimeError(
                f"the kernels are compiled ahead on Linux on x86-64 alone; this is {platform.platform()}"
            )
        sys.path.insert(0, str(Path(self.root) / "src"))
        from convnext.kernels.compiler import compile_into, find_compiler, flags, prebuilt_key
        from convnext.kernels.instructions import SETS

        compiler = find_compiler()
        if compiler is None:
            raise RuntimeError("no C++ compiler is installed, and this wheel is to bring compiled kernels")
        self.folder = tempfile.TemporaryDirectory()
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            made = list(
                pool.map(
                    lambda each: compile_into(
                        Path(self.folder.name), prebuilt_key(each), [*compiler, *flags(True, each)]
                    ),
                    SETS,
                )
            )
        build_data["force_include"].update({str(path): f"{INSIDE}/{path.name}" for path in made})
        build_data.update(tag=TAG, pure_python=False)

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was compiled: the wheel has it."""
        if version != "editable":
            self.folder.cleanup()
