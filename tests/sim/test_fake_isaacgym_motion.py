"""What the fake Isaac Gym computes: when tensors change, closed forms of its servos and falling bases, links."""

import math

import pytest
import torch
from gymlab import (
    ARM,
    ARMATURE,
    BOX,
    BOX_INERTIA,
    BOX_MASS,
    COM,
    DT,
    HALF,
    LENGTH,
    LINK_MASS,
    SUBSTEPS,
    TIP_MASS,
    G,
    H,
    Lab,
    gymapi,
    gymtorch,
    tensor,
)

INERTIA = 1.0 + ARMATURE  # of the servo of joint "swing"
POS, VEL, EFFORT = (int(m) for m in (gymapi.DOF_MODE_POS, gymapi.DOF_MODE_VEL, gymapi.DOF_MODE_EFFORT))


@pytest.fixture
def lab(tmp_path):
    return Lab(tmp_path)


@pytest.fixture
def driven(tmp_path):
    """Lab with arms whose joints have the given properties; dof forces are sensed in the first env only."""
    return lambda **props: Lab(tmp_path, arm_edit=props, edit=sense_first)


def sense_first(lab):
    lab.gym.enable_actor_dof_force_sensors(lab.envs[0], ARM)


def close(actual, expected, tol=2e-5):
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=torch.float32), rtol=tol, atol=tol)


def rotation(quat):
    """(3, 3) of a quaternion xyzw (4,)."""
    x, y, z, w = (float(v) for v in quat)
    q = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return torch.eye(3) + 2 * w * q + 2 * q @ q


# -- when things change ------------------------------------------------------------------------------------------
def test_joints_are_fresh_and_links_stale_after_a_reset(lab):
    lab.step()
    before = lab.body.clone()
    states = lab.dof.clone()
    states[:2] = tensor([0.5, 1.0], [0.1, -1.0])
    lab.set_dofs(states, 0)
    assert lab.dof[0, 0] == 0.0  # wrapped memory waits for a refresh
    lab.refresh()
    assert lab.dof.equal(states) and lab.body.equal(before)
    lab.step()
    assert not lab.body[:4].equal(before[:4])
    close(lab.dof[0, 0], 0.5 + DT)


def test_roots_are_fresh_and_links_stale_after_a_reset(lab):
    lab.step()
    before, states = lab.body.clone(), lab.root.clone()
    states[:, :3] = tensor(3, 2, 1)
    lab.set_roots(states, 3)
    lab.refresh()
    close(lab.root[:, 0], [0, 1, 0, 3])
    assert lab.body.equal(before)


def test_link_states_mean_nothing_before_the_first_simulate(lab):
    assert lab.body.eq(0).all() and lab.contact.eq(0).all()
    assert lab.root[1, 2] == 1.0


def test_setters_read_at_the_call(lab):
    states = lab.dof.clone()
    states[0, 0] = 0.25
    lab.set_dofs(states, 0)
    states.fill_(9.0)
    lab.dof.fill_(9.0)
    lab.refresh()
    assert lab.dof[:, 0].equal(tensor(0.25, 0.0, 0.0, 0.0))


def test_writing_into_wrapped_tensors_does_nothing(lab):
    lab.root[1, :3] = 5.0
    lab.refresh()
    assert lab.root[1, 2] == 1.0


def test_tensors_hold_the_whole_state(tmp_path):
    props = {"driveMode": POS, "stiffness": 40.0, "damping": 3.0}
    lab = Lab(tmp_path, arm_edit=props)
    lab.call("set_dof_position_target_tensor", tensor(1.0, 0.5, 0.5, 1.0))
    spin(lab, tensor(1, 2, 3))
    lab.step(7)
    root, dof = lab.root.clone(), lab.dof.clone()
    lab.step(5)
    end = lab.root.clone(), lab.dof.clone(), lab.body.clone()
    lab.set_roots(root, 1, 3)
    lab.set_dofs(dof, 0, 2)
    lab.step(5)
    assert lab.root.equal(end[0]) and lab.dof.equal(end[1]) and lab.body.equal(end[2])


# -- servos ------------------------------------------------------------------------------------------------------
def test_a_constant_effort_lasts_one_simulate(driven):
    lab = driven(driveMode=EFFORT)
    lab.call("set_dof_actuation_force_tensor", tensor(3.0, 0, 0, 0))
    lab.step()
    accel = 3.0 / INERTIA
    close(lab.dof[0], [accel * H * H * SUBSTEPS * (SUBSTEPS + 1) / 2, accel * DT])
    close(lab.dof_force, [3.0, 0, 0, 0])
    lab.step()
    close(lab.dof[0, 1], accel * DT)
    close(lab.dof_force, [0.0] * 4)


