"""What each setting of a method does to rows, networks and alpha: hand-made rollouts through the real learner."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hepo_isaac.agents.rewards import IterationFacts
from hepo_isaac.methods.contrast import whitened_per_critic
from tests.agents.test_learner import make_learner, make_rollout
from tests.agents.test_release import load
from tests.methods import release_reference as release

N, T, O, A = 8, 8, 3, 2
GAMMA, TAU = 0.99, 0.95


def make(algo, method=None, runs=1, **train):
    """A learner of cfg/algo/<algo>.yaml with some keys changed; N envs per run.

    HEPO's rows are judged by who acted and its gap by critics here; test_learner.py has V-trace.
    """
    preset = load(algo)
    if algo == "hepo":
        preset.update(foreign_advantage="owner", contrast="raw_gae")
    for key, value in (method or {}).items():
        preset[key] = {**preset.get(key, {}), **value} if isinstance(value, dict) else value
    return make_learner("ppo_j", seeds=range(runs), num_envs=N * runs, method={**preset, "name": algo}, **train)


def fresh(algo, method=None, seed=0, **train):
    """A learner whose value statistics are trivial, so that networks speak in reward units, and a rollout of it."""
    learner = make(algo, method, **train)
    learner.policies.value_norm.var.fill_(1.0)
    return learner, *make_rollout(learner, seed)


def plain_rollout(learner, buffer, last):
    """All critics of one run on all of its rows, for the restatement; a lone policy stands for both."""
    q = learner.num_policies

    def values(obs):
        return learner.policies.values(obs.reshape(1, -1, O).expand(q, -1, -1)).view(q, len(obs), N, 2).double().numpy()

    slot = buffer.timeout_slot.unsqueeze(-1).expand(*buffer.obs.shape)
    found = [values(x) for x in (buffer.obs, last.unsqueeze(0), buffer.timeout_obs.gather(0, slot))]
    on_rows, on_last, on_final = (np.concatenate((x, x)) if q == 1 else x for x in found)
    rewards, terminated, time_out = (
        x.reshape(T, N, -1).numpy() for x in (buffer.rewards.double(), buffer.terminated, buffer.time_out)
    )
    return release.Rollout(rewards, on_rows, on_last[:, 0], terminated[..., 0], time_out[..., 0], on_final)


def our_rows(x, policies):
    """(T, N, ...) -> (R, ...) owner by owner and step by step."""
    x = torch.as_tensor(np.ascontiguousarray(x), dtype=torch.float32)
    return x.view(T, policies, N // policies, *x.shape[2:]).transpose(0, 1).reshape(T * N, *x.shape[2:])


def raw_advantages(learner, buffer, last, bootstrap="final_obs"):
    """(2, R, 2) of both policies' critics on all rows."""
    plain = plain_rollout(learner, buffer, last)
    found = release.all_advantages(plain, GAMMA, TAU, bootstrap)
    return torch.stack([our_rows(a, learner.method.num_policies) for a in found])


def z(x):
    return (x - x.mean(0)) / x.std(0, correction=0)


def targets_of(learner, batch):
    norm = learner.policies.value_norm
    return batch.returns * norm.var.sqrt().float().unsqueeze(1) + norm.mean.float().unsqueeze(1)


def close(a, b, tolerance=2e-4):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def gae_of_channel(buffer, shaped, last, final, gamma, steps=T):
    """(T, N) plain GAE of shaped rewards (steps, N) with channel 1's values, in loops; a row without reward is 0."""
    values = buffer.values[..., 1].reshape(T, N)
    terminated, time_out = buffer.terminated.reshape(T, N), buffer.time_out.reshape(T, N)
    found = torch.zeros(T, N)
    for n in range(N):
        running = 0.0
        for t in reversed(range(steps)):
            following = values[t + 1, n] if t + 1 < T else last[n]
            ends = bool(terminated[t, n] | time_out[t, n])
            if terminated[t, n]:
                following = 0.0
            elif time_out[t, n]:
                following = final[t, n]
            running = shaped[t, n] + gamma * following - values[t, n] + (0.0 if ends else gamma * TAU * running)
            found[t, n] = running
    return found


