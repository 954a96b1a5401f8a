"""Where time-out observations and rows end up."""

from __future__ import annotations

import pytest
import torch

from hepo_isaac.agents.rollout import RolloutBuffer

CPU = torch.device("cpu")


def test_each_time_out_keeps_its_own_observation():
    """Two time-outs of one env in a rollout longer than an episode, none of another."""
    buffer = RolloutBuffer(5, 1, 2, 1, 1, 2, timeout_slots=2, device=CPU)
    buffer.timeout_obs.fill_(float("nan"))
    buffer.start()
    for t in range(5):
        buffer.time_out[t] = torch.tensor([[t in (1, 3), False]])
        buffer.keep_final_obs(t, torch.full((1, 2, 1), 10.0 + t))
    for t, expected in ((1, 11.0), (3, 13.0)):
        slot = buffer.timeout_slot[t, 0, 0]
        assert buffer.timeout_obs[slot, 0, 0, 0].item() == expected
    assert buffer.timeout_obs[:, 0, 1].isnan().all()


def test_rows_are_policy_major():
    buffer = RolloutBuffer(3, 2, 4, 1, 1, 2, 1, CPU)
    for t in range(3):
        for env in range(4):
            buffer.obs[t].view(4, 1)[env] = 10 * t + env
    rows = buffer.rows(buffer.obs).squeeze(-1)
    assert rows[0].tolist() == [0, 1, 10, 11, 20, 21]
    assert rows[1].tolist() == [2, 3, 12, 13, 22, 23]


def test_odd_number_of_envs_is_refused():
    with pytest.raises(ValueError, match="num_envs=5.*multiple of 2"):
        RolloutBuffer(3, 2, 5, 1, 1, 2, 1, CPU)