def test_a_velocity_drive_approaches_its_target_geometrically(driven):
    lab = driven(driveMode=VEL, damping=20.0)
    lab.call("set_dof_velocity_target_tensor", tensor(0.5, 0.5, 0, 0))
    lab.step(5)
    keep = (1 / (1 + H * 20.0 / INERTIA)) ** (5 * SUBSTEPS)
    close(lab.dof[0, 1], 0.5 * (1 - keep))
    close(lab.dof_force[0], 20.0 * 0.5 * keep)
    assert lab.dof[2].eq(0).all()


def test_a_position_drive_follows_the_implicit_recursion_and_settles(driven):
    lab = driven(driveMode=POS, stiffness=60.0, damping=6.0)
    lab.call("set_dof_position_target_tensor", tensor(0.8, 0.3, 0, 0))
    lab.step(3)
    # e' = e - h v', v' (I + h d + h^2 k) = I v + h k e, with e = target - q: a 2x2 matrix per substep
    a = INERTIA + H * 6.0 + H * H * 60.0
    once = torch.tensor([[1 - H * H * 60.0 / a, -H * INERTIA / a], [H * 60.0 / a, INERTIA / a]], dtype=torch.float64)
    error, speed = torch.linalg.matrix_power(once, 3 * SUBSTEPS) @ torch.tensor([0.8, 0.0], dtype=torch.float64)
    close(lab.dof[0], [0.8 - error.item(), speed.item()])
    lab.step(300)
    close(lab.dof[:2, 0], [0.8, 0.3], tol=1e-3)


def test_a_joint_answers_only_to_the_commands_of_its_mode(driven):
    lab = driven(driveMode=[VEL, POS], stiffness=50.0, damping=5.0)
    lab.call("set_dof_position_target_tensor", tensor(1, 0, 1, 0))
    lab.call("set_dof_velocity_target_tensor", tensor(0, 1, 0, 1))
    lab.call("set_dof_actuation_force_tensor", tensor(9, 9, 9, 9))
    lab.step()
    assert lab.dof.eq(0).all()


def test_limits_of_force_speed_and_range(driven):
    lab = driven(driveMode=POS, stiffness=1000.0, damping=10.0, effort=6.0, velocity=[0.5, 100.0])
    lab.call("set_dof_position_target_tensor", tensor(9, 9, -9, -9))
    lab.step()
    close(lab.dof[:2, 1], [6.0 * DT / INERTIA, 6.0 * DT])
    close(lab.dof_force, [6.0, 6.0, 0.0, 0.0])  # the second env's are not sensed
    lab.step(20)
    close(lab.dof[0, 1], 0.5)
    lab.step(200)
    close(lab.dof[::2], [[1.5, 0.0], [-1.0, 0.0]])  # "reach" has no range
    assert lab.dof[1, 0] > 2


def test_targets_persist_and_are_set_by_actor(driven):
    lab = driven(driveMode=POS, stiffness=50.0, damping=10.0)
    actors = torch.tensor([2], dtype=torch.int32)
    lab.call("set_dof_position_target_tensor_indexed", tensor(1, 1, 0.5, 0.5), actors)
    lab.step(200)
    close(lab.dof[:, 0], [0.0, 0.0, 0.5, 0.5], tol=1e-3)


# -- free bases --------------------------------------------------------------------------------------------------
def spin(lab, omega, row=1):
    states = lab.root.clone()
    states[row, 10:] = omega
    lab.set_roots(states, row)


def test_a_base_falls_and_rests(lab):
    lab.step(10)
    n = 10 * SUBSTEPS
    close(lab.root[1::2, 2], [1 - G * H * H * n * (n + 1) / 2] * 2)
    close(lab.root[1::2, 9], [-G * H * n] * 2)
    assert lab.contact.eq(0).all() and lab.sensor.eq(0).all()
    lab.step(60)
    close(lab.root[3], [1, 0, HALF, 0, 0, 0, 1] + [0] * 6)
    close(lab.contact[7], [0, 0, BOX_MASS * G])
    close(lab.sensor, [[0, 0, BOX_MASS * G, 0, 0, 0]] * 2)
    assert lab.contact[:3].eq(0).all() and lab.root[::2, 2].eq(0.5).all()


def test_the_sensor_is_in_its_body_frame(lab):
    states = lab.root.clone()
    states[1, 2], states[1, 3:7] = 0.0, tensor(math.sqrt(0.5), 0, 0, math.sqrt(0.5))  # a quarter turn about x
    lab.set_roots(states, 1)
    lab.step()
    close(lab.sensor[0, :3], [0, BOX_MASS * G, 0])


def test_without_gravity_it_floats(tmp_path):
    options = gymapi.AssetOptions()
    options.disable_gravity = True
    lab = Lab(tmp_path, options=options)
    lab.step(3)
    assert lab.root[1, 2] == 1.0 and lab.root[1, 7:].eq(0).all()