class TestPotential:
    def test_immediate(self):
        """r + c lambda (gamma h' - h): h' is 0 after a termination, h itself at a time limit; the last step of a
        rollout has no look-ahead: it is out of the standardisation, its advantage is 0 and its target its own value."""
        learner, buffer, last = fresh("pbrs", {"heuristic_weight": 2.0, "shaping": {"potential_scale": 1.5}})
        r, h = buffer.rewards.reshape(T, N, 2).unbind(-1)
        terminated, time_out = buffer.terminated.reshape(T, N), buffer.time_out.reshape(T, N)
        assert terminated[:-1].any() and time_out[:-1].any()
        shaped = torch.zeros(T - 1, N)
        for t in range(T - 1):
            for n in range(N):
                following = 0.0 if terminated[t, n] else h[t, n] if time_out[t, n] else h[t + 1, n]
                shaped[t, n] = r[t, n] + 1.5 * 2.0 * (GAMMA * following - h[t, n])
        channels = learner.rewards.channels(buffer, IterationFacts())
        close(channels[:, 0, :, 1], shaped, 1e-5)
        close(channels[:, 0, :, 0], r[:-1], 1e-6)
        plain = plain_rollout(learner, buffer, last)
        final = torch.tensor(plain.final_values[0, ..., 1])
        expected = gae_of_channel(buffer, shaped, None, final, GAMMA, steps=T - 1)
        batch = learner.prepare(buffer, last)
        assert batch.advantage.shape == (1, T * N) and (batch.advantage[0, -N:] == 0.0).all()
        close(batch.advantage[0, :-N], z(expected[:-1].flatten()))
        values = buffer.values[..., 1].flatten()
        close(targets_of(learner, batch)[0, :, 1], expected.flatten() + values)
        close(targets_of(learner, batch)[0, -N:, 1], values[-N:])

    def test_a_state_potential_changes_no_advantage(self):
        """With V' = V - Phi all advantages are those of the bare task; here Phi is 0.7 V, so V' is 0.3 V."""
        bare, buffer, last = fresh("ppo_jh", {"heuristic_weight": 0.0})
        shaped, other, _ = fresh(
            "pbrs", {"shaping": {"potential": "state", "potential_scale": 0.35}, "heuristic_weight": 2}
        )
        with torch.no_grad():
            shaped.policies.net.flat.copy_(bare.policies.net.flat)
            shaped.policies.net.rescale_values(torch.full((1, 2), 0.3), torch.zeros(1, 2))
        other, _ = make_rollout(shaped, 0)
        assert torch.equal(other.actions, buffer.actions) and torch.equal(other.rewards, buffer.rewards)

        def phi(obs):
            return bare.policies.values_of_blocks(obs)[..., 1]

        following = torch.cat((buffer.obs[1:], last.unsqueeze(0)))
        slot = buffer.timeout_slot.unsqueeze(-1).expand(*buffer.obs.shape)
        following = torch.where(buffer.time_out.unsqueeze(-1), buffer.timeout_obs.gather(0, slot), following)
        other.potential.copy_(phi(buffer.obs))
        other.final_potential.copy_(torch.where(buffer.terminated, torch.tensor(1e9), phi(following)))
        without, with_phi = bare.prepare(buffer, last), shaped.prepare(other, last)
        close(with_phi.advantage, without.advantage)
        assert (shaped.rewards.channels(other, IterationFacts())[..., 1] - buffer.rewards[..., 0]).abs().max() > 0.1

    @pytest.mark.parametrize("scale", [1.0, 0.5])
    def test_a_learned_potential_turns_h_into_itself(self, scale):
        """On a chain of constant h, F = gamma Phi' - Phi approaches h (Harutyunyan et al. 2015), from -h, not h."""
        method = {"shaping": {"potential": "learned", "potential_scale": scale}}
        learner, buffer, _ = fresh("pbrs", method, gamma=0.9)
        buffer.rewards.copy_(torch.tensor([2.0, -0.5]))
        buffer.terminated.zero_()
        buffer.time_out.zero_()
        errors = []
        for _ in range(250):
            learner.rewards.fit_potential(buffer, IterationFacts())
            extra = learner.rewards.channels(buffer, IterationFacts())[..., 1] - 2.0
            errors.append((extra + 0.5 * scale).abs().mean().item() / scale)
        assert extra.shape[0] == T - 1 and errors[0] > 0.2 and errors[-1] < 0.05

    def test_a_learned_potential_knows_ends(self):
        """Where every step terminates, Phi is -h and F is h; where all hit the time limit, nothing is learned."""
        learner, buffer, _ = fresh("pbrs", {"shaping": {"potential": "learned"}})
        buffer.rewards.copy_(torch.tensor([0.0, -0.5]))
        buffer.terminated.fill_(True)
        buffer.time_out.zero_()
        for _ in range(60):
            learner.rewards.fit_potential(buffer, IterationFacts())
            extra = learner.rewards.channels(buffer, IterationFacts())[..., 1]
        close(extra, torch.full_like(extra, -0.5), 0.05)
        before = learner.potential.net.flat.detach().clone()
        buffer.terminated.zero_()
        buffer.time_out.fill_(True)
        learner.potential.optimizer.exp_avg.zero_()
        learner.rewards.fit_potential(buffer, IterationFacts())
        extra = learner.rewards.channels(buffer, IterationFacts())[..., 1]
        assert torch.equal(learner.potential.net.flat, before)
        close(extra / (GAMMA - 1.0), torch.full_like(extra, 0.5), 0.05)  # the last potential is kept


