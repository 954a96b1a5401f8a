"""How the Isaac Gym engine uses Isaac Gym, on a fake that enforces the tensor API's rules.

The contract itself: test_contract.py. What no fake can show (contacts, forces, speed) is for a machine that has the
real one: hepo-isaac parity.
"""

from __future__ import annotations

import math
from pathlib import Path

import fake_gym
import numpy as np
import pytest
import torch
from simlab import ASSETS, H, N, assert_close, box_state, build, every, only, put_box, put_joint, run, workshop

from hepo_isaac.errors import UserError
from hepo_isaac.sim.spec import ActorSpec, ContactSpec, DriveSpec, ForceSensorSpec, SceneSpec
from tests.host_reads import HostReads

fake_gym.install()

from isaacgym import gymapi  # noqa: E402

from hepo_isaac.sim.isaacgym.engine import IsaacGymSimulation  # noqa: E402

ARM = ActorSpec(
    "arm",
    ASSETS / "arm.xml",
    position=(2.0, 0.0, 1.0),
    drives=(DriveSpec("shoulder|elbow", stiffness=40.0, damping=8.0),),
)
BOX = ActorSpec("box", ASSETS / "box.xml", position=(0.0, 0.0, 3.0), fixed=False)


def scene(*actors, **changes):
    options = changes.pop("options", {"substeps": 2})
    settings = {"control_dt": 0.02, "substeps": 2, "options": {"isaacgym": options}, **changes}
    return SceneSpec(actors=actors, **settings)


def make(*actors, num_envs=N, assets=None, **changes):
    return IsaacGymSimulation(scene(*actors, **changes), num_envs, device="cpu", assets=assets)


@pytest.fixture(scope="module")
def lab():
    return build("isaacgym", workshop())


@pytest.fixture
def calls(monkeypatch):
    """Every call of gymapi.Gym as (name, arguments)."""
    made = []

    def recorded(name, call):
        def record(self, *args, **kwargs):
            made.append((name, args))
            return call(self, *args, **kwargs)

        return record

    for name in ("simulate", "fetch_results", "set_dof_state_tensor_indexed", "set_actor_root_state_tensor_indexed"):
        monkeypatch.setattr(gymapi.Gym, name, recorded(name, getattr(gymapi.Gym, name)))
    for name in ("set_dof_actuation_force_tensor", "apply_rigid_body_force_tensors", "create_actor"):
        monkeypatch.setattr(gymapi.Gym, name, recorded(name, getattr(gymapi.Gym, name)))
    return made


def count(calls, name):
    return sum(made == name for made, _ in calls)


# -- the tensor API's rules --------------------------------------------------------------------------------------
def test_many_writes_between_two_steps_become_one_indexed_set(lab, calls):
    """The fake raises at the second one."""
    lab.reset(every(lab))
    put_joint(lab, "arm/shoulder", pos=0.5, mask=only(lab, 1))
    put_box(lab, pos=[1.0, 1.0, 1.0], mask=only(lab, 3))
    put_joint(lab, "arm/elbow", pos=0.25, mask=only(lab, 1, 2))
    assert count(calls, "set_dof_state_tensor_indexed") == 0
    lab.step()
    assert count(calls, "set_dof_state_tensor_indexed") == 1
    assert count(calls, "set_actor_root_state_tensor_indexed") == 1
    lab.step()
    assert count(calls, "set_dof_state_tensor_indexed") == 1  # nothing was written since


def test_an_indexed_set_names_the_touched_actors_alone(lab, calls):
    lab.reset(every(lab))
    lab.step()
    calls.clear()
    put_joint(lab, "arm/shoulder", pos=0.5, mask=only(lab, 0, 2))
    lab.step()
    (_, (_, _, _, dofs)), (_, (_, _, _, roots)) = [c for c in calls if c[0].endswith("indexed")]
    assert dofs == 2 * 8  # all but the box have joints
    assert roots == 2  # the box is the only one that is not bolted down


