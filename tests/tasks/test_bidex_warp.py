"""The dexterous tasks on MuJoCo Warp, on its CPU device. Slow: kernels compile for minutes the first time."""

from __future__ import annotations

import pytest

from tests.tasks.dexterous import TABLE
from tests.tasks.robots import actions, make

pytest.importorskip("mujoco_warp")
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", sorted(TABLE))
def test_ten_steps_go_as_on_mujoco_c(name):
    """The same start and actions; one world begins anew on the way. What rounding decides grows in contacts, and the
    forces that are observed are ten times as large: so observations are compared after one step, rewards after all."""
    warp, c = (make("ShadowHand" + name, 4, engine=engine) for engine in ("mujoco_warp", "mujoco_batch"))
    for env in (warp, c):
        env.reset()
        env.progress[1] = env.max_episode_length - 5
    for step, move in enumerate(actions(c, 0, 10)):
        seen, expected = warp.step(move), c.step(move)
        assert (seen.done == expected.done).all()
        assert (seen.rewards - expected.rewards).abs().max() <= 1e-3 * (1.0 + expected.rewards.abs().max())
        if step == 0:
            assert (seen.obs - expected.obs).abs().max() < 1e-3
        assert seen.obs.isfinite().all()
    assert int(warp.bad_count) == int(warp.sim.overflow_count) == 0
    warp.close()
    c.close()
