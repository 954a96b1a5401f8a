"""GAE, standardisation, mixing and alpha's contrast against values worked out by hand."""

from __future__ import annotations

import pytest
import torch

from hepo_isaac.methods.advantages import constrained_weights, gae, standardize, vtrace
from hepo_isaac.methods.contrast import ADVANTAGE_CONTRASTS
from hepo_isaac.methods.contrast import advantage_contrast as contrast


def _gae(rewards, values, last, terminated, time_out, final, gamma=0.9, lam=0.8):
    """One env, one channel."""

    def column(x, dtype=torch.float32):
        return torch.tensor(x, dtype=dtype).view(-1, 1, 1)

    out = gae(
        column(rewards),
        column(values),
        torch.tensor([[last]]),
        column(terminated, torch.bool).squeeze(-1),
        column(time_out, torch.bool).squeeze(-1),
        column(final),
        gamma,
        lam,
    )
    return out.flatten().tolist()


class TestGae:
    """gamma 0.9, lambda 0.8, so gamma lambda = 0.72."""

    def test_running_episode(self):
        # delta_2 = 3 + 0.9*4 - 2.5 = 4.1          A_2 = 4.1
        # delta_1 = 2 + 0.9*2.5 - 1.5 = 2.75       A_1 = 2.75 + 0.72*4.1 = 5.702
        # delta_0 = 1 + 0.9*1.5 - 0.5 = 1.85       A_0 = 1.85 + 0.72*5.702 = 5.95544
        got = _gae([1.0, 2.0, 3.0], [0.5, 1.5, 2.5], 4.0, [0, 0, 0], [0, 0, 0], [9.0, 9.0, 9.0])
        assert got == pytest.approx([5.95544, 5.702, 4.1], rel=1e-6)

    def test_termination_sees_nothing_beyond(self):
        # delta_1 = 2 - 1.5 = 0.5 and the trace is cut: A_1 = 0.5; A_0 = 1.85 + 0.72*0.5 = 2.21
        got = _gae([1.0, 2.0, 3.0], [0.5, 1.5, 2.5], 4.0, [0, 1, 0], [0, 0, 0], [9.0, 9.0, 9.0])
        assert got == pytest.approx([2.21, 0.5, 4.1], rel=1e-6)

    def test_time_limit_bootstraps_the_true_final_observation(self):
        # V(final) = 7: delta_1 = 2 + 0.9*7 - 1.5 = 6.8 = A_1 (no trace into the next episode); A_0 = 1.85+0.72*6.8
        got = _gae([1.0, 2.0, 3.0], [0.5, 1.5, 2.5], 4.0, [0, 0, 0], [0, 1, 0], [9.0, 7.0, 9.0])
        assert got == pytest.approx([6.746, 6.8, 4.1], rel=1e-6)

    def test_final_values_are_read_only_at_time_limits(self):
        nan = float("nan")
        assert _gae([1.0, 2.0], [0.5, 1.5], 4.0, [1, 0], [0, 0], [nan, nan]) == pytest.approx([0.5, 4.1])

    def test_exact_critic_has_no_advantage(self):
        """Constant reward c forever: V = c / (1 - gamma) makes every TD error zero."""
        value = 2.0 / (1.0 - 0.9)
        got = _gae([2.0] * 5, [value] * 5, value, [0] * 5, [0, 0, 1, 0, 0], [value] * 5)
        assert got == pytest.approx([0.0] * 5, abs=1e-5)


def test_standardize_is_zero_where_nothing_varies():
    rows = torch.stack((torch.arange(4.0), torch.full((4,), 3.0)), -1).unsqueeze(0)
    z = standardize(rows, dim=(1,))
    assert z[0, :, 1].tolist() == [0.0] * 4
    assert z[0, :, 0].mean().item() == pytest.approx(0.0, abs=1e-6)
    assert z[0, :, 0].std(correction=0).item() == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("alpha, expected", [(0.0, 1.0), (1.0, 0.5), (3.0, 0.25)])
def test_constrained_weights_divide_by_one_plus_alpha(alpha, expected):
    got = constrained_weights(torch.tensor([alpha]), 1.0)
    assert got.tolist() == [[1.0, pytest.approx(expected)]]