def test_one_wait_for_the_device_in_a_control_step(lab):
    lab.reset(every(lab))
    lab.step()
    target, mask = torch.zeros_like(lab.dof_pos), only(lab, 1)
    with HostReads() as reads:
        lab.set_dof_target_pos(target)
        lab.set_state(mask, dof_pos=target, dof_vel=target, root_state=lab.root_state, dof_target_pos=target)
        lab.reset(mask)
        lab.step()
        lab.jacobian("arm/tip")
    assert [name for name, _ in reads.found] == ["nonzero"], reads.found


# -- fresh poses ---------------------------------------------------------------------------------------------------
def test_poses_right_after_a_reset_are_those_of_the_new_episode(lab):
    """Isaac Gym's own rigid-body tensor still has the old ones, and gets the same as ours with the next simulate."""
    lab.reset(every(lab))
    put_joint(lab, "arm/shoulder", pos=1.0)
    run(lab, 3)
    tip, row = lab.body_index("arm/tip"), lab.scene.body_rows["arm/tip"]
    put_joint(lab, "arm/shoulder", pos=-0.7, vel=0.0)
    put_joint(lab, "arm/elbow", pos=0.4, vel=0.0)
    lab.set_dof_target_pos(lab.dof_pos.clone())
    lab.gym.refresh_rigid_body_state_tensor(lab.sim)  # brings nothing new
    expected = [2.0 + 0.4 * (math.cos(0.7) + math.cos(0.3)), -0.4 * (math.sin(0.7) + math.sin(0.3)), 1.0]
    assert_close(lab.body_state[:, tip, :3], torch.tensor(expected).expand(N, 3), 1e-5)
    assert (lab._gym_body[:, row, :3] - lab.body_state[:, tip, :3]).norm(dim=1).min() > 0.1
    lab.step()
    assert_close(lab._gym_body[:, row, :3], torch.tensor(expected).expand(N, 3), 1e-4)
    assert_close(lab.body_state[:, tip, :3], torch.tensor(expected).expand(N, 3), 1e-4)


OFF_CENTRE = '<mujoco><worldbody><body name="cube"><inertial pos="0.3 0 0" mass="2" diaginertia="1 1 1"/>'
OFF_CENTRE += '<geom type="box" size="0.1 0.1 0.1"/></body></worldbody></mujoco>'


def test_velocities_are_those_of_the_origin(tmp_path):
    """A body whose centre of mass stands still 0.3 m beside its origin, and spins: the origin moves on a circle."""
    (tmp_path / "cube.xml").write_text(OFF_CENTRE)
    sim = make(ActorSpec("box", tmp_path / "cube.xml", position=(0.0, 0.0, 5.0), fixed=False), gravity=(0.0, 0.0, 0.0))
    put_box(sim, linear=[0.0, -0.6, 0.0], angular=[0.0, 0.0, 2.0])
    assert_close(sim.body_state[:, 0, 7:10], torch.tensor([0.0, -0.6, 0.0]).expand(N, 3), 1e-6)
    assert_close(sim._gym_root[:, 0, 7:10], torch.zeros(N, 3), 1e-6)  # what PhysX gets: the centre of mass rests
    run(sim, 20)
    turn = 2.0 * 20 * 0.02
    centre = torch.tensor([0.3 - 0.3 * math.cos(turn), -0.3 * math.sin(turn), 5.0])
    assert_close(box_state(sim)[:, :3], centre.expand(N, 3), 1e-3)
    velocity = torch.tensor([0.6 * math.sin(turn), -0.6 * math.cos(turn), 0.0])
    assert_close(box_state(sim)[:, 7:10], velocity.expand(N, 3), 1e-3)


def test_worlds_that_physx_lost_start_afresh():
    """NaN in PhysX's own tensors: what set_state does not give is the scene's, not the debris."""
    sim = make(ARM, BOX)
    sim.step()
    sim.sim.world.dof[2:4] = np.nan  # of the second environment
    sim.sim.world.root[3] = np.nan
    sim.step()
    assert sim.bad_envs.tolist() == [False, True, False, False]
    sim.set_state(only(sim, 1), dof_pos=torch.full((N, 2), 0.25))
    assert not sim.bad_envs.any()
    assert_close(sim.dof_pos[1], [0.25, 0.25], 0)
    assert_close(sim.dof_vel[1], [0.0, 0.0], 0)
    assert_close(box_state(sim)[1], [0.0, 0.0, 3.0, 0.0, 0.0, 0.0, 1.0] + [0.0] * 6, 0)
    sim.step()
    assert not sim.bad_envs.any()


