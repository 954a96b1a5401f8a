"""The dexterous tasks on MuJoCo Warp, on its CPU device. Slow: kernels compile for minutes the first time."""

from __future__ import annotations

import pytest
import torch

from hepo_isaac.studies.dexterous_thrown import thrown
from tests.tasks.dexterous import TABLE
from tests.tasks.robots import actions, make

pytest.importorskip("mujoco_warp")
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", sorted(TABLE))
def test_ten_steps_go_as_on_mujoco_c(name):
    """From one start with the same actions; then an episode begins anew on Warp alone, which draws other numbers.

    Contacts multiply rounding, and cubes that lie on a table hit it all the time: this is about rewards and ends, and
    tests/tasks/test_robots_warp.py compares single steps closely.
    """
    warp, c = (make("ShadowHand" + name, 4, engine=engine) for engine in ("mujoco_warp", "mujoco_batch"))
    assert (warp.reset() - c.reset()).abs().max() < 1e-5
    for move in actions(c, 0, 10):
        seen, expected = warp.step(move), c.step(move)
        assert seen.obs.isfinite().all() and torch.equal(seen.done, expected.done)
        assert (seen.rewards - expected.rewards).abs().max() <= 0.05 * (1.0 + expected.rewards.abs().max())
    warp.progress[1] = warp.max_episode_length - 1
    seen = warp.step(move)
    assert seen.done[1] and seen.obs.isfinite().all() and seen.rewards.isfinite().all()
    assert int(warp.bad_count) == int(warp.sim.overflow_count) == 0
    warp.close()
    c.close()


JOINTED = ("Pen", "Scissors", "SwingCup", "Kettle", "BottleCap", "LiftUnderarm")


@pytest.mark.parametrize("name", JOINTED)
def test_things_that_spin_in_the_air_do_not_speed_up(name):
    """As on MuJoCo C (test_bidex_force.py); implicitfast makes 80,000 rad/s of the cup's 100 here, too."""
    fastest, bad = thrown("ShadowHand" + name, 100.0, engine="mujoco_warp")
    assert bad == 0 and fastest < 200.0
