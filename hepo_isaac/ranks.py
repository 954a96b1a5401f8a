"""One run over several processes (ranks), as torchrun starts them: a mean over environments is one over those of all.

Every rank has as many environments and rows as any other, and the same policies. Whoever sums over environments or rows
of a run asks this module, which answers for all ranks, at once where there is one; so policies, normalisers, statistics
and alpha stay the same on all of them, bit for bit. torch.distributed does the work: NCCL on GPUs, gloo on CPUs.

Nothing here reads a tensor's value on the host, but what is sent ``between`` iterations: plain objects, over gloo.
"""

from __future__ import annotations

import datetime
from typing import Any, Dict, List, Optional, Tuple, Union

import torch
import torch.distributed as dist
from torch import Tensor

# How long processes wait to meet, and how long for each other later: rank 0 evaluates alone, and kernels compile.
MEETING, WORKING = datetime.timedelta(minutes=5), datetime.timedelta(hours=2)

# The groups over which tensors and objects travel; None: one process, alone.
_tensors: Optional[Any] = None
_objects: Optional[Any] = None


def start(device: torch.device) -> None:
    """Meet the other ranks; returns once all are there.

    Raises:
        RuntimeError: they do not come.
    """
    global _tensors, _objects
    backend = "nccl" if device.type == "cuda" else "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(backend, timeout=MEETING)
    _tensors = dist.new_group(backend=backend, timeout=WORKING)
    _objects = dist.new_group(backend="gloo", timeout=WORKING)


def stop() -> None:
    """Leave the others."""
    global _tensors, _objects
    if active():
        _tensors = _objects = None
        dist.destroy_process_group()


def active() -> bool:
    """Whether this process is one of a run's; true for the only one of a torchrun with one, too."""
    return _objects is not None


def size() -> int:
    """How many ranks there are."""
    return dist.get_world_size() if active() else 1


def rank() -> int:
    """Which one this is. Rank 0 has the run folder, the display and the signals."""
    return dist.get_rank() if active() else 0


def own_seed(seed: int, of: int, generation: int = 0) -> int:
    """The seed of rank ``of``'s random streams: the run's own for rank 0, unlike any other for each of the others.

    Args:
        generation: another number gives other streams, for a run that goes on with more ranks than it had.
    """
    if of == 0 and generation == 0:
        return seed
    # splitmix64 (Steele et al. 2014): neighbours among seeds and ranks come out unrelated
    mixed = (seed + 0x9E3779B97F4A7C15 * (of + (generation << 20) + 1)) % 2**64
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = ((mixed ^ (mixed >> shift)) * factor) % 2**64
    return (mixed ^ (mixed >> 31)) % 2**62


# ---- on the device ------------------------------------------------------------------------------------------------


def total(x: Tensor) -> Tensor:
    """Sum over ranks."""
    if not active():
        return x
    out = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(out, group=_tensors)
    return out


def mean(x: Tensor) -> Tensor:
    """Mean over ranks: of means over as many rows each, the mean over all rows."""
    return total(x) / size() if active() else x


def mean_(x: Tensor) -> None:
    """Replace ``x``, a contiguous tensor, by its mean over ranks."""
    if active():
        dist.all_reduce(x, group=_tensors)
        x.div_(size())


def least(x: Tensor) -> Tensor:
    """Least over ranks."""
    if not active():
        return x
    out = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(out, op=dist.ReduceOp.MIN, group=_tensors)
    return out


def first(x: Tensor) -> Tensor:
    """What rank 0 has."""
    if active():
        dist.broadcast(x, 0, group=_tensors)
    return x


def var_mean(
    x: Tensor, dim: Union[int, Tuple[int, ...]], correction: int = 0, keepdim: bool = False
) -> Tuple[Tensor, Tensor]:
    """torch.var_mean over ``dim`` and over all ranks."""
    if not active():
        return torch.var_mean(x, dim=dim, correction=correction, keepdim=keepdim)
    found = torch.var_mean(x, dim=dim, correction=0, keepdim=keepdim)
    var, centre = (part.to(torch.float64) for part in found)
    # The second moment in float64 about 0 loses nothing that a float32 variance has.
    moments = mean(torch.stack((centre, var + centre * centre)))
    pooled = (moments[1] - moments[0] * moments[0]).clamp_min(0.0)
    if correction:
        rows = size() * x.numel() // max(1, found[1].numel())
        pooled = pooled * (rows / max(rows - correction, 1))
    return pooled.to(x.dtype), moments[0].to(x.dtype)


def std_mean(
    x: Tensor, dim: Union[int, Tuple[int, ...]], correction: int = 0, keepdim: bool = False
) -> Tuple[Tensor, Tensor]:
    """torch.std_mean over ``dim`` and over all ranks."""
    if not active():
        return torch.std_mean(x, dim=dim, correction=correction, keepdim=keepdim)
    var, centre = var_mean(x, dim, correction, keepdim)
    return var.sqrt(), centre


# ---- between iterations -------------------------------------------------------------------------------------------


def tell(message: Any = None) -> Any:
    """Rank 0's ``message`` on every rank; what the others give is not read."""
    if not active():
        return message
    box = [message]
    dist.broadcast_object_list(box, 0, group=_objects)
    return box[0]


def collect(part: Any) -> List[Any]:
    """Every rank's ``part``, in order, on rank 0; [] on the others."""
    if not active():
        return [part]
    parts: List[Any] = [None] * size() if rank() == 0 else []
    dist.gather_object(part, parts if rank() == 0 else None, dst=0, group=_objects)
    return parts


def described() -> Dict[str, Any]:
    """For metadata: how many processes train this run, and over what they talk; {} for one alone."""
    return {"processes": size(), "backend": dist.get_backend()} if active() else {}


def lost(error: BaseException) -> bool:
    """Whether an error says that another rank is gone."""
    text = str(error)
    return (
        active()
        and isinstance(error, RuntimeError)
        and any(part in text for part in ("Connection closed by peer", "Connection reset by peer", "Broken pipe"))
    )
