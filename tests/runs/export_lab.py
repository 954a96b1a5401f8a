"""Run folders for tests of exports: a real configuration, and a policy with random weights and statistics."""

from __future__ import annotations

import torch

from hepo_isaac.agents.config import train_config
from hepo_isaac.agents.policies import Policies
from hepo_isaac.config import plain, resolve
from hepo_isaac.envs.make import make_env
from hepo_isaac.methods.method import method_from_config
from hepo_isaac.overrides import compose
from hepo_isaac.runs.record.checkpoint import save_checkpoint
from hepo_isaac.runs.record.folder import RunFolder

ITERATION, ENV_STEPS = 12, 3456


def make_run(root, *overrides, seed=1, change=None):
    """(folder, policies) of ``python train.py <overrides>``, as if trained; ``change(policies)`` before saving."""
    given = ["device=cpu", "seed=%d" % seed, "num_envs=2", "sim.threads=1", *overrides]
    if any(o in ("task=Push2D", "task=QuadraticPoint") for o in overrides):
        given.remove("sim.threads=1")
    cfg = plain(resolve(compose(given), given, cuda=False))
    env = make_env(cfg, random_start=False)
    method = method_from_config(cfg["algo"])
    generator = torch.Generator().manual_seed(seed)
    sizes = (env.num_obs, env.num_actions)
    policies = Policies(
        method.num_policies, train_config(cfg["train"]), *sizes, [generator], torch.device("cpu"), env.num_states
    )
    env.close()
    with torch.no_grad():
        policies.net.flat.mul_(2.0)  # so that some of the actions are clamped
    # Spreads from 0.1 to 3, so that both clippings are met; returns that spread as little as r does.
    spreads = torch.linspace(0.1, 3.0, sizes[0])
    policies.observe(spreads * torch.randn(1, 64, sizes[0], generator=generator) + 0.5)
    policies.move_value_norm(0.01 * torch.randn(method.num_policies, 64, 2, generator=generator) + 2.0)
    if change is not None:
        change(policies)
    folder = RunFolder.create(cfg["task"]["name"], cfg["algo"]["name"], seed, cfg, root)
    header = {"format": "hepo_isaac", "version": 1, "task": cfg["task"]["name"], "algo": cfg["algo"]["name"]}
    header.update(num_envs=2, seed=seed, iteration=ITERATION, env_steps=ENV_STEPS)
    save_checkpoint(folder.checkpoints / "best.pt", {**header, "agent": {"learner": policies.state_dict()}})
    folder.metrics_file.write_text(
        "iteration,return_task/pi,episodes/pi,return_task/pi_h,episodes/pi_h\n"
        "10,1.0,60.0,0.0,1.0\n11,2.0,50.0,nan,0.0\n12,3.0,60.0,4.0,2.0\n13,9.0,99.0,9.0,99.0\n"
    )
    folder.set_status("finished")
    folder.release()
    return folder.path, policies
