"""The Shadow hand as MuJoCo sees it: kinematics, tendons, contacts, and drives against PhysX's equation."""

from __future__ import annotations

import math
import re

import mujoco
import numpy as np
import pytest
import torch

from hepo_isaac.sim.mujoco.model import compile_scene
from hepo_isaac.sim.spec import ActorSpec, SceneSpec
from tasks.robots.shadow_hand import ASSETS, ShadowHand
from tests.tasks.hands import make
from tests.tasks.robots import settings

TASK = "ShadowHand"
DT = 0.01667
FINGERS = ("FF", "MF", "RF", "LF")
EFFORT = {
    "WRJ1": 4.785,
    "WRJ0": 2.175,
    **{f + j: 0.9 for f in FINGERS for j in ("J3", "J2")},
    **{f + "J1": 0.7245 for f in FINGERS},
    "LFJ4": 0.9,
    "THJ4": 2.3722,
    "THJ3": 1.45,
    "THJ2": 0.99,
    "THJ1": 0.99,
    "THJ0": 0.81,
}
PASSIVE = ("FFJ0", "MFJ0", "RFJ0", "LFJ0")
DISTAL, MIDDLE, PROXIMAL = (["%s%s" % (f.lower(), link) for f in FINGERS] for link in ("distal", "middle", "proximal"))
SELF_CONTACTS = {
    *((tip, "thdistal") for tip in DISTAL),
    *((link, "thdistal") for link in ("ffmiddle", "ffproximal", "mfproximal", "palm0")),
    *zip(DISTAL, DISTAL[1:]),
    ("mfdistal", "lfdistal"),
    *zip(PROXIMAL, PROXIMAL[1:]),
    *(("lfdistal", "rfmiddle"), ("lfmiddle", "rfdistal"), ("lfmiddle", "rfmiddle")),
}


def config(*overrides):
    return settings(TASK, "mujoco_batch", "budget=paper", *overrides)["task"]


def hand(*others, overrides=()):
    """A model of the hand, with other actors, and its data at zero angles."""
    cfg = config(*overrides)
    scene = SceneSpec((ShadowHand.hand(cfg, "mujoco_batch"), *others), DT, int(cfg["physics"]["substeps"]))
    model = compile_scene(scene).model
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


def angle(model, data, joint):
    return float(data.qpos[model.joint("hand/" + joint).qposadr[0]])


def advance(model, data, seconds):
    for _ in range(round(seconds / model.opt.timestep)):
        mujoco.mj_step(model, data)


# ---- the asset -------------------------------------------------------------------------------------------------------
def test_masses_and_places():
    model, data = hand()
    assert (model.nv, model.nu, model.ntendon) == (24, 20, 4)
    assert model.body_mass.sum() == pytest.approx(5.011)
    for body, expected in {
        "palm": (0.0, -0.29, 0.49),
        "mfknuckle": (-0.011, -0.389, 0.49),
        "ffdistal": (-0.033, -0.455, 0.49),
        "thbase": (-0.034, -0.319, 0.499),
    }.items():
        np.testing.assert_allclose(data.body("hand/" + body).xpos, expected, atol=1e-5)
    np.testing.assert_allclose(data.geom("hand/palm0").xpos, (-0.011, -0.328, 0.49), atol=1e-5)


def test_fingers_curl_upwards_and_to_the_palm():
    model, data = hand()
    for finger in FINGERS:
        data.qpos[model.joint("hand/%sJ2" % finger).qposadr[0]] = 1.571
    mujoco.mj_forward(model, data)
    for finger in FINGERS:
        tip, knuckle = (
            data.body("hand/%sdistal" % finger.lower()).xpos,
            data.body("hand/%sknuckle" % finger.lower()).xpos,
        )
        np.testing.assert_allclose(tip - knuckle, (0.0, 0.0, 0.07), atol=1e-4)


def test_links_touch_the_object_and_each_other_only_in_the_listed_pairs():
    block = ActorSpec("object", ASSETS / "in_hand_block.xml", fixed=False, collision_group=2, collision_mask=1)
    model, _ = hand(block)
    name = [model.geom(g).name.split("/")[1] for g in range(model.ngeom)]
    pairs = {frozenset((name[a], name[b])) for a, b in zip(model.pair_geom1, model.pair_geom2)}
    assert pairs == {frozenset(p) for p in SELF_CONTACTS} and len(SELF_CONTACTS) == 18
    assert (model.pair_dim == 1).all()
    held = name.index("block")
    for a in range(model.ngeom):
        for b in range(a):
            may = bool(
                model.geom_contype[a] & model.geom_conaffinity[b] or model.geom_contype[b] & model.geom_conaffinity[a]
            )
            assert may == (held in (a, b)), (name[a], name[b])


