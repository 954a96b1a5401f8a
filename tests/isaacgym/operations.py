"""How many torch operations a control step costs on the Isaac Gym engine, each a kernel's launch on a GPU.

python -m tests.isaacgym.operations
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from omegaconf import OmegaConf
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "sim"))

import fake_gym  # noqa: E402

# These make no kernel.
VIEWS = "alias as_strided detach expand permute reshape select slice split split_with_sizes squeeze t transpose unbind"
VIEWS += " unflatten unsqueeze view _reshape_alias _unsafe_view lift_fresh"


class Operations(TorchDispatchMode):
    """Context manager that counts."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket.__name__ not in VIEWS.split()
        return func(*args, **(kwargs or {}))


def count(name, num_envs=16):
    """(env.step, Simulation.step, Simulation.set_state) of a task where nobody may look at a mask, as on a GPU."""
    from hepo_isaac.envs.make import make_env
    from hepo_isaac.overrides import compose

    cfg = OmegaConf.to_container(compose(["task=" + name]), resolve=True)
    cfg.update(num_envs=num_envs, seed=1, device="cpu", sim={"name": "isaacgym"})
    env = make_env(cfg)
    env.sim.may_select = env.task.streams.may_select = lambda mask: True
    env.reset()
    actions, everyone = torch.zeros(num_envs, env.num_actions), torch.ones(num_envs, dtype=torch.bool)
    counts = []
    env.step(actions)
    for call in (lambda: env.step(actions), env.sim.step, lambda: env.sim.set_state(everyone, env.sim.dof_pos.clone())):
        with Operations() as operations:
            call()
        counts.append(operations.count)
    env.close()
    return counts


if __name__ == "__main__":
    fake_gym.install()
    from hepo_isaac.locate import robot_tasks

    print("%-18s %8s %8s %10s" % ("task", "env.step", "sim.step", "set_state"))
    for task in robot_tasks(engine="isaacgym"):
        print("%-18s %8d %8d %10d" % (task, *count(task)))
