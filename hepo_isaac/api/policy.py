"""``hepo_isaac.load``: a trained policy as a function from observations to actions."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Dict, List, Mapping, Tuple, Union

import numpy as np
import torch
from torch import Tensor

from hepo_isaac.agents.config import train_config
from hepo_isaac.agents.policies import Policies
from hepo_isaac.envs.task_env import OBS_CLIP
from hepo_isaac.errors import UserError, fitting, unknown
from hepo_isaac.methods.method import method_from_config
from hepo_isaac.runs.play.evaluate import Estimate
from hepo_isaac.runs.record.bundled import bundled_run, entries, entry_of
from hepo_isaac.runs.record.checkpoint import load_checkpoint
from hepo_isaac.runs.record.files import number
from hepo_isaac.runs.record.folder import RunFolder
from hepo_isaac.runs.record.stored import read_data, read_run

SIZES = ("num_obs", "num_states", "num_actions")
MAX_SIZE = 1 << 20


class Policy:
    """One policy of a checkpoint: call it with observations, it returns actions in [-1, 1].

    Observations are the task's, unscaled, as ``hepo_isaac.make`` returns them: (O,) or (N, O), an array or a tensor;
    actions come back the same way, (K,) or (N, K), a tensor on the device where its observations are.

    Attributes:
        name: "pi", "pi_h" …  names: those that the checkpoint holds.  task, algo, seed: of its run.
        iteration, env_steps: when it was saved.  task_return: J, NaN where nobody has measured it.  measured: how:
            over episodes of an evaluation of these very weights, else in π's last 100 training episodes until then,
            with sampled actions.  file: the checkpoint.
        num_obs, num_actions: O and K.
    """

    def __init__(
        self,
        policies: Policies,
        index: int,
        names: Tuple[str, ...],
        header: Mapping[str, Any],
        file: Path,
        task_return: Estimate,
        measured: str,
    ) -> None:
        self._policies, self._index, self.names = policies, index, names
        self.name = names[index]
        self.task, self.algo, self.seed = str(header["task"]), str(header["algo"]), int(header["seed"])
        self.iteration, self.env_steps = int(header["iteration"]), int(header["env_steps"])
        self.task_return, self.measured, self.file = task_return.mean, measured, file
        self._worth = "J = %s %s" % (task_return.text(), measured) if measured else "J not measured"
        self.num_states = policies.net.num_states
        self.num_obs, self.num_actions = policies.num_obs - self.num_states, policies.num_actions

    def __call__(self, obs: Any) -> Any:
        """The mean action: what the policy thinks best."""
        return self.act(obs)

    def act(self, obs: Any, deterministic: bool = True) -> Any:
        """The mean action, or a draw from the policy's distribution (torch.manual_seed makes draws repeatable).

        Raises:
            UserError: observations of another shape or kind.
        """
        rows, like = self._rows(obs)
        with torch.no_grad():
            stacked = rows.unsqueeze(0).expand(self._policies.num_policies, -1, -1)
            normalized = self._policies.normalize_obs(stacked)
            mean, _, log_std = self._policies.net(normalized)
            actions = mean[self._index]
            if not deterministic:
                actions = actions + log_std[self._index].exp() * torch.randn_like(actions)
            actions = actions.clamp(-1.0, 1.0)
        if isinstance(like, Tensor):
            return actions.reshape(*like.shape[:-1], self.num_actions).to(like.device)
        return actions.cpu().numpy().reshape(*np.shape(like)[:-1], self.num_actions)

    def _rows(self, obs: Any) -> Tuple[Tensor, Any]:
        """(B, O + S) float32 on the policy's device, and what was given."""
        if isinstance(obs, (list, tuple)):
            obs = np.asarray(obs)
        if not isinstance(obs, (np.ndarray, Tensor)) or str(obs.dtype) == "object":
            raise UserError(
                "observations are a %s; expected an array or tensor (N, %d)" % (type(obs).__name__, self.num_obs)
            )
        if obs.ndim not in (1, 2) or obs.shape[-1] != self.num_obs:
            raise UserError(
                "observations have shape %s; expected (%d,) or (N, %d), as task %s has them"
                % (tuple(obs.shape), self.num_obs, self.num_obs, self.task)
            )
        rows = torch.as_tensor(obs).detach().reshape(-1, self.num_obs).to(self._policies.net.flat.device, torch.float32)
        rows = rows.clamp(-OBS_CLIP, OBS_CLIP)  # as environments return them
        # behind them, what only critics see: actors never read it
        return torch.nn.functional.pad(rows, (0, self.num_states)), obs

    def __repr__(self) -> str:
        return "Policy(%s of %s / %s, iteration %d, %s, %d observations -> %d actions)" % (
            self.name, self.task, self.algo, self.iteration, self._worth, self.num_obs, self.num_actions,
        )  # fmt: skip


