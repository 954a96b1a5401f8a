"""What is particular to the Warp engine: buffers, per-world model fields. Slow: its kernels compile for a minute."""

from __future__ import annotations

import pytest
import torch
from simlab import N, build, every, only, put_box, run, tensor, workshop

pytestmark = pytest.mark.slow
warp = pytest.importorskip("mujoco_warp")


def test_a_full_constraint_buffer_is_flagged_and_counted():
    sim = build("warp", workshop(options={"mujoco_warp": {"nconmax": 16, "njmax": 4}}))
    put_box(sim, pos=[0.0, 0.0, 3.0])
    put_box(sim, pos=[0.0, 0.0, 0.1], mask=only(sim, 1, 2))
    run(sim, 1)
    assert sim.bad_envs.tolist() == [False, True, True, False]
    assert int(sim.overflow_count) == 2
    put_box(sim, pos=[0.0, 0.0, 3.0])
    assert not sim.bad_envs.any()
    run(sim, 1)
    assert not sim.bad_envs.any()
    assert int(sim.overflow_count) == 2


def test_an_overflow_is_forgotten_once_it_is_over():
    sim = build("warp", workshop(options={"mujoco_warp": {"nconmax": 16, "njmax": 4}}))
    lift = torch.zeros(N, len(sim.body_names), 3, device=sim.device)
    lift[:, sim.body_index("box/cube"), 2] = 2000.0
    put_box(sim, pos=[0.0, 0.0, 0.095])
    sim.apply_body_force(lift)
    run(sim, 1)  # overflows in its first physics step, flies in its last
    assert sim.bad_envs.all()
    run(sim, 1)
    assert not sim.bad_envs.any()


def test_a_full_contact_pool_is_flagged_in_every_world():
    """Contacts are pooled, so nobody knows whose were lost."""
    sim = build("warp", workshop(options={"mujoco_warp": {"nconmax": 1, "njmax": 48}}))
    run(sim, 1)
    assert sim.bad_envs.all()
    assert int(sim.overflow_count) == N


def test_reaching_the_solver_iteration_limit_is_not_an_overflow():
    options = {"mujoco_warp": {"nconmax": 16, "njmax": 48}, "mujoco": {"iterations": 1, "ls_iterations": 1}}
    sim = build("warp", workshop(options=options))
    put_box(sim, pos=[0.0, 0.0, 0.12], angular=[3.0, 2.0, 1.0])
    run(sim, 5)
    assert not sim.bad_envs.any()
    assert int(sim.overflow_count) == 0


def test_derived_constants_are_per_world():
    """The trap: set_const fills a field that worlds share with world 0's value."""
    sim = build("warp", workshop())
    mass = tensor(sim, [0.5, 1.0, 2.0, 4.0])
    sim.randomize("body_mass", every(sim), mass[:, None], ("motor/mass",))
    dof = int(sim.scene.qvel_adr[sim.dof_index("motor/rail")])
    torch.testing.assert_close(torch.tensor(sim.wp_model.dof_invweight0.numpy()[:, dof]), 1.0 / mass.cpu())


def test_warm_start_is_forgotten_by_touched_worlds_only():
    sim = build("warp", workshop())
    run(sim, 3)
    before = sim._warmstart.clone()
    assert before.abs().sum(1).gt(0).all()
    sim.set_state(only(sim, 2))
    assert sim._warmstart[2].abs().sum() == 0
    assert torch.equal(sim._warmstart[[0, 1, 3]], before[[0, 1, 3]])
