"""Where runs can be accelerated: `--accelerate graphs` needs a CUDA device, `compile` a compiler. Told without torch."""

import importlib.util
import os
import shutil
import sys

from bench.errors import BenchError


def refuse_device(accelerate: str, device: str) -> None:
    """BenchError if runs on such a device cannot be accelerated so."""
    if accelerate == "graphs" and not device.startswith("cuda"):
        raise BenchError(f"--accelerate graphs: for CUDA devices, and the device is {device}; use none or compile")


def refuse_without_compiler(accelerate: str, device: str) -> None:
    """BenchError if torch.compile cannot work on this machine."""
    if accelerate != "compile":
        return
    if device.startswith("cuda"):
        if importlib.util.find_spec("triton") is None:
            raise BenchError("--accelerate compile: torch.compile needs the package triton for a GPU; use --accelerate none")
        return
    compiler = os.environ.get("CXX") or {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")  # as torch chooses it
    if shutil.which(compiler) is None:
        raise BenchError(
            f"--accelerate compile: torch.compile needs a C++ compiler for the CPU, and {compiler} is not there; install one, "
            "name another one in CXX, or use --accelerate none"
        )