@pytest.mark.parametrize("contacts", [True, False])
def test_neighbouring_fingers_do_not_pass_through_each_other(contacts):
    """First and middle finger are spread towards each other; without contacts their tips swap places."""
    model, data = hand()
    if not contacts:
        model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_CONTACT)
    for joint, target in (("FFJ3", -0.349), ("MFJ3", 0.349)):
        data.ctrl[model.actuator("hand/" + joint).id] = target
    advance(model, data, 1.0)
    first, middle = (data.geom("hand/%sdistal" % f).xpos for f in ("ff", "mf"))
    apart = data.body("hand/palm").xmat.reshape(3, 3)[:, 0] @ (first - middle)
    assert apart > 0.0141 if contacts else apart < -0.02  # the tips' radii are 7.05 mm


def test_a_distal_link_follows_its_middle_link():
    """0.00705 q0 - 0.00805 q1 stays within 1 mm; the distal joint only hangs loose in between."""
    model, data = hand()
    for target, loose in ((1.0, (0.98, 1.30)), (0.3, (0.18, 0.50)), (1.4, (1.44, 1.58))):
        for finger in FINGERS:
            data.ctrl[model.actuator("hand/%sJ1" % finger).id] = target
        advance(model, data, 1.0)
        for finger in FINGERS:
            q1, q0 = (angle(model, data, finger + j) for j in ("J1", "J0"))
            assert q1 == pytest.approx(target, abs=0.02)
            assert abs(0.00705 * q0 - 0.00805 * q1) < 0.00102, (finger, q0, q1)
            assert loose[0] < q0 < loose[1]


def test_the_hand_is_weightless():
    model, data = hand()
    advance(model, data, 1.0)
    assert np.abs(data.qpos).max() < 1e-6 and np.abs(data.actuator_force).max() < 1e-6


# ---- drives ----------------------------------------------------------------------------------------------------------
def physx(inertia, kp, kd, target, seconds):
    """PhysX's drive of one joint (docs/parity/ShadowHand.md): implicit PD steps of a 16th of the control step."""
    d = DT / 16
    a = d * (d * kp + kd)
    q = v = 0.0
    for _ in range(round(seconds / d)):
        v += (d * kp * (target - q) - a * v) / (inertia + a)
        q += d * v
    return q


def test_gains_and_effort_limits():
    drives = {}
    for drive in ShadowHand.hand(config(), "mujoco_batch").drives:
        matched = [j for j in (*EFFORT, "FFJ0", "LFJ0") if re.fullmatch(drive.joints, j)]
        assert not set(matched) & set(drives)
        drives.update((j, drive) for j in matched)
    for joint, limit in EFFORT.items():
        drive, wrist = drives[joint], joint.startswith("WR")
        assert drive.effort_limit == limit, joint
        assert (drive.stiffness, drive.damping, drive.armature) == ((5.0, 0.5, 0.005) if wrist else (1.0, 0.1, 0.001))
    assert drives["FFJ0"].mode == drives["LFJ0"].mode == "none"


@pytest.mark.parametrize(
    "joint, tolerance", [("FFJ3", 0.01), ("MFJ2", 0.01), ("THJ4", 0.01), ("WRJ0", 0.01), ("FFJ1", 0.05)]
)
def test_a_drive_moves_its_joint_as_physx_would(joint, tolerance):
    """A step of 0.3 rad in the air, after 50, 100, 200 and 400 ms; FFJ1 has to drag the distal link along."""
    model, data = hand()
    mass = np.zeros((model.nv, model.nv))
    mujoco.mj_fullM(model, data, mass)
    dof = model.joint("hand/" + joint).dofadr[0]
    kp, kd = (5.0, 0.5) if joint.startswith("WR") else (1.0, 0.1)
    inertia = 1.0 / np.linalg.inv(mass)[dof, dof]
    data.ctrl[model.actuator("hand/" + joint).id] = 0.3
    seen = []
    for pause in (0.05, 0.05, 0.1, 0.2):
        advance(model, data, pause)
        seen.append(angle(model, data, joint))
        expected = physx(inertia, kp, kd, 0.3, data.time)
        assert seen[-1] == pytest.approx(expected, abs=tolerance * 0.3 + 0.006), (data.time, seen, expected)
    assert max(seen) <= 0.301


def test_published_damping_of_the_passive_joints_would_halve_the_speed_of_the_middle_ones():
    """Why it is 0.01 here: the tendon hands the distal joint's damper to the middle joint's drive."""

    def after(damping):
        model, data = hand(overrides=("task.physics.drives.mujoco.passive.damping=%g" % damping,))
        data.ctrl[model.actuator("hand/FFJ1").id] = 0.3
        advance(model, data, 0.25)
        return angle(model, data, "FFJ1")

    assert after(0.01) > 0.27 and after(0.1) < 0.24