@pytest.mark.parametrize("iteration, lam", [(0, 0.95), (2, None), (4, 1.0)])
def test_hurl(iteration, lam):
    """r + (1 - lambda) gamma h, and lambda gamma in GAE and targets; lambda's tanh reaches 1 in the last iteration."""
    lam = lam or 0.95 + 0.05 * math.tanh(0.5 * math.atanh(0.99)) / 0.99
    learner, buffer, last = fresh("hurl", {"heuristic_weight": 3.0})
    r, h = buffer.rewards.reshape(T, N, 2).unbind(-1)
    shaped = r + (1.0 - lam) * GAMMA * 3.0 * h * ~buffer.terminated.reshape(T, N)
    plain = plain_rollout(learner, buffer, last)
    ends = torch.tensor(plain.last_values[0, :, 1]), torch.tensor(plain.final_values[0, ..., 1])
    expected = gae_of_channel(buffer, shaped, *ends, lam * GAMMA).flatten()
    batch = learner.prepare(buffer, last, IterationFacts(iteration, 5))
    close(batch.advantage[0], z(expected))
    close(targets_of(learner, batch)[0, :, 1], expected + buffer.values[..., 1].flatten())


@pytest.mark.parametrize("iteration, factor", [(0, 1.0), (1, 0.75), (2, 0.5), (4, 0.0), (7, 0.0)])
class TestAnnealing:
    """lambda 2, falling linearly over the first half of 8 iterations."""

    def test_decoupled(self, iteration, factor):
        learner, buffer, last = fresh("annealing", {"heuristic_weight": 2.0})
        task, heuristic = z(raw_advantages(learner, buffer, last)[0]).unbind(-1)
        batch = learner.prepare(buffer, last, IterationFacts(iteration, 8))
        close(batch.advantage[0], task + 2.0 * factor * heuristic)

    def test_sum(self, iteration, factor):
        learner, buffer, _ = fresh("annealing", {"heuristic_weight": 2.0, "shaping": {"kind": "sum"}})
        r, h = buffer.rewards.unbind(-1)
        close(learner.rewards.channels(buffer, IterationFacts(iteration, 8))[..., 1], r + 2.0 * factor * h, 1e-6)

    def test_of_two_policies(self, iteration, factor):
        """pi's weight of h falls, and the reference's does not."""
        shaping = {"annealing": "linear", "annealing_fraction": 0.5}
        learner, buffer, last = fresh("hepo", {"heuristic_weight": 2.0, "shaping": shaping})
        half, raw = N * T // 2, raw_advantages(learner, buffer, last)
        standard = torch.cat((z(raw[0, :half]), z(raw[1, half:])))
        batch = learner.prepare(buffer, last, IterationFacts(iteration, 8))
        close(batch.advantage, torch.stack((standard @ torch.tensor([1.0, 2.0 * factor]), standard[:, 1])))