def test_the_version_tells_that_the_state_moved(lab):
    seen = [lab.version]
    for change in (lab.step, lambda: lab.reset(only(lab, 1)), lambda: put_joint(lab, "arm/elbow", pos=0.1)):
        change()
        seen.append(lab.version)
    assert len(set(seen)) == 4


TWO_HINGES = """<mujoco><worldbody><body name="base"><inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/>
<body name="hip"><inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/><joint name="x" axis="1 0 0"/>
<joint name="y" axis="0 1 0"/><body name="shin" pos="0 0 -1"><inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/>
<joint name="knee" axis="0 1 0"/></body></body><body name="arm" pos="1 0 0"><inertial pos="0 0 0" mass="1"
diaginertia="1 1 1"/><joint name="elbow" axis="0 1 0"/></body></body></worldbody></mujoco>"""


def test_joints_of_several_axes_are_physxs_own_business(tmp_path):
    """PhysX may count the angles of such a joint in another way; links behind it are not compared."""
    (tmp_path / "leg.xml").write_text(TWO_HINGES)
    sim = make(ActorSpec("leg", tmp_path / "leg.xml"))
    assert dict(zip(sim.body_names, sim._comparable.tolist())) == {
        "leg/base": 1.0,
        "leg/hip": 0.0,
        "leg/shin": 0.0,
        "leg/arm": 1.0,
    }
    sim.step()
    sim.body_state[:, sim.body_index("leg/shin"), 0] += 1.0
    sim._check_assets()
    sim.body_state[:, sim.body_index("leg/arm"), 0] += 1.0
    with pytest.raises(ValueError, match="body 'leg/arm' 1000.0 mm from where"):
        sim._check_assets()


# -- control steps -------------------------------------------------------------------------------------------------
def test_a_control_step_of_several_simulates(calls):
    """Efforts and pushes last for one simulate in Isaac Gym, and for one control step here."""
    motor = ActorSpec("motor", ASSETS / "slider.xml", drives=(DriveSpec("rail", "effort"),))
    sim = make(motor, BOX, options={"simulates": 2, "substeps": 1}, gravity=(0.0, 0.0, 0.0))
    sim.set_dof_effort(torch.ones(N, 1))
    force = torch.zeros(N, 2, 3)
    force[:, sim.body_index("box/cube"), 0] = 4.0
    sim.apply_body_force(force)
    sim.step()
    assert_close(box_state(sim)[:, 7], torch.full((N,), 4.0 / 2.0 * 0.02), 1e-6)
    assert count(calls, "simulate") == count(calls, "set_dof_actuation_force_tensor") == 2
    assert sim.gym.get_sim_params(sim.sim).dt == pytest.approx(0.01)
    sim.step()
    assert_close(box_state(sim)[:, 7], torch.full((N,), 4.0 / 2.0 * 0.02), 1e-6)


def test_commands_end_with_the_episode():
    motor = ActorSpec("motor", ASSETS / "slider.xml", drives=(DriveSpec("rail", "effort"),))
    runner = ActorSpec("runner", ASSETS / "slider.xml", drives=(DriveSpec("rail", "velocity", damping=90.0),))
    sim = make(motor, runner)
    sim.set_dof_effort(torch.ones(N, 2))
    sim.set_dof_target_vel(torch.ones(N, 2))
    sim.reset(only(sim, 0))
    sim.step()
    assert_close(sim.dof_vel[0], [0.0, 0.0], 0)
    assert (sim.dof_vel[1:] > 0).all()


def test_the_cpu_pipeline_fetches_results(calls):
    sim = make(BOX)
    sim.step()
    assert [name for name, _ in calls if name in ("simulate", "fetch_results")] == ["simulate", "fetch_results"]