def load(
    run_or_checkpoint: Union[str, os.PathLike[str]], policy: str = "pi", device: str = "cpu", trust: bool = False
) -> Policy:
    """A policy of a run.

    Args:
        run_or_checkpoint: a run folder (its best.pt, else its last.pt) or a checkpoint in one; or the name of a task
            whose policy came along (``hepo-isaac policies``), where nothing here is called that.
        policy: "pi" or another of the method's, as "pi_h".  device: where it computes.
        trust: allow the code that a run from elsewhere names. Loading a policy runs none of it, but for checkpoints
            of before their sizes were written into them.

    Raises:
        UserError: no run or checkpoint there, one that is damaged or does not fit, or no such policy.
    """
    given = run_or_checkpoint
    if isinstance(given, str) and given in entries() and not Path(given).exists():
        run_or_checkpoint = bundled_run(given)
    folder, file = locate(run_or_checkpoint)
    config = read_data(folder.path)
    checkpoint = load_checkpoint(file, str(config["task"]["name"]), str(config["algo"]["name"]))
    names = tuple(method_from_config(config["algo"]).policy_names)
    if policy not in names:
        raise unknown("policy of algo %s" % config["algo"]["name"], str(policy), names)
    num_obs, num_states, num_actions = _sizes(checkpoint, folder, trust)
    place = _device(device)
    with fitting("the checkpoint %s" % file):
        policies = Policies(
            len(names),
            train_config(config["train"]),
            num_obs + num_states,
            num_actions,
            [torch.Generator(place)],
            place,
            num_states,
        )
        policies.load_state_dict(checkpoint["agent"]["learner"])
    return Policy(policies, names.index(policy), names, checkpoint, file, *_worth(folder, checkpoint, names, policy))


def _worth(
    folder: RunFolder, checkpoint: Mapping[str, Any], names: Tuple[str, ...], policy: str
) -> Tuple[Estimate, str]:
    """J of a policy of a checkpoint and how it was measured: "" if nobody did."""
    entry = entry_of(folder.path)
    if entry is not None:  # one that came along
        found = entry["policies"][policy]["J"]
        return Estimate(found["mean"], found["std_error"], found["episodes"]), "over %d episodes" % found["episodes"]
    summary = folder.summary
    evaluated = summary.get("evaluation")
    # What is evaluated at the end are the last weights: best.pt may hold others.
    if isinstance(evaluated, dict) and summary.get("iterations") == checkpoint["iteration"]:
        row: Any = evaluated.get(policy)
        row = row if isinstance(row, dict) else {}
        n, mean, error = evaluated.get("episodes"), row.get("return_task"), row.get("return_task_se")
        if isinstance(n, int) and isinstance(mean, float) and isinstance(error, float):
            return Estimate(mean, error, n), "over %d episodes at the end of training" % n
    runs = checkpoint.get("runs")
    best = number(runs.get("best_return") if isinstance(runs, dict) else None)
    if policy == names[0] and best == best:
        return Estimate(best, float("nan"), 0), "in training"
    return Estimate(float("nan"), float("nan"), 0), ""


def locate(run_or_checkpoint: Union[str, os.PathLike[str]]) -> Tuple[RunFolder, Path]:
    """The run folder and the checkpoint that a path stands for.

    Raises:
        UserError: neither a run folder nor a checkpoint in one.
    """
    if not isinstance(run_or_checkpoint, (str, os.PathLike)):
        raise UserError(
            "expected the path of a run folder or a checkpoint, got a %s" % type(run_or_checkpoint).__name__
        )
    path = Path(run_or_checkpoint)
    if path.is_dir():
        folder = RunFolder.open(path)
        return folder, folder.policy_checkpoint()
    if not path.is_file():
        raise UserError("there is no run folder or checkpoint at %s" % path)
    home = path.resolve().parent.parent
    if not (home / "config.yaml").is_file():
        raise UserError(
            "%s is in no run folder: expected <run folder>/checkpoints/%s, beside the config.yaml that says what its "
            "networks look like" % (path, path.name)
        )
    return RunFolder.open(home), path


def _sizes(checkpoint: Mapping[str, Any], folder: RunFolder, trust: bool) -> List[int]:
    """Observations, states of critics and actions of a checkpoint's networks."""
    found = [checkpoint.get(name) for name in SIZES]
    if all(isinstance(size, int) and 0 <= size <= MAX_SIZE for size in found):
        return [int(size) for size in found if size is not None]
    # Of before checkpoints said: the task itself is asked, with one environment.
    from hepo_isaac.envs.make import make_env

    env = make_env({**here(read_run(folder.path, trust)), "num_envs": 1})
    try:
        return [env.num_obs - env.num_states, env.num_states, env.num_actions]
    finally:
        env.close()


def here(run: Any) -> Dict[str, Any]:
    """The configuration of a run on this machine: its own engine, or this one's where it was trained on a GPU and here
    is none.

    Raises:
        UserError: this machine has no engine for it.
    """
    from hepo_isaac.config import check_machine, cuda_available, plain, resolve
    from hepo_isaac.overrides import compose

    cuda = cuda_available()
    if str(run.device).startswith("cuda") and not cuda:
        overrides = ["task=%s" % run.task.name]
        settled = resolve(compose(overrides), overrides, cuda)
        run.sim, run.device = settled.sim, settled.device
    check_machine(run, cuda)
    return plain(run)


def _device(device: str) -> torch.device:
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, TypeError) as error:
        why = (str(error).splitlines() or [""])[0]
        raise UserError("device=%s cannot be used: %s; expected cpu, cuda or cuda:<number>" % (device, why)) from error
    return place