class TestLagrangian:
    @staticmethod
    def learn(learner, j, episodes):
        """One iteration in which ``episodes`` ended with mean return ``j``, per run."""
        progress = IterationFacts(0, 1, torch.tensor(j).view(-1, 1), torch.tensor(episodes).view(-1, 1))
        learner.learn(*make_rollout(learner, num_envs=N * learner.num_runs), progress)
        return learner.multiplier.value.tolist()

    def test_nu_follows_the_returns_of_its_run(self):
        """Adam: a step of 0.035 up while J < threshold, down above; an iteration without episodes moves nothing."""
        learner = make("ppo_lagrangian", {"threshold": 0.4, "multiplier": {"init": 0.1}}, runs=3)
        first = self.learn(learner, [0.1, 0.9, 0.1], [3.0, 1.0, 0.0])
        assert first == pytest.approx([0.135, 0.065, 0.1], abs=1e-6)
        assert learner.multiplier.gradient.tolist() == pytest.approx([-0.3, 0.5, 0.0])
        assert self.learn(learner, [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]) == first
        later = self.learn(learner, [0.1, 0.1, 0.1], [1.0, 0.0, 2.0])
        assert later[0] > first[0] and later[1] == first[1] and later[2] == pytest.approx(0.135, abs=1e-6)
        for _ in range(5):
            last = self.learn(learner, [0.9, 0.9, 0.9], [1.0, 1.0, 1.0])
        assert min(last) == 0.0  # projected

    def test_pid(self):
        """nu = kp e + ki sum(e) + kd (e - e'), with e = threshold - J, at least 0."""
        gains = {"kp": 2.0, "ki": 0.5, "kd": 0.25}
        learner = make("ppo_lagrangian_pid", {"threshold": 0.4, "multiplier": gains})
        assert self.learn(learner, [0.1], [1.0]) == pytest.approx([2.0 * 0.3 + 0.5 * 0.3])
        expected = [2.0 * 0.2 + 0.5 * 0.5 + 0.25 * (0.2 - 0.3)]
        assert self.learn(learner, [0.2], [1.0]) == pytest.approx(expected)
        assert self.learn(learner, [0.2], [0.0]) == pytest.approx(expected)  # neither does the integral grow
        assert self.learn(learner, [0.9], [1.0]) == [0.0]

    def test_weights(self):
        """(z(A_h) + nu z(A_r)) / (1 + nu)."""
        learner, buffer, last = fresh("ppo_lagrangian", {"threshold": 0.4})
        learner.multiplier.value.fill_(3.0)
        task, heuristic = z(raw_advantages(learner, buffer, last)[0]).unbind(-1)
        progress = IterationFacts(0, 1, torch.zeros(1, 1), torch.ones(1, 1))
        close(learner.prepare(buffer, last, progress).advantage[0], 0.75 * task + 0.25 * heuristic)


@pytest.mark.parametrize(
    "method, weights",
    [
        ({}, [1.0, 0.5]),
        ({"mixing": "convex"}, [0.75, 0.5]),
    ],
)
def test_how_the_constrained_policy_mixes(method, weights):
    """alpha = 3, lambda = 2: 1 and 2/4; convex 3/4 and 2/4; then of unit norm. The reference follows h alone."""
    learner, buffer, last = fresh("hepo", {"heuristic_weight": 2.0, **method})
    learner.multiplier.value.fill_(3.0)
    raw = raw_advantages(learner, buffer, last)
    batch = learner.prepare(buffer, last)
    half = N * T // 2
    standard = torch.cat((z(raw[0, :half]), z(raw[1, half:])))
    close(batch.advantage[0], standard @ torch.tensor(weights))
    close(batch.advantage[1], standard[:, 1])


def test_nothing_to_mix_is_nothing():
    """Convex at alpha 0 once lambda is annealed to 0: no advantage at all, not 0 / 0."""
    learner, buffer, last = fresh("hepo", {"heuristic_weight": 0.0, "mixing": "convex"})
    assert (learner.prepare(buffer, last).advantage[0] == 0.0).all()


class TestWhitening:
    @staticmethod
    def both(mode, bootstrap="final_obs"):
        learner, buffer, last = fresh("hepo", {"whitening": mode, "timeout_bootstrap": bootstrap})
        raw = raw_advantages(learner, buffer, last, bootstrap)
        half = N * T // 2
        batch = learner.prepare(buffer, last)  # alpha = 0: pi's advantage is the sum, pi_H's the second channel
        return raw, batch.advantage, half, torch.cat((raw[0, :half], raw[1, half:]))

    @pytest.mark.parametrize("bootstrap", ["final_obs", "rl_games", "none"])
    def test_owner(self, bootstrap):
        _, found, half, own = self.both("owner", bootstrap)
        expected = torch.cat((z(own[:half]), z(own[half:])))
        close(found, torch.stack((expected.sum(-1), expected[:, 1])))

    @pytest.mark.parametrize("value_bootstrap, bootstrap", [(True, "rl_games"), (False, "none")])
    def test_a_release_cuts_time_limits_where_the_published_task_does(self, value_bootstrap, bootstrap):
        learner, buffer, last = fresh("hepo_release", {"whitening": "none"}, value_bootstrap=value_bootstrap)
        assert bool(buffer.time_out.any())
        raw, half = raw_advantages(learner, buffer, last, bootstrap), N * T // 2
        found = learner.prepare(buffer, last).advantage
        own = torch.cat((raw[0, :half], raw[1, half:]))
        close(found, torch.stack((own.sum(-1), own[:, 1])))

    def test_joint(self):
        _, found, _, own = self.both("joint")
        close(found, torch.stack((z(own).sum(-1), z(own)[:, 1])))

    def test_none(self):
        _, found, _, own = self.both("none")
        close(found, torch.stack((own.sum(-1), own[:, 1])))

    def test_critic(self):
        """Over everything each critic sees, with the sample's spread."""
        raw, found, half, _ = self.both("critic")
        scaled = (raw - raw.mean(1, keepdim=True)) / raw.std(1, keepdim=True)
        expected = torch.cat((scaled[0, :half], scaled[1, half:]))
        close(found, torch.stack((expected.sum(-1), expected[:, 1])))