def test_a_scene_without_joints_asks_for_no_joint_tensors():
    sim = make(BOX)
    assert sim.dof_pos.shape == (N, 0)
    run(sim, 5)
    n = 5 * 2
    assert_close(box_state(sim)[:, 2], torch.full((N,), 3.0 - 9.81 * 0.01**2 * n * (n + 1) / 2), 1e-5)


def test_published_settings_reach_physx():
    physx = {"num_position_iterations": 12, "contact_offset": 0.005, "contact_collection": 1}
    options = {"substeps": 3, "physx": physx, "actors": {"arm": {"asset": {"angular_damping": 0.0}}}}
    sim = make(ARM, options=options)
    params = sim.gym.get_sim_params(sim.sim)
    assert params.substeps == 3
    assert params.physx.num_position_iterations == 12
    assert params.physx.contact_offset == pytest.approx(0.005)
    assert params.physx.contact_collection == gymapi.CC_LAST_SUBSTEP
    assert params.physx.solver_type == 1
    assert not params.use_gpu_pipeline


def test_actors_get_their_drives_and_filters(calls):
    wide = ActorSpec("wide", ASSETS / "arm.xml", drives=(DriveSpec("shoulder", "velocity", damping=3.0, armature=0.2),))
    sim = make(wide, BOX, num_envs=2)
    props = sim.gym.get_actor_dof_properties(*_handle(sim, 1, "wide"))
    assert list(props["driveMode"]) == [int(gymapi.DOF_MODE_VEL), int(gymapi.DOF_MODE_NONE)]
    assert props["damping"][0] == pytest.approx(3.0)
    assert props["armature"][0] == pytest.approx(0.2)
    groups = [args[4] for name, args in calls if name == "create_actor"]
    assert groups == [0, 0, 1, 1]  # no environment touches another one


def test_surfaces_tendons_and_anchors_are_set_up(tmp_path):
    (tmp_path / "leg.xml").write_text(TIED)
    leg = {"friction": 0.4, "restitution": 0.1, "tendons": {"limit_stiffness": 30.0}, "attractors": {"stiffness": 7.0}}
    actor = ActorSpec("leg", tmp_path / "leg.xml", position=(1.0, 0.0, 0.0), orientation=(0.0, 0.0, 1.0, 0.0))
    sim = make(actor, BOX, options={"actors": {"leg": leg}}, contact=ContactSpec(friction=0.8))
    env, handle = _handle(sim, 2, "leg")
    shape = sim.gym.get_actor_rigid_shape_properties(env, handle)[0]
    assert (shape.friction, shape.restitution) == pytest.approx((0.4, 0.1))
    assert sim.gym.get_actor_rigid_shape_properties(*_handle(sim, 2, "box"))[0].friction == pytest.approx(0.8)
    (tendon,) = sim.gym.get_asset_tendon_properties(sim.scene.actors[0].handle)
    assert tendon.limit_stiffness == pytest.approx(30.0)
    assert tendon.is_fixed_limited
    (held,) = env.attractors
    assert held.stiffness == pytest.approx(7.0)
    assert held.damping == pytest.approx(5e3)
    assert held.axes == gymapi.AXIS_TRANSLATION
    # 0.5 m behind the knee along z; the actor is turned by half a turn about z.
    assert (held.offset.p.x, held.offset.p.z) == pytest.approx((0.0, -0.5))
    assert (held.target.p.x, held.target.p.y, held.target.p.z) == pytest.approx((1.0 - 0.25, 0.0, -0.5), abs=1e-6)
    joints = sim.gym.get_actor_dof_properties(env, handle)
    assert list(joints["damping"]) == pytest.approx([0.3, 0.6])  # the file's: there is no drive
    assert list(joints["stiffness"]) == pytest.approx([2.0, 0.0])


TIED = """<mujoco><worldbody><body name="base"><inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/>
<body name="knee" pos="0.25 0 0"><joint name="a" axis="0 1 0" stiffness="2" damping="0.3"/>
<geom name="g" size="0.05" mass="1"/></body>
<body name="toe" pos="0 0.25 0"><joint name="b" axis="0 1 0" damping="0.6"/><geom size="0.05" mass="1"/></body></body>
</worldbody><equality><connect body1="knee" anchor="0 0 -0.5"/></equality>
<tendon><fixed name="t" limited="true" range="-0.1 0.1"><joint joint="a" coef="1"/><joint joint="b" coef="-1"/></fixed>
</tendon></mujoco>"""


