"""What the tests of several ranks run in processes of their own: ``python -m tests.ranks.worker WHAT,WHAT OUT`` under
the variables that torchrun sets; rank 0 writes its findings, a list, to OUT."""

from __future__ import annotations

import hashlib
import sys
from typing import Any, Dict, Optional

import torch
from rl_games.common.algo_observer import AlgoObserver

from hepo_isaac import ranks
from hepo_isaac.agents.agent import HepoAgent as HepoAgent
from hepo_isaac.agents.register import build_agent, prepare_process, runner_params
from hepo_isaac.agents.rewards import IterationFacts
from hepo_isaac.agents.soundness import Soundness
from hepo_isaac.agents.spread import Follower, Leader
from hepo_isaac.config import plain, resolve, validate
from hepo_isaac.envs.faults import FAULTS
from hepo_isaac.envs.make import make_env
from hepo_isaac.envs.rl_games import RlGamesVecEnv
from hepo_isaac.methods.references import Window
from hepo_isaac.overrides import compose
from hepo_isaac.runs.train import spread
from tests.agents.test_presets import SMALL, VARIANTS

ENVS = 24
NOISY = ("hepo", "algo.reference_noise=0.01")
# Many decisions about learning rates, so that two ranks with a KL each of their own would come to differ.
MANY = ("train.kl_threshold=0.002", "train.mini_epochs=20")
# name -> (method, arguments of one_batch)
SCENES: Dict[str, Any] = {
    **{" ".join(variant): (variant, {}) for variant in VARIANTS},
    "hepo, a contrast of raw advantages": (("hepo", "algo.contrast=raw_gae"), {}),
    "hepo_alternating, both have acted": (("hepo_alternating",), {"batches": 2}),
    "eipo, both have acted": (("eipo", "algo.max_stage_iterations=1"), {"batches": 2}),
    "hepo_plus, the first has earned nothing": (("hepo_plus",), {"earned": False}),
}
ALL = [*VARIANTS, NOISY, ("ppo_h", *MANY), ("ppo_h", *MANY, "train.lr_schedule=minibatch")]


class Watcher(AlgoObserver):
    """Keeps what each iteration left and said, and stops after ``stop_at``."""

    def __init__(self, stop_at: Optional[int] = None, states: Any = None):
        super().__init__()
        self.stop_at, self.states, self.seen, self.rows = stop_at, states, [], []

    def after_init(self, agent):
        if self.states is not None:
            agent.set_run_states(self.states)

    def on_iteration(self, agent, metrics):
        self.seen.append(fingerprint(agent))
        self.rows.append(metrics)
        return agent.iteration == self.stop_at

    def on_finish(self, agent):
        pass

    def on_failure(self, agent, error):
        pass


