"""Policies that take turns: HEPO with alternating collection, and EIPO's stages."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.distributions import Normal

from hepo_isaac.agents.register import run_training
from hepo_isaac.agents.rewards import IterationFacts
from hepo_isaac.agents.turn_schedule import TurnSchedule
from hepo_isaac.methods.eipo import constraint_gap, max_stage_utility, min_stage_utility
from hepo_isaac.methods.method import method_from_config
from tests.agents.test_agent import Recorder
from tests.agents.test_learner import make_learner, make_rollout
from tests.agents.test_release import load
from tests.methods import release_reference as release
from tests.toy import TRAIN, PointMass

N, T, A = 8, 8, 2
GAMMA, TAU = 0.99, 0.95
VALUE_BIAS = slice(-A - 2, -A)


def make(algo, seeds=(0,), method=None, **train):
    preset = load(algo)
    preset.update(method or {})
    return make_learner(seeds=seeds, num_envs=N * len(seeds), method=preset, **train)


def rollout(learner, seed=0, rewards=None):
    return make_rollout(learner, seed, rewards, num_envs=N * learner.num_runs)


def turns(learner):
    return learner.collection.schedule


def advantages(learner, buffer, last):
    """(S, 2, R, 2) GAE of both critics on every row of a run, rows step by step, through the plain restatement."""
    runs, found = learner.num_runs, []

    def values(obs):  # (T', S, N, O) -> (S, 2, T', N, 2)
        flat = obs.transpose(0, 1).flatten(1, 2).repeat_interleave(2, 0)
        return learner.policies.values(flat).view(runs, 2, -1, N, 2).double().numpy()

    slot = buffer.timeout_slot.unsqueeze(-1).expand(*buffer.obs.shape)
    on_rows, on_last, on_final = (
        values(x) for x in (buffer.obs, last.unsqueeze(0), buffer.timeout_obs.gather(0, slot))
    )
    for s in range(runs):
        plain = release.Rollout(
            buffer.rewards[:, s].double().numpy(),
            on_rows[s],
            on_last[s, :, 0],
            buffer.terminated[:, s].numpy(),
            buffer.time_out[:, s].numpy(),
            on_final[s],
        )
        found.append(release.all_advantages(plain, GAMMA, TAU, "final_obs").reshape(2, T * N, 2))
    return torch.tensor(np.stack(found), dtype=torch.float32)


def z(x):
    return (x - x.mean(-1, keepdim=True)) / x.std(-1, correction=0, keepdim=True)


def agent_of(algo, seeds=(0, 1), env=None, **method):
    preset = load(algo)
    preset.update(method)
    cfg = {
        "num_envs": 16,
        "device": "cpu",
        "torch_threads": 1,
        "run_seeds": list(seeds),
        "algo": preset,
        "train": {**TRAIN, "max_iterations": 2},
    }
    return run_training(cfg, env or PointMass(16 * len(seeds)), Recorder())


class TestCollection:
    def test_who_acts(self):
        """pi first, then by turns; both policies of a run see every row."""
        learner, acted = make("hepo_alternating", seeds=(0, 1)), []
        for seed in range(4):
            acted.append(turns(learner).acting.tolist())
            learner.learn(*rollout(learner, seed), IterationFacts())
        assert acted == [[0, 0], [1, 1], [0, 0], [1, 1]]

    def test_the_acting_policy_acts_in_all_envs_of_its_run(self):
        """log_prob, mean and actions in the buffer are its own; one run's turn is not another's."""
        agent = agent_of("hepo_alternating")
        learner, buffer = agent.learner, agent.buffer
        turns(learner).acting.copy_(torch.tensor([1, 0]))
        agent.collect()
        obs = learner.policies.normalize_obs(buffer.rows(buffer.obs))
        mean, values, log_std = learner.policies.net(obs.repeat_interleave(2, 0))
        for run, p in enumerate((1, 2)):
            density = Normal(mean[p], log_std[p].exp()).log_prob(buffer.rows(buffer.actions)[run]).sum(-1)
            torch.testing.assert_close(buffer.rows(buffer.log_prob)[run], density, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(buffer.rows(buffer.mean)[run], mean[p], rtol=1e-4, atol=1e-5)
            assert (mean[p] - mean[p ^ 1]).abs().max() > 1e-2
        assert buffer.obs.shape[:3] == (8, 2, 16)

    def test_each_run_draws_noise_of_its_own(self):
        agent = agent_of("hepo_alternating")
        expected = []
        for generator in agent.generators:
            twin = torch.Generator()
            twin.set_state(generator.get_state())
            draws = [torch.zeros(16 * A).normal_(generator=twin) for _ in range(agent.buffer.horizon)]
            expected.append(draws[-1])
        agent.collect()
        assert torch.equal(agent.noise.view(2, -1), torch.stack(expected))

    def test_ratios(self):
        """1 for who acted; the other's is its probability over the one of who acted."""
        learner = make("hepo_alternating", seeds=(0, 1))
        turns(learner).acting.copy_(torch.tensor([1, 0]))
        batch = learner.prepare(*rollout(learner))
        assert batch.on_policy.tolist() == [[float(p in (1, 2))] * N * T for p in range(4)]
        ratio = learner.policies.ratio(batch.obs, batch.actions, batch.log_prob)
        for p in (1, 2):
            torch.testing.assert_close(ratio[p], torch.ones(N * T), rtol=1e-4, atol=1e-5)
            assert (ratio[p ^ 1] - 1.0).abs().max() > 0.05

    def test_episodes_are_the_acting_policys(self):
        agent = agent_of("hepo_alternating")
        for acting in ([0, 1], [1, 0]):
            turns(agent.learner).acting.copy_(torch.tensor(acting))
            agent.meter.take()
            ended = 0
            for _ in range(3):  # an episode has 20 steps at most, three rollouts 24
                agent.collect()
                done = agent.buffer.terminated | agent.buffer.time_out
                ended = ended + done.sum((0, 2))
            counts = agent.meter.take()[:, -1].view(2, 2)
            for run, k in enumerate(acting):
                assert counts[run, k] == ended[run] > 0 and counts[run, 1 - k] == 0

    @pytest.mark.parametrize("acting", [0, 1])
    def test_only_the_acting_policys_critic_learns(self, acting):
        learner = make("hepo_alternating")
        turns(learner).acting.fill_(acting)
        before, norm = learner.policies.net.flat.detach().clone(), learner.policies.value_norm.mean.clone()
        learner.learn(*rollout(learner), IterationFacts())
        moved = (learner.policies.net.flat - before).abs()
        assert (moved.max(1).values > 1e-4).all()  # both actors learn from these rows
        assert moved[1 - acting, VALUE_BIAS].max() == 0.0 and moved[acting, VALUE_BIAS].max() > 0.0
        assert torch.equal(learner.policies.value_norm.mean[1 - acting], norm[1 - acting])
        assert (learner.policies.value_norm.mean[acting] != norm[acting]).all()
        assert learner.policies.value_norm.count.flatten().tolist() == [N * T * (k == acting) for k in range(2)]

    def test_targets_and_advantages(self):
        """Both maximise what the acting policy's critics say, standardised, each with its own weights; the acting
        policy's critics fit their own returns."""
        learner = make("hepo_alternating", seeds=(0, 1), method={"heuristic_weight": 2.0})
        for seed in range(2):  # by now both have value statistics
            learner.learn(*rollout(learner, seed), IterationFacts())
        turns(learner).acting.copy_(torch.tensor([1, 0]))
        learner.multiplier.value.copy_(torch.tensor([1.0, 3.0]))
        buffer, last = rollout(learner, 2)
        raw = advantages(learner, buffer, last)
        values = learner.policies.values(buffer.rows(buffer.obs).repeat_interleave(2, 0))
        batch = learner.prepare(buffer, last)
        for run, (k, alpha) in enumerate(((1, 1.0), (0, 3.0))):
            task, heuristic = (z(raw[run, k, :, c]) for c in range(2))
            expected = torch.stack((task + 2.0 / (1.0 + alpha) * heuristic, heuristic))
            torch.testing.assert_close(batch.advantage[2 * run : 2 * run + 2], expected, rtol=1e-3, atol=1e-3)
            p = 2 * run + k
            norm = learner.policies.value_norm
            targets = norm.mean[p] + norm.var[p].sqrt() * batch.returns[p]
            torch.testing.assert_close(targets.float(), raw[run, k] + values[p], rtol=1e-3, atol=1e-3)

    def test_alpha_needs_a_record_of_both(self):
        """Nothing while only pi has acted; then the last cross mean of each over the spread of this rollout."""
        learner = make("hepo_alternating")
        last_mean, multiplier = {}, learner.multiplier
        for i in range(4):
            luck = torch.tensor([0.3 * (-1) ** i, 0.0])
            buffer, last = rollout(learner, i, luck.add)
            raw = advantages(learner, buffer, last)[0, :, :, 0]
            acting = i % 2
            last_mean[acting] = raw[1 - acting].mean()
            learner.learn(buffer, last, IterationFacts())
            assert multiplier.count.item() == i
            if i == 0:
                assert multiplier.value.item() == 0.0 == multiplier.gradient.item()
                continue
            gap = 0.5 * (last_mean[0] - last_mean[1]) / raw.std(correction=0)
            assert multiplier.records[0, i - 1].item() == pytest.approx(gap.item(), rel=1e-3, abs=1e-5)

    def test_alpha_from_episodes_needs_episodes_of_both(self):
        """A policy that acted without finishing an episode has no J: alpha waits, and later stands still."""
        learner = make("hepo_alternating", method={"contrast": "episode_return", "multiplier": {"median_window": 1}})
        seen = []
        #           pi acts      pi_H        pi          pi_H        pi          pi_H
        for ended in ((0, 0), (0, 4), (2, 0), (0, 0), (0, 0), (0, 1)):
            progress = IterationFacts(0, 1, torch.tensor([[0.5, 0.9 if len(seen) < 4 else 0.1]]), torch.tensor([ended]))
            learner.learn(*rollout(learner), progress)
            seen.append((learner.multiplier.count.item(), learner.multiplier.value.item()))
        assert [count for count, _ in seen] == [0, 0, 1, 1, 1, 2]
        alpha = [value for _, value in seen]
        assert alpha[:2] == [0.0, 0.0] and alpha[2] > 0.0 and alpha[2] == alpha[3] == alpha[4]
        assert learner.multiplier.gradient.item() == pytest.approx(0.4)  # 0.5 - 0.1, pi's J of three turns ago