def _handle(sim, env, actor):
    env, handles = sim.scene.envs[env]
    return env, handles[sim.actor_names.index(actor)]


def test_masses_that_the_importer_misread_are_put_right(monkeypatch):
    from isaacgym import _asset

    read = _asset.LoadedAsset._read_properties

    def misread(self, *args):
        read(self, *args)
        self.mass, self.inertia = self.mass * 3.0, self.inertia * 3.0

    monkeypatch.setattr(_asset.LoadedAsset, "_read_properties", misread)
    sim = make(ARM, BOX)
    for env in range(N):
        cube = sim.gym.get_actor_rigid_body_properties(*_handle(sim, env, "box"))[0]
        assert cube.mass == pytest.approx(2.0)
        assert cube.inertia.y.y == pytest.approx(2.0 * 0.2**2 / 6)


# -- randomisation -------------------------------------------------------------------------------------------------
def test_randomised_parameters_reach_single_environments():
    sim = make(ARM, BOX)
    mask = only(sim, 1, 3)
    sim.randomize("body_mass", mask, torch.full((N, 1), 6.0), ("box/cube",))
    sim.randomize("friction", mask, torch.full((N, 1), 0.3), ("box/cube",))
    sim.randomize("drive_stiffness", mask, torch.full((N, 2), 99.0))
    sim.randomize("dof_armature", mask, torch.full((N, 1), 0.7), ("arm/elbow",))
    for env in range(N):
        cube = sim.gym.get_actor_rigid_body_properties(*_handle(sim, env, "box"))[0]
        shape = sim.gym.get_actor_rigid_shape_properties(*_handle(sim, env, "box"))[0]
        joints = sim.gym.get_actor_dof_properties(*_handle(sim, env, "arm"))
        changed = env in (1, 3)
        assert cube.mass == pytest.approx(6.0 if changed else 2.0)
        assert cube.inertia.x.x == pytest.approx((6.0 if changed else 2.0) * 0.2**2 / 6)
        assert shape.friction == pytest.approx(0.3 if changed else 1.0)
        assert list(joints["stiffness"]) == [99.0 if changed else 40.0] * 2
        assert joints["armature"] == pytest.approx([0.0, 0.7 if changed else 0.0])


def test_a_checkpoint_takes_back_what_it_does_not_know():
    sim = make(BOX)
    sim.randomize("body_mass", only(sim, 2), torch.full((N, 1), 5.0))
    saved = sim.get_state()
    sim.randomize("body_mass", every(sim), torch.full((N, 1), 9.0))
    sim.randomize("friction", every(sim), torch.full((N, 1), 0.2))
    sim.load_state(saved)
    for env in range(N):
        handle = _handle(sim, env, "box")
        mass = sim.gym.get_actor_rigid_body_properties(*handle)[0].mass
        assert mass == pytest.approx(5.0 if env == 2 else 2.0)
        assert sim.gym.get_actor_rigid_shape_properties(*handle)[0].friction == pytest.approx(1.0)


def test_gravity_is_the_same_everywhere():
    sim = make(BOX)
    with pytest.raises(ValueError, match=r"cannot randomise 'gravity' on isaacgym, where gravity is the same"):
        sim.randomize("gravity", every(sim), torch.zeros(N, 3))


