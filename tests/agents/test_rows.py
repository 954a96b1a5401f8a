"""Which rows every minibatch takes, and that the weights of each loss sum to one over it."""

from __future__ import annotations

import pytest
import torch

from hepo_isaac.agents.config import train_config
from hepo_isaac.agents.minibatch import RowPlan
from hepo_isaac.methods.method import method_from_config
from tests.toy import METHODS, TRAIN

N, T = 8, 8  # envs of a run, steps
ROWS = N * T
ORDERS = {
    "one": {"name": "one", "objectives": ["heuristic"]},
    "stratified": METHODS["hepo"],
    "whole": {**METHODS["hepo"], "off_policy_fraction": 1.0},
    "alone": {**METHODS["hepo"], "share_data": "none"},
    "contiguous": {**METHODS["hepo"], "minibatch_order": "contiguous", "critic_data": "both"},
    "interleaved": {**METHODS["hepo"], "minibatch_order": "interleaved", "critic_data": "both"},
    "alternating": {**METHODS["hepo_owner"], "collection": "alternating"},
}


def plan(order, runs=2, minibatch_size=16, seeds=None, **method):
    return RowPlan(
        method_from_config({**ORDERS[order], **method}),
        train_config({**TRAIN, "minibatch_size": minibatch_size}),
        N * runs,
        [torch.Generator().manual_seed(s) for s in seeds or range(runs)],
        torch.device("cpu"),
    )