class TestEipo:
    @staticmethod
    def run(learner, seeds, rewards=None):
        """Who acted in each iteration, (iterations, S)."""
        acted = []
        for seed in seeds:
            acted.append(turns(learner).acting.tolist())
            learner.learn(*rollout(learner, seed, rewards), IterationFacts())
        return acted

    def test_the_max_stage_comes_first(self):
        learner = make("eipo", method={"switching": "alternate"})
        assert learner.method.policy_names == ("pi", "pi_j")
        assert self.run(learner, range(4)) == [[1], [0], [1], [0]]

    @pytest.mark.parametrize("weight", [1.0, 2.5])
    def test_utilities(self, weight):
        """Run 0 in a max stage, run 1 in a min stage, each with its alpha; h enters with lambda everywhere."""
        learner = make("eipo", seeds=(0, 1), method={"heuristic_weight": weight, "switching": "alternate"})
        self.run(learner, range(2))
        turns(learner).acting.copy_(torch.tensor([1, 0]))
        learner.multiplier.value.copy_(torch.tensor([0.7, 1.8]))
        buffer, last = rollout(learner, 5)
        raw = advantages(learner, buffer, last)
        r, h = buffer.rows(buffer.rewards).unbind(-1)
        batch = learner.prepare(buffer, last)
        task_j = raw[0, 1, :, 0]
        upper = max_stage_utility(r[0], weight * h[0], task_j, 0.7)
        task, heuristic = raw[1, 0, :, 0], weight * raw[1, 0, :, 1]
        lower = min_stage_utility(r[1], weight * h[1], task, heuristic, 1.8)
        expected = torch.stack([z(x) for x in (upper, task_j, task + heuristic, lower)])
        torch.testing.assert_close(batch.advantage, expected, rtol=1e-3, atol=1e-3)
        found = turns(learner).utility
        torch.testing.assert_close(found, torch.stack((upper.mean(), lower.mean())), rtol=1e-3, atol=1e-4)

    @pytest.mark.parametrize("clip", [0.002, 10.0])
    def test_alpha_moves_after_max_stages_alone(self, clip):
        """By 0.005 times the clipped gap, measured on pi_J's rows with the updated pi."""
        multiplier = {**load("eipo")["multiplier"], "gradient_clip": clip}
        method = {"switching": "alternate", "multiplier": multiplier}
        learner = make("eipo", method=method, learning_rate=1e-2, lr_schedule="fixed")
        assert learner.multiplier.value.item() == 0.5
        clipped = []
        for i in range(8):
            buffer, last = rollout(learner, i)
            raw, alpha = advantages(learner, buffer, last)[0, 1, :, 0], learner.multiplier.value.item()
            update, seen = learner.update, []
            learner.update = lambda batch, update=update, seen=seen: (
                update(batch),
                seen.append(learner.policies.ratio(batch.obs, batch.actions, batch.log_prob)[0]),
            )
            learner.learn(buffer, last, IterationFacts())
            learner.update = update
            centred = (raw - raw.mean()) / raw.std(correction=0)  # a critic's error is no gap
            gap = constraint_gap(seen[0], centred, 0.2).item() if i % 2 == 0 else 0.0
            clipped.append(abs(gap) > clip)
            expected = alpha - 0.005 * min(clip, max(-clip, gap))
            assert learner.multiplier.value.item() == pytest.approx(expected, abs=1e-7)
            assert (learner.multiplier.value.item() != alpha) == (i % 2 == 0)
        assert any(clipped) == (clip < 1.0)

    @pytest.mark.parametrize("shift, falls", [(0.3, True), (-0.3, False)])
    def test_alpha_falls_while_pi_is_better(self, shift, falls):
        """r pays the first action; pi pushes it up or down a little more than pi_J does."""
        learner = make("eipo", learning_rate=1e-6, lr_schedule="fixed")
        learner.policies.net.flat.data[0] = learner.policies.net.flat.data[1]
        learner.policies.net.flat.data[0, -2 * A - 2] += shift  # bias of the first action's mean
        buffer, last = rollout(learner)
        buffer.rewards[..., 0] = buffer.actions[..., 0]
        learner.learn(buffer, last, IterationFacts())
        assert (learner.multiplier.value.item() < 0.5) == falls and learner.multiplier.value.item() != 0.5

    def test_runs_in_different_stages_do_not_leak(self):
        """Whatever happens in one run, the other's networks, statistics, alpha and stage are bit-identical."""
        states = []
        for factor in (1.0, 1e3):
            learner = make("eipo", seeds=(3, 4))
            turns(learner).acting.copy_(torch.tensor([1, 0]))

            def poison(rewards, factor=factor):
                rewards[:, 0] *= factor
                return rewards

            acted = self.run(learner, range(5), poison)
            one = {name: x[1] for name, x in turns(learner).state_dict().items()}
            one.update({name: x[1] for name, x in learner.multiplier.state_dict().items()})
            states.append(
                (one, learner.policies.net.flat[2:].detach().clone(), learner.policies.value_norm.mean[2:], acted)
            )
        (a, flat_a, norm_a, acted_a), (b, flat_b, norm_b, acted_b) = states
        assert all(torch.equal(a[name], b[name]) for name in a) and a["utility"] != 0.0
        assert torch.equal(flat_a, flat_b) and torch.equal(norm_a, norm_b)
        assert [row[1] for row in acted_a] == [row[1] for row in acted_b]
        assert any(row[0] != row[1] for row in acted_a)


