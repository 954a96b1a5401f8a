"""The Simulation contract, checked on every engine against closed-form answers."""

from __future__ import annotations

import math

import pytest
import torch
from simlab import (
    DT,
    FAST_LIMIT,
    SERVED,
    SERVO,
    SUBSTEPS,
    G,
    H,
    N,
    assert_close,
    box_state,
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


# -- layout ----------------------------------------------------------------------------------------------------
def test_layout(sim):
    d, b, a = len(sim.dof_names), len(sim.body_names), len(sim.actor_names)
    assert sim.dof_names[:3] == ["arm/shoulder", "arm/elbow", "pendulum/swing"]
    assert "box/cube" in sim.body_names
    shapes = {name: tuple(getattr(sim, name).shape) for name in SERVED}
    assert shapes["root_state"] == (N, a, 13)
    assert shapes["dof_pos"] == shapes["dof_vel"] == shapes["dof_force"] == (N, d)
    assert shapes["body_state"] == (N, b, 13)
    assert shapes["contact_force"] == (N, 2, 3)
    assert shapes["force_sensor"] == (N, 2, 6)
    for name in SERVED:
        assert getattr(sim, name).dtype == torch.float32
    assert sim.bad_envs.dtype == torch.bool
    assert_close(sim.dof_lower[sim.dof_index("arm/shoulder")], -2.0, 0)
    assert math.isinf(sim.dof_upper[sim.dof_index("pendulum/swing")])


def test_unknown_name_lists_the_known_ones(sim):
    with pytest.raises(ValueError, match=r"no joint 'arm/wrist'.*arm/shoulder"):
        sim.dof_index("arm/wrist")


def test_storage_is_stable(sim):
    before = {name: getattr(sim, name).data_ptr() for name in (*SERVED, "bad_envs", "dof_target_pos")}
    run(sim, 2)
    sim.reset(only(sim, 1))
    assert before == {name: getattr(sim, name).data_ptr() for name in before}


# -- dynamics with known answers -------------------------------------------------------------------------------
def test_free_fall(sim):
    """Semi-implicit Euler falls v = -g n h and z = z0 - g h^2 n (n + 1) / 2."""
    put_box(sim, pos=[0.0, 0.0, 2.0])
    run(sim, 10)
    n = 10 * SUBSTEPS
    assert_close(box_state(sim)[:, 2], torch.full((N,), 2.0 - G * H * H * n * (n + 1) / 2), 1e-5)
    assert_close(box_state(sim)[:, 9], torch.full((N,), -G * n * H), 1e-4)
    assert_close(sim.contact_force, torch.zeros(N, 2, 3), 0)


def test_resting_box_feels_its_weight_upwards(sim):
    """contact_force is the force ON the body, in the world frame, whichever way the box lies."""
    s = math.sqrt(0.5)
    put_box(sim, quat=[[0, 0, 0, 1], [s, 0, 0, s], [0, s, 0, s], [1, 0, 0, 0]])
    run(sim, 60)
    expected = torch.tensor([0.0, 0.0, 2.0 * G]).expand(N, 3)
    assert_close(sim.contact_force[:, 0], expected, 0.05)
    assert_close(sim.contact_force[:, 1], torch.zeros(N, 3), 0)


@pytest.mark.dynamics
def test_servo_follows_its_differential_equation(sim):
    """m x'' = kp (1 - x) - kv x', both as the integrator's recurrence (tight) and as the continuous answer."""
    m, kp, kv = SERVO["mass"], SERVO["stiffness"], SERVO["damping"]
    dof = sim.dof_index("servo/rail")
    target = sim.dof_pos.clone()
    target[:, dof] = 1.0
    sim.set_dof_target_pos(target)
    a = kv / (2 * m)
    b = math.sqrt(a * a - kp / m)
    x = v = 0.0
    for step in range(1, 31):
        sim.step()
        for _ in range(SUBSTEPS):
            v = (v + H * kp / m * (1.0 - x)) / (1.0 + H * kv / m)
            x += H * v
        t = step * DT
        exact = 1.0 - math.exp(-a * t) * (math.cosh(b * t) + a / b * math.sinh(b * t))
        assert_close(sim.dof_pos[:, dof], torch.full((N,), x), 2e-5)
        assert_close(sim.dof_pos[:, dof], torch.full((N,), exact), 0.01)


def test_velocity_limit_bounds_the_drive(sim):
    dof = sim.dof_index("fast/rail")
    target = sim.dof_pos.clone()
    target[:, dof] = tensor(sim, [1.0, -1.0, 0.001, 0.0])
    sim.set_dof_target_pos(target)
    last = sim.dof_pos[:, dof].clone()
    top = torch.zeros(N)
    for _ in range(40):
        sim.step()
        top = torch.maximum(top, (sim.dof_pos[:, dof] - last).abs().cpu() / DT)
        last = sim.dof_pos[:, dof].clone()
    assert (top[:2] <= FAST_LIMIT * 1.02).all()
    assert (top[:2] >= FAST_LIMIT * 0.9).all()  # the limit is reached, so it was not just a slow drive
    assert_close(last[2], 0.001, 1e-4)


@pytest.mark.dynamics
def test_effort_and_velocity_drives(sim):
    effort, speed = torch.zeros_like(sim.dof_pos), torch.zeros_like(sim.dof_pos)
    effort[:, sim.dof_index("motor/rail")] = tensor(sim, [0.0, 1.0, 2.0, -3.0])
    speed[:, sim.dof_index("runner/rail")] = tensor(sim, [0.0, 0.2, -0.4, 1.0])
    sim.set_dof_effort(effort)
    sim.set_dof_target_vel(speed)
    run(sim, 30)
    assert_close(sim.dof_vel[:, sim.dof_index("motor/rail")], torch.tensor([0.0, 1.0, 2.0, -3.0]) / 1.5 * 30 * DT, 1e-4)
    assert_close(sim.dof_vel[:, sim.dof_index("runner/rail")], [0.0, 0.2, -0.4, 1.0], 1e-4)
    assert_close(sim.dof_force[:, sim.dof_index("motor/rail")], [0.0, 1.0, 2.0, -3.0], 1e-5)


def test_effort_limit(sim):
    target = sim.dof_pos.clone()
    target[:, sim.dof_index("arm/shoulder")] = 1.9
    sim.set_dof_target_pos(target)
    sim.step()
    assert_close(sim.dof_force[:, sim.dof_index("arm/shoulder")], torch.full((N,), 30.0), 1e-3)


@pytest.mark.dynamics
def test_inelastic_stop_swallows_the_impact(sim):
    """A drawer slammed at 0.3 to 1 m/s stays shut at its stop; MuJoCo's default stop throws it back."""
    speeds = [0.3, 0.6, 1.0, 0.0]
    for joint in ("drawer/slide", "springy/slide"):
        put_joint(sim, joint, vel=speeds)
    run(sim, 120)
    hard, soft = sim.dof_pos[:3, sim.dof_index("drawer/slide")], sim.dof_pos[:3, sim.dof_index("springy/slide")]
    assert (hard >= 0.399).all(), hard
    assert (hard <= 0.4 + 2e-3).all(), hard
    assert not (soft >= 0.399).any(), soft


@pytest.mark.dynamics
def test_pendulum_mass_matrix_and_force_sensor(sim):
    """A hanging 2 kg bob 0.5 m down: inertia m l^2 + I, and its rod carries its weight."""
    swing = sim.dof_index("pendulum/swing")
    assert_close(sim.mass_matrix()[:, swing, swing], torch.full((N,), 2 * 0.25 + 0.008), 1e-5)
    run(sim, 3)
    expected = torch.tensor([0.0, 0.0, -2.0 * G, 0.0, 0.0, 0.0]).expand(N, 6)
    assert_close(sim.force_sensor[:, 0], expected, 1e-3)
    # The drawer's centre of mass lies 0.2 m behind its origin: the weight's moment about it is (-0.2,0,0) x (0,0,-mg).
    load = torch.tensor([0.0, 0.0, -4.0 * G, 0.0, -0.2 * 4.0 * G, 0.0]).expand(N, 6)
    assert_close(sim.force_sensor[:, 1], load, 1e-3)


@pytest.mark.dynamics
def test_force_sensor_is_in_the_body_frame(sim):
    put_joint(sim, "pendulum/swing", pos=[0.0, 0.5, -0.5, 1.0])
    sim.step()
    force = sim.force_sensor[:, 0]
    # Released from rest the rod pulls along itself with m g cos(angle); across it, the ball's own inertia holds some.
    assert_close(force[:, 2], -2.0 * G * torch.cos(sim.dof_pos[:, sim.dof_index("pendulum/swing")]), 0.35)
    assert_close(force[:, 1], torch.zeros(N), 1e-4)


def test_mass_matrix_of_a_planar_arm(sim):
    """The textbook's two-link arm, and nothing coupled to it."""
    angle = torch.tensor([0.0, 0.7, -1.2, 2.5])
    put_joint(sim, "arm/elbow", pos=angle.tolist())
    mass = sim.mass_matrix()
    second = 0.01 + 0.5 * 0.2**2 + 0.001 + 0.1 * 0.4**2  # the forearm and its tip about the elbow
    lever = 0.4 * (0.5 * 0.2 + 0.1 * 0.4) * angle.cos()
    assert_close(mass[:, 1, 1], torch.full((N,), second), 1e-6)
    assert_close(mass[:, 0, 1], second + lever, 1e-6)
    assert_close(mass[:, 0, 0], 0.02 + 0.2**2 + 0.6 * 0.4**2 + second + 2 * lever, 1e-6)
    assert mass.shape == (N, len(sim.dof_names), len(sim.dof_names))
    assert_close(mass, mass.transpose(1, 2), 0)
    assert_close(mass[:, 0, sim.dof_index("motor/rail")], torch.zeros(N), 0)
    assert (torch.linalg.eigvalsh(mass.cpu()) > 0).all()


def test_jacobian_against_finite_differences(sim):
    base = torch.zeros_like(sim.dof_pos)
    base[:, 0], base[:, 1] = tensor(sim, [0.3, -0.4, 1.1, 0.0]), tensor(sim, [0.2, 0.9, -0.6, 0.0])
    sim.set_state(every(sim), dof_pos=base)
    jacobian = sim.jacobian("arm/tip").clone()
    assert jacobian.shape == (N, 6, len(sim.dof_names))
    tip, eps = sim.body_index("arm/tip"), 1e-2
    for dof in (0, 1, 2):
        shift = torch.zeros_like(base)
        shift[:, dof] = eps
        sim.set_state(every(sim), dof_pos=base + shift)
        up = sim.body_state[:, tip, :3].clone()
        sim.set_state(every(sim), dof_pos=base - shift)
        slope = (up - sim.body_state[:, tip, :3]) / (2 * eps)
        assert_close(jacobian[:, :3, dof], slope, 1e-4)


def test_body_velocity_is_the_jacobian_times_joint_velocity(sim):
    base, vel = torch.zeros_like(sim.dof_pos), torch.zeros_like(sim.dof_pos)
    base[:, :2] = tensor(sim, [0.3, -0.4])
    vel[:, :2] = tensor(sim, [[1.0, 0.0], [0.0, 1.0], [-0.5, 2.0], [0.0, 0.0]])
    sim.set_state(every(sim), dof_pos=base, dof_vel=vel)
    served = sim.body_state[:, sim.body_index("arm/tip"), 7:]
    assert_close(served, torch.einsum("nij,nj->ni", sim.jacobian("arm/tip"), sim.dof_vel), 1e-5)


def test_body_velocity_against_finite_differences(sim):
    put_joint(sim, "arm/shoulder", vel=[1.0, -1.0, 0.5, 0.0])
    put_joint(sim, "pendulum/swing", pos=0.4, vel=[0.0, 1.0, 2.0, -1.0])
    run(sim, 2)
    at, vel = sim.dof_pos.clone(), sim.dof_vel.clone()
    served, eps = sim.body_state.clone(), 5e-3
    sim.set_state(every(sim), dof_pos=at + eps * vel)
    ahead = sim.body_state[..., :3].clone()
    sim.set_state(every(sim), dof_pos=at - eps * vel)
    slope = (ahead - sim.body_state[..., :3]) / (2 * eps)
    fixed = [i for i, name in enumerate(sim.body_names) if name != "box/cube"]
    assert_close(served[:, fixed, 7:10], slope[:, fixed], 1e-3)


# -- conventions -----------------------------------------------------------------------------------------------
def test_quaternions_are_xyzw(sim):
    s = math.sqrt(0.5)
    put_joint(sim, "arm/shoulder", pos=math.pi / 2)
    upper = sim.body_state[:, sim.body_index("arm/upper")]
    assert_close(upper[:, 3:7], torch.tensor([0.0, 0.0, s, s]).expand(N, 4), 1e-6)
    assert_close(sim.body_state[:, sim.body_index("arm/lower"), :3], torch.tensor([2.0, 0.4, 1.0]).expand(N, 3), 1e-6)
    mount = torch.tensor([2.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0] + [0.0] * 6)
    assert_close(sim.root_state[:, sim.actor_index("arm")], mount.expand(N, 13), 0)
    put_box(sim, quat=[0.0, 0.6, 0.0, 0.8])
    assert_close(box_state(sim)[:, 3:7], torch.tensor([0.0, 0.6, 0.0, 0.8]).expand(N, 4), 1e-6)
    assert_close(sim.body_state[:, sim.body_index("box/cube"), 3:7], box_state(sim)[:, 3:7].cpu(), 1e-6)


def test_free_joint_spin_is_in_the_world_frame(sim):
    """A box lying on its side that spins about the world's z turns about the world's z."""
    s = math.sqrt(0.5)
    quat, spin = [s, 0.0, 0.0, s], [0.0, 0.0, 2.0]
    put_box(sim, pos=[0.0, 0.0, 3.0], quat=quat, angular=spin)
    assert_close(box_state(sim)[:, 10:], torch.tensor(spin).expand(N, 3), 1e-6)
    assert_close(sim.body_state[:, sim.body_index("box/cube"), 10:], torch.tensor(spin).expand(N, 3), 1e-6)
    run(sim, 10)
    half = 2.0 * 10 * DT / 2
    turned = torch.tensor([s * math.cos(half), s * math.sin(half), s * math.sin(half), s * math.cos(half)])
    assert_close(box_state(sim)[:, 3:7], turned.expand(N, 4), 1e-4)
    assert_close(box_state(sim)[:, 10:], torch.tensor(spin).expand(N, 3), 1e-4)


def test_body_force_pushes_at_the_centre_of_mass_for_one_step(sim):
    put_box(sim, pos=[0.0, 0.0, 3.0], quat=[0.0, 0.0, 0.6, 0.8])
    force = torch.zeros(N, len(sim.body_names), 3, device=sim.device)
    torque = torch.zeros_like(force)
    force[:, sim.body_index("box/cube"), 0] = tensor(sim, [0.0, 1.0, 2.0, 3.0])
    torque[:, sim.body_index("box/cube"), 2] = tensor(sim, [0.1, 0.0, 0.0, 0.0])
    sim.apply_body_force(force, torque)
    sim.step()
    expected = torch.tensor([0.0, 1.0, 2.0, 3.0]) / 2.0 * DT
    assert_close(box_state(sim)[:, 7], expected, 1e-6)
    inertia = 2.0 * 0.2**2 / 6
    assert_close(box_state(sim)[:, 12], torch.tensor([0.1, 0.0, 0.0, 0.0]) / inertia * DT, 1e-5)
    sim.step()
    assert_close(box_state(sim)[:, 7], expected, 1e-6)


@pytest.mark.dynamics
def test_a_wrench_on_a_link_turns_its_joint(sim):
    """A torque about the hinge, and a force at the centre of mass half a metre away: both turn 0.508 kg m^2."""
    put_joint(sim, "pendulum/swing", pos=0.0, vel=0.0)
    body = sim.body_index("pendulum/rod")
    force = torch.zeros(N, len(sim.body_names), 3, device=sim.device)
    torque = torch.zeros_like(force)
    torque[1, body, 1] = 0.4
    force[2, body, 0] = -0.4 / 0.5
    sim.apply_body_force(force, torque)
    sim.step()
    speed = sim.dof_vel[:, sim.dof_index("pendulum/swing")]
    assert_close(speed, torch.tensor([0.0, 1.0, 1.0, 0.0]) * 0.4 / 0.508 * DT, 1e-4)


# -- freshness -------------------------------------------------------------------------------------------------
def test_nothing_is_one_substep_old_after_a_step(sim):
    """Poses and velocities after step equal those computed afresh from the same joint state."""
    put_joint(sim, "arm/shoulder", vel=3.0)
    put_box(sim, pos=[0.0, 0.0, 2.0], linear=[1.0, 2.0, 3.0], angular=[1.0, 0.0, 2.0])
    run(sim, 3)
    after = snapshot(sim)
    sim.set_state(
        every(sim), dof_pos=sim.dof_pos.clone(), dof_vel=sim.dof_vel.clone(), root_state=sim.root_state.clone()
    )
    for name in ("root_state", "dof_pos", "dof_vel", "body_state"):
        assert_close(getattr(sim, name), after[name], 2e-6)


def test_set_state_refreshes_at_once_and_leaves_other_worlds_alone(sim):
    run(sim, 5)
    before = snapshot(sim)
    put_joint(sim, "arm/shoulder", pos=0.5, vel=1.5, mask=only(sim, 3, 1))
    put_box(sim, pos=[1.0, 1.0, 1.0], mask=only(sim, 3, 1))
    after = snapshot(sim)
    for name in SERVED:
        assert torch.equal(before[name][[0, 2]], after[name][[0, 2]]), name
    touched = [1, 3]
    assert_close(after["dof_pos"][touched, 0], [0.5, 0.5], 1e-7)
    upper = after["body_state"][touched, sim.body_index("arm/upper")]
    assert_close(upper[:, 5], torch.full((2,), math.sin(0.25)), 1e-6)
    assert_close(upper[:, 12], torch.full((2,), 1.5), 1e-6)
    assert_close(after["body_state"][touched, sim.body_index("box/cube"), :3], torch.ones(2, 3), 1e-6)
    assert_close(after["contact_force"][touched], torch.zeros(2, 2, 3), 0)


def test_set_state_of_some_worlds_does_not_change_the_future_of_others(engine, sim):
    put_box(sim, angular=[1.0, 2.0, 3.0], pos=[0.0, 0.0, 0.15])
    run(sim, 5)
    saved = sim.get_state()
    run(sim, 10)
    alone = snapshot(sim)
    sim.load_state(saved)
    put_box(sim, pos=[1.0, 1.0, 1.0], mask=only(sim, 1))
    run(sim, 10)
    for name in SERVED:
        got, expected = getattr(sim, name)[[0, 2, 3]], alone[name][[0, 2, 3]]
        if engine == "batch":
            assert torch.equal(got, expected), name
        else:
            assert_close(got, expected, 1e-4)  # Warp's pooled contacts may be summed in another order


def test_every_served_value_is_rewritten(sim):
    """Poison every served tensor: after step and after reset none of the poison may be left."""
    free = [sim.actor_index("box")]  # the other actors' roots are bolted down and written once

    def poison(value):
        for name in SERVED:
            part = (slice(None), free) if name == "root_state" else ...
            getattr(sim, name)[part] = value

    poison(float("nan"))
    sim.step()
    for name in SERVED:
        assert getattr(sim, name).isfinite().all(), name
    assert not sim.bad_envs.any()
    poison(float("inf"))
    sim.reset(every(sim))
    for name in SERVED:
        assert getattr(sim, name).isfinite().all(), name


def test_reset_restores_the_scene(sim):
    start = snapshot(sim)
    sim.set_dof_target_pos(sim.dof_pos + 0.5)
    put_box(sim, pos=[1.0, 1.0, 1.0])
    run(sim, 5)
    sim.reset(every(sim))
    for name in SERVED:
        assert torch.equal(getattr(sim, name), start[name]), name
    assert torch.equal(sim.dof_target_pos, sim.dof_pos)


# -- bad worlds ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e20])
@pytest.mark.parametrize("what", ["dof_vel", "dof_pos", "root"])
def test_diverged_world_is_flagged_and_healed(sim, what, value):
    start = snapshot(sim)
    if what == "root":
        put_box(sim, linear=[value, 0.0, 0.0], mask=only(sim, 2))
    elif what == "dof_vel":
        put_joint(sim, "arm/elbow", vel=value, mask=only(sim, 2))
    else:
        put_joint(sim, "arm/elbow", pos=value, mask=only(sim, 2))
    sim.step()
    assert sim.bad_envs.tolist() == [False, False, True, False]
    sim.reset(sim.bad_envs.clone())
    assert not sim.bad_envs.any()
    for name in SERVED:
        assert torch.equal(getattr(sim, name)[2], start[name][2]), name
    run(sim, 3)
    assert not sim.bad_envs.any()
    for name in SERVED:
        assert getattr(sim, name).isfinite().all(), name


def test_a_command_that_is_nan_makes_a_bad_world(sim):
    """MuJoCo would drop the command in silence."""
    target = torch.zeros_like(sim.dof_pos)
    target[1, sim.dof_index("servo/rail")] = float("nan")
    sim.set_dof_target_pos(target)
    sim.step()
    assert sim.bad_envs.tolist() == [False, True, False, False]
    sim.set_dof_target_pos(torch.zeros_like(target))
    sim.reset(only(sim, 1))
    run(sim, 2)
    assert not sim.bad_envs.any()


def test_set_state_alone_heals_a_diverged_world(sim):
    put_joint(sim, "arm/elbow", vel=float("nan"), mask=only(sim, 2))
    sim.step()
    sim.set_state(sim.bad_envs.clone(), dof_pos=torch.zeros_like(sim.dof_pos))
    assert not sim.bad_envs.any()
    run(sim, 2)
    assert not sim.bad_envs.any()
    assert sim.dof_vel.isfinite().all()


# -- checkpoints -----------------------------------------------------------------------------------------------
def test_continuation_is_bit_exact(sim):
    target = sim.dof_pos.clone()
    target[:, 0] = tensor(sim, [0.1, 0.5, -0.5, 1.0])
    sim.set_dof_target_pos(target)
    put_box(sim, pos=[0.0, 0.0, 0.13], angular=[3.0, 1.0, 2.0])
    run(sim, 7)
    force = torch.ones(N, len(sim.body_names), 3, device=sim.device)
    sim.apply_body_force(force)
    saved = sim.get_state()
    at_save = snapshot(sim)
    run(sim, 6)
    first = snapshot(sim)
    sim.reset(every(sim))
    run(sim, 3)
    sim.load_state(saved)
    for name in SERVED:
        assert torch.equal(getattr(sim, name), at_save[name]), name
    run(sim, 6)
    for name in SERVED:
        assert torch.equal(getattr(sim, name), first[name]), name


def test_foreign_state_is_refused(sim):
    with pytest.raises(ValueError, match="does not fit"):
        sim.load_state({"engine": "other"})


# -- randomisation ---------------------------------------------------------------------------------------------
@pytest.fixture
def fresh(engine):
    """A simulation of its own: randomisation outlives reset."""
    return build(engine, workshop())


@pytest.mark.dynamics
def test_randomised_mass_equals_a_scene_compiled_with_that_mass(engine, fresh):
    """All of mass, inertia and the constants derived from them, in contact, against an independent compile."""
    masses = [0.5, 2.0, 4.0, 8.0]
    fresh.randomize("body_mass", every(fresh), tensor(fresh, masses)[:, None], ("box/cube",))
    start = {"pos": [0.0, 0.0, 0.3], "angular": [2.0, 3.0, 0.0]}
    put_box(fresh, **start)
    run(fresh, 30)
    assert len({round(float(x), 4) for x in fresh.contact_force[:, 0, 2]}) > 1
    for world in (0, 3):
        actors = list(workshop().actors)
        box = actors[-1]
        actors[-1] = type(box)(**{**box.__dict__, "body_mass": {"cube": masses[world]}})
        reference = build(engine, workshop(actors=tuple(actors)))
        put_box(reference, **start)
        run(reference, 30)
        assert_close(box_state(fresh)[world], box_state(reference)[world].cpu(), 1e-4)
        assert_close(fresh.contact_force[world], reference.contact_force[world].cpu(), 1e-2)


@pytest.mark.dynamics
def test_randomised_armature_friction_gravity_and_gains(fresh):
    sim = fresh
    before = box_state(sim).clone()
    motor, servo = sim.dof_index("motor/rail"), sim.dof_index("servo/rail")
    armature = [0.0, 0.5, 1.5, 3.5]
    sim.mass_matrix()  # from here on it is up to randomize to keep it fresh
    sim.randomize("dof_armature", every(sim), tensor(sim, armature)[:, None], ("motor/rail",))
    assert_close(sim.mass_matrix()[:, motor, motor], torch.tensor(armature) + 1.5, 1e-5)
    sim.randomize("drive_stiffness", only(sim, 1, 2), torch.full((N, 1), 120.0, device=sim.device), ("servo/rail",))
    mu = [0.1, 0.3, 0.5, 0.8]
    sim.randomize("friction", every(sim), tensor(sim, mu)[:, None], ("box/cube",))
    run(sim, 20)
    assert_close(box_state(sim), before.cpu(), 1e-2)
    effort = torch.zeros_like(sim.dof_pos)
    effort[:, motor] = 2.0
    sim.set_dof_effort(effort)
    target = sim.dof_pos.clone()
    target[:, servo] = 0.1
    sim.set_dof_target_pos(target)
    put_box(sim, linear=[1.0, 0.0, 0.0])
    sim.set_dof_effort(effort)
    start = box_state(sim)[:, 0].clone()
    sim.step()
    assert_close(sim.dof_vel[:, motor], 2.0 * DT / (1.5 + torch.tensor(armature)), 1e-5)
    ratio = sim.dof_force[:, servo] / sim.dof_force[0, servo]
    assert (ratio[1:3] > 1.3).all()
    assert_close(ratio[3], 1.0, 1e-5)
    run(sim, 100)
    slid = (box_state(sim)[:, 0] - start).cpu()
    assert_close(slid, 1.0 / (2 * torch.tensor(mu) * G), 0.05)
    pull = torch.zeros(N, 3, device=sim.device)
    pull[:, 2] = tensor(sim, [0.0, -1.0, -5.0, -9.81])
    sim.randomize("gravity", every(sim), pull)
    put_box(sim, pos=[0.0, 0.0, 3.0], linear=[0.0, 0.0, 0.0], angular=[0.0, 0.0, 0.0])
    run(sim, 10)
    assert_close(box_state(sim)[:, 9], pull[:, 2].cpu() * 10 * DT, 1e-4)


@pytest.mark.parametrize(
    ("field", "name", "value"),
    [("body_mass", "box/cube", 7.0), ("dof_damping", "springy/slide", 20.0), ("drive_damping", "servo/rail", 90.0)],
)
def test_randomisation_takes_effect_in_the_very_next_step(engine, fresh, field, name, value):
    """No physics step may go on from quantities computed with the old parameters."""
    other = build(engine, workshop())
    for sim in (fresh, other):
        put_joint(sim, "springy/slide", pos=0.1, vel=0.4)
        put_joint(sim, "servo/rail", vel=1.0)
        put_box(sim, pos=[0.0, 0.0, 0.105], angular=[1.0, 0.0, 1.0])
        run(sim, 3)
        sim.randomize(field, every(sim), torch.full((N, 1), value, device=sim.device), (name,))
        force = torch.ones(N, len(sim.body_names), 3, device=sim.device)
        sim._restart = sim.get_state()
        sim.apply_body_force(force)
    other.load_state(other._restart)  # recomputes everything
    other.apply_body_force(force)
    for sim in (fresh, other):
        sim.step()
    for served in SERVED:
        assert torch.equal(getattr(fresh, served), getattr(other, served)), served


@pytest.mark.dynamics
def test_randomised_damping(fresh):
    sim = fresh
    sim.randomize("dof_damping", every(sim), tensor(sim, [0.0, 1.0, 4.0, 8.0])[:, None], ("springy/slide",))
    put_joint(sim, "springy/slide", pos=0.1, vel=0.4)
    run(sim, 10)
    n = 10 * SUBSTEPS
    expected = [0.4 / (1 + H * c / 4.0) ** n for c in (0.0, 1.0, 4.0, 8.0)]
    assert_close(sim.dof_vel[:, sim.dof_index("springy/slide")], expected, 1e-4)


def test_randomised_worlds_survive_a_checkpoint(engine, fresh):
    sim = fresh
    sim.randomize("body_mass", every(sim), tensor(sim, [0.5, 2.0, 4.0, 8.0])[:, None], ("box/cube",))
    sim.randomize("drive_damping", only(sim, 1), torch.full((N, 1), 99.0, device=sim.device), ("fast/rail",))
    put_box(sim, pos=[0.0, 0.0, 0.3], angular=[2.0, 3.0, 0.0])
    run(sim, 5)
    saved = sim.get_state()
    run(sim, 10)
    other = build(engine, workshop())
    other.load_state(saved)
    run(other, 10)
    for name in SERVED:
        assert torch.equal(getattr(other, name), getattr(sim, name)), name


def test_randomise_refuses_what_it_does_not_know(sim):
    with pytest.raises(ValueError, match=r"cannot randomise 'colour'.*can: .*body_mass"):
        sim.randomize("colour", every(sim), torch.zeros(N, 1, device=sim.device))
    with pytest.raises(ValueError, match=r"body_mass cannot be set for box/corner.*box/cube"):
        sim.randomize("body_mass", every(sim), torch.zeros(N, 1, device=sim.device), ("box/corner",))
    with pytest.raises(ValueError, match=r"must have shape \(4, 1\), got \(4, 2\)"):
        sim.randomize("body_mass", every(sim), torch.ones(N, 2, device=sim.device), ("box/cube",))
