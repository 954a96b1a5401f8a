"""The gradient step as one compiled function on the CPU: gather, forward, loss, backward and clipped Adam together.

native/ppo_step.cpp is compiled once, by the C++ compiler that is there, into ~/.cache/hepo_isaac (``make`` does it, or
the first training in three seconds). It knows no torch: it is called through ctypes with the tensors' addresses, so
that no upgrade of torch can make it stale. Where it cannot be had the eager step (agents/learner.py) does the same,
and ``reason`` says why. ``python -m hepo_isaac.agents.fused`` compiles it and says where it is.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, List, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor

from hepo_isaac import ranks
from hepo_isaac.agents.config import TrainConfig
from hepo_isaac.agents.minibatch import PackedBatch
from hepo_isaac.agents.network import PolicyStack
from hepo_isaac.agents.optimizer import StackedAdam
from hepo_isaac.errors import UserError

SOURCE = Path(__file__).parent / "native" / "ppo_step.cpp"
# No -ffast-math: NaN and infinity have to propagate. The last two only say that nobody reads errno or traps.
FLAGS = ("-O3", "-march=native", "-std=c++17", "-fPIC", "-shared", "-pthread", "-fno-math-errno", "-fno-trapping-math")
COMPILERS = ("c++", "g++", "clang++")
TIMEOUT_S = 120
ACTIVATIONS = ("elu", "relu", "tanh", "selu")  # in the order of the source's enum
_POINTER = ctypes.c_void_p


class _Settings(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int32) for name in ("policies", "observations", "states", "actions", "activation")),
        *((name, ctypes.c_int32) for name in ("actor_layers", "critic_layers", "threads")),
        *((name, ctypes.c_float) for name in ("clip", "value_clip", "critic_coef", "bounds_coef", "entropy_coef")),
        *((name, ctypes.c_float) for name in ("dual_clip", "grad_norm", "beta1", "beta2", "eps")),
    ]


class _Batch(ctypes.Structure):
    _fields_ = [
        *((name, _POINTER) for name in ("shared", "mine", "in_shared", "in_mine")),
        ("rows", ctypes.c_int64),
        *((name, _POINTER) for name in ("weights", "old_log_std", "channels", "mask", "counts")),
    ]


class _State(ctypes.Structure):
    _fields_ = [
        (name, _POINTER)
        for name in ("flat", "exp_avg", "exp_avg_sq", "steps", "learning_rate", "statistics", "kl", "gradient")
    ]


# ---- the library --------------------------------------------------------------------------------------------------


class BuildError(Exception):
    """The library cannot be had; says why in a line."""


@functools.lru_cache(maxsize=None)
def library() -> Tuple[Optional[Any], str]:
    """(the library or None, where it is or why there is none)."""
    try:
        path = build()
        loaded = ctypes.CDLL(str(path))
        loaded.hepo_new.restype = _POINTER
        loaded.hepo_new.argtypes = [_POINTER, _POINTER]
        loaded.hepo_delete.argtypes = [_POINTER]
        loaded.hepo_step.argtypes = loaded.hepo_gradient.argtypes = [_POINTER, _POINTER, _POINTER]
        loaded.hepo_apply.argtypes = [_POINTER, _POINTER]
        return loaded, str(path)
    except BuildError as error:
        return None, str(error)
    except (OSError, AttributeError) as error:  # a file that is no library, or another's
        return None, "the compiled step cannot be loaded: %s" % " ".join(str(error).split())


def build() -> Path:
    """The compiled library, from the cache or made now.

    Raises:
        BuildError: no compiler, one that fails, a CPU that it is not made for, or nowhere to keep it.
    """
    features = _features()
    compiler = os.environ.get("CXX") or next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise BuildError("no C++ compiler (apt install g++)")
    source = SOURCE.read_text(encoding="utf-8")
    version = _run([*compiler.split(), "--version"]).splitlines()[0]
    key = hashlib.sha256("\n".join((source, *FLAGS, version, features)).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hepo_isaac"
    target = cache / ("ppo_step-%s.so" % key)
    if target.is_file():
        return target
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=str(cache)) as folder:
            made = Path(folder) / target.name
            _run([*compiler.split(), *FLAGS, "-o", str(made), str(SOURCE)])
            os.replace(str(made), str(target))  # whole or not at all, whoever else compiles it now
    except OSError as error:
        raise BuildError("%s cannot be written: %s" % (cache, error.strerror or error)) from error
    return target


def _features() -> str:
    """What -march=native depends on."""
    if platform.machine() not in ("x86_64", "AMD64"):
        raise BuildError("the compiled step is for x86-64, this is %s" % platform.machine())
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError as error:
        raise BuildError("/proc/cpuinfo cannot be read, so the CPU is not known") from error
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), [])
    if not {"avx2", "fma"} <= set(flags):
        raise BuildError("this CPU has no AVX2")
    return " ".join(sorted(flags))


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError("%s cannot be run: %s" % (command[0], " ".join(str(error).split()))) from error
    if done.returncode:
        first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[:200])
        raise BuildError("%s failed: %s" % (command[0], first.strip()))
    return done.stdout


# ---- the step -----------------------------------------------------------------------------------------------------


def reason(device: torch.device, fused: Union[bool, str]) -> str:
    """Why the eager step is used, or "" where the compiled one is.

    Args:
        fused: the setting train.fused.

    Raises:
        UserError: train.fused=true, and there is none.
    """
    if fused is False:
        return "train.fused=false"
    if device.type != "cpu":
        return "not on a CPU"
    if torch.get_default_dtype() != torch.float32:
        return "not float32"
    why = "" if library()[0] is not None else library()[1]
    if why and fused is True:
        raise UserError("train.fused=true, but %s; train.fused=auto goes on with the eager step" % why)
    return why


class FusedStep:
    """Does what Learner's eager step does to ``net``, ``optimizer`` and the statistics, to rounding.

    Args:
        net, optimizer: changed in place by every call.
        critic_channels: (P, 2) 1 where a policy's critic of a channel is trained.
        dual_clip: of the method.  threads: how many may work; results do not depend on it.

    Raises:
        UserError: there is no library; ask ``reason`` first.
    """

    def __init__(
        self,
        net: PolicyStack,
        optimizer: StackedAdam,
        train: TrainConfig,
        critic_channels: Tensor,
        dual_clip: float,
        threads: int,
    ) -> None:
        loaded, why = library()
        if loaded is None:
            raise UserError("the compiled step cannot be used: %s" % why)
        self._library = loaded
        self._net, self._optimizer = net, optimizer
        self._channels = critic_channels.contiguous()
        actor, critic = net.trunk_sizes()
        clip = train.e_clip if train.clip_value else float("inf")
        settings = _Settings(
            policies=net.num_policies,
            observations=net.num_obs,
            states=net.num_states,
            actions=net.num_actions,
            activation=ACTIVATIONS.index(train.activation),
            actor_layers=len(actor) - 1,
            critic_layers=max(0, len(critic) - 1),
            threads=max(1, threads),
            clip=train.e_clip,
            value_clip=clip,
            critic_coef=train.critic_coef,
            bounds_coef=train.bounds_loss_coef,
            entropy_coef=train.entropy_coef,
            dual_clip=dual_clip,
            grad_norm=train.grad_norm,
            beta1=optimizer.beta1,
            beta2=optimizer.beta2,
            eps=optimizer.eps,
        )
        sizes: List[int] = [*actor, *critic]
        self._step: Any = loaded.hepo_new(ctypes.byref(settings), (ctypes.c_int32 * len(sizes))(*sizes))

    def __del__(self) -> None:
        if getattr(self, "_step", None):
            self._library.hepo_delete(self._step)
            self._step = None

    @torch.no_grad()
    def __call__(
        self,
        packed: PackedBatch,
        in_shared: Tensor,
        in_mine: Tensor,
        weights: Tensor,
        counts: Optional[Tensor],
        old_log_std: Tensor,
        statistics: Tensor,
        mask: Optional[Tensor],
    ) -> Tensor:
        """One step; returns the KL (P,).

        Args:
            in_shared, in_mine: (P, m) int64, see PackedBatch.gather.  weights, counts: of RowWeights.
            old_log_std: (P, A).  statistics: (P, 7), added to.  mask: (P, D) factors of the gradient, or None.
        """
        flat, adam = self._net.flat, self._optimizer
        if flat.grad is None:
            flat.grad = torch.zeros_like(flat)
        kl = torch.empty(flat.shape[0])
        # kept in variables until the call is over: the library sees their addresses only
        shared, mine = packed.shared, packed.mine
        first, second, weighted, spread = (x.contiguous() for x in (in_shared, in_mine, weights, old_log_std))
        batch = _Batch(
            *map(_address, (shared, mine, first, second)),
            first.shape[1],
            *map(_address, (weighted, spread, self._channels)),
            None if mask is None else _address(mask),
            None if counts is None else _address(counts),
        )
        state = _State(
            *map(_address, (flat, adam.exp_avg, adam.exp_avg_sq, adam.steps, adam.learning_rate)),
            *map(_address, (statistics, kl, flat.grad)),
        )
        if ranks.active():
            self._library.hepo_gradient(self._step, ctypes.byref(batch), ctypes.byref(state))
            ranks.mean_(flat.grad)
            self._library.hepo_apply(self._step, ctypes.byref(state))
        else:
            self._library.hepo_step(self._step, ctypes.byref(batch), ctypes.byref(state))
        return kl


def _address(tensor: Tensor) -> int:
    # what the library reads as float32 or int64 has to be that
    assert tensor.is_contiguous() and tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.int64)
    return tensor.data_ptr()


def main() -> int:
    """Compile the library and say where it is, or why there is none."""
    loaded, where = library()
    print(("compiled step: %s" if loaded is not None else "no compiled step, training uses the eager one: %s") % where)
    return 0


if __name__ == "__main__":
    sys.exit(main())