class TestSharing:
    @staticmethod
    def updated(method, change, acting=None):
        learner, buffer, last = fresh("hepo", method, minibatch_size=N * T)
        if acting is not None:
            learner.collection.schedule.acting.fill_(acting)
        batch = learner.prepare(buffer, last)
        foreign = batch.on_policy == 0.0
        if change == "advantage":
            batch.advantage = torch.where(foreign, torch.randn(foreign.shape), batch.advantage)
        elif change == "targets":
            batch.returns = torch.where(foreign.unsqueeze(-1), batch.returns + 3.0, batch.returns)
        learner.update(batch)
        return learner.policies.net.flat.detach()

    @pytest.mark.parametrize(
        "share, depends", [("none", [0, 0]), ("pi", [1, 0]), ("reference", [0, 1]), ("both", [1, 1])]
    )
    @pytest.mark.parametrize("collection", ["halves", 0, 1])
    def test_whose_actor_learns_from_the_others_rows(self, share, depends, collection):
        """Bit-wise: by turns only the policy that did not act has foreign rows, and both share."""
        method = {"share_data": share}
        if collection != "halves" and share != "both":
            with pytest.raises(ValueError, match="alternating needs share_data=both"):
                self.updated({**method, "collection": "alternating"}, "", collection)
            return
        if collection != "halves":
            method["collection"], acting = "alternating", collection
            depends = [int(d and k != collection) for k, d in enumerate(depends)]
        else:
            acting = None
        a, b = (self.updated(method, change, acting) for change in ("", "advantage"))
        assert [int(not torch.equal(x, y)) for x, y in zip(a, b)] == depends

    def test_the_dual_clip_is_for_the_others_rows(self):
        """A = -1 and actions e^3 times likelier than when they were taken: own rows lose that much, foreign ones 3."""
        learner, buffer, last = fresh("hepo", {"off_policy_fraction": 1.0}, minibatch_size=N * T, mini_epochs=1)
        batch = learner.prepare(buffer, last)
        batch.advantage, batch.log_prob = -torch.ones_like(batch.advantage), batch.log_prob - 3.0
        ratio, own = learner.policies.ratio(batch.obs, batch.actions, batch.log_prob), batch.on_policy == 1.0
        assert ratio[~own].max() > 3.0
        foreign = torch.stack([r[~o].clamp(0.8, 3.0).mean() for r, o in zip(ratio, own)])
        close(learner.update(batch)["loss_actor"], 0.5 * math.exp(3.0) + 0.5 * foreign, 1e-3)

    @pytest.mark.parametrize("order", ["stratified", "contiguous", "interleaved"])
    @pytest.mark.parametrize("critics", ["own", "both"])
    def test_whose_critic_learns_from_the_others_rows(self, order, critics):
        method = {"critic_data": critics, "minibatch_order": order}
        a, b = (self.updated(method, change) for change in ("", "targets"))
        assert [torch.equal(x, y) for x, y in zip(a, b)] == [critics == "own"] * 2

    def test_critics_on_both_have_targets_of_their_own(self):
        """On the partner's rows too a critic fits the return there against its own values, in statistics of both."""
        for critics in ("both", "own"):
            learner, buffer, last = fresh("hepo", {"critic_data": critics})
            raw, values = raw_advantages(learner, buffer, last), plain_rollout(learner, buffer, last).values
            returns = raw + torch.stack([our_rows(v, 2) for v in values])
            batch = learner.prepare(buffer, last)
            foreign = batch.on_policy == 0.0
            if critics == "both":
                close(targets_of(learner, batch), returns)
                assert learner.policies.value_norm.count.tolist() == [[N * T]] * 2
            else:
                assert (batch.returns[foreign] == 0.0).all() and learner.policies.value_norm.count[0] == N * T // 2
                close(targets_of(learner, batch)[~foreign], returns[~foreign])


