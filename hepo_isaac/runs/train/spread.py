"""A run over the processes that torchrun started: each one's share of it, and what cannot be shared out."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any, Callable, Dict, Iterator, List, Mapping, Sequence

from hepo_isaac import ranks
from hepo_isaac.agents.spread import GoneError, gone
from hepo_isaac.config import num_blocks, usable_cores
from hepo_isaac.errors import UserError, report_errors
from hepo_isaac.launched import launched, local, where, world

PATIENCE_S, LITTLE_PATIENCE_S = 20.0, 2.0  # of a rank that failed, until rank 0 has said why
WRONG, LOST = 2, 3  # exit codes: a mistake of the user, another rank is gone
_FLAGS = ("-m", "--multirun")


def quietly(function: Callable[[], int]) -> int:
    """Run what every rank runs, on one that is not the first: rank 0 speaks for all, also of a user's mistakes."""

    def silent() -> int:
        try:
            return function()
        except UserError as error:  # what this rank alone has to say it has said, see agents/spread.py
            return LOST if isinstance(error, GoneError) else WRONG

    return report_errors(silent)


def in_background(function: Callable[[], int]) -> int:
    """``quietly``, for the whole process."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        code = quietly(function)
    if code:
        # A launcher ends everyone with the first that fails; rank 0 is to end first, its sentence said.
        time.sleep(PATIENCE_S if code != LOST else LITTLE_PATIENCE_S)
    return code


def refuse(argv: Sequence[str], overrides: Mapping[str, str]) -> None:
    """Refuse what is no single training.

    Raises:
        UserError: a multirun, an evaluation, or skip_finished.
    """
    what = None
    if any(flag in _FLAGS for flag in argv):
        what = "a multirun; launchers of Hydra share out its jobs (docs/sweeps.md)"
    elif overrides.get("test", "").lower() == "true":
        what = "an evaluation; one process does it"
    elif overrides.get("skip_finished", "").lower() == "true":
        what = "skip_finished=true; run it in one process"
    if what is not None:
        raise UserError("torchrun trains one run on several GPUs or processes, and this is %s" % what)


def check(cfg: Mapping[str, Any]) -> None:
    """Refuse a resolved configuration that the processes there are cannot share.

    Raises:
        UserError: environments or minibatches that do not divide, or fewer GPUs than processes.
    """
    from hepo_isaac.agents.config import nearest_divisors, train_config

    _, size = world()
    if size == 1:
        return
    envs, blocks, train = int(cfg["num_envs"]), num_blocks(cfg["algo"]), cfg["train"]
    unit = size * blocks
    if envs % unit:
        below = max(envs - envs % unit, unit)
        raise UserError(
            "num_envs=%d cannot be split over %d processes with %d blocks of environments each; use a multiple of %d, "
            "e.g. %d or %d" % (envs, size, blocks, unit, below, below + unit)
        )
    minibatch = int(train["minibatch_size"])
    batch = envs // size * int(train["horizon_length"])
    try:
        if minibatch % size:
            raise ValueError
        train_config({**train, "minibatch_size": minibatch // size}).minibatches(envs // size, blocks)
    except ValueError as error:
        fitting = [size * n for n in nearest_divisors(batch, max(1, minibatch // size), blocks)]
        raise UserError(
            "train.minibatch_size=%d cannot be split over %d processes in equal shares; nearest that can: %s"
            % (minibatch, size, ", ".join(map(str, fitting)))
        ) from error
    _check_gpus(str(cfg["device"]))


def _check_gpus(device: str) -> None:
    import torch

    _, here = local()
    if device.startswith("cuda") and here > torch.cuda.device_count():
        raise UserError(
            "torchrun started %d processes here, and torch sees %d GPU(s); expected a GPU for each: use "
            "--nproc_per_node=%d" % (here, torch.cuda.device_count(), max(1, torch.cuda.device_count()))
        )


def share_cores(settled: Dict[str, Any], torch_threads: Any) -> Dict[str, Any]:
    """``settled`` with the threads of one of the processes on this machine, where the user set none."""
    _, here = local()
    if here == 1 or torch_threads != "auto":
        return settled
    cores = max(1, usable_cores() // here)
    return {**settled, "torch_threads": max(1, cores // 2), "update_threads": cores}


def own(cfg: Mapping[str, Any]) -> Dict[str, Any]:
    """This process's share of a resolved configuration: of its environments, of each minibatch, and its device."""
    if not ranks.active():
        return dict(cfg)
    mine, size = dict(cfg), ranks.size()
    mine["num_envs"] = int(cfg["num_envs"]) // size
    mine["train"] = {**cfg["train"], "minibatch_size": int(cfg["train"]["minibatch_size"]) // size}
    at, here = local()
    mine["device"] = own_device(str(cfg["device"]))
    if cfg["sim"].get("threads") == 0:
        mine["sim"] = {**cfg["sim"], "threads": max(1, usable_cores() // here)}
    return mine


def own_device(device: str) -> str:
    """The GPU of this process, where the run is on GPUs."""
    return "cuda:%d" % local()[0] if device.startswith("cuda") else device


def env_seeds(seeds: Sequence[int]) -> List[int]:
    """Seeds of this process's environments."""
    return [ranks.own_seed(seed, ranks.rank()) for seed in seeds]


@contextlib.contextmanager
def meeting(cfg: Mapping[str, Any]) -> Iterator[None]:
    """Meet the other processes of this run, if it has any, and leave them at the end.

    Ctrl-C and the like reach all processes; rank 0 decides what follows, so the others do not hear them.
    """
    if not launched():
        yield
        return
    import torch

    try:
        ranks.start(torch.device(own_device(str(cfg["device"]))))
    except RuntimeError as error:  # of a store that was not found, or processes that did not come
        raise UserError(
            "the %d processes of this run did not meet at %s port %s (%s); expected torchrun to start them all, on one "
            "machine with --standalone" % (world()[1], *where(), str(error).splitlines()[0])
        ) from error
    if ranks.rank():
        _hear(signal.SIG_IGN)
    try:
        yield
    except RuntimeError as error:
        if not ranks.lost(error):
            raise
        raise gone() from error
    finally:
        if ranks.rank():
            _hear(signal.SIG_DFL)
        ranks.stop()


def _hear(how: Any) -> None:
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), how)
