"""The stacked update against a plain restatement with separate torch modules, and what HEPO's data sharing does."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.distributions import Normal

from hepo_isaac.agents.config import train_config
from hepo_isaac.agents.learner import Learner
from hepo_isaac.agents.minibatch import PackedBatch
from hepo_isaac.agents.rewards import IterationFacts
from hepo_isaac.agents.rollout import RolloutBuffer
from hepo_isaac.methods.method import method_from_config
from tests.toy import METHODS, TRAIN

CPU = torch.device("cpu")
N, T, O, A = 8, 8, 3, 2


def make_learner(algo="hepo_owner", seeds=(0,), num_envs=N, method=None, **train):
    settings = {**TRAIN, **train}
    return Learner(
        method_from_config({**METHODS[algo], **(method or {})}),
        train_config(settings),
        num_envs,
        O,
        A,
        [torch.Generator().manual_seed(s) for s in seeds],
        CPU,
    )


def make_rollout(learner, seed=0, rewards=None, num_envs=N):
    """Random experience whose log-probabilities, means and values really are the learner's."""
    g = torch.Generator().manual_seed(seed)
    p = learner.num_policies
    p = p // learner.method.num_policies * learner.method.num_blocks
    buffer = RolloutBuffer(T, p, num_envs, O, A, 2, 1, CPU)
    buffer.start()
    for t in range(T):
        obs = torch.randn(p, num_envs // p, O, generator=g)
        buffer.obs[t] = obs
        noise = torch.randn(p, num_envs // p, A, generator=g)
        buffer.actions[t], buffer.log_prob[t], buffer.mean[t], buffer.values[t] = learner.act(obs, noise)
        buffer.rewards[t] = torch.randn(p, num_envs // p, 2, generator=g)
        ends = torch.rand(p, num_envs // p, generator=g)
        buffer.terminated[t], buffer.time_out[t] = ends < 0.05, ends > 0.95
        buffer.keep_final_obs(t, torch.randn(p, num_envs // p, O, generator=g))
    if rewards is not None:
        buffer.rewards.copy_(rewards(buffer.rewards))
    return buffer, torch.randn(p, num_envs // p, O, generator=g)


def channel_advantages(learner, buffer, last):
    """(P, M, 2) whitened advantages of r and h on the rows each policy produced."""
    halves, facts = learner.collection, IterationFacts()
    channels = learner.rewards.channels(buffer, facts)
    own, cross = halves.own_estimates(buffer, last, channels, facts), None
    if learner.method.num_policies == 2:
        cross = halves.cross_advantages(buffer, last, halves.partner_estimates(buffer), channels, facts)
    return halves.standardized(own, cross)


class PlainPolicy(nn.Module):
    """One policy as ordinary modules."""

    def __init__(self, net, policy):
        super().__init__()
        state = net.policy_state(policy)
        self.l1, self.l2, self.mu, self.v = nn.Linear(O, 32), nn.Linear(32, 16), nn.Linear(16, A), nn.Linear(16, 2)
        for layer, name in ((self.l1, "actor_mlp.0"), (self.l2, "actor_mlp.2"), (self.mu, "mu"), (self.v, "value")):
            layer.weight.data = state["a2c_network.%s.weight" % name].clone()
            layer.bias.data = state["a2c_network.%s.bias" % name].clone()
        self.log_std = nn.Parameter(state["a2c_network.sigma"].clone())

    def forward(self, obs):
        x = nn.functional.elu(self.l2(nn.functional.elu(self.l1(obs))))
        return Normal(self.mu(x), self.log_std.exp()), self.v(x)


def plain_update(learner, batch, channels, rates):
    """HEPO's single full-batch step, one policy at a time, as anyone would write it."""
    alpha = learner.multiplier.value.item()
    policies = [PlainPolicy(learner.policies.net, p) for p in range(2)]
    rows = batch.obs.shape[1] // 2
    for k, (policy, weights) in enumerate(zip(policies, ((1.0, 1.0 / (1.0 + alpha)), (0.0, 1.0)))):
        loss = 0.0
        mine = slice(k * rows, (k + 1) * rows)
        for owner in (k, 1 - k):
            produced = slice(owner * rows, (owner + 1) * rows)
            advantage = (channels[owner] * torch.tensor(weights)).sum(-1)
            dist, value = policy(batch.obs[0, produced])
            ratio = (dist.log_prob(batch.actions[0, produced]).sum(-1) - batch.log_prob[0, produced]).exp()
            surrogate = torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
            if owner != k:
                surrogate = torch.where(advantage < 0, torch.max(surrogate, 3.0 * advantage), surrogate)
            loss = loss - 0.5 * surrogate.mean()
            if owner == k:
                clipped = batch.old_values[k, mine] + (value - batch.old_values[k, mine]).clamp(-0.2, 0.2)
                errors = torch.max((value - batch.returns[k, mine]) ** 2, (clipped - batch.returns[k, mine]) ** 2)
                loss = loss + 2.0 * errors.mean(0).sum()
                mean = dist.mean
                loss = loss + 1e-4 * ((mean - 1.1).clamp_min(0) ** 2 + (mean + 1.1).clamp_max(0) ** 2).sum(-1).mean()
        optimizer = torch.optim.Adam(policy.parameters(), lr=rates[k])
        loss.backward()
        nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
    return policies


def test_stacked_update_equals_two_separate_networks():
    learner = make_learner(
        minibatch_size=N * T,
        mini_epochs=1,
        lr_schedule="fixed",
        method={"off_policy_fraction": 1.0, "multiplier": {"init": 0.7}},
    )
    # pi_H acts with a wide spread, so on its rows pi has ratios beyond the dual clip.
    learner.policies.net.flat.data[1, -A:] = 1.2
    buffer, last = make_rollout(learner)
    channels = channel_advantages(learner, buffer, last)
    batch = learner.prepare(buffer, last)
    assert learner.policies.ratio(batch.obs, batch.actions, batch.log_prob).max() > 5.0
    expected = plain_update(learner, copy.deepcopy(batch), channels, [1e-3, 1e-3])
    before = learner.policies.net.flat.detach().clone()
    learner.update(batch)
    assert (learner.policies.net.flat - before).abs().max() > 5e-4  # the step did something
    for k, policy in enumerate(expected):
        got = PlainPolicy(learner.policies.net, k)
        for (name, a), (_, b) in zip(got.named_parameters(), policy.named_parameters()):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-6, msg=lambda m, n=name: "%s: %s" % (n, m))


def test_alpha_records_the_cross_critic_gap():
    """Half the difference of the two cross-critic means over the pooled spread, restated with plain networks."""
    learner = make_learner()
    buffer, last = make_rollout(learner)

    def advantages(critic, owner):
        """GAE of r on one owner's rows with another policy's critic, env by env and step by step."""
        net = PlainPolicy(learner.policies.net, critic)
        norm = learner.policies.value_norm

        def value(obs):
            raw = net(obs)[1][..., 0].detach()
            return raw * norm.std(0.0)[critic, 0] + norm.mean[critic, 0].float()

        rows = []
        for n in range(N // 2):
            following, running = value(last[owner, n]), 0.0
            for t in reversed(range(T)):
                if buffer.terminated[t, owner, n]:
                    following, running = 0.0, 0.0
                elif buffer.time_out[t, owner, n]:
                    slot = buffer.timeout_slot[t, owner, n]
                    following, running = value(buffer.timeout_obs[slot, owner, n]), 0.0
                now = value(buffer.obs[t, owner, n])
                running = buffer.rewards[t, owner, n, 0] + 0.99 * following - now + 0.99 * 0.95 * running
                following = now
                rows.append(running)
        return torch.stack(rows)

    # A first pass gives the value statistics a spread, as after the first iteration of a run.
    learner.prepare(buffer, last)
    own = [advantages(p, p) for p in range(2)]
    # buffer.values belong to the first pass' statistics; renew them
    for t in range(T):
        buffer.values[t] = learner.policies.values(buffer.obs[t])
    cross = {(critic, owner): advantages(critic, owner) for critic, owner in ((0, 1), (1, 0))}
    spread = torch.cat([*own, *cross.values()]).std(correction=0)
    expected = 0.5 * (cross[1, 0].mean() - cross[0, 1].mean()) / spread
    before = int(learner.multiplier.count[0])
    learner.prepare(buffer, last)
    assert learner.multiplier.records[0, before].item() == pytest.approx(expected.item(), rel=1e-3)


class TestSharing:
    def test_partner_rows_carry_the_actors_log_prob(self):
        """rho is 1 on own rows before the first step, and pi_k / pi_owner on the other's."""
        learner = make_learner()
        batch = learner.prepare(*make_rollout(learner))
        rows, ratio = N * T // 2, learner.policies.ratio(batch.obs, batch.actions, batch.log_prob)
        for k in range(2):
            mine, theirs = slice(k * rows, (k + 1) * rows), slice((1 - k) * rows, (2 - k) * rows)
            torch.testing.assert_close(ratio[k, mine], torch.ones(rows), rtol=1e-4, atol=1e-5)
            assert batch.on_policy[k, mine].min() == 1.0 and batch.on_policy[k, theirs].max() == 0.0
            net = learner.policies.net
            dist = Normal(*(x[k] for x in (net(batch.obs.expand(2, -1, -1))[0], net.log_std.exp())))
            expected = dist.log_prob(batch.actions[0]).sum(-1) - batch.log_prob[0]
            torch.testing.assert_close(ratio[k].log(), expected, rtol=1e-4, atol=1e-5)
        packed = PackedBatch(batch)
        for indices in learner.plan.minibatches_of_epoch():
            taken = PackedBatch.unpack(*packed.gather(*indices), A)
            for k in range(2):
                acted = set(batch.log_prob[0, k * rows : (k + 1) * rows].tolist())
                says = [v in acted for v in taken.log_prob[k].tolist()]
                assert taken.on_policy[k].bool().tolist() == says

    @pytest.mark.parametrize("fraction, rows", [(1.0, 32), (0.5, 16)])
    def test_every_minibatch_has_a_fixed_share_of_each_owner(self, fraction, rows):
        learner = make_learner(minibatch_size=64, num_envs=16, method={"off_policy_fraction": fraction})
        minibatches = [shared for shared, _ in learner.plan.minibatches_of_epoch()]
        assert [tuple(m.shape) for m in minibatches] == [(2, 32 + rows)] * 2
        own = torch.cat([m[:, :32] for m in minibatches], 1)
        assert sorted(own[0].tolist()) == list(range(64)) and sorted(own[1].tolist()) == list(range(64, 128))
        assert all(64 <= i for m in minibatches for i in m[0, 32:].tolist())
        assert all(i < 64 for m in minibatches for i in m[1, 32:].tolist())

    def test_alpha_moves_after_the_policy_update(self):
        """The policy update of an iteration uses the old alpha."""

        def task_pays_the_reference(rewards):
            rewards[..., 0] = torch.tensor([0.0, 1.0]).view(1, 2, 1)
            return rewards

        learner = make_learner()
        buffer, last = make_rollout(learner, rewards=task_pays_the_reference)
        z = channel_advantages(learner, buffer, last).reshape(-1, 2)
        used = []
        step = learner.update
        learner.update = lambda batch: (used.append(batch.advantage.clone()), step(batch))[1]
        learner.learn(buffer, last, IterationFacts())
        assert learner.multiplier.value.item() == pytest.approx(0.01, rel=1e-4)  # pi is worse: alpha rises
        torch.testing.assert_close(used[0], torch.stack((z.sum(-1), z[:, 1])))

    def test_whitening_per_owner_does_not_leak_the_gap(self):
        """One owner's rows all better than the other's: per-owner advantages stay centred, joint ones do not."""

        def lucky_half(rewards):
            rewards[..., 0] += torch.tensor([5.0, 0.0]).view(1, 2, 1)
            return rewards

        per_owner = make_learner()
        joint = make_learner(method={"whitening": "joint"})
        mean = channel_advantages(per_owner, *make_rollout(per_owner, rewards=lucky_half))[..., 0].mean(1)
        assert mean.abs().max().item() < 1e-5
        mean = channel_advantages(joint, *make_rollout(joint, rewards=lucky_half))[..., 0].mean(1)
        assert mean[0].item() > 0.2 and mean[1].item() < -0.2


class TestDegenerate:
    def test_no_task_reward_means_no_gap_and_pi_follows_h(self):
        def no_task(rewards):
            rewards[..., 0] = 0.0
            return rewards

        learner = make_learner(method={"multiplier": {"init": 0.5}})
        for seed in range(3):
            buffer, last = make_rollout(learner, seed, no_task)
            assert channel_advantages(learner, buffer, last)[..., 0].abs().max().item() == 0.0
            learner.learn(buffer, last, IterationFacts())
        assert learner.multiplier.gradient.item() == 0.0
        assert learner.multiplier.value.item() == 0.5

    def test_no_heuristic_leaves_pi_on_the_task(self):
        def no_heuristic(rewards):
            rewards[..., 1] = 0.0
            return rewards

        learner = make_learner()
        z = channel_advantages(learner, *make_rollout(learner, rewards=no_heuristic))
        assert z[..., 1].abs().max().item() == 0.0
        assert z[..., 0].std().item() > 0.5

    def test_equal_rewards_double_the_advantage(self):
        """h = r and alpha = 0: pi's mixture is twice pi_H's advantage, up to what the two critics differ."""

        def equal(rewards):
            rewards[..., 1] = rewards[..., 0]
            return rewards

        learner = make_learner()
        learner.policies.net.flat.data[:] = learner.policies.net.flat.data[:1]
        learner.policies.net.flat.data[:, -A - 2 : -A] = 0.0  # value biases
        buffer, last = make_rollout(learner, rewards=equal)
        buffer.values.zero_()
        z = channel_advantages(learner, buffer, last)
        torch.testing.assert_close(z[..., 0], z[..., 1], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(
            learner.prepare(buffer, last).advantage[0], 2.0 * z[..., 1].flatten(), rtol=1e-3, atol=1e-3
        )

    def test_sum_reward_channel(self):
        learner = make_learner("ppo_jh", method={"heuristic_weight": 0.5})
        buffer, _ = make_rollout(learner)
        buffer.rewards.copy_(torch.tensor([1.0, 4.0]))
        assert learner.rewards.channels(buffer, IterationFacts())[0, 0, 0].tolist() == [1.0, 3.0]
        assert learner.rewards.objective_weights(IterationFacts()).tolist() == [[0.0, 1.0]]


@pytest.mark.parametrize(
    "algo, alpha, expected",
    [
        ("ppo_h", 0.0, [[0.0, 1.0]]),
        ("ppo_j", 0.0, [[1.0, 0.0]]),
        ("ppo_jh", 0.0, [[0.0, 1.0]]),
        ("hepo", 0.0, [[1.0, 1.0], [0.0, 1.0]]),
        ("hepo", 3.0, [[1.0, 0.25], [0.0, 1.0]]),
    ],
)
def test_what_each_policy_maximises(algo, alpha, expected):
    learner = make_learner(algo)
    learner.multiplier.value.fill_(alpha)
    assert learner.rewards.objective_weights(IterationFacts()).tolist() == expected


def test_ppo_does_not_fit_a_critic_it_never_uses():
    learner = make_learner("ppo_h", minibatch_size=N * T)
    batch = learner.prepare(*make_rollout(learner))
    batch.returns[..., 0] = 100.0  # a critic on r would chase this
    head = slice(-A - 2, -A)  # value biases
    before = learner.policies.net.flat[:, head].detach().clone()
    learner.update(batch)
    moved = (learner.policies.net.flat[:, head] - before).abs()
    assert moved[0, 0].item() == 0.0 and moved[0, 1].item() > 0.0


def test_runs_side_by_side_do_not_leak():
    """Poisoning one run's rewards leaves the other bit-identical."""

    def poison(rewards):
        rewards[:, 2:] *= 1e3
        return rewards

    flats = []
    for change in (None, poison):
        learner = make_learner(seeds=(3, 4), num_envs=16)
        learner.learn(*make_rollout(learner, rewards=change, num_envs=16), IterationFacts())
        flats.append(learner.policies.net.flat.detach().clone())
    assert torch.equal(flats[0][:2], flats[1][:2])
    assert not torch.equal(flats[0][2:], flats[1][2:])


def test_moving_value_statistics_keeps_predictions():
    learner = make_learner()
    buffer, last = make_rollout(learner)
    learner.prepare(buffer, last)
    obs = learner.policies.normalize_obs(buffer.rows(buffer.obs))
    before = learner.policies.value_norm.denormalize(learner.policies.net(obs)[1])
    buffer.rewards.mul_(7.0).add_(3.0)
    learner.prepare(buffer, last)
    after = learner.policies.value_norm.denormalize(learner.policies.net(obs)[1])
    torch.testing.assert_close(before, after, rtol=1e-3, atol=1e-3)


def test_minibatch_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="minibatch_size=60 does not divide.*64"):
        make_learner(minibatch_size=60)


def test_noise_moves_only_the_reference_and_not_its_critic():
    flats = []
    for noise in (0.0, 0.1):
        learner = make_learner(seeds=(3, 4), num_envs=16, method={"reference_noise": noise})
        learner.learn(*make_rollout(learner, num_envs=16), IterationFacts())
        flats.append(learner.policies.net.flat.detach().clone())
    moved = flats[1] - flats[0]
    heads = learner.policies.net.value_head_mask().bool()
    assert moved[0::2].abs().max() == 0.0 and moved[:, heads].abs().max() == 0.0
    assert moved[1::2, ~heads].std().item() == pytest.approx(0.1, rel=0.05)


class TestVtrace:
    def test_equal_policies_see_the_others_rows_as_its_owner_does(self):
        """With pi = pi_H (weights and critics) both corrections vanish: only the units, own rows', may differ."""
        learner = make_learner(method={"foreign_advantage": "vtrace", "multiplier": {"init": 0.5}})
        learner.policies.net.flat.data[:] = learner.policies.net.flat.data[:1]
        learner.prepare(*make_rollout(learner, seed=3))  # gives the value statistics a spread, alike for both below
        for name in ("mean", "var", "count"):
            getattr(learner.policies.value_norm, name)[1] = getattr(learner.policies.value_norm, name)[0]
        learner.policies.net.flat.data[:] = learner.policies.net.flat.data[:1]
        buffer, last = make_rollout(learner)
        channels = learner.rewards.channels(buffer, IterationFacts())
        own = learner.collection.own_estimates(buffer, last, channels, IterationFacts()).advantages
        batch = learner.prepare(buffer, last)
        rows = own.shape[1]
        for k in range(2):
            std, mean = torch.std_mean(own[k], dim=0, correction=0)
            z = (own[1 - k] - mean) / std
            weights = torch.tensor((1.0, 1.0 / 1.5) if k == 0 else (0.0, 1.0))
            foreign = slice((1 - k) * rows, (2 - k) * rows)
            torch.testing.assert_close(batch.advantage[k, foreign], (z * weights).sum(-1), rtol=1e-3, atol=1e-3)

    def test_own_rows_are_untouched_and_the_others_critic_is_not_asked(self):
        batches = []
        for changed in (False, True):
            learner = make_learner(method={"foreign_advantage": "vtrace"})
            buffer, last = make_rollout(learner)
            if changed:  # pi_H's values of its own rows: nothing pi learns from may depend on them
                buffer.values[:, 1] += 5.0
            batches.append(learner.prepare(buffer, last).advantage[0])
        assert torch.equal(*batches)
        owner = make_learner()
        plain = owner.prepare(*make_rollout(owner)).advantage
        rows = plain.shape[1] // 2
        assert torch.equal(plain[0, :rows], batches[0][:rows]) and not torch.equal(plain[0, rows:], batches[0][rows:])