class TestContrast:
    """Bandit with rewards (0, .3, 1), pi = (.2, .3, .5), pi_H = (.6, .3, .1): J = .59, J_H = .19, gap .4."""

    rewards = torch.tensor([0.0, 0.3, 1.0])

    def _rows(self, probabilities, critic):
        """1000 rows with exactly these frequencies; the critic's value is subtracted."""
        counts = [round(1000 * p) for p in probabilities]
        return torch.cat([self.rewards[i].expand(c) for i, c in enumerate(counts)]) - critic

    def _pair(self, critic_pi, critic_h):
        pi, pi_h = (0.2, 0.3, 0.5), (0.6, 0.3, 0.1)
        own = torch.stack((self._rows(pi, critic_pi), self._rows(pi_h, critic_h))).unsqueeze(0)
        # cross[:, 0]: pi's critic on pi_H's rows
        cross = torch.stack((self._rows(pi_h, critic_pi), self._rows(pi, critic_h))).unsqueeze(0)
        return own, cross

    def test_raw_gap_with_own_critics(self):
        own, cross = self._pair(0.59, 0.19)
        # (0.4 - (-0.4)) / 2, over the spread of everything
        spread = torch.cat((own, cross), -1).std(correction=0).item()
        assert contrast(own, cross, "raw_gae").item() * spread == pytest.approx(0.4, rel=1e-5)

    def test_raw_gap_with_a_mixture_critic(self):
        own, cross = self._pair(0.39, 0.39)
        # pi_H's rows: 0.19 - 0.39 = -0.2; pi's rows: 0.59 - 0.39 = 0.2
        spread = torch.cat((own, cross), -1).std(correction=0).item()
        assert contrast(own, cross, "raw_gae").item() * spread == pytest.approx(0.2, rel=1e-5)

    def test_jointly_standardized_gap(self):
        """Half the gap over the joint spread: sigma^2 = (Var_pi + Var_H)/2 + gap^2/4 (spec: gap/sigma = .956)."""
        own, cross = self._pair(0.59, 0.19)
        var_pi = 0.2 * 0 + 0.3 * 0.09 + 0.5 - 0.59**2
        var_h = 0.3 * 0.09 + 0.1 - 0.19**2
        sigma = (0.5 * (var_pi + var_h) + 0.4**2 / 4) ** 0.5
        assert 0.4 / sigma == pytest.approx(0.956, abs=1e-3)
        assert contrast(own, cross, "standardized").item() == pytest.approx(0.5 * 0.4 / sigma, rel=1e-4)

    def test_deterministic_halves_saturate_at_one(self):
        """Two deterministic halves: the standardised contrast is exactly 2 in the release's scale, 1 in ours."""
        pi, pi_h = torch.ones(1, 100), torch.zeros(1, 100)
        own = torch.stack((pi, pi_h), 1)
        cross = torch.stack((pi_h, pi), 1)
        assert contrast(own, cross, "standardized").item() == pytest.approx(1.0, rel=1e-5)

    @pytest.mark.parametrize("mode", ADVANTAGE_CONTRASTS)
    def test_swapping_the_policies_flips_the_sign(self, mode):
        own, cross = self._pair(0.39, 0.39)
        assert contrast(own, cross, mode).item() == pytest.approx(
            -contrast(own.flip(1), cross.flip(1), mode).item(), rel=1e-5
        )
        assert contrast(own, cross, mode).item() > 0.1

    @pytest.mark.parametrize("mode", ADVANTAGE_CONTRASTS)
    def test_no_reward_means_no_gap(self, mode):
        zeros = torch.zeros(2, 2, 50)
        assert contrast(zeros, zeros, mode).tolist() == [0.0, 0.0]

    def test_unknown_mode_is_named(self):
        with pytest.raises(ValueError, match="raw_gae"):
            contrast(torch.zeros(1, 2, 4), torch.zeros(1, 2, 4), "gae")


class TestVtrace:
    T, N = 9, 5

    def _data(self, seed=0):
        g = torch.Generator().manual_seed(seed)
        rewards, values = (torch.randn(self.T, self.N, 2, generator=g, dtype=torch.float64) for _ in range(2))
        last = torch.randn(self.N, 2, generator=g, dtype=torch.float64)
        final = torch.randn(self.T, self.N, 2, generator=g, dtype=torch.float64)
        ends = torch.rand(self.T, self.N, generator=g)
        ratio = 3.0 * torch.rand(self.T, self.N, generator=g, dtype=torch.float64)
        return rewards, values, last, ends < 0.15, ends > 0.85, final, ratio

    def test_is_gae_where_the_policies_agree(self):
        *data, ratio = self._data()
        expected = gae(*data, 0.9, 0.8)
        torch.testing.assert_close(vtrace(*data, torch.ones_like(ratio), 0.9, 0.8), expected, rtol=1e-12, atol=1e-12)
        # ratios above one are cut to one
        torch.testing.assert_close(vtrace(*data, 1.0 + ratio, 0.9, 0.8), expected, rtol=1e-12, atol=1e-12)

    def test_is_the_td_error_where_they_have_nothing_in_common(self):
        *data, ratio = self._data()
        got = vtrace(*data, torch.zeros_like(ratio), 0.9, 0.8)
        torch.testing.assert_close(got, gae(*data, 0.9, 0.0), rtol=1e-12, atol=1e-12)

    def test_against_the_sum_of_corrected_errors(self):
        """A_t = delta_t + sum_k (gamma lambda)^k (rho_{t+1} ... rho_{t+k}) delta_{t+k}, up to the episode's end."""
        rewards, values, last, terminated, time_out, final, ratio = self._data(1)
        got = vtrace(rewards, values, last, terminated, time_out, final, ratio, 0.9, 0.8)
        error = gae(rewards, values, last, terminated, time_out, final, 0.9, 0.0)
        for n in range(self.N):
            for t in range(self.T):
                total, weight = error[t, n].clone(), 1.0
                for k in range(t + 1, self.T):
                    if terminated[k - 1, n] or time_out[k - 1, n]:
                        break
                    weight = weight * 0.72 * min(1.0, ratio[k, n].item())
                    total += weight * error[k, n]
                torch.testing.assert_close(got[t, n], total, rtol=1e-10, atol=1e-10)

    def test_poison_beyond_an_end_is_never_read(self):
        rewards, values, last, terminated, time_out, final, ratio = self._data(2)
        final = torch.where(time_out.unsqueeze(-1), final, torch.full_like(final, float("nan")))
        got = vtrace(rewards, values, last, terminated, time_out, final, ratio, 0.9, 0.8)
        assert torch.isfinite(got).all()
