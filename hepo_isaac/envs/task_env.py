"""The step loop around a task: actions, physics, rewards, time limits, same-step resets, bad worlds."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional

import torch
from torch import Tensor

from hepo_isaac.envs.faults import FAULTS, sound, stacked
from hepo_isaac.envs.heuristic import HeuristicFunction
from hepo_isaac.envs.ring import StateRing
from hepo_isaac.envs.rows import check_rows
from hepo_isaac.envs.task import StepResult, Task

OBS_CLIP = 5.0


class TaskEnv:
    """N environments of one task with same-step auto-reset.

    Args:
        task: the task, bound to its simulation.
        random_start: let every env's first episode start at a random time, so that resets do not come all at
            once; those first episodes are shorter and ``counted`` is False for them.
        potential: Phi(s), evaluated on the task's state, for shaping that needs one; None leaves it out.

    Attributes:
        before_reset: called with the (N,) mask of envs whose episode is about to be replaced by a new one, for who
            wants to see what it ended in; None: nobody.
    """

    def __init__(self, task: Task, random_start: bool = True, potential: Optional[HeuristicFunction] = None) -> None:
        self.task = task
        self.sim = sim = task.sim
        self.before_reset: Optional[Callable[[Tensor], None]] = None
        self.num_envs, self.device = sim.num_envs, sim.device
        # Observations carry the critics' states behind them: one tensor through buffers, normalisers and checkpoints.
        self.num_states = task.num_states
        self.num_obs, self.num_actions = task.num_obs + task.num_states, task.num_actions
        self.max_episode_length = task.max_episode_length
        self._random_start, self._potential = random_start, potential
        self.progress = torch.zeros(self.num_envs, dtype=torch.int64, device=self.device)
        self.counted = torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
        self.bad_count = torch.zeros((), dtype=torch.int64, device=self.device)
        # Worlds that were observed with a broken number, or had a broken potential, since the last step's result; by
        # the name of the fault, where there may be any.
        self._unseen: Dict[str, Tensor] = {}
        self._ring: Optional[StateRing] = None
        self._no_faults = torch.zeros(self.num_envs, len(FAULTS), dtype=torch.bool, device=self.device)

    def reset(self, random_start: Optional[bool] = None) -> Tensor:
        """Start every env; returns the first observations (N, O). ``random_start`` overrides the constructor's."""
        everyone = torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
        self._start_episodes(everyone)
        self.progress.zero_()
        self.counted.fill_(True)
        if self._random_start if random_start is None else random_start:
            phase = self.task.streams.randint(self.max_episode_length)
            self.progress.copy_(phase)
            self.counted.copy_(phase == 0)
        return self.observe()

    def step(self, actions: Tensor) -> StepResult:
        """Advance one control step with actions (N, K), clamped to [-1, 1].

        A world that diverged counts as terminated: its rewards are 0 and it starts a new episode. What is not finite in
        a sound world counts as 0 and is reported in ``faults``.
        """
        faults: Dict[str, Tensor] = {}
        broken = ~sound(actions)
        if self.sim.may_select(broken):
            faults["action"] = broken.any(1)
            actions = actions.masked_fill(faults["action"].unsqueeze(1), 0.0)
        if self._ring is not None:
            self._ring.before_step(actions)
        self.task.apply(actions.clamp(-1.0, 1.0))
        self.sim.step()
        self.progress += 1
        rewards, metrics = self.task.rewards(), self.task.metrics()
        # Everything logged travels as one matrix: one masking, one sum per step instead of one per term.
        values = torch.stack((rewards.task, rewards.heuristic, *rewards.terms.values(), *metrics.values()), 1)
        terminated, bad = self.task.terminated(), self.sim.bad_envs.clone()
        if self.sim.may_select(bad):
            self.bad_count += bad.sum()
            if self._ring is not None:
                self._ring.note(bad)
            values = values.masked_fill(bad.unsqueeze(1), 0.0)
            terminated = terminated | bad
        split = 2 + len(rewards.terms)
        broken = ~sound(values)
        if self.sim.may_select(broken):
            faults["task_reward"] = broken[:, 0]
            faults["heuristic"] = broken[:, 1:split].any(1)
            faults["metric"] = broken[:, split:].any(1)
            values = values.masked_fill(broken, 0.0)
        time_out = (self.progress >= self.max_episode_length) & ~terminated
        done = terminated | time_out
        final_obs = obs = self.observe()
        final_potential = potential = self.potential()
        counted = self.counted & ~bad
        if self.sim.may_select(done):
            self._start_episodes(done)
            self.progress.masked_fill_(done, 0)
            self.counted = self.counted | done
            obs = self.observe()
            potential = self.potential()
            if self.sim.may_select(bad):
                final_obs = torch.where(bad.unsqueeze(1), obs, final_obs)
                if final_potential is not None and potential is not None:
                    final_potential = torch.where(bad, potential, final_potential)
        faults.update((name, seen & ~bad) for name, seen in self._unseen.items())
        self._unseen.clear()
        return StepResult(
            obs=obs,
            rewards=values[:, :2],
            terminated=terminated,
            time_out=time_out,
            done=done,
            final_obs=final_obs,
            terms=values[:, 2:split],
            metrics=values[:, split:],
            term_names=tuple(rewards.terms),
            metric_names=tuple(metrics),
            counted=counted,
            bad=bad,
            faults=stacked(faults, bad) if faults else self._no_faults,
            potential=potential,
            final_potential=final_potential,
        )

    def potential(self) -> Optional[Tensor]:
        """(N,) Phi of the current state, or None where no potential is asked for. Not finite counts as 0."""
        if self._potential is None:
            return None
        phi = self._potential(self.task.state())[0]
        broken = ~sound(phi)
        if self.sim.may_select(broken):
            self._note_unseen("potential", broken)
            phi = phi.masked_fill(broken, 0.0)
        return phi

    def keep_states(self, steps: int) -> None:
        """Keep the states of the last ``steps`` control steps for ``bad_states``; none where there is no physics."""
        if self.sim.spec.actors:
            actions = torch.zeros(self.num_envs, self.num_actions, device=self.device)
            self._ring = StateRing(self.sim, steps, actions)

    def bad_states(self, most: int) -> List[Dict[str, Any]]:
        """What led to worlds going bad since the last call, see StateRing.take."""
        return [] if self._ring is None else self._ring.take(most)

    def _note_unseen(self, fault: str, worlds: Tensor) -> None:
        before = self._unseen.get(fault)
        self._unseen[fault] = worlds if before is None else before | worlds

    def _start_episodes(self, mask: Tensor) -> None:
        if self.before_reset is not None:
            self.before_reset(mask)
        self.task.reset(mask)

    def observe(self) -> Tensor:
        """(N, O + S) observation of the current state, clipped, as step and reset return it; not finite counts as 0."""
        obs = self.task.observe()
        if self.num_states:
            obs = torch.cat((obs, self.task.critic_state()), 1)
        broken = ~sound(obs)
        if self.sim.may_select(broken):
            self._note_unseen("observation", broken.any(1))
            obs = obs.masked_fill(broken, 0.0)
        return obs.clamp(-OBS_CLIP, OBS_CLIP)

    def render_state(self, env: int) -> Dict[str, Tensor]:
        """What a film shows of one env, on the CPU: the engine's state and ``markers`` (M, 7) in the scene's order."""
        poses = self.task.marker_poses()
        rows = [poses[marker.name][env] for marker in self.sim.spec.markers]
        markers = torch.stack(rows) if rows else torch.zeros(0, 7)
        return {**self.sim.render_state(env), "markers": markers.to("cpu", torch.float64)}

    def get_state(self) -> Dict[str, Any]:
        """Everything needed to continue exactly: engine, task, episode clocks, random state.

        Raises:
            ValueError: the task's or the engine's state has a tensor without a row per env, see envs/rows.py.
        """
        rows = {
            "sim": self.sim.get_state(),
            "task": self.task.get_state(),
            "progress": self.progress.clone(),
            "counted": self.counted.clone(),
            "bad_count": self.bad_count.clone(),
        }
        check_rows(rows, self.num_envs)
        random = self.task.heuristic.random
        drawn = {} if random is None else {"heuristic_streams": random.get_state()}
        return {**rows, "streams": self.task.streams.get_state(), **drawn}

    def load_state(self, state: Dict[str, Any]) -> Tensor:
        """Restore what get_state returned; returns the current observations (N, O)."""
        self.sim.load_state(state["sim"])
        self.task.load_state(state["task"])
        self.progress.copy_(state["progress"])
        self.counted = state["counted"].to(self.device).clone()
        self.bad_count.copy_(state["bad_count"])
        self.task.streams.set_state(state["streams"])
        if self.task.heuristic.random is not None and "heuristic_streams" in state:
            self.task.heuristic.random.set_state(state["heuristic_streams"])
        return self.observe()

    @property
    def names(self) -> Dict[str, str]:
        """Of the task, the heuristic and the potential in use."""
        potential = "none" if self._potential is None else self._potential.name
        return {"task": self.task.name, "heuristic": self.task.heuristic_name, "potential": potential}

    def close(self) -> None:
        """Free the engine."""
        self.sim.close()
