"""Any number of members: PPO and HEPO are one and two of them; unequal shares; evidence and what follows from it."""

from __future__ import annotations

import math
from typing import Any, List

import pytest
import torch

from hepo_isaac.agents.fused import library
from hepo_isaac.agents.minibatch import PackedBatch
from hepo_isaac.agents.rewards import IterationFacts
from hepo_isaac.agents.window import ReturnWindow
from hepo_isaac.methods.references import References, ReferencesConfig, Window
from hepo_isaac.runs.machine.rig import make_agent, settings

CPU = torch.device("cpu")
SMALL = ("train.horizon_length=8", "train.minibatch_size=64", "train.network.units=[16,16]", "torch_threads=1")
NONE = ("algo.share_data=none", "algo.foreign_advantage=owner")
OWN = ("algo.shares=[2,1,1]", *NONE)  # everyone learns from own rows alone
needs_compiled = pytest.mark.skipif(library()[0] is None, reason="no compiled step here: %s" % library()[1])


def agent(algo: str, *overrides: str, envs: int = 32, task: str = "Push2D") -> Any:
    return make_agent(settings(task, envs, algo, *SMALL, *overrides))


def trained(algo: str, *overrides: str, iterations: int = 3) -> torch.Tensor:
    one = agent(algo, *overrides)
    for _ in range(iterations):
        one.train_epoch()
    return one.learner.policies.net.flat.detach().clone()


# ---- today's methods are cases of it ------------------------------------------------------------------------------


@pytest.mark.parametrize("algo", ["ppo_h", "ppo_j", "ppo_jh_decoupled", "ppo_lagrangian"])
def test_one_member_is_ppo_bit_for_bit(algo):
    assert torch.equal(trained(algo), trained(algo, "algo.collection=members"))


@pytest.mark.parametrize("limits", ["final_obs", "none"])
def test_two_members_without_sharing_are_the_halves_bit_for_bit(limits):
    plain = ("algo.share_data=none", "algo.foreign_advantage=owner", "algo.timeout_bootstrap=" + limits)
    assert torch.equal(trained("hepo", *plain), trained("hepo", *plain, "algo.collection=members"))


@pytest.mark.parametrize("limits", ["final_obs", "none", "rl_games"])
def test_two_members_that_share_are_the_halves(limits):
    """Without whitening, in which they differ on purpose (the partner's rows are never divided by no spread at all),
    and from a state whose value statistics are known."""
    both = ("algo.whitening=none", "algo.timeout_bootstrap=" + limits, "task.episode_length=20")
    halves, members = agent("hepo", *both), agent("hepo", *both, "algo.collection=members")
    for _ in range(3):
        halves.train_epoch()
    members.collect()
    members.set_full_state_weights(halves.get_full_state_weights())
    flats = []
    for one in (halves, members):
        one.train_epoch()
        flats.append(one.learner.policies.net.flat.detach().clone())
    torch.testing.assert_close(*flats, rtol=1e-4, atol=1e-5)