# -- NVIDIA's own files --------------------------------------------------------------------------------------------
URDF = """<robot name="other">
  <link name="base">%(inertial)s</link>
  <link name="upper_l">%(inertial)s</link>
  <link name="lower_l">%(inertial)s</link>
  <link name="tip_l">%(inertial)s</link>
  <link name="lid">%(inertial)s</link>
  <joint name="z_shoulder" type="revolute"><parent link="base"/><child link="upper_l"/><axis xyz="0 0 1"/>
    <limit lower="-2" upper="2" effort="9" velocity="5"/></joint>
  <joint name="elbow" type="continuous"><parent link="upper_l"/><child link="lower_l"/><axis xyz="0 0 1"/>
    <origin xyz="%(length)s 0 0"/></joint>
  <joint name="wrist" type="fixed"><parent link="lower_l"/><child link="tip_l"/><origin xyz="0.4 0 0"/></joint>
  <joint name="a_lid" type="revolute"><parent link="base"/><child link="lid"/><axis xyz="0 1 0"/>
    <limit lower="-1" upper="1" effort="9" velocity="5"/></joint>
</robot>"""
INERTIAL = '<inertial><mass value="0.5"/><inertia ixx="0.01" iyy="0.01" izz="0.01" ixy="0" ixz="0" iyz="0"/></inertial>'
NVIDIA = {
    "file": "urdf/arm.urdf",
    "joints": {"shoulder": "z_shoulder"},
    "bodies": {"upper": "upper_l", "lower": "lower_l", "tip": "tip_l"},
    "others": {"damping": 10.0},
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "urdf").mkdir()
    (tmp_path / "urdf" / "arm.urdf").write_text(URDF % {"inertial": INERTIAL, "length": "0.4"})
    return tmp_path


def nvidia(folder, **changes):
    options = {"actors": {"arm": {"nvidia": {**NVIDIA, **changes}}}}
    return make(ARM, BOX, assets=str(folder), options=options)


def test_nvidias_files_are_mapped_by_name(folder):
    """Its joints come in another order (a_lid first) and one is none of ours; tensors and drives follow the names."""
    sim = nvidia(folder)
    assert sim.dof_names == ["arm/shoulder", "arm/elbow"]
    assert sim.gym.get_actor_dof_names(*_handle(sim, 0, "arm")) == ["a_lid", "z_shoulder", "elbow"]
    put_joint(sim, "arm/shoulder", pos=[0.1, 0.2, 0.3, 0.4])
    put_joint(sim, "arm/elbow", pos=-0.5)
    sim.set_dof_target_pos(sim.dof_pos.clone())
    sim.step()  # the engine compares its link poses with Isaac Gym's here
    assert_close(sim.dof_pos, torch.tensor([[0.1, -0.5], [0.2, -0.5], [0.3, -0.5], [0.4, -0.5]]), 1e-5)
    assert_close(sim._gym_dof[:, 0], torch.zeros(N, 2), 0)
    props = sim.gym.get_actor_dof_properties(*_handle(sim, 0, "arm"))
    assert list(props["damping"]) == [10.0, 8.0, 8.0]
    assert list(props["driveMode"]) == [int(gymapi.DOF_MODE_NONE)] + [int(gymapi.DOF_MODE_POS)] * 2
    assert_close(sim.dof_lower, torch.tensor([-2.0, -math.inf]), 0)


def test_the_mass_matrix_has_nvidias_masses(folder):
    sim = nvidia(folder)
    at_elbow = 0.01 + 0.01 + 0.5 * 0.4**2  # forearm about its own origin, tip 0.4 m out
    assert_close(sim.mass_matrix()[:, 1, 1], torch.full((N,), at_elbow), 1e-6)


def test_a_different_robot_is_noticed(folder):
    (folder / "urdf" / "arm.urdf").write_text(URDF % {"inertial": INERTIAL, "length": "0.35"})
    sim = nvidia(folder)
    with pytest.raises(ValueError, match=r"body 'arm/\w+' 50.0 mm from where .*arm.urdf is not the robot"):
        sim.step()


def test_a_folder_without_the_files_is_named(tmp_path):
    with pytest.raises(UserError, match=r"sim.assets=.* lacks urdf/arm.urdf"):
        nvidia(tmp_path)
    with pytest.raises(UserError, match="is no folder"):
        nvidia(tmp_path / "nowhere")