@pytest.mark.parametrize("space", ["ENV_SPACE", "LOCAL_SPACE"])
def test_body_forces_last_one_simulate(lab, space):
    states = lab.root.clone()
    states[1, 3:7] = tensor(0, 0, math.sqrt(0.5), math.sqrt(0.5))  # a quarter turn about z: its x is our y
    lab.set_roots(states, 1)
    lab.step()
    before = lab.root[1].clone()
    force, torque = torch.zeros(8, 3), torch.zeros(8, 3)
    force[3], torque[3] = tensor(2, 0, 0), tensor(0, 0, 0.3)
    handles = gymtorch.unwrap_tensor(force), gymtorch.unwrap_tensor(torque)
    lab.gym.apply_rigid_body_force_tensors(lab.sim, *handles, getattr(gymapi, space))
    lab.step()
    speed = 2.0 / BOX_MASS * DT
    close(lab.root[1, 7:9], [speed, 0] if space == "ENV_SPACE" else [0, speed])
    close(lab.root[1, 10:], [0, 0, 0.3 / BOX_INERTIA[2] * DT])
    after = lab.root[1, [7, 8, 10, 11, 12]].clone()
    lab.step()
    close(lab.root[1, [7, 8, 10, 11, 12]], after)
    assert before[7] == 0 and lab.root[3, 10:].eq(0).all()


def test_a_spinning_base_turns_about_its_centre_of_mass_whose_velocity_it_reports(lab):
    spin(lab, tensor(0, 2, 0))
    lab.step(10)
    n = 10 * SUBSTEPS
    angle = 2 * DT * 10
    close(lab.root[1, 3:7], [0, math.sin(angle / 2), 0, math.cos(angle / 2)])
    com = lab.root[1, :3] + rotation(lab.root[1, 3:7]) @ tensor(*COM)
    close(com, [1 + COM[0], 0, 1 + COM[2] - G * H * H * n * (n + 1) / 2])
    close(lab.root[1, 7:10], [0, 0, -G * H * n])
    assert lab.body[3].equal(lab.root[1])


def test_a_heavier_body_is_pushed_less(lab):
    props = lab.gym.get_actor_rigid_body_properties(lab.envs[0], BOX)
    assert props[0].mass == BOX_MASS and props[0].invMass == pytest.approx(1 / BOX_MASS)
    assert [props[0].inertia.x.x, props[0].inertia.y.y, props[0].inertia.z.z] == pytest.approx(BOX_INERTIA)
    props[0].mass = 2 * BOX_MASS
    lab.gym.set_actor_rigid_body_properties(lab.envs[0], BOX, props, recomputeInertia=True)
    assert lab.gym.get_actor_rigid_body_properties(lab.envs[0], BOX)[0].inertia.x.x == pytest.approx(0.08)
    force = torch.ones(8, 3)
    lab.call("apply_rigid_body_force_tensors", force)
    lab.step()
    close(lab.root[1::2, 7], [DT / 2 / BOX_MASS, DT / BOX_MASS])


# -- links -------------------------------------------------------------------------------------------------------
def test_links_follow_the_joints(lab):
    states = lab.dof.clone()
    states[:2, 0] = tensor(0.5, 0.2)
    lab.set_dofs(states, 0)
    lab.step()
    close(lab.body[0, :7], [0, 0, 0.5, 0, 0, 0, 1])  # the pose in the file does not count
    close(lab.body[1, :7], [0, 0, 0.5, 0, math.sin(0.25), 0, math.cos(0.25)])
    reach = LENGTH + 0.2
    close(lab.body[2, :3], [reach * math.cos(0.5), 0, 0.5 - reach * math.sin(0.5)])


def test_link_velocities_are_those_of_the_centres_of_mass(lab):
    states = lab.dof.clone()
    states[:2] = tensor([0.5, 2.0], [0.2, 0.3])
    lab.set_dofs(states, 0)
    lab.step()
    q, reach = lab.dof[0, 0].item(), LENGTH + lab.dof[1, 0].item()
    along, down = tensor(math.cos(q), 0, -math.sin(q)), tensor(-math.sin(q), 0, -math.cos(q))
    close(lab.body[1, 7:], [*(0.25 * 2.0 * down), 0, 2.0, 0])
    close(lab.body[2, 7:], [*(0.3 * along + reach * 2.0 * down), 0, 2.0, 0])