# ---- rows of unequal shares ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shares", ["[2,1,1]", "[1,2,1]", "[6,1,1]", "[1,1,2]"])
def test_every_member_sees_its_own_rows_once_an_epoch_and_no_others(shares):
    one = agent("hepo_plus", "algo.shares=" + shares, *NONE)
    plan, counts = one.learner.plan, one.learner.plan.loss_weights().counts
    wanted = [int(s) for s in shares[1:-1].split(",")]
    blocks = sum(wanted)
    envs = [s * 32 // blocks for s in wanted]
    seen: List[List[int]] = [[], [], []]
    for in_shared, in_mine in plan.minibatches_of_epoch():
        assert in_shared.shape == (3, max(envs) * 8 // plan.minibatches)
        for q in range(3):
            seen[q] += in_shared[q, : counts[q]].tolist()
            assert (in_mine[q] - q * plan.run_rows == in_shared[q]).all()
    first = 0
    for q, count in enumerate(envs):
        assert sorted(seen[q]) == list(range(first, first + count * 8))
        first += count * 8


def test_what_fills_up_a_minibatch_counts_nothing():
    """The rows behind a member's count may be anything."""
    one = agent("hepo_plus", "train.fused=false", *OWN)
    last = one.collect()
    batch = one.learner.prepare(one.buffer, last, IterationFacts(0, 1, window=None))
    packed, weights = PackedBatch(batch), one.learner.plan.loss_weights()
    in_shared, in_mine = one.learner.plan.minibatches_of_epoch()[0]
    shared, mine = packed.gather(in_shared, in_mine)
    old = one.learner.policies.net.log_std.detach().clone()
    found = []
    start = {k: v.clone() for k, v in one.learner.optimizer.state_dict().items()}
    flat = one.learner.policies.net.flat.detach().clone()
    for fill in (0.0, 7.0):
        for q in range(3):
            shared[q, weights.counts[q] :] = fill
            mine[q, weights.counts[q] :] = fill
        with torch.no_grad():
            one.learner.policies.net.flat.copy_(flat)
        one.learner.optimizer.load_state_dict(start)
        one.learner._stats.zero_()
        kl = one.learner._minibatch_step(shared, mine, weights.packed(), old, weights.counts)
        found.append((kl, one.learner.policies.net.flat.detach().clone(), one.learner._stats.clone()))
    for zero, seven in zip(*found):
        assert torch.equal(zero, seven)


@needs_compiled
@pytest.mark.parametrize("more", [NONE, ("algo.share_data=both",), ()])
@pytest.mark.parametrize("shares", ["[2,1,1]", "[6,1,1]", "[1,2,1]"])
def test_the_compiled_step_takes_unequal_shares(shares, more):
    both = [
        trained("hepo_plus", "algo.shares=" + shares, "train.fused=" + fused, *more, iterations=1)
        for fused in ("true", "false")
    ]
    torch.testing.assert_close(*both, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("fused", ["auto", "false"])
def test_without_sharing_a_member_learns_nothing_of_the_others(fused):
    flats = []
    for poisoned in (False, True):
        one = agent("hepo_plus", "train.fused=" + fused, *OWN)
        last = one.collect()
        if poisoned:
            one.buffer.rewards[:, 2:] = 1e6
            one.buffer.actions[:, 2:] = 50.0
        one.learner.learn(one.buffer, last, IterationFacts(0, 1))
        flats.append(one.learner.policies.net.flat.detach().clone())
    assert torch.equal(flats[0][0], flats[1][0])
    assert not torch.equal(flats[0][1], flats[1][1]) and not torch.equal(flats[0][2], flats[1][2])


def test_episodes_are_counted_for_the_member_that_played_them():
    one = agent("hepo_plus", *OWN, envs=16, task="Honeypot")
    one.collect()
    ended = torch.arange(16) % 2 == 0
    one.meter.take()
    one.meter.sums[:] = torch.arange(16.0).unsqueeze(1)
    zeros = torch.zeros(16, one.meter.sums.shape[1])
    one.meter.update(zeros, torch.zeros(16, len(one.meter.end_names)), ended, torch.ones(16, dtype=torch.bool))
    totals = one.meter.take()
    assert totals[:, -1].tolist() == [4.0, 2.0, 2.0]
    assert totals[:, 0].tolist() == [0 + 2 + 4 + 6, 8 + 10, 12 + 14]


def test_who_shares_with_whom():
    from hepo_isaac.methods.method import method_from_config

    base = {"name": "mine", "objectives": ["constrained", "heuristic", "task"], "constraint": "references"}
    base.update(collection="members")
    wanted = {"both": ((1, 2), (0, 2), (0, 1)), "pi": ((1, 2), (), ()), "reference": ((), (0, 2), (0, 1))}
    wanted.update(none=((), (), ()), heuristic=((1,), (0,), ()), guided=((1, 2), (0,), ()))
    for share, uses in wanted.items():
        foreign = "owner" if share == "none" else "vtrace"
        assert method_from_config({**base, "share_data": share, "foreign_advantage": foreign}).uses == uses


def test_a_member_that_shares_with_nobody_learns_from_its_own_rows_alone():
    flats = []
    for poisoned in (False, True):
        one = agent("hepo_plus")  # blocks 0, 1 pi, 2 pi_H, 3 pi_J
        last = one.collect()
        if poisoned:
            one.buffer.rewards[:, :3] = 1e6
        one.learner.learn(one.buffer, last, IterationFacts(0, 1))
        flats.append(one.learner.policies.net.flat.detach().clone())
    assert torch.equal(flats[0][2], flats[1][2]) and not torch.equal(flats[0][0], flats[1][0])


# ---- whose reward is seen (D1) ------------------------------------------------------------------------------------


def test_a_partner_who_alone_has_reward_moves_pi():
    """pi has earned nothing yet, so its own rows have no spread; its partner's rows say where the reward is."""
    one = agent("hepo", "algo.collection=members", "algo.contrast=episode_return", "algo.heuristic_weight=0.0")
    last = one.collect()
    one.buffer.rewards.zero_()
    one.buffer.rewards[3, 1, :, 0] = 1.0
    facts = IterationFacts(0, 1, torch.zeros(1, 2), torch.ones(1, 2))
    batch = one.learner.prepare(one.buffer, last, facts)
    theirs = batch.on_policy[0] == 0
    assert batch.advantage[0, ~theirs].abs().max() == 0.0
    assert 0.5 < batch.advantage[0, theirs].std() < 2.0


# ---- pull of the partner's rows (D2) ------------------------------------------------------------------------------


def pull(anchor: str, draws: int = 24) -> float:
    """How far an update on rewards of pure noise, in the partner's rows alone, moves pi's means towards the partner's,
    which stand 0.5 beside them; mean of ``draws``."""
    fixed = ("train.lr_schedule=fixed", "train.learning_rate=3e-3", "train.mini_epochs=8")
    one = agent("hepo", "algo.collection=members", "algo.ratio_anchor=" + anchor, *fixed)
    learner, net = one.learner, one.learner.policies.net
    actions = learner.policies.num_actions
    with torch.no_grad():
        net.flat[1] = net.flat[0]
        net.flat[1, -2 * actions - 2 : -actions - 2] += 0.5  # biases of the means
    last = one.collect()
    facts = IterationFacts(0, 1, torch.zeros(1, 2), torch.zeros(1, 2))
    state, draw, moved = learner.state_dict(), torch.Generator().manual_seed(0), 0.0
    seen = learner.policies.normalize_obs(one.buffer.rows(one.buffer.obs)).detach()
    before = net(seen)[0][0].detach()
    for _ in range(draws):
        learner.load_state_dict(state)
        one.buffer.rewards.zero_()
        one.buffer.rewards[:, 1] = torch.randn(one.buffer.rewards[:, 1].shape, generator=draw)
        learner.update(learner.prepare(one.buffer, last, facts))
        moved += float((net(seen)[0][0].detach() - before).mean())
    return moved / draws


def test_noise_pulls_pi_towards_who_acted_but_not_from_its_old_policy():
    towards = pull("behaviour")
    assert towards > 0.02
    assert abs(pull("old_policy")) < 0.25 * towards


def test_a_pull_that_is_asked_for_follows_the_evidence():
    """Rows of a partner that is behind get nothing; of one that is ahead, as much as there is evidence."""
    sharing = ("algo.shares=[2,1,1]", "algo.share_data=both", "algo.ratio_anchor=old_policy")
    one = agent("hepo_plus", *sharing, "algo.partner_pull=0.5")
    last = one.collect()
    one.buffer.rewards.zero_()
    found = []
    for ahead in (-3.0, 0.5, 9.0):
        seen = Window(torch.tensor([[0.0, ahead, -1.0]]), torch.tensor([[0.6, 0.8, 0.8]]), torch.ones(1) > 0)
        one.learner.collection.evidence.look(seen)
        batch = one.learner.prepare(one.buffer, last, IterationFacts(0, 1))
        assert batch.advantage[1:].abs().max() == 0.0  # references imitate nobody
        by_block = batch.advantage[0].view(4, -1)  # two of pi, one of each reference
        assert by_block[[0, 1, 3]].abs().max() == 0.0
        found.append(float(by_block[2].mean()))
    assert found == pytest.approx([0.0, 0.125, 0.5])


# ---- windows of whole episodes ------------------------------------------------------------------------------------


def window(episodes=2, runs=1, envs=8) -> ReturnWindow:
    return ReturnWindow((2, 1, 1), runs, envs, episodes, CPU)


def test_a_window_takes_the_same_number_of_episodes_of_every_env():
    """Member 0 has four envs, 1 and 2 two each: one episode of its envs, and one of theirs, are two or more."""
    w = window()
    everyone = torch.ones(8, dtype=torch.bool)
    first = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 7.0, 0.0, 0.0])
    short = torch.tensor([True, False, False, False, True, True, True, True])
    w.update(first, short, everyone)
    assert not w.look().ready.any()
    w.update(10.0 + first, short, everyone)  # a second one of the quick envs is not counted
    assert not w.look().ready.any()
    w.update(first, ~short, everyone)
    seen = w.look()
    assert seen.ready.tolist() == [True]
    torch.testing.assert_close(seen.mean, torch.tensor([[2.5, 6.0, 0.0]]))
    deviation = math.sqrt(sum((x - 2.5) ** 2 for x in (1, 2, 3, 4)) / 3 / 4)
    torch.testing.assert_close(seen.error, torch.tensor([[deviation, 1.0, 0.0]]))
    assert not w.look().ready.any()  # a new window has begun


def test_episodes_that_do_not_count_and_those_of_before_a_change_are_left_out():
    w = window()
    everyone = torch.ones(8, dtype=torch.bool)
    w.update(torch.ones(8), everyone, ~everyone)
    assert w.count.sum() == 0
    w.discard(torch.tensor([True, False, False]))
    w.update(torch.full((8,), 5.0), everyone, everyone)
    assert w.count.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    w.update(torch.full((8,), 3.0), everyone, everyone)
    assert w.look().mean.tolist() == [[3.0, 5.0, 5.0]]


def test_a_small_spread_of_large_returns_is_not_lost():
    """J of Anymal is 13,350 with a spread of 10: its square has nine digits."""
    w, everyone = window(), torch.ones(8, dtype=torch.bool)
    w.update(torch.tensor([13350.0, 13360.0, 13350.0, 13360.0, 13350.0, 13370.0, 5.0, 5.0]), everyone, everyone)
    seen = w.look()
    torch.testing.assert_close(seen.error, torch.tensor([[math.sqrt(100.0 / 3.0 / 4.0), 10.0, 0.0]]))


def test_runs_have_windows_of_their_own():
    w = window(runs=2, envs=16)
    second = torch.arange(16) >= 8
    w.update(torch.arange(16.0), second, torch.ones(16, dtype=torch.bool))
    seen = w.look()
    assert seen.ready.tolist() == [False, True]
    assert seen.mean[1].tolist() == [9.5, 12.5, 14.5]


# ---- evidence and what follows ------------------------------------------------------------------------------------


def references(runs=1, objectives=("constrained", "heuristic", "task"), **config) -> References:
    return References(ReferencesConfig(**config), objectives, torch.zeros(runs), runs, CPU)


def look(of: References, mean, error=(0.1, 0.1, 0.1), ready=True) -> List[int]:
    seen = Window(torch.tensor([mean]), torch.tensor([error]), torch.tensor([ready]))
    return of.look(seen)[0].tolist()


def test_pi_goes_on_from_the_best_reference_that_is_ahead_and_h_gets_its_weight():
    r = references()
    assert look(r, [0.0, 0.2, 0.1]) == [0, 1, 2]  # 0.2 is 1.4 standard errors
    assert look(r, [0.0, 0.3, 0.4]) == [2, 1, 2] and r.alpha.item() == 1.0  # r alone leads: h is in the way
    assert look(r, [0.0, 0.3, 0.4], ready=False) == [0, 1, 2] and r.alpha.item() == 1.0
    assert look(r, [0.0, 0.3, 0.5]) == [2, 1, 2] and r.alpha.item() == 3.0
    assert look(r, [0.0, 0.6, 0.5]) == [1, 1, 2] and r.alpha.item() == 1.0  # h knows more
    look(r, [0.0, 0.6, 0.5])
    look(r, [0.0, 0.6, 0.5])
    assert r.alpha.item() == 0.0  # h never weighs more than r + h gives it
    assert r.projections.item() == 5.0 and r.violations.item() == 5.0 and r.windows.item() == 6.0


def test_without_projection_nobody_moves():
    r = references(projection=False)
    assert look(r, [0.0, 0.9, 0.5]) == [0, 1, 2] and r.alpha.item() == 0.0 and r.violations.item() == 1.0


def test_who_maximises_r_alone_starts_anew_from_pi_where_it_is_stuck():
    r = references(reseed_windows=2)
    assert look(r, [1.0, 0.0, 0.0]) == [0, 1, 2]
    assert look(r, [1.0, 0.0, 0.5]) == [0, 1, 2]  # behind, but it rises
    assert look(r, [1.0, 0.0, 0.5]) == [0, 1, 2]
    assert look(r, [1.0, 0.0, 0.5]) == [0, 1, 0] and r.reseeds.item() == 1.0
    never = references(reseed_windows=0)
    assert all(look(never, [1.0, 0.0, 0.0]) == [0, 1, 2] for _ in range(9))


def test_false_alarms_in_10000_windows_without_a_gap_are_as_many_as_computed():
    """Two members: P(gap > 2 standard errors) = 1 - Phi(2) = 2.3 %, of 64 and 32 normal episodes."""
    runs = 10_000
    draw = torch.Generator().manual_seed(0)
    r = references(runs, ("constrained", "heuristic"))
    parts = [torch.randn(runs, n, generator=draw) for n in (64, 32)]
    mean = torch.stack([p.mean(1) for p in parts], 1)
    error = torch.stack([p.std(1) / math.sqrt(p.shape[1]) for p in parts], 1)
    source = r.look(Window(mean, error, torch.ones(runs, dtype=torch.bool)))
    rate = float((source[:, 0] != 0).float().mean())
    expected = 0.5 * math.erfc(2.0 / math.sqrt(2.0))
    assert abs(rate - expected) < 4.0 * math.sqrt(expected / runs) + 0.002  # Student's t is a little wider


def test_a_projection_takes_weights_moments_and_statistics_along():
    one = agent("hepo_plus")
    one.train_epoch()
    last = one.collect()
    learner = one.learner
    facts = IterationFacts(
        1, 9, window=Window(torch.tensor([[0.0, 0.1, 9.0]]), torch.full((1, 3), 0.1), torch.ones(1) > 0)
    )
    learner.learn(one.buffer, last, facts)
    assert learner.collection.replaced.tolist() == [True, False, False]
    norm, adam = learner.policies.value_norm, learner.optimizer
    same = (learner.policies.net.flat, norm.mean, norm.var, norm.count, adam.exp_avg, adam.exp_avg_sq, adam.steps)
    for tensor in (*same, adam.learning_rate):
        assert torch.equal(tensor[0], tensor[2])
    assert not torch.equal(learner.policies.net.flat[1], learner.policies.net.flat[2])
    assert learner.multiplier.value.item() == 1.0


def test_rows_of_who_maximises_r_alone_fade_as_it_parts_from_pi():
    """They are anchored at pi before the update and weigh what pi would have acted so: all while both are one, nothing
    where pi_J stands far away; pi_H's rows are anchored at pi_H."""
    one = agent("hepo_plus", "algo.share_data=guided", task="Honeypot")
    flat, actions = one.learner.policies.net.flat, one.learner.policies.num_actions
    with torch.no_grad():
        flat[2] = flat[0]
    found = {}
    for distance in (0.0, 6.0):
        with torch.no_grad():
            flat[2, -2 * actions - 2 : -actions - 2] += distance
        last = one.collect()
        batch = one.learner.prepare(one.buffer, last, IterationFacts(0, 1))
        rows = one.learner.plan.run_rows // 4
        behaviour = one.buffer.rows(one.buffer.log_prob)
        found[distance] = float(batch.advantage[0, 3 * rows :].abs().mean())
        anchored = torch.isclose(batch.log_prob[0].view(4, rows), behaviour, atol=1e-4).all(1)
        assert anchored.tolist() == [True] * 3 + [distance == 0.0]
    assert found[6.0] < 1e-3 * found[0.0]


def test_a_binding_constraint_follows_what_the_bandit_pays():
    """One step, one number: h pays for -1, r for +1, and both at once for h: the honeypot. pi has to end with pi_J."""
    r = references()
    truth = {"pi": 0.1, "pi_h": 0.1, "pi_j": 1.0}
    for _ in range(3):
        source = look(r, list(truth.values()), error=(0.02, 0.02, 0.02))
        values = list(truth.values())
        truth = dict(zip(truth, [values[k] for k in source]))
    assert truth["pi"] == 1.0 and r.projections.item() == 1.0 and r.alpha.item() == 1.0


def test_a_resume_is_exact():
    whole = agent("hepo_plus", "algo.references.window_episodes=4", task="Honeypot")
    for _ in range(14):
        whole.train_epoch()
    state = whole.get_full_state_weights()
    other = agent("hepo_plus", "algo.references.window_episodes=4", task="Honeypot")
    other._obs = other.vec_env.reset()
    other.set_full_state_weights(state)
    for _ in range(14):
        rows = whole.train_epoch()[0], other.train_epoch()[0]
        for key in rows[0]:
            if "_s" not in key[-3:] and "second" not in key:
                assert rows[0][key] == rows[1][key] or math.isnan(rows[0][key]), key
    assert rows[0]["windows"] > 1 and math.isfinite(rows[0]["window_return_task/pi_h"])
    assert torch.equal(whole.learner.policies.net.flat, other.learner.policies.net.flat)
