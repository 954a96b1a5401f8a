"""Finds what would stall a GPU: values read on the host, data-dependent shapes, copies between host and device."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Tuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

ROOT = Path(__file__).resolve().parents[1]
OURS = tuple(str(ROOT / folder) + os.sep for folder in ("hepo_isaac", "tasks", "tests"))
# torch.linalg's checked functions read on the host whether they succeeded.
_STALLS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal", "repeat_interleave")
_STALLS += ("bincount", "_linalg_check_errors")
_INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_")


def stall(func: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Optional[str]:
    """What of an operator would make the host wait for a GPU; None if nothing would."""
    name = func.overloadpacket.__name__
    if name.startswith(_STALLS):
        return name
    if name == "_to_copy" and kwargs.get("device") is not None:
        given, wanted = args[0].device.type, torch.device(kwargs["device"]).type
        return "copy from %s to %s" % (given, wanted) if given != wanted else None
    if name == "copy_" and args[0].device.type != args[1].device.type:
        return "copy from %s to %s" % (args[1].device.type, args[0].device.type)
    if name in _INDEXING:
        indices = [i for i in args[1] if isinstance(i, torch.Tensor)]
        if any(i.dtype in (torch.bool, torch.uint8) for i in indices):
            return "indexing with a mask"
        if any(i.dim() and i.device.type != args[0].device.type for i in indices):
            return "indexing with a tensor of another device"
    return None


def where(frames: Optional[Iterable[traceback.FrameSummary]] = None) -> str:
    """The innermost line of ours, as ``tasks/ant.py:12 the line``; of this stack or of the frames of an exception."""
    for frame in reversed(list(traceback.extract_stack() if frames is None else frames)):
        if frame.filename.startswith(OURS) and frame.filename not in SKIPPED:
            return "%s:%d %s" % (os.path.relpath(frame.filename, ROOT), frame.lineno or 0, frame.line)
    return "?"


SKIPPED = {__file__}  # files that watch others


class HostReads(TorchDispatchMode):
    """Context manager; ``found`` lists (operator, caller's line)."""

    def __init__(self) -> None:
        super().__init__()
        self.found: List[Tuple[str, str]] = []

    def note(self, what: str) -> None:
        """Keep what was found and the line that asked for it."""
        self.found.append((what, where()))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Tuple[Any, ...] = (), kwargs: Optional[Dict[str, Any]] = None
    ) -> Any:
        kwargs = kwargs or {}
        what = stall(func, args, kwargs)
        if what:
            self.note(what)
        return func(*args, **kwargs)