class TestContrasts:
    @staticmethod
    def constant(method, task_values=(3.0, 1.0), rewards=(0.5, -0.25)):
        """Critics whose task values are constant per policy, rewards constant per half, and a rollout with ends."""
        learner, buffer, _ = fresh("hepo", method)
        shift = torch.tensor([[v, 0.0] for v in task_values])
        learner.policies.net.rescale_values(torch.zeros(2, 2), shift)
        buffer, last = make_rollout(learner, 0)
        buffer.rewards[..., 0] = torch.tensor(rewards).view(1, 2, 1)
        return learner, buffer, last

    @staticmethod
    def record(learner, buffer, last, progress=None):
        """What the iteration recorded, or None."""
        learner.prepare(buffer, last, progress)
        return learner.multiplier.records[0, 0].item() if learner.multiplier.count.item() else None

    def test_start_value_of_constants(self):
        assert self.record(*self.constant({"contrast": "start_value"})) == pytest.approx(2.0, abs=1e-5)

    def test_start_value_without_starts(self):
        """The first step of a rollout is no known start; an end in its last step starts nothing within it."""
        learner, buffer, last = self.constant({"contrast": "start_value"})
        buffer.terminated[:-1].zero_()
        buffer.time_out[:-1].zero_()
        buffer.terminated[-1].fill_(True)
        buffer.time_out[-1].zero_()
        assert self.record(learner, buffer, last) is None
        value = learner.multiplier.value.clone()
        learner.learn(buffer, last, IterationFacts())
        assert torch.equal(learner.multiplier.value, value)

    def test_start_value_is_a_mean_over_start_states_of_both(self):
        learner, buffer, last = fresh("hepo", {"contrast": "start_value"})
        values = plain_rollout(learner, buffer, last).values[..., 0]
        done = (buffer.terminated | buffer.time_out).reshape(T, N)
        gaps = [values[0, t + 1, n] - values[1, t + 1, n] for t in range(T - 1) for n in range(N) if done[t, n]]
        assert len(gaps) > 2
        assert self.record(learner, buffer, last) == pytest.approx(sum(gaps) / len(gaps), abs=1e-5)

    def test_doubly_robust(self):
        """V(s0) gap 2, and mean TD errors over 1 - gamma: x + gamma v - v on a step that goes on or is cut by the time
        limit, x - v where it terminates."""
        learner, buffer, last = self.constant({"contrast": "doubly_robust"})
        means = []
        for k, (v, x) in enumerate(((3.0, 0.5), (1.0, -0.25))):
            share = buffer.terminated[:, k].float().mean().item()
            means.append(x - v + (1.0 - share) * GAMMA * v)
        expected = 2.0 + (means[0] - means[1]) / (1.0 - GAMMA)
        assert self.record(learner, buffer, last) == pytest.approx(expected, rel=1e-4)

    @pytest.mark.parametrize("counts, recorded", [((3.0, 1.0), True), ((3.0, 0.0), False), ((0.0, 2.0), False)])
    def test_episode_return(self, counts, recorded):
        progress = IterationFacts(0, 1, torch.tensor([[0.2, 0.7]]), torch.tensor([counts]))
        found = self.record(*self.constant({"contrast": "episode_return"}), progress)
        assert found == (pytest.approx(-0.5) if recorded else None)

    @pytest.mark.parametrize("after", [False, True])
    def test_standardized(self, after):
        """Half the difference of cross means, each critic standardised over all rows; after the update with the
        critics that it left behind."""
        learner, buffer, last = fresh(
            "hepo", {"contrast": "standardized", "contrast_after_update": after}, learning_rate=1e-2
        )
        half, update, raws = N * T // 2, learner.update, []
        raws.append(raw_advantages(learner, buffer, last)[..., 0])
        learner.update = lambda batch: (
            update(batch),
            raws.append(raw_advantages(learner, buffer, last)[..., 0]),
        )
        learner.learn(buffer, last, IterationFacts())
        gaps = []
        for raw in raws:
            scaled = whitened_per_critic(raw, raw[:, :0], unbiased=False)
            gaps.append(0.5 * (scaled[1, :half].mean() - scaled[0, half:].mean()).item())
        assert gaps[0] != pytest.approx(gaps[1], abs=1e-3)
        assert learner.multiplier.count.item() == 1
        assert learner.multiplier.records[0, 0].item() == pytest.approx(gaps[after], abs=1e-4)
