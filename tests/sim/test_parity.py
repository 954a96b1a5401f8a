"""MuJoCo C in float64 and Warp in float32 on the same scene, the same commands, in contact."""

from __future__ import annotations

import pytest
import torch
from simlab import assert_close, build, put_box, workshop

pytestmark = pytest.mark.slow
pytest.importorskip("mujoco_warp")


def test_ten_control_steps_agree():
    batch, warp = build("batch", workshop()), build("warp", workshop())
    generator = torch.Generator().manual_seed(3)
    touched = torch.zeros(batch.num_envs, dtype=torch.bool)
    for sim in (batch, warp):
        put_box(sim, pos=[0.0, 0.0, 0.11], angular=[0.3, -0.2, 1.0], linear=[0.5, 0.2, 0.0])
    for _ in range(10):
        target = 0.5 * torch.randn(batch.dof_pos.shape, generator=generator)
        effort = torch.randn(batch.dof_pos.shape, generator=generator)
        for sim in (batch, warp):
            sim.set_dof_target_pos(target.to(sim.device))
            sim.set_dof_target_vel(target.to(sim.device))
            sim.set_dof_effort(effort.to(sim.device))
            sim.step()
        touched |= batch.contact_force[:, 0].norm(dim=1) > 1.0
        for name in ("dof_pos", "root_state", "body_state"):
            assert_close(getattr(warp, name)[..., :7], getattr(batch, name)[..., :7], 1e-4)
        assert_close(warp.dof_vel, batch.dof_vel, 1e-3)
        assert_close(warp.root_state[..., 7:], batch.root_state[..., 7:], 1e-3)
        assert_close(warp.body_state[..., 7:], batch.body_state[..., 7:], 1e-3)
        assert_close(warp.dof_force, batch.dof_force, 1e-2)
        assert_close(warp.force_sensor, batch.force_sensor, 2e-2)
        assert_close(warp.contact_force, batch.contact_force, 0.2)
    assert touched.all()  # it was a scene in contact
    assert_close(warp.mass_matrix(), batch.mass_matrix(), 1e-5)
    assert_close(warp.jacobian("arm/tip"), batch.jacobian("arm/tip"), 1e-4)
