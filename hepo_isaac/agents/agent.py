"""HepoAgent: one rl-games agent for every method of cfg/algo/.

It implements rl-games' ``BaseAlgorithm`` and rl-games' ``Runner`` can create and run it. It does not derive from
``A2CAgent``: that class reads tensors on the host several times per step and owns one network and one optimiser,
so nearly every method of it would have to be replaced (docs/architecture.md).
"""

from __future__ import annotations

import time
from typing import Any, Dict, List, Mapping, Optional, Tuple

import torch
from rl_games.interfaces.base_algorithm import BaseAlgorithm
from torch import Tensor

from hepo_isaac import ranks
from hepo_isaac.agents.config import train_config
from hepo_isaac.agents.learner import Learner
from hepo_isaac.agents.meters import EpisodeMeter
from hepo_isaac.agents.rewards import IterationFacts
from hepo_isaac.agents.rollout import RolloutBuffer
from hepo_isaac.agents.run_axis import join_runs, select_run
from hepo_isaac.agents.soundness import Soundness, failures, together
from hepo_isaac.agents.spread import ask, gone, own_part, put_together
from hepo_isaac.agents.statistics import Statistics
from hepo_isaac.agents.stopwatch import Stopwatch
from hepo_isaac.agents.weights import load_agent
from hepo_isaac.agents.window import ReturnWindow
from hepo_isaac.errors import Notice, UnstablePhysicsError, UserError
from hepo_isaac.methods.method import method_from_config

STATES_BEFORE = 32  # control steps before an iteration that can still be looked at where a world goes bad in it