def epoch(rows):
    """Per minibatch (P, m) rows within the run, whichever of the two index sets they are read from."""
    policies, found = rows.policies_per_run, []
    for shared, mine in rows.minibatches_of_epoch():
        p = torch.arange(len(mine)).unsqueeze(1)
        within = mine - p * ROWS
        assert torch.equal(within, shared - p // policies * ROWS)
        assert within.min() >= 0 and within.max() < ROWS
        found.append(within)
    return found


def env_major(row):
    """Row (block, step, env) of a run -> n T + t, envs counted through the blocks."""
    block, rest = divmod(row, ROWS // 2)
    step, env = divmod(rest, N // 2)
    return (block * (N // 2) + env) * T + step


@pytest.mark.parametrize("order", sorted(ORDERS))
def test_each_epoch_visits_every_own_row_once(order):
    """And what is not shuffled visits all; shuffles differ from epoch to epoch and from run to run."""
    rows = plan(order)
    first, second = (torch.cat(epoch(rows), 1) for _ in range(2))
    blocks = 2 if rows.by_block else 1
    for p, taken in enumerate(first.tolist()):
        k = p % blocks
        own = range(k * ROWS // blocks, (k + 1) * ROWS // blocks)
        assert sorted(r for r in taken if r in own) == list(own)
    shuffled = order not in ("contiguous", "interleaved")
    assert torch.equal(first, second) == (not shuffled)
    if shuffled:
        half = len(first) // 2
        assert not torch.equal(first[:half], first[half:])


@pytest.mark.parametrize("order", ["one", "stratified", "alternating"])
def test_a_runs_shuffles_are_its_own(order):
    """They come from its generator alone, whoever is beside it."""
    together, alone = plan(order), plan(order, runs=1, seeds=[1])
    for _ in range(2):
        for both, mine in zip(epoch(together), epoch(alone), strict=True):
            assert torch.equal(both[len(mine) :], mine)


@pytest.mark.parametrize("order, foreign", [("stratified", 4), ("whole", 8), ("alone", 0)])
def test_stratified_minibatches_have_a_fixed_share(order, foreign):
    """8 own rows and off_policy_fraction of as many of the partner's, which repeat in no epoch."""
    found = epoch(plan(order))
    assert [tuple(m.shape) for m in found] == [(4, 8 + foreign)] * 4
    for k in range(4):
        theirs = [r for m in found for r in m[k].tolist() if (r >= ROWS // 2) != (k % 2 == 1)]
        assert len(theirs) == len(set(theirs)) == 4 * foreign


def test_contiguous_is_env_major():
    """Env after env, pi's first: with an even number of minibatches each holds rows of one policy alone."""
    for minibatch in epoch(plan("contiguous")):
        assert all(torch.equal(minibatch[0], m) for m in minibatch)
        assert len({int(r) // (ROWS // 2) for r in minibatch[0]}) == 1
    order = [env_major(int(r)) for m in epoch(plan("contiguous")) for r in m[0]]
    assert order == list(range(ROWS))


@pytest.mark.parametrize("minibatch_size", [4, 8, 32])
def test_interleaved_takes_one_row_of_each_policy_in_turn(minibatch_size):
    """0, M/2, 1, M/2 + 1, …, env-major; also where a minibatch is shorter than an env's steps."""
    order = [env_major(int(r)) for m in epoch(plan("interleaved", minibatch_size=minibatch_size)) for r in m[0]]
    assert order == [row for pair in zip(range(ROWS // 2), range(ROWS // 2, ROWS)) for row in pair]


def test_policies_of_a_run_by_turns_see_the_same_rows():
    for minibatch in epoch(plan("alternating")):
        assert minibatch.shape == (4, 16)
        assert torch.equal(minibatch[0], minibatch[1]) and torch.equal(minibatch[2], minibatch[3])


class TestWeights:
    """The weight of every row of a minibatch, summed: 1 where a policy's loss is a mean of its rows."""

    @staticmethod
    def sums(order, acting=None, **method):
        """(P, minibatches, 3) sums over the rows of minibatches for actor, critic and KL."""
        rows = plan(order, **method)
        policies = 2 * rows.policies_per_run
        if acting is not None:
            on_policy = torch.tensor(acting).repeat(2).unsqueeze(1).expand(policies, ROWS)
        elif rows.policies_per_run == 1:
            on_policy = torch.ones(policies, ROWS)
        else:
            first = (torch.arange(ROWS) < ROWS // 2).float()
            on_policy = torch.stack((first, 1.0 - first)).repeat(2, 1)
        weights = rows.loss_weights()
        assert weights.own.shape == weights.partner.shape == (policies, 3)
        found = []
        for minibatch in epoch(rows):
            of_rows = weights.of_rows(on_policy.gather(1, minibatch))
            found.append(torch.stack(of_rows, -1).sum(1))
        return torch.stack(found, 1)

    @pytest.mark.parametrize("order", ["one", "stratified", "whole", "alone", "contiguous", "interleaved"])
    def test_they_sum_to_one(self, order):
        assert torch.allclose(self.sums(order), torch.ones(1))

    @pytest.mark.parametrize("share", ["none", "pi", "reference"])
    def test_whoever_shares(self, share):
        assert torch.allclose(self.sums("stratified", share_data=share), torch.ones(1))

    def test_half_of_the_actors_loss_is_the_partners(self):
        rows = plan("stratified")
        weights = rows.loss_weights()
        assert weights.own[0].tolist() == [0.5 / 8, 1 / 8, 1 / 8]
        assert weights.partner[0].tolist() == [0.5 / 4, 0.0, 0.0]

    @pytest.mark.parametrize("order", ["stratified", "whole"])
    def test_critics_on_both(self, order):
        """critic_data=both: partner's rows count as much as a policy's own in a critic's loss, in sum 1."""
        assert torch.allclose(self.sums(order, critic_data="both"), torch.ones(1))
        weights = plan(order, critic_data="both").loss_weights()
        partner = 4 if order == "stratified" else 8
        assert weights.own[:, 1].tolist() == [0.5 / 8] * 4 and weights.partner[:, 1].tolist() == [0.5 / partner] * 4

    @pytest.mark.parametrize("acting", [0, 1])
    def test_by_turns(self, acting):
        """Who acts learns everything; the other's actor too, and its critic nothing."""
        on_policy = [float(acting == k) for k in range(2)]
        found = self.sums("alternating", on_policy)
        critic = torch.tensor(on_policy * 2).unsqueeze(1).expand_as(found[..., 1])
        assert torch.allclose(found[..., 0], torch.ones(1)) and torch.allclose(found[..., 1], critic)


@pytest.mark.parametrize(
    "envs, size, found",
    [
        (7, 56, "num_envs=7 cannot be split over 2 blocks of environments"),
        (4, 8, 4),
        (2, 16, 1),
        (2, 1, "minibatch_size=1 does not divide .* = 16 into equal shares for 2 policies; nearest that do: 2"),
    ],
)
def test_what_does_not_divide_is_refused(envs, size, found):
    def build():
        method, train = method_from_config(METHODS["hepo"]), train_config({**TRAIN, "minibatch_size": size})
        return RowPlan(method, train, envs, [torch.Generator()], torch.device("cpu"))

    if isinstance(found, int):
        assert build().minibatches == found
        return
    with pytest.raises(ValueError, match=found):
        build()
