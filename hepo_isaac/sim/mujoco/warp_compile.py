"""What the Warp engine says while its kernels are compiled: minutes at the first start, nothing from then on."""

from __future__ import annotations

import re
import sys
import time
import warnings
from typing import Optional, TextIO, Type

import torch
import warp as wp

from hepo_isaac.errors import UserError

# What Warp reports after each module; "(cached)" for one that it found in its kernel cache.
_COMPILED = re.compile(r"Module (\S+) .*load on device '(\S+)' took \S+ ms\s+\(compiled\)")
# Modules that the first steps of a robot task load: 35 (Ingenuity) to 54 (ShadowHand), docs/gpu.md.
TYPICAL_MODULES = 42
INTERVAL_S = 5.0


class CompileLog:
    """Warp's logger: counts compiled modules and says every few seconds how far compilation is; warnings pass.

    Attributes:
        compiled: number of modules that Warp had to compile in this process.
        quiet: nothing is printed but errors, for programs with a progress display of their own.
    """

    def __init__(self, stream: Optional[TextIO] = None) -> None:
        self.compiled, self.quiet = 0, False
        self._stream = stream
        self._began = self._said = 0.0

    def debug(self, message: str) -> None:
        """Dropped."""

    def info(self, message: str) -> None:
        """Everything but compiled modules is dropped."""
        found = _COMPILED.search(message)
        if found:
            self._count(found.group(2), time.monotonic())

    def warning(self, message: str, category: Optional[Type[Warning]] = None, stacklevel: int = 1) -> None:
        """Passed on to Python's warnings."""
        warnings.warn(message, category, stacklevel=stacklevel)

    def error(self, message: str) -> None:
        """Printed."""
        print("Warp error: " + message, file=sys.stderr)

    def _count(self, device: str, now: float) -> None:
        self.compiled += 1
        if self.compiled == 1:
            self._began = self._said = now
            where = "compiling Warp's kernels for %s; they are kept in %s for the next start"
            self._say(where % (device, wp.config.kernel_cache_dir))
        elif now - self._said >= INTERVAL_S:
            self._said = now
            self._say("  " + progress(self.compiled, now - self._began))

    def _say(self, line: str) -> None:
        if not self.quiet:
            print(line, file=self._stream or sys.stdout, flush=True)


def progress(compiled: int, seconds: float) -> str:
    """How far compilation is, with the time that the rest of a typical task takes."""
    text = "%d of about %d modules, %.0f s" % (compiled, max(TYPICAL_MODULES, compiled), seconds)
    left = seconds / compiled * (TYPICAL_MODULES - compiled)
    return text + (", about %.0f s left" % left if left > 0 else ", almost done")


def start_warp(device: torch.device) -> None:
    """Initialise Warp for ``device``.

    Raises:
        UserError: torch sees the GPU and Warp does not.
    """
    compile_log()
    # By itself Warp takes PTX where the driver is newer than itself, and then finds no kernel compiled beforehand, as
    # those of a bundle are. Machine code it compiles wherever it knows the GPU.
    wp.config.cuda_output = "cubin"
    wp.init()
    if device.type == "cuda" and not wp.is_cuda_available():
        toolkit, driver = wp.get_cuda_toolkit_version(), wp.get_cuda_driver_version()
        raise UserError(
            "Warp %s cannot use %s: it was built for CUDA %d.%d and needs an NVIDIA driver for CUDA %d.0 or newer, "
            "this one is for CUDA %s; update the driver (nvidia-smi shows it)"
            % (wp.__version__, device, *toolkit, toolkit[0], ".".join(map(str, driver)) if driver else "none at all")
        )


_log: Optional[CompileLog] = None


def compile_log() -> CompileLog:
    """The one log of this process, which is Warp's logger from the first call on."""
    global _log
    if _log is None:
        _log = CompileLog()
        wp.config.log_level = wp.LOG_INFO
        wp.set_logger(_log)
    return _log