def test_jacobian_and_mass_matrix_of_a_fixed_actor(lab):
    jacobian = gymtorch.wrap_tensor(lab.gym.acquire_jacobian_tensor(lab.sim, "arm"))
    mass = gymtorch.wrap_tensor(lab.gym.acquire_mass_matrix_tensor(lab.sim, "arm"))
    states = lab.dof.clone()
    states[:2] = tensor([0.5, 2.0], [0.2, 0.3])
    lab.set_dofs(states, 0)
    lab.step()
    lab.gym.refresh_jacobian_tensors(lab.sim)
    lab.gym.refresh_mass_matrix_tensors(lab.sim)
    assert jacobian.shape == (2, 2, 6, 2)  # envs, links but the root, linear and angular, joints
    close(jacobian[0] @ lab.dof[:2, 1], lab.body[1:3, 7:])
    reach = LENGTH + lab.dof[1, 0].item()
    swing = ARMATURE + 0.02 + LINK_MASS * 0.25**2 + 0.01 + TIP_MASS * reach**2
    close(mass[0], [[swing, 0], [0, TIP_MASS]])


def test_a_floating_tree_carries_its_links(lab, tmp_path):
    other = Lab(tmp_path, prepare=False)
    env = other.gym.create_env(other.sim, gymapi.Vec3(), gymapi.Vec3(), 1)
    free = other.gym.load_asset(other.sim, str(tmp_path), "arm.xml", gymapi.AssetOptions())
    other.gym.create_actor(env, free, gymapi.Transform(p=gymapi.Vec3(0, 0, 3)), "free")
    other.prepare()
    states = other.root.clone()
    states[4, 7:] = tensor(0.5, 0, 0, 0, 0, 1.0)
    other.set_roots(states, 4)
    other.step()
    # the mount's centre of mass is its origin; the link's is 0.25 m along x, the tip's 0.5 m, turned by 1 rad/s * DT
    side = tensor(-math.sin(DT), math.cos(DT), 0)
    for body, arm in [(8, 0.0), (9, 0.25), (10, LENGTH)]:
        close(other.body[body, 7:10], tensor(0.5, 0, -G * DT) + arm * side)
        close(other.body[body, 10:], [0, 0, 1.0])


# -- assets ------------------------------------------------------------------------------------------------------
URDF = """<robot name="r"><link name="base"/>
%s
<joint name="b" type="revolute"><parent link="base"/><child link="y"/><axis xyz="0 0 1"/>
  <limit lower="-1" upper="2" effort="7" velocity="3"/></joint>
<joint name="a" type="prismatic"><parent link="base"/><child link="z"/><axis xyz="0 0 1"/>
  <limit lower="0" upper="1" effort="8" velocity="4"/></joint>
<joint name="c" type="fixed"><parent link="z"/><child link="x"/></joint></robot>""" % "".join(
    '<link name="%s"><inertial><mass value="1"/><inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial>'
    '<collision><geometry><sphere radius="0.1"/></geometry></collision></link>' % name
    for name in "xyz"
)


@pytest.mark.parametrize("collapse", [False, True])
def test_siblings_of_a_urdf_are_sorted_by_joint(tmp_path, collapse):
    lab = Lab(tmp_path, prepare=False)
    options = gymapi.AssetOptions()
    options.collapse_fixed_joints = collapse
    asset = lab.load("r.urdf", URDF, options)
    assert lab.gym.get_asset_dof_names(asset) == ["a", "b"]
    assert lab.gym.get_asset_rigid_body_names(asset) == (["base", "z", "y"] if collapse else ["base", "z", "x", "y"])
    props = lab.gym.get_asset_dof_properties(asset)
    assert props["effort"].tolist() == [8, 7] and props["velocity"].tolist() == [4, 3]
    assert props["lower"].tolist() == [0, -1] and props["upper"].tolist() == [1, 2] and props["hasLimits"].all()


def test_mjcf_keeps_the_order_of_the_file_and_its_tendons(tmp_path):
    lab = Lab(tmp_path, prepare=False)
    gym = lab.gym
    assert gym.get_asset_dof_names(lab.arm) == ["swing", "reach"]
    assert gym.get_asset_rigid_body_names(lab.arm) == ["mount", "link", "tip"]
    assert gym.get_asset_rigid_shape_count(lab.arm) == 2  # the mount's does not collide
    assert gym.find_asset_rigid_body_index(lab.arm, "tip") == 2
    props = gym.get_asset_dof_properties(lab.arm)
    assert props["hasLimits"].tolist() == [True, False] and props["armature"].tolist() == [ARMATURE, 0.0]
    tendons = gym.get_asset_tendon_properties(lab.arm)
    assert [t.num_joints for t in tendons] == [2] and tendons[0].is_fixed_limited
    tendons[0].limit_stiffness = 30.0
    gym.set_asset_tendon_properties(lab.arm, tendons)
    assert gym.get_asset_tendon_properties(lab.arm)[0].limit_stiffness == 30.0
    with pytest.raises(AttributeError):
        tendons[0].num_joints = 3
