"""What makes the dexterous tasks' steps short: what is read once, and rotations of many points."""

from __future__ import annotations

import pytest
import torch

from hepo_isaac.envs.math import quat_rotate, rotate_many
from tests.tasks.robots import actions, make


@pytest.mark.parametrize("task", ["ShadowHandOver", "ShadowHandDoorOpenOutward", "ShadowHandBottleCap"])
def test_after_a_reset_of_some_worlds_all_are_observed_as_they_are(task):
    """Of worlds that go on, points and places are kept from before the reset, to the bit as if read anew."""
    env = make(task, 6)
    env.reset()
    resets = 0
    for t, move in enumerate(actions(env, 0, 12)):
        env.progress[t % 6] = env.max_episode_length if t % 3 == 0 else 0
        result = env.step(move)
        resets += int(result.done.sum())
        env.sim.version += 1  # as if all had changed
        assert torch.equal(result.obs, env.observe())
        assert result.done.all() or torch.equal(result.obs[~result.done], result.final_obs[~result.done])
    assert resets >= 4


def test_many_rotations_are_quat_rotates():
    generator = torch.Generator().manual_seed(0)
    quat = torch.nn.functional.normalize(torch.randn(100, 18, 4, generator=generator), dim=-1)
    for vec in (torch.randn(18, 3, generator=generator), torch.randn(100, 18, 3, generator=generator)):
        torch.testing.assert_close(rotate_many(quat, vec), quat_rotate(quat, vec), rtol=0.0, atol=2e-6)
