"""Counts what would stall a GPU: tensor values read on the host, data-dependent shapes, device copies."""

from __future__ import annotations

import traceback
from typing import Any, Dict, List, Optional, Tuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_STALLS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal")


class HostReads(TorchDispatchMode):
    """Context manager; ``found`` lists (operator, caller's line)."""

    def __init__(self) -> None:
        super().__init__()
        self.found: List[Tuple[str, str]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Tuple[Any, ...] = (), kwargs: Optional[Dict[str, Any]] = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        stalls = name.startswith(_STALLS)
        if name == "_to_copy" and kwargs.get("device") is not None:
            stalls = torch.device(kwargs["device"]).type != args[0].device.type
        if name in ("index", "index_put", "index_put_"):
            stalls = any(isinstance(i, torch.Tensor) and i.dtype == torch.bool for i in args[1] if i is not None)
        if stalls:
            frames = [f for f in traceback.extract_stack()[:-1] if "hepo_isaac" in f.filename or "tasks" in f.filename]
            where = "%s:%d %s" % (frames[-1].filename, frames[-1].lineno or 0, frames[-1].line) if frames else "?"
            self.found.append((name, where))
        return func(*args, **kwargs)