@pytest.mark.parametrize("gain, saturated", [(1.0, False), (5.0, True)])
def test_a_blocked_drive_pushes_with_its_gain_up_to_its_limit(gain, saturated):
    """The first finger against a fixed block: its torque is kp times what is missing, whatever the contact does."""
    place = (-0.033, -0.46, 0.534)
    block = ActorSpec("block", ASSETS / "in_hand_block.xml", place, collision_group=2, collision_mask=1)
    finger = "task.physics.drives.mujoco.finger."
    model, data = hand(block, overrides=(finger + "stiffness=%g" % gain, finger + "damping=%g" % (0.1 * gain)))
    actuator = model.actuator("hand/FFJ2").id
    data.ctrl[actuator] = 1.2
    advance(model, data, 1.0)
    asked = gain * (1.2 - angle(model, data, "FFJ2"))
    assert (asked > 0.9) == saturated and asked > 0.2
    assert float(data.actuator_force[actuator]) == pytest.approx(min(asked, 0.9), rel=5e-3)
    assert min(data.contact.dist) > -0.001


def test_a_joint_does_not_give_way_at_its_limit():
    """A push of 1 N on the tip bends no joint of the first finger back by more than 5 mrad."""
    model, data = hand()
    tip = model.body("hand/ffdistal").id
    data.xfrc_applied[tip, 2] = -1.0
    advance(model, data, 1.0)
    for joint in ("FFJ2", "FFJ1", "FFJ0"):
        assert -0.005 < angle(model, data, joint) < 1e-3, joint


# ---- the object ------------------------------------------------------------------------------------------------------
def test_the_block_falls_freely_before_it_lands():
    env = make(TASK, 1)
    env.reset()
    root = env.sim.root_state.clone()
    root[:, 1] = torch.tensor([0.0, -0.39, 0.8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0])
    env.sim.set_state(torch.tensor([True]), root_state=root)
    for _ in range(9):
        env.sim.step()
    # the semi-implicit sum over n steps of h: g h^2 n (n + 1) / 2
    h, n = DT / 4, 36
    assert 0.8 - env.sim.root_state[0, 1, 2].item() == pytest.approx(9.81 * h * h * n * (n + 1) / 2, rel=1e-4)


@pytest.mark.parametrize("kind, mass", [("block", 0.0709), ("egg", 0.1508), ("pen", 0.0424)])
def test_an_object_rests_in_a_cradle(kind, mass):
    """Fingers and thumb half bent keep it; what the hand bears on it is its weight."""
    model = compile_scene(ShadowHand.scene(config("task.object_type=" + kind), "mujoco_batch")).model
    data = mujoco.MjData(model)
    held = model.body("object/object").id
    assert model.body_mass[held] == pytest.approx(mass, abs=5e-5)
    bent = {finger + joint: angle for finger in FINGERS for joint, angle in (("J2", 0.9), ("J1", 0.5), ("J0", 0.5))}
    for joint, value in {**bent, "WRJ0": -0.3, "THJ4": 0.8, "THJ3": 1.0, "LFJ4": 0.5}.items():
        data.qpos[model.joint("hand/" + joint).qposadr[0]] = value
        if joint not in PASSIVE:
            data.ctrl[model.actuator("hand/" + joint).id] = value
    free = model.joint("object/root").qposadr[0]
    turn = [1.0, 0.0, 0.0, 0.0] if kind != "pen" else [math.sqrt(0.5), 0.0, math.sqrt(0.5), 0.0]  # the pen across
    data.qpos[free : free + 7] = [-0.003, -0.37, 0.545, *turn]
    advance(model, data, 2.5)
    assert data.qpos[free + 2] > 0.49
    force = np.zeros(3)
    steps = 120
    for _ in range(steps):
        mujoco.mj_step(model, data)
        for i in range(data.ncon):
            wrench = np.zeros(6)
            mujoco.mj_contactForce(model, data, i, wrench)
            first, second = (model.geom_bodyid[g] for g in data.contact[i].geom)
            if held in (first, second):
                sign = 1.0 if second == held else -1.0
                force += sign / steps * (data.contact[i].frame.reshape(3, 3).T @ wrench[:3])
    np.testing.assert_allclose(force, [0.0, 0.0, 9.81 * mass], atol=0.05 * 9.81 * mass)


def test_fingertip_sensors_feel_a_push():
    """What pushes a tip up is read pointing up, beside the tip's own weight, which the sensor reads too."""
    env = make(TASK, 2)
    env.reset()
    root = env.sim.root_state.clone()
    root[:, 1, :3] = torch.tensor([0.0, 0.5, 0.5])
    zero = torch.zeros(2, 24)
    env.sim.set_state(torch.ones(2, dtype=torch.bool), zero, zero, root, zero)
    force = torch.zeros(2, len(env.sim.body_names), 3)
    force[1, 1, 2] = 0.2  # N upwards on the first finger's distal link
    for _ in range(3):
        env.sim.apply_body_force(force)
        env.sim.step()
    load = (env.sim.force_sensor[1] - env.sim.force_sensor[0])[:, :3]
    # In the distal frame -y is up. Part of the push moves the link instead of loading its joint.
    assert load[0, 1].item() < -0.05 and load[0, [0, 2]].abs().max() < 0.06
    assert load[1:].abs().max() < 0.02