class TestStages:
    """Turns alone, with utilities by hand, two runs at a time."""

    @staticmethod
    def play(rule, utilities, most=16, constraint="eipo"):
        preset = load("eipo" if constraint == "eipo" else "hepo_alternating")
        state = TurnSchedule(
            method_from_config({**preset, "switching": rule, "max_stage_iterations": most}), 2, torch.device("cpu")
        )
        acted = []
        for row in utilities:
            acted.append(state.acting.tolist())
            state.utility.copy_(torch.tensor(row))
            state.finish()
        return [[row[run] for row in acted] for run in range(2)]

    def test_difference(self):
        """Stay while the utility rises above the *same* stage's last; a stage's first visit never ends it."""
        first = [1.0, 2.0, 1.5, 9.0, 8.0, 3.0, 4.0, 3.5, 7.0]
        #  max: 1 2 1.5| min: 9 8| max: 3 4 3.5| min: 7 (below 8)
        second = [-5.0, -4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 1.0, 0.0]
        found = self.play("difference", zip(first, second))
        assert found[0] == [1, 1, 1, 0, 0, 1, 1, 1, 0]
        assert found[1] == [1] * 8 + [0]

    def test_win_lose(self):
        found = self.play("win_lose", [(1.0, -1.0), (0.0, -1.0), (-0.1, 0.5), (2.0, -0.5), (-3.0, 0.0)])
        assert found == [[1, 1, 1, 0, 0], [1, 0, 1, 1, 0]]

    @pytest.mark.parametrize("most", [1, 3])
    def test_a_stage_ends_after_max_stage_iterations(self, most):
        """Also one whose utility rises for ever; the count starts anew, per run."""
        found = self.play("win_lose", [(1.0, -1.0 if i == 0 else 1.0) for i in range(7)], most)
        assert found[0] == [1 - i // most % 2 for i in range(7)]
        assert found[1] == [1] + [(i - 1) // most % 2 for i in range(1, 7)]

    def test_alternate(self):
        assert self.play("alternate", [(0.0, 1.0)] * 4) == [[1, 0, 1, 0]] * 2
        assert self.play("alternate", [(0.0, 1.0)] * 4, constraint="reference") == [[0, 1, 0, 1]] * 2

    def test_the_configured_maximum_is_16(self):
        found = self.play("win_lose", [(1.0, 1.0)] * 20)
        assert found[0] == [1] * 16 + [0] * 4

    def test_a_checkpoint_holds_all_of_it(self):
        method = method_from_config(load("eipo"))
        state, other = (TurnSchedule(method, 2, torch.device("cpu")) for _ in range(2))
        tensors = [name for name, value in vars(state).items() if isinstance(value, torch.Tensor)]
        for i, name in enumerate(tensors):
            getattr(state, name).copy_(torch.full_like(getattr(state, name), i + 2))
        other.load_state_dict(state.state_dict())
        assert all(torch.equal(getattr(state, name), getattr(other, name)) for name in tensors) and len(tensors) == 7