class HepoAgent(BaseAlgorithm):
    """Trains the policies of one method on one vectorised environment; with several seeds, S independent runs.

    Args:
        base_name: rl-games' run name (unused; the run folder has the name).
        params: rl-games' parameters; ``params["config"]`` holds vec_env (or env_name, registered with rl-games),
            num_actors (of all runs, of this rank), device, seeds, method, train and features.observer. The observer's
            ``after_init(agent)``, ``on_iteration(agent, metrics)`` (one dict per run; True stops),
            ``on_finish(agent)`` and ``on_failure(agent, error)`` are called.
    """

    def __init__(self, base_name: str, params: Dict[str, Any]) -> None:
        config = params["config"]
        self.config = config
        self.train_cfg = train_config(config["train"])
        self.method = method_from_config(config["method"])
        self._device = torch.device(config["device"])
        self.num_envs = int(config["num_actors"])
        self.vec_env = config.get("vec_env") or _registered(config, self.num_envs)
        info = self.vec_env.get_env_info()
        if info.get("value_size") != 2:
            raise UserError(
                "environment %r has value_size %r; expected 2 (rewards [r, h])"
                % (config["env_name"], info.get("value_size"))
            )
        num_obs, num_actions = info["observation_space"].shape[0], info["action_space"].shape[0]
        self.generators = [torch.Generator(self._device).manual_seed(int(s)) for s in config["seeds"]]
        sizes = (self.num_envs, num_obs, num_actions)
        states = int(info.get("state_size", 0))
        threads = int(params.get("update_threads", torch.get_num_threads()))
        self.learner = Learner(self.method, self.train_cfg, *sizes, self.generators, self._device, states, threads)
        self._seeds = [int(s) for s in config["seeds"]]
        for generator, seed in zip(self.generators, self._seeds):  # the first draws, of weights, were everyone's
            if ranks.rank():
                generator.manual_seed(ranks.own_seed(seed, ranks.rank()))
        self.policy_names = list(self.method.policy_names)
        self.num_runs = len(self.generators)
        if self.method.frozen_reference is not None:
            self._freeze_reference(self.method.frozen_reference)
        horizon = self.train_cfg.horizon_length
        self._max_episode_length = int(info["max_episode_length"])
        slots = 1 + horizon // self._max_episode_length
        self._blocks = blocks = len(self.generators) * self.method.num_blocks
        self.buffer = RolloutBuffer(horizon, blocks, self.num_envs, num_obs, num_actions, 2, slots, self._device)
        self.noise = torch.zeros(blocks, self.num_envs // blocks, num_actions, device=self._device)
        self.meter: Optional[EpisodeMeter] = None
        self.iteration, self.env_steps = 0, 0
        self.max_iterations = self.train_cfg.max_iterations
        self._obs: Optional[Tensor] = None
        self._potential: Optional[Tensor] = None
        # Worlds that diverged in this iteration (a world that does so in every step is still one world), and the
        # environment's counters as they stood at the last flush.
        self._diverged = torch.zeros(self.num_envs, dtype=torch.bool, device=self._device)
        self._counters: Dict[str, float] = {}
        self.vec_env.keep_states(horizon + STATES_BEFORE)
        self._biased = torch.zeros(self.num_runs, dtype=torch.bool, device=self._device)
        self._soundness = Soundness(horizon, self.num_envs, self.num_runs, self._device)
        self._failed: Dict[int, UserError] = {}  # runs that cannot go on, while others beside them do
        self.stepping = False  # in the middle of an iteration, where no rank answers another's questions
        self._stop = False
        self._bad_states: Optional[List[Dict[str, Any]]] = None  # of the last iteration, once somebody has asked
        self._watch = Stopwatch(self._device)
        self.observer = config["features"]["observer"]
        self.observer.after_init(self)

    # -- rl-games' interface -----------------------------------------------------------------------------------
    @property
    def device(self) -> torch.device:
        """Where all tensors live."""
        return self._device

    def clear_stats(self) -> None:
        """Forget the episodes counted so far."""
        if self.meter is not None:
            self.meter.take()

    def get_param(self, param_name: str) -> Any:
        """A train setting by name."""
        return getattr(self.train_cfg, param_name)

    def set_param(self, param_name: str, param_value: Any) -> None:
        """Not supported: settings are frozen for the length of a run."""
        raise UserError("train settings cannot change during a run; start a new one with train.%s" % param_name)

    def bad_states(self, run: int, most: int) -> List[Dict[str, Any]]:
        """What led to up to ``most`` worlds of a run going bad in the last iteration; ``env`` counts within the run."""
        if self._bad_states is None:
            parts = ask(self, "own_bad_states", most * self.num_runs)
            self._bad_states = [states for part in parts for states in part]
        return [states for states in self._bad_states if states["run"] == run][:most]

    def own_bad_states(self, most: int) -> List[Dict[str, Any]]:
        """bad_states of this rank's environments, of all runs; ``env`` counts within the run, over all ranks."""
        size = self.num_envs // self._blocks  # of a block, of which each rank has a part
        found = []
        for states in self.vec_env.bad_states(most):
            block, place = divmod(int(states["env"]), size)
            run, block = divmod(block, self.method.num_blocks)
            env = (block * ranks.size() + ranks.rank()) * size + place
            found.append({**states, "env": env, "run": run})
        return found

    def notices(self) -> List[Notice]:
        """What went otherwise than asked for so far, in the engine and in the update; empty is well."""
        found, step = list(self.vec_env.notices()), self.learner.minibatch_step
        if step.failure:
            text = "the update runs without a CUDA graph, several times slower: %s" % step.why_eager
            found.append(Notice(text, step.failure))
        return found

    def train(self) -> None:
        """Run iterations until max_iterations or until the observer asks to stop."""
        if self._obs is None:
            self._obs = self.vec_env.reset()
        try:
            while self.iteration < self.max_iterations and not self._stop:
                metrics = self.train_epoch()
                self._check(metrics)  # first: what is saved must be sound
                self._stop = bool(self.observer.on_iteration(self, metrics))
        except Exception as error:
            if ranks.lost(error):
                lost = gone()
                self.observer.on_failure(self, lost)
                raise lost from error
            self.observer.on_failure(self, error)
            raise
        self.observer.on_finish(self)

    def train_epoch(self) -> List[Dict[str, float]]:
        """One iteration: collect, learn, and a single read of all statistics on the host; one dict per run.

        Speeds are of all runs together.
        """
        start = time.perf_counter()
        self._bad_states, self.stepping = None, True
        self._watch.start()
        last_obs = self.collect()
        self._watch.mark()
        stats = self.learn(last_obs)
        self._watch.mark()
        metrics = self._flush(stats)  # the one wait for the device
        rollout_s, update_s = self._watch.seconds()
        end = time.perf_counter()
        self.iteration += 1
        self.stepping = False
        steps = self.num_envs * ranks.size() * self.train_cfg.horizon_length
        self.env_steps += steps // self.num_runs
        for row in metrics:
            row.update(
                iteration=float(self.iteration),
                env_steps=float(self.env_steps),
                env_steps_per_second=steps / (end - start),
                rollout_s=rollout_s,
                update_s=update_s,
            )
        return metrics

    def _length_biased(self, length: Tensor, count: Tensor) -> Tensor:
        """(S,) whether the episodes that ended in this iteration were short because long ones cannot have ended yet.

        An env's first episode starts at a random time of its clock and is not counted; the second one could have had
        its full length once two full lengths have passed since the start. Where every episode has the full length there
        is no bias.

        Args:
            length: (S, Q) steps of all episodes that ended in this iteration.  count: (S, Q) of them.
        """
        full = float(self._max_episode_length)
        if (self.iteration + 1) * self.train_cfg.horizon_length >= 2 * full:
            return torch.zeros_like(count[:, 0], dtype=torch.bool)
        # Sums of many lengths are rounded in float32; a bias of this size is none.
        return (length < (1.0 - 1e-5) * full * count).any(1)

    # -- one iteration, without host reads ---------------------------------------------------------------------
    def collect(self) -> Tensor:
        """Fill the rollout buffer; returns the observation after its last step, (B, n, O)."""
        if self._obs is None:
            self._obs = self.vec_env.reset()
        if self.method.needs_potential and self._potential is None:
            self._potential = self.vec_env.potential()
        b, obs = self.buffer, self._obs
        b.start()
        blocks = b.num_blocks
        for t in range(b.horizon):
            self._draw_noise()
            by_block = obs.view(blocks, -1, obs.shape[-1])
            b.obs[t].copy_(by_block)
            actions, b.log_prob[t], b.mean[t], b.values[t] = self.learner.act(by_block, self.noise)
            b.actions[t] = actions
            obs, rewards, done, infos = self.vec_env.step(actions.reshape(self.num_envs, -1))
            b.rewards[t].copy_(rewards.view(blocks, -1, 2))
            b.time_out[t].copy_(infos["time_outs"].view(blocks, -1))
            b.terminated[t].copy_(infos["terminated"].view(blocks, -1))
            b.keep_final_obs(t, infos["final_obs"].view(blocks, -1, obs.shape[-1]))
            if self._potential is not None:
                b.potential[t].copy_(self._potential.view(blocks, -1))
                b.final_potential[t].copy_(infos["final_potential"].view(blocks, -1))
                self._potential = infos["potential"]
            self._soundness.note(t, infos["faults"])
            self._count(rewards, done, infos)
        self._obs = obs
        return obs.view(blocks, -1, obs.shape[-1])

    def learn(self, last_obs: Tensor) -> Dict[str, Tensor]:
        """Advantages, policy update, alpha; returns per-policy statistics (P,)."""
        assert self.meter is not None
        returns, lengths, counts = self._episodes()
        self._biased = self._length_biased(lengths, counts)
        counts = counts.masked_fill(self._biased.unsqueeze(1), 0.0)  # alpha compares none that are short by their age
        window = self.meter.window
        seen = None if window is None else window.look()
        total = self.train_cfg.schedule_iterations or self.max_iterations
        facts = IterationFacts(self.iteration, total, returns, counts, seen)
        stats = self.learner.learn(self.buffer, last_obs, facts)
        replaced = self.learner.collection.replaced
        if window is not None and replaced is not None:
            window.discard(replaced)
        return stats

    def _draw_noise(self) -> None:
        """Standard normal noise, each run from its own generator."""
        per_run = self.noise.view(self.num_runs, -1)
        for run, generator in enumerate(self.generators):
            per_run[run].normal_(generator=generator)

    def _count(self, rewards: Tensor, done: Tensor, infos: Mapping[str, Any]) -> None:
        if self.meter is None:
            names = ["return_task", "return_heuristic", *("terms/" + n for n in infos["term_names"])]
            ends = ["episode/" + n for n in infos["metric_names"]]
            self.meter = self._new_meter(names, ends)
            self._restore_meter()
        self._diverged |= infos["bad"]
        acting = self.learner.collection.acting()
        self.meter.update(torch.cat((rewards, infos["terms"]), 1), infos["metrics"], done, infos["counted"], acting)

    def _new_meter(self, names: List[str], ends: List[str]) -> EpisodeMeter:
        policies, window = self.learner.policies, None
        if self.method.compares_windows:
            sizes = (self.num_runs, self.num_envs, self.method.references.window_episodes)
            window = ReturnWindow(policies.shares, *sizes, self._device)
        count = (self.num_envs, policies.num_policies)
        return EpisodeMeter(*count, names, ends, self._device, policies.owners, window)

    def _episodes(self) -> Tuple[Tensor, Tensor, Tensor]:
        """(S, Q) mean J, steps together, and number of the episodes that ended in this rollout."""
        assert self.meter is not None
        totals = ranks.total(self.meter.totals).view(self.num_runs, -1, self.meter.totals.shape[1])
        count = totals[..., -1]
        return totals[..., 0] / count.clamp_min(1.0), totals[..., -2], count

    def _flush(self, stats: Mapping[str, Tensor]) -> List[Dict[str, float]]:
        """Bring all statistics of the iteration to the host in one transfer; one dict per run."""
        assert self.meter is not None
        learner = self.learner
        per_policy: Dict[str, Tensor] = dict(stats)
        per_policy["learning_rate"] = learner.optimizer.learning_rate
        per_policy["sigma"] = learner.policies.net.log_std.detach().exp().mean(1)
        per_policy.update(learner.collection.policy_metrics())
        per_run = {"bad_worlds": ranks.total(self._diverged.view(self.num_runs, -1).sum(1).float())}
        per_run["length_biased"] = self._biased.float()
        if self.method.constraint != "none":
            per_run["alpha"] = learner.multiplier.value
            if self.method.constraint != "references":
                per_run["alpha_gradient"] = learner.multiplier.gradient
        per_run.update(learner.collection.metrics())
        per_run.update(self._soundness.metrics(learner, stats))
        gathered = Statistics(self.policy_names, self.meter.column_names(), self.num_runs)
        shared = {name: ranks.total(count.float()) for name, count in self.vec_env.statistics().items()}
        metrics = gathered.read(ranks.total(self.meter.take()), per_policy, per_run, shared)
        self._diverged.zero_()
        for name in shared:  # they count since the start, a metric is about its iteration
            total = metrics[0][name]
            for row in metrics:
                row[name] = total - self._counters.get(name, 0.0)
            self._counters[name] = total
        return metrics

    def _check(self, rows: List[Dict[str, float]]) -> None:
        """Stop runs whose numbers are broken or whose physics diverges in bulk; the others go on without them.

        Raises:
            UserError: no run is left.
        """
        found = failures(rows, self.vec_env.names, self.iteration)
        for run, row in enumerate(rows):
            worlds = self.num_envs * ranks.size() // self.num_runs
            if run not in found and row["bad_worlds"] / worlds > self.train_cfg.max_bad_fraction:
                found[run] = UnstablePhysicsError(
                    "%d of %d worlds diverged in iteration %d, more than train.max_bad_fraction=%g; expected physics "
                    "that holds: try more task.physics.substeps or softer drives"
                    % (row["bad_worlds"], worlds, self.iteration, self.train_cfg.max_bad_fraction)
                )
        new = {run: error for run, error in found.items() if run not in self._failed}
        self._failed.update(new)
        if len(self._failed) == self.num_runs:
            raise together(self._failed, self._seeds)
        for run, error in new.items():
            self.observer.on_run_failure(run, error)

    def _freeze_reference(self, file: str) -> None:
        """Load the deployed policy of a finished run as every run's second policy."""
        learned = load_agent(file)["learner"]
        flat = learned["flat"][0]
        if flat.shape != self.learner.policies.net.flat.shape[1:]:
            raise UserError(
                "algo.frozen_reference=%s: its networks have %d parameters, this run's %d; expected the same task and "
                "train.network" % (file, flat.numel(), self.learner.policies.net.flat.shape[1])
            )
        self.learner.freeze_reference(flat, learned["obs_norm"])

    # -- checkpoints -------------------------------------------------------------------------------------------
    def get_full_state_weights(self) -> Dict[str, Any]:
        """Everything an exact continuation needs, as tensors, numbers and strings only; of all ranks, on rank 0."""
        if not ranks.active():
            return self.own_state()
        return put_together(ask(self, "own_state"), self._blocks)

    def own_state(self) -> Dict[str, Any]:
        """get_full_state_weights of this rank."""
        assert self._obs is not None
        return {
            "learner": self.learner.state_dict(),
            "meter": self.meter.state_dict() if self.meter is not None else None,
            "env": self.vec_env.get_env_state(),
            "iteration": self.iteration,
            "env_steps": self.env_steps,
            "counters": dict(self._counters),
            "policy_names": list(self.policy_names),
        }

    def get_run_state(self, run: int) -> Dict[str, Any]:
        """get_full_state_weights of one run alone: what a process with only that run would have saved."""
        return select_run(self.get_full_state_weights(), run, self.num_runs)

    def set_full_state_weights(self, weights: Dict[str, Any], set_epoch: bool = True) -> None:
        """Restore what get_full_state_weights returned, environments included."""
        if ranks.active():
            weights = own_part(weights, self._blocks, self._seeds)
        self.set_weights(weights)
        self._meter_state = weights["meter"]
        self._restore_meter()  # one that is not there yet follows with the first step
        self._obs = self.vec_env.set_env_state(weights["env"])
        self._potential = None
        self._counters = dict(weights["counters"])
        if set_epoch:
            self.iteration, self.env_steps = int(weights["iteration"]), int(weights["env_steps"])

    def set_run_states(self, states: List[Dict[str, Any]]) -> None:
        """Restore S runs from what get_run_state returned of each."""
        self.set_full_state_weights(join_runs(states))

    _meter_state: Optional[Dict[str, Tensor]] = None

    def _restore_meter(self) -> None:
        if self._meter_state is not None and self.meter is not None:
            self.meter.load_state_dict(self._meter_state)
            self._meter_state = None

    def get_weights(self) -> Dict[str, Any]:
        """The learner alone, without environments and counters."""
        return {"learner": self.learner.state_dict()}

    def set_weights(self, weights: Dict[str, Any]) -> None:
        """Restore the learner alone."""
        self.learner.load_state_dict(weights["learner"])

    def restore(self, filename: str) -> None:
        """rl-games' hook: continue from a checkpoint file."""
        self.set_full_state_weights(load_agent(filename))


def _registered(config: Dict[str, Any], num_envs: int) -> Any:
    """The environments that rl-games knows by name; its import takes two seconds, so only who needs it waits."""
    from rl_games.common import vecenv

    return vecenv.create_vec_env(config["env_name"], num_envs, **config.get("env_config", {}))
