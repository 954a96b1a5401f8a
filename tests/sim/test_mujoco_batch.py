"""What is particular to the CPU engine: threads, silent resets, full buffers, failing worlds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from simlab import (
    ASSETS,
    DT,
    SERVED,
    SUBSTEPS,
    N,
    build,
    every,
    only,
    put_box,
    put_joint,
    run,
    snapshot,
    tensor,
    workshop,
)

from hepo_isaac.sim.mujoco.batch import MujocoBatchSimulation
from hepo_isaac.sim.spec import ActorSpec, DriveSpec, SceneSpec


def rollout(threads):
    sim = build("batch", workshop(), num_envs=16, threads=threads)
    generator = torch.Generator().manual_seed(7)
    put_box(sim, angular=[2.0, 1.0, 3.0], pos=[0.0, 0.0, 0.2])
    for step in range(20):
        sim.set_dof_target_pos(sim.dof_pos + torch.randn(sim.dof_pos.shape, generator=generator))
        sim.step()
        if step % 5 == 0:
            sim.reset(torch.rand(16, generator=generator) < 0.3)
    return snapshot(sim)


def test_threads_do_not_change_a_bit():
    one, two = rollout(1), rollout(2)
    for name in SERVED:
        assert torch.equal(one[name], two[name]), name


def test_mujoco_resets_a_diverged_world_in_silence_and_we_say_so():
    """The trap itself: after the step the world looks healthy, teleported to its start."""
    sim = build("batch", workshop())
    put_box(sim, pos=[5.0, 0.0, 0.5])
    sim.batch.bind("qvel")[1, 0] = np.nan
    sim.step()
    assert sim.dof_vel.isfinite().all()
    assert abs(float(sim.root_state[1, -1, 0])) < 1.0  # teleported
    assert sim.bad_envs.tolist() == [False, True, False, False]
    sim.step()
    assert not sim.bad_envs.any()


def test_nan_born_in_the_last_physics_step_is_seen_at_once():
    sim = build("batch", workshop(substeps=1))
    force = torch.zeros(N, len(sim.body_names), 3)
    force[2, sim.body_index("box/cube")] = 1e30
    sim.apply_body_force(force)
    sim.step()
    assert sim.bad_envs.tolist() == [False, False, True, False]


def test_a_full_constraint_buffer_is_flagged_and_counted():
    sim = build("batch", workshop(options={"mujoco": {"memory": 6000}}))
    run(sim, 1)
    assert sim.bad_envs.all()
    assert int(sim.overflow_count) == N
    put_box(sim, pos=[0.0, 0.0, 3.0])  # no contacts, no overflow
    run(sim, 1)
    assert not sim.bad_envs.any()
    assert int(sim.overflow_count) == N


def test_a_world_in_which_mujoco_raises_is_flagged():
    sim = build("batch", workshop(options={"mujoco": {"memory": 10000}}))
    put_box(sim, pos=[0.0, 0.0, 3.0])
    put_box(sim, pos=[0.0, 0.0, 0.1], mask=only(sim, 2))
    run(sim, 1)
    assert sim.bad_envs.tolist() == [False, False, True, False]


def test_a_failing_world_is_flagged_by_set_state_too_and_starts_afresh():
    actors = list(workshop().actors)
    actors[-1] = replace(actors[-1], position=(0.0, 0.0, 3.0))
    sim = build("batch", workshop(actors=tuple(actors), options={"mujoco": {"memory": 2000}}))
    put_box(sim, pos=[1.0, 0.0, 0.09], mask=only(sim, 2))  # in the ground, where the buffer cannot hold its contacts
    assert sim.bad_envs.tolist() == [False, False, True, False]
    sim.set_state(sim.bad_envs.clone(), dof_pos=torch.zeros_like(sim.dof_pos))
    assert not sim.bad_envs.any()
    assert sim.root_state[2, -1, :3].tolist() == [0.0, 0.0, 3.0]


def test_warm_start_is_forgotten_by_touched_worlds_only():
    sim = build("batch", workshop())
    run(sim, 3)
    memory = sim.batch.bind("qacc_warmstart")
    before = memory.copy()
    assert (np.abs(before).sum(1) > 0).all()
    sim.set_state(only(sim, 2))
    assert np.abs(memory[2]).sum() == 0
    assert (memory[[0, 1, 3]] == before[[0, 1, 3]]).all()


def test_ids_are_sorted_and_unique(monkeypatch):
    sim = build("batch", workshop(), num_envs=40)
    seen = []
    real = sim.batch.forward

    def spy(ids=None, stage=0):
        seen.append(ids)
        return real(ids, stage=stage)

    monkeypatch.setattr(sim.batch, "forward", spy)
    mask = torch.zeros(40, dtype=torch.bool)
    mask[[33, 2, 17, 5]] = True
    sim.reset(mask)
    assert seen[0].tolist() == [2, 5, 17, 33]
    sim.reset(torch.zeros(40, dtype=torch.bool))
    assert len(seen) == 1  # an empty mask costs nothing


def test_derived_constants_are_per_world():
    sim = build("batch", workshop())
    mass = tensor(sim, [0.5, 1.0, 2.0, 4.0])
    sim.randomize("body_mass", every(sim), mass[:, None], ("motor/mass",))
    dof = int(sim.scene.qvel_adr[sim.dof_index("motor/rail")])
    got = torch.tensor(sim.batch.expanded("dof_invweight0")[:, dof].copy())
    torch.testing.assert_close(got, 1.0 / mass.double())


def test_velocities_that_are_not_served_are_nan():
    sim = build("batch", workshop(body_velocities=False, body_states=("arm/tip", "box/cube")))
    run(sim, 1)
    assert sim.body_names == ["arm/tip", "box/cube"]
    assert sim.body_state[..., :7].isfinite().all()
    assert sim.body_state[..., 7:].isnan().all()
    assert sim.jacobian("arm/tip").abs().sum() > 0


def test_servo_gains_survive_a_partial_mask():
    sim = build("batch", workshop())
    sim.randomize("drive_stiffness", only(sim, 0), torch.full((N, 1), 800.0), ("fast/rail",))
    put_joint(sim, "fast/rail", pos=0.0)
    sim.set_dof_target_pos(torch.full_like(sim.dof_pos, 1.0))
    run(sim, 5)
    speed = sim.dof_vel[:, sim.dof_index("fast/rail")]
    assert (speed <= 0.52).all()  # the joint-speed bound follows the new gain
    assert (speed >= 0.45).all()


def test_foreign_state_names_both_shapes():
    sim = build("batch", workshop())
    other = build("batch", workshop(), num_envs=2)
    with pytest.raises(ValueError, match=r"shape \(2, \d+\) does not fit mujoco_batch with shape \(4, \d+\)"):
        sim.load_state(other.get_state())


def test_an_effort_drive_keeps_its_passive_spring_and_damper():
    """A constant force F settles a spring k at F / k, however small the effort limit makes F."""
    drive = DriveSpec("rail", "effort", stiffness=20.0, damping=10.0, effort_limit=4.0)
    actor = ActorSpec("sprung", ASSETS / "slider.xml", drives=(drive,))
    sim = MujocoBatchSimulation(SceneSpec(actors=(actor,), control_dt=DT, substeps=SUBSTEPS), 2, threads=1)
    for _ in range(600):
        sim.set_dof_effort(torch.tensor([[3.0], [10.0]]))
        sim.step()
    assert sim.dof_pos.flatten().tolist() == pytest.approx([3.0 / 20.0, 4.0 / 20.0], rel=1e-4)
    assert sim.dof_force.flatten().tolist() == pytest.approx([3.0, 4.0])
