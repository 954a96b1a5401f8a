"""The restatement of the release against two steps of two envs worked out by hand, and against known identities."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
import torch

from hepo_isaac.methods.advantages import constrained_weights
from hepo_isaac.methods.contrast import advantage_contrast
from hepo_isaac.methods.multiplier import Multiplier, MultiplierConfig
from tests.methods import release_reference as release


def _by_hand():
    """gamma = tau = .5. Env 0 (pi) is cut by the time limit at step 0; env 1 (pi_H) runs on."""
    zeros = np.zeros((2, 2))
    r = np.array([[1.0, 0.0], [0.0, 2.0]])  # [t, n]
    h = np.array([[0.0, 4.0], [2.0, 0.0]])
    values = np.zeros((2, 2, 2, 2))
    values[release.PI, :, :, release.TASK] = 1.0  # V_pi^r = 1, the other three critics say 0
    last = np.zeros((2, 2, 2))
    last[release.PI, :, release.TASK] = 1.0
    final = np.zeros((2, 2, 2, 2))
    final[release.PI, :, :, release.TASK] = 2.0
    time_out = np.array([[True, False], [False, False]])
    return release.Rollout(np.stack((r, h), -1), values, last, zeros.astype(bool), time_out, final)


class TestByHand:
    @pytest.mark.parametrize("bootstrap, first", [("none", 0.0), ("rl_games", 0.5), ("final_obs", 1.0)])
    def test_task_advantages_of_pi(self, bootstrap, first):
        # env 0: t=0 ends: 1 (+ .5 V) - 1; t=1: 0 + .5 - 1 = -.5
        # env 1: t=1: 2 + .5 - 1 = 1.5; t=0: 0 + .5 - 1 + .25 * 1.5 = -.125
        got = release.all_advantages(_by_hand(), 0.5, 0.5, bootstrap)
        assert release.env_major(got[0])[:, 0].tolist() == [first, -0.5, -0.125, 1.5]

    # V = 0 elsewhere: [1, 0, 0 + .25 * 2, 2] and, for h of either policy, [0, 2, 4 + .25 * 0, 0]
    task_pi, task_h, heuristic = [0.0, -0.5, -0.125, 1.5], [1.0, 0.0, 0.5, 2.0], [0.0, 2.0, 4.0, 0.0]

    @staticmethod
    def _z(rows):
        return [(x - statistics.mean(rows)) / statistics.stdev(rows) for x in rows]

    def test_the_other_critics(self):
        got = release.all_advantages(_by_hand(), 0.5, 0.5, "none")
        assert release.env_major(got[1])[:, 0].tolist() == self.task_h
        assert release.env_major(got[0])[:, 1].tolist() == release.env_major(got[1])[:, 1].tolist() == self.heuristic

    @pytest.mark.parametrize("variant, w_task, w_heuristic", [("main", 1.0, 0.5), ("later", 0.75, 0.5)])
    def test_what_the_policies_train_on(self, variant, w_task, w_heuristic):
        """alpha = 3, lambda = 2: main 1 and 2/4; later 3/4 and 2 (1 - 3/4)."""
        pi, pi_h = release.dataset_advantages(_by_hand(), 0.5, 0.5, "none", 3.0, 2.0, variant)
        z_pi, z_h, z_heuristic = self._z(self.task_pi), self._z(self.task_h), self._z(self.heuristic)
        owner = z_pi[:2] + z_h[2:]
        expected = [w_task * a + w_heuristic * b for a, b in zip(owner, z_heuristic)]
        assert pi.tolist() == pytest.approx(expected, rel=1e-6)
        assert pi_h.tolist() == pytest.approx(z_heuristic, rel=1e-6, abs=1e-12)

    def test_value_targets_are_each_policys_own(self):
        targets = release.value_targets(_by_hand(), 0.5, 0.5, "none")
        assert targets[0, :, 0].tolist() == [1.0, 0.5, 0.875, 2.5]
        assert targets[1, :, 0].tolist() == self.task_h

    def test_records(self):
        rollout = _by_hand()
        z_pi, z_h = self._z(self.task_pi), self._z(self.task_h)
        whitened = release.whiten(release.all_advantages(rollout, 0.5, 0.5, "none"))
        expected = -(z_pi[2] + z_pi[3]) / 2 + (z_h[0] + z_h[1]) / 2
        assert release.record_main(whitened) == pytest.approx(expected, rel=1e-6)
        # The later one on critics that did not change: the same two numbers, as halves mirror each other.
        shaped = release.shape_rewards(rollout, 0.5, "none")
        later = release.record_later(shaped, rollout.values, rollout.last_values, rollout.done, 0.5, 0.5)
        assert later == pytest.approx((z_pi[0] + z_pi[1] + z_h[0] + z_h[1]) / 4, rel=1e-6)
        assert later == pytest.approx(0.5 * expected, rel=1e-6)

    def test_minibatches(self):
        assert release.minibatch_rows(8, 2, "main") == [[0, 1, 2, 3], [4, 5, 6, 7]]
        assert release.minibatch_rows(8, 2, "later") == [[0, 4, 1, 5], [2, 6, 3, 7]]


class TestAlpha:
    @pytest.mark.parametrize("variant, rate, bound", [("main", 1e-4, -0.99), ("later", 1e-3, 0.0)])
    def test_against_adam(self, variant, rate, bound):
        """torch's own Adam and median on 300 random records."""
        ours = release.Alpha(variant)
        parameter = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        adam = torch.optim.Adam([parameter], lr=rate)
        clip = 1.0 if variant == "main" else 0.02
        records = torch.randn(300, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        for i, record in enumerate(records):
            parameter.grad = records[max(0, i - 7) : i + 1].median().clamp(-clip, clip).view(1)
            adam.step()
            parameter.data.clamp_(min=bound)
            assert release.alpha_step(ours, record.item()) == pytest.approx(parameter.item(), abs=1e-12)
        assert ours.value != 0.0

    def test_the_repositorys_multiplier_takes_the_same_steps(self):
        config = MultiplierConfig(lr=1e-4, minimum=-0.99, allow_negative=True, median="lower")
        ours, theirs = Multiplier(config, 1, torch.device("cpu")), release.Alpha("main")
        for record in torch.randn(300, generator=torch.Generator().manual_seed(1)):
            ours.record(record.view(1))
            ours.update()
            release.alpha_step(theirs, record.item())
        assert ours.value.item() == pytest.approx(theirs.value, abs=1e-6)


def _random(seed, steps=6, envs=4):
    rng = np.random.default_rng(seed)
    done = rng.random((steps, envs)) < 0.2
    time_out = done & (rng.random((steps, envs)) < 0.5)
    return release.Rollout(
        rng.normal(size=(steps, envs, 2)),
        rng.normal(size=(2, steps, envs, 2)),
        rng.normal(size=(2, envs, 2)),
        done & ~time_out,
        time_out,
        rng.normal(size=(2, steps, envs, 2)),
    )


class TestIdentities:
    @staticmethod
    def _by_owner(rollout):
        """(1, 2, M) own and cross rows, as advantage_contrast() wants them."""
        raw = release.all_advantages(rollout, 0.99, 0.95, "rl_games")[..., 0]
        pi, pi_h = (torch.tensor(release.env_major(raw[k])).view(2, -1) for k in (0, 1))
        return torch.stack((pi[0], pi_h[1])).unsqueeze(0), torch.stack((pi[1], pi_h[0])).unsqueeze(0)

    @pytest.mark.parametrize("seed", range(5))
    def test_the_records_are_the_repositorys_contrasts(self, seed):
        rollout = _random(seed)
        own, cross = self._by_owner(rollout)
        main = release.record_main(release.whiten(release.all_advantages(rollout, 0.99, 0.95, "rl_games")))
        assert advantage_contrast(own, cross, "release").item() == pytest.approx(main, rel=1e-6)
        # "standardized": half of it, and the spread of the population (n) where the release has the sample's (n - 1)
        rows = 2 * own.shape[-1]
        half = 0.5 * main * (rows / (rows - 1)) ** 0.5
        assert advantage_contrast(own, cross, "standardized").item() == pytest.approx(half, rel=1e-6)
        shaped = release.shape_rewards(rollout, 0.99, "rl_games")
        later = release.record_later(shaped, rollout.values, rollout.last_values, rollout.done, 0.99, 0.95)
        assert advantage_contrast(own, cross, "release2").item() == pytest.approx(later, rel=1e-6)
        # Halves of a centred whole mirror each other, so with unchanged critics one record is half the other.
        assert later == pytest.approx(0.5 * main, rel=1e-6)

    @pytest.mark.parametrize("variant, mixing", [("main", "ratio"), ("later", "convex")])
    @pytest.mark.parametrize("alpha", [0.0, 0.4, 7.0])
    def test_the_weights_are_the_repositorys(self, variant, mixing, alpha):
        z = np.random.default_rng(0).normal(size=(2, 3, 4, 2))
        weights = constrained_weights(torch.tensor(alpha, dtype=torch.float64), 1.5, mixing=mixing).numpy()
        np.testing.assert_allclose(release.mix(z, alpha, 1.5, variant)[:, 0], z @ weights)

    def test_without_time_limits_the_bootstraps_agree(self):
        rollout = _random(3)
        rollout = release.Rollout(
            rollout.rewards, rollout.values, rollout.last_values, rollout.done, np.zeros_like(rollout.done)
        )
        plain = release.all_advantages(rollout, 0.99, 0.95, "none")
        assert (release.all_advantages(rollout, 0.99, 0.95, "rl_games") == plain).all()

    def test_whitening_before_the_exchange_leaks_the_gap_into_the_gradient(self):
        """What each policy trains on is centred over neither half: pi better on its half shifts that half up."""
        rollout = _random(4, steps=20, envs=40)
        rewards = rollout.rewards.copy()
        rewards[:, :20, 0] += 1.0
        better = release.Rollout(
            rewards, 0.1 * rollout.values, rollout.last_values, rollout.terminated, rollout.time_out
        )
        pi, _ = release.dataset_advantages(better, 0.99, 0.95, "none", 1e9, 1.0, "main")
        assert pi[:400].mean() > 0.3
        assert pi[400:].mean() < -0.3

    def test_variants_agree_on_the_direction_only(self):
        """At alpha = 0 main trains on r + h and the later one on h alone."""
        z = np.random.default_rng(0).normal(size=(2, 3, 4, 2))
        main, later = release.mix(z, 0.0, 1.0, "main"), release.mix(z, 0.0, 1.0, "later")
        np.testing.assert_allclose(main[:, 0], z.sum(-1))
        np.testing.assert_allclose(later[:, 0], z[..., 1])
        # and beyond: later = main * alpha / (1 + alpha) if main's lambda is lambda (1 + alpha) / alpha
        main, later = release.mix(z, 3.0, 4.0 / 3.0, "main"), release.mix(z, 3.0, 1.0, "later")
        np.testing.assert_allclose(later[:, 0], 0.75 * main[:, 0])