def settings(variant, *overrides, task="Push2D", envs=ENVS):
    """One of cfg/algo on a small task, ``envs`` environments over all ranks."""
    rows = envs * 8
    small = [s for s in SMALL if not s.startswith(("num_envs", "train.minibatch_size"))]
    given = ["task=" + task, *small, "num_envs=%d" % envs, "train.minibatch_size=%d" % (rows // 2)]
    given += ["algo=" + variant[0], *variant[1:], *overrides]
    cfg = resolve(compose(given), given, cuda=False)
    validate(cfg)
    return plain(cfg)


def agent_of(cfg: Dict[str, Any], observer: Any):
    """An agent on this rank's share of the environments."""
    seed = int(cfg["seed"])
    env = RlGamesVecEnv(make_env({**spread.own(cfg), "run_seeds": spread.env_seeds([seed])}))
    params = runner_params(spread.own(cfg), [seed])
    prepare_process(params)
    return build_agent(params, env, observer)


def fingerprint(agent) -> str:
    """Everything that has to be the same on all ranks."""
    state = dict(agent.own_state()["learner"])
    state.pop("generators")
    digest = hashlib.sha256()

    def add(node):
        if isinstance(node, dict):
            for key in sorted(node):
                digest.update(key.encode())
                add(node[key])
        elif isinstance(node, (list, tuple)):
            for part in node:
                add(part)
        elif isinstance(node, torch.Tensor):
            digest.update(node.detach().contiguous().numpy().tobytes())

    add(state)
    return digest.hexdigest()


def identical() -> Any:
    """Of every method: the fingerprints of each rank after each iteration, and how many episodes J was made of."""
    found = {}
    for variant in ALL:
        watcher = Watcher(stop_at=5)
        agent_of(settings(variant), watcher).train()
        metrics = [
            [sorted((k, v) for k, v in row[0].items() if not k.endswith(("_s", "_second")))] for row in watcher.rows
        ]
        parts = ranks.collect((watcher.seen, repr(metrics), agent_episodes(watcher)))
        found[" ".join(variant)] = parts
    return found


def agent_episodes(watcher) -> float:
    """Episodes of the last iterations."""
    return sum(v for row in watcher.rows for k, v in row[0].items() if k.startswith("episodes/"))


def one_batch(variant, batches: int = 1, earned: bool = True) -> Dict[str, Any]:
    """What a gradient step makes of a rollout of all ranks' environments that is the same however many ranks.

    Args:
        batches: so many steps, on the same rollout.
        earned: false leaves the first block of envs without rewards: its advantages have hardly a spread of their own.
    """
    whole = "train.minibatch_size=%d" % (ENVS * 8)
    more = ["algo.off_policy_fraction=1.0"] if "off_policy_fraction" in settings(variant)["algo"] else []
    cfg = settings(variant, whole, "train.mini_epochs=1", *more)
    agent = agent_of(cfg, Watcher())
    buffer, learner = agent.buffer, agent.learner
    last = fill(buffer, agent)
    if not earned:
        buffer.rewards[:, 0].zero_()
        buffer.values[:, 0].zero_()
    facts = facts_for(agent)
    for _ in range(batches):
        stats = learner.learn(buffer, last, facts)
    state = agent.learner.state_dict()
    state.pop("generators")
    return {"gradient": learner.policies.net.flat.grad.clone(), "state": state, "stats": dict(stats)}


def fill(buffer, agent) -> torch.Tensor:
    """A rollout that no policy made; every rank takes its part of each block's environments."""
    source = torch.Generator().manual_seed(7)
    share, at = ranks.size(), ranks.rank()

    def part(x, dim):
        size = x.shape[dim] // share
        return x.narrow(dim, at * size, size)

    def normal(like, dim):
        shape = list(like.shape)
        shape[dim] *= share
        return part(torch.randn(shape, generator=source), dim)

    for name in ("obs", "actions", "mean", "values", "rewards", "potential", "final_potential"):
        getattr(buffer, name).copy_(normal(getattr(buffer, name), 2))
    buffer.log_prob.copy_(-3.0 + 0.3 * normal(buffer.log_prob, 2))
    buffer.timeout_obs.copy_(normal(buffer.timeout_obs, 2))
    ended = normal(buffer.log_prob, 2)
    buffer.terminated.copy_(ended > 1.5)
    buffer.time_out.copy_(ended < -1.5)
    buffer.timeout_slot.zero_()
    agent.learner.policies.observe(buffer.rows(buffer.obs).view(agent.num_runs, -1, buffer.obs.shape[-1]))
    shape = list(buffer.obs.shape[1:])
    shape[1] *= share
    return part(torch.randn(shape, generator=source), 1)


def facts_for(agent) -> IterationFacts:
    """Episodes that both policies ended, and a window in which the second is ahead."""
    members = len(agent.policy_names)
    mean = torch.linspace(0.0, 1.0, members).expand(1, -1).clone()
    window = Window(mean, torch.full_like(mean, 0.01), torch.ones(1, dtype=torch.bool))
    return IterationFacts(3, 10, mean, torch.full_like(mean, 4.0), window if agent.method.compares_windows else None)


def batches() -> Any:
    """``one_batch`` of every method, and of what needs more than one rollout's ordinary numbers."""
    return {name: one_batch(variant, **more) for name, (variant, more) in SCENES.items()}


def resumed() -> Any:
    """Six iterations, and three with three more from what was saved: the states of both, on the ranks there are."""
    found = {}
    for variant in (("hepo",), ("hepo_plus",), ("eipo",)):
        whole = trained(settings(variant), 6)
        half = trained(settings(variant), 3)
        rest = trained(settings(variant), 6, half)
        found[variant[0]] = (whole, rest)
    return found


def trained(cfg, iterations, state=None) -> Any:
    """The full state after ``iterations``, on rank 0."""
    kept = []

    class Keeper(Watcher):
        def on_finish(self, agent):
            kept.append(agent.get_full_state_weights())

    state = ranks.tell(state)
    states = None if state is None else [state]
    observer = Leader(Keeper(iterations, states)) if ranks.rank() == 0 else Follower(states)
    agent_of({**cfg, "seed": 5}, observer).train()
    return kept[0] if kept else None


def faulty() -> Any:
    """Faults that the last rank alone has, and weights that it alone has, as (metrics, whether they are finite)."""
    learner = agent_of(settings(("hepo",)), Watcher()).learner
    last, said = ranks.rank() == ranks.size() - 1, {}
    watch = Soundness(4, ENVS // ranks.size(), 1, torch.device("cpu"))
    faults = torch.zeros(4, ENVS // ranks.size(), len(FAULTS), dtype=torch.bool)
    faults[2, 3, 1] = faults[3, 0, 0] = last
    for step in range(4):
        watch.note(step, faults[step])
    stats = {name: torch.zeros(2) for name in ("loss_actor", "loss_critic", "grad_norm")}
    for name, change in (("none", 0.0), ("less", -1.0), ("more", 1.0)):
        with torch.no_grad():
            learner.policies.net.flat[1, 0] += change * last
        said[name] = watch.metrics(learner, stats)
        with torch.no_grad():
            learner.policies.net.flat[1, 0] -= change * last
    return said


def windows() -> Any:
    """Windows of envs whose episodes all ranks count, with what they say."""
    from hepo_isaac.agents.window import ReturnWindow

    share, at = ranks.size(), ranks.rank()
    window = ReturnWindow((1, 1), 1, 8 // share, 8, torch.device("cpu"))
    returns = torch.arange(8.0).view(2, 4)[:, at * 4 // share : (at + 1) * 4 // share].flatten()
    said = []
    for _ in range(3):
        window.update(returns, torch.ones_like(returns, dtype=torch.bool), torch.ones_like(returns, dtype=torch.bool))
        look = window.look()
        said.append((look.mean, look.error, look.ready))
    return said


def counted() -> Any:
    """The metrics of an iteration in which the last rank's first world diverges, and what each engine counts."""
    watcher = Watcher(stop_at=1)
    agent = agent_of(settings(("hepo",), "train.max_bad_fraction=0.05"), watcher)
    step, last = agent.vec_env.step, ranks.rank() == ranks.size() - 1

    def diverging(actions):
        obs, rewards, done, infos = step(actions)
        infos["bad"] = infos["bad"].clone()
        infos["bad"][0] = last
        return obs, rewards, done, infos

    agent.vec_env.step = diverging
    agent.vec_env.statistics = lambda: {"overflow": torch.tensor(1 + ranks.rank())}
    agent.train()
    return watcher.rows[0][0]


def main() -> None:
    """Run some of the functions above on all ranks."""
    what, out = sys.argv[1:]
    ranks.start(torch.device("cpu"))
    try:
        found = [globals()[name]() for name in what.split(",")]
        if ranks.rank() == 0:
            torch.save(found, out)
    finally:
        ranks.stop()


if __name__ == "__main__":
    main()