def test_nvidias_mjcf_turns_its_root_itself(tmp_path, calls):
    """create_actor is told the actor's pose alone; with our file, which has no root pose left, it is told both."""
    (tmp_path / "turned.xml").write_text(TURNED)
    hand = ActorSpec("hand", tmp_path / "turned.xml", position=(0.0, 0.0, 0.5))
    for assets in (None, str(tmp_path)):
        sim = make(hand, assets=assets, options={"actors": {"hand": {"nvidia": {"file": "turned.xml"}}}}, num_envs=1)
        pose = next(args[2] for name, args in reversed(calls) if name == "create_actor")
        turned = assets is None
        assert (pose.p.z, pose.r.x) == pytest.approx((0.6, 0.6) if turned else (0.5, 0.0))
        assert_close(sim.root_state[0, 0, :7], [0.0, 0.0, 0.6, 0.6, 0.0, 0.0, 0.8], 1e-6)


TURNED = """<mujoco><worldbody><body name="base" pos="0 0 0.1" quat="0.8 0.6 0 0"><inertial pos="0 0 0" mass="1"
diaginertia="1 1 1"/><body name="finger"><joint name="a"/><geom size="0.05" mass="1"/></body></body></worldbody>
</mujoco>"""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"joints": {}}, r"arm.urdf has no joint 'shoulder'; it has: a_lid, z_shoulder, elbow"),
        ({"bodies": {}}, r"arm.urdf has no body 'upper'; it has: base, "),
        ({"asset": {"mass": 1}}, r"actors.arm.nvidia.asset.mass is no field of gymapi.AssetOptions"),
    ],
)
def test_wrong_maps_are_named(folder, change, message):
    with pytest.raises(ValueError, match=message):
        nvidia(folder, **change)


# -- what Isaac Gym cannot do --------------------------------------------------------------------------------------
def test_force_sensors_need_an_articulation():
    sensor = ForceSensorSpec("touch", "box/cube")
    with pytest.raises(ValueError, match=r"force sensor 'touch' sits on 'box/cube', which has no joints"):
        make(BOX, force_sensors=(sensor,))
    with pytest.raises(ValueError, match=r"force sensor 'touch' sits on unknown body 'arm/nose'"):
        make(ARM, force_sensors=(ForceSensorSpec("touch", "arm/nose"),))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"body_states": ("arm/nose",)}, r"the scene has no body arm/nose; it has: arm/upper"),
        ({"options": {"physx": {"speed": 1}}}, r"options.isaacgym.physx.speed is no field of gymapi.PhysXParams"),
        (
            {"contact_bodies": ("arm/tip",), "options": {"physx": {"contact_collection": 0}}},
            r"contact_collection=0 measures no contact forces, but the scene serves those of arm/tip: set it to 1",
        ),
    ],
)
def test_mistakes_in_a_scene_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        make(ARM, **changes)


def test_drives_that_fit_no_joint_are_named():
    bad = ActorSpec("arm", ASSETS / "arm.xml", drives=(DriveSpec("knee"),))
    with pytest.raises(ValueError, match=r"drive 'knee' of actor 'arm' matches no joint; it has: shoulder, elbow"):
        make(bad)
    twice = ActorSpec("arm", ASSETS / "arm.xml", drives=(DriveSpec("elbow"), DriveSpec(".*")))
    with pytest.raises(ValueError, match=r"joint 'elbow' of actor 'arm' is matched by two drives"):
        make(twice)


def test_sensors_are_served_in_the_scenes_order():
    two = (ForceSensorSpec("late", "two/tip"), ForceSensorSpec("early", "arm/tip"))
    sim = make(ARM, ActorSpec("two", ASSETS / "arm.xml"), force_sensors=two)
    assert sim.scene.sensor_rows == [1, 0]
    sim._gym_sensor[:] = torch.tensor([1.0, 2.0])[None, :, None]
    sim._take_over()
    assert_close(sim.force_sensor[:, :, 0], torch.tensor([2.0, 1.0]).expand(N, 2), 0)


def test_closing_destroys_the_simulation_once():
    sim = make(BOX)
    sim.close()
    sim.close()
    with pytest.raises(RuntimeError, match="destroy"):
        sim.step()


def test_physics_step_of_the_workshop(lab):
    params = lab.gym.get_sim_params(lab.sim)
    assert params.dt / params.substeps == pytest.approx(H)
    assert Path(fake_gym.FAKES).is_dir()
    assert np.asarray(lab.scene.actor_ids).dtype == np.int32
