"""What each robot task tells Isaac Gym, against the published numbers typed here once more from their description."""

from __future__ import annotations

import ast
import math
import re
from pathlib import Path

import mujoco
import pytest

from hepo_isaac.config import resolve, validate
from hepo_isaac.locate import task_class
from hepo_isaac.overrides import compose
from hepo_isaac.runs.machine.doctor import _asset_files
from hepo_isaac.sim.isaacgym.settings import read_settings

ROOT = Path(__file__).resolve().parents[2]
ASSETS = ROOT / "tasks" / "robots" / "assets"
M = 1024 * 1024
# task: (dt of one simulate, simulates, substeps, spacing, position and velocity iterations, contact and rest offset,
#        depenetration velocity, contact pairs, buffer multiplier, contact collection)
PUBLISHED = {
    "Ant": (0.0166, 1, 2, 5.0, 4, 0, 0.02, 0.0, 10.0, 8 * M, 5.0, 0),
    "Humanoid": (0.0166, 1, 2, 5.0, 4, 0, 0.02, 0.0, 10.0, 8 * M, 5.0, 0),
    "Anymal": (0.02, 1, 2, 4.0, 4, 1, 0.02, 0.0, 100.0, 8 * M, 5.0, 1),
    "Quadcopter": (0.01, 1, 2, 1.25, 4, 0, 0.02, 0.001, 1000.0, M, 5.0, 0),
    "Ingenuity": (0.01, 1, 2, 2.5, 6, 0, 0.02, 0.001, 1000.0, M, 5.0, 0),
    "BallBalance": (0.01, 1, 1, 2.0, 8, 0, 0.02, 0.001, 1000.0, 8 * M, 5.0, 1),  # collection: published 0
    "Cartpole": (0.0166, 1, 2, 4.0, 4, 0, 0.02, 0.001, 100.0, M, 2.0, 0),
    "FrankaCabinet": (0.0166, 1, 1, 1.5, 12, 1, 0.005, 0.0, 1000.0, M, 5.0, 0),
    "FrankaCubeStack": (0.01667, 1, 2, 1.5, 8, 1, 0.005, 0.0, 1000.0, M, 5.0, 0),
    "ShadowHand": (0.01667, 1, 2, 0.75, 8, 0, 0.002, 0.0, 1000.0, 8 * M, 5.0, 0),
    "AllegroHand": (0.01667, 2, 2, 0.75, 8, 0, 0.002, 0.0, 1000.0, 8 * M, 5.0, 0),
}
# task: actor: asset options; what is not there is Isaac Gym's default
OPTIONS = {
    "Ant": {"ant": {"angular_damping": 0.0}},
    "Humanoid": {"humanoid": {"angular_damping": 0.01, "max_angular_velocity": 100.0}},
    "Anymal": {
        "anymal": {"angular_damping": 0, "linear_damping": 0, "armature": 0, "thickness": 0.01, "density": 0.001}
    },
    "Quadcopter": {
        "quadcopter": {"angular_damping": 0, "max_angular_velocity": 4 * math.pi, "slices_per_cylinder": 40}
    },
    "Ingenuity": {"ingenuity": {"angular_damping": 0, "max_angular_velocity": 4 * math.pi, "slices_per_cylinder": 40}},
    "BallBalance": {"robot": {"slices_per_cylinder": 40}, "ball": {}},
    "Cartpole": {"cartpole": {}},
    "FrankaCabinet": {"franka": {"thickness": 0.001}, "cabinet": {"thickness": 0.001, "armature": 0.005}},
    "FrankaCubeStack": {"franka": {"thickness": 0.001}, "table": {}, "stand": {}, "cube_a": {}, "cube_b": {}},
    "ShadowHand": {"hand": {"thickness": 0.001, "angular_damping": 0.01, "use_physx_armature": True}, "object": {}},
    "AllegroHand": {"hand": {"thickness": 0.001, "angular_damping": 0.01, "use_physx_armature": True}, "object": {}},
}
INF = math.inf
# task: joints: (mode, stiffness, damping, effort limit, velocity limit, armature)
DRIVES = {
    "Ant": {"hip_1 hip_4 ankle_2": ("effort", 0, 0.1, INF, None, 0.01)},
    "Humanoid": {
        "abdomen_z": ("effort", 20, 5, INF, None, 0.02),
        "left_knee": ("effort", 5, 0.1, INF, None, 0.007),
        "right_elbow": ("effort", 2, 1, INF, None, 0.006),
    },
    "Anymal": {"LF_HAA RH_KFE": ("position", 85, 2, 80, 20, 0)},
    "Quadcopter": {"pitch0 roll3": ("position", 1000, 0, INF, None, 0)},
    "Ingenuity": {},
    "BallBalance": {
        "lower_leg_joint0 lower_leg_joint2": ("position", 4000, 100, INF, None, 0),
        "upper_leg_joint1": ("none", 0, 0, INF, None, 0),
    },
    "Cartpole": {"slider_to_cart": ("effort", 0, 0, 1000, 100, 0), "cart_to_pole": ("none", 0, 0, INF, 8, 0)},
    "FrankaCabinet": {
        "panda_joint1 panda_joint4": ("position", 400, 80, 87, 2.175, 0),
        "panda_joint5 panda_joint7": ("position", 400, 80, 12, 2.61, 0),
        "panda_finger_joint1 panda_finger_joint2": ("position", 1e6, 100, 200, 0.2, 0),
        "drawer_top_joint": ("none", 0, 10, INF, 1.0, 0.005),
    },
    "FrankaCubeStack": {
        "panda_joint1 panda_joint4": ("effort", 0, 0, 87, 2.175, 0),
        "panda_joint5 panda_joint7": ("effort", 0, 0, 12, 2.61, 0),
        "panda_finger_joint1": ("position", 5000, 100, 200, 0.2, 0),
    },
    "ShadowHand": {
        "WRJ1": ("position", 5, 0.5, 4.785, None, 0.005),
        "FFJ1": ("position", 1, 0.1, 0.7245, None, 0.001),
        "THJ4": ("position", 1, 0.1, 2.3722, None, 0.001),
        "LFJ0": ("none", 0, 0.1, INF, None, 0.001),
    },
    "AllegroHand": {"index_0 thumb_3": ("position", 3, 0.1, 0.5, 6.283, 0.001)},
}
PANDA = ["panda_joint%d" % i for i in range(1, 8)] + ["panda_finger_joint1", "panda_finger_joint2"]
PANDA_LINKS = ["panda_link%d" % i for i in range(8)] + ["panda_leftfinger", "panda_rightfinger"]
FINGERS = ("index", "middle", "ring", "thumb")
# NVIDIA's file: its joints, and those of its links that we need to know
NVIDIA = {
    "mjcf/nv_ant.xml": (
        ["%s_%d" % (kind, i) for i in range(1, 5) for kind in ("hip", "ankle")],
        ["torso", "front_left_foot", "front_right_foot", "left_back_foot", "right_back_foot"],
    ),
    "mjcf/nv_humanoid.xml": (
        ["abdomen_z", "abdomen_y", "abdomen_x"]
        + [side + j for side in ("right_", "left_") for j in ("hip_x", "hip_z", "hip_y", "knee", "ankle_y", "ankle_x")]
        + [side + j for side in ("right_", "left_") for j in ("shoulder1", "shoulder2", "elbow")],
        ["torso", "right_foot", "left_foot"],
    ),
    "urdf/anymal_c/urdf/anymal.urdf": (
        ["%s_%s" % (leg, j) for leg in ("LF", "LH", "RF", "RH") for j in ("HAA", "HFE", "KFE")],
        ["base"] + ["%s_THIGH" % leg for leg in ("LF", "LH", "RF", "RH")],
    ),
    "urdf/cartpole.urdf": (["slider_to_cart", "cart_to_pole"], ["slider", "cart", "pole"]),
    "urdf/franka_description/robots/franka_panda.urdf": (PANDA, PANDA_LINKS),
    "urdf/franka_description/robots/franka_panda_gripper.urdf": (PANDA, PANDA_LINKS),
    "urdf/sektion_cabinet_model/urdf/sektion_cabinet_2.urdf": (
        ["door_left_joint", "door_right_joint", "drawer_bottom_joint", "drawer_top_joint"],
        ["sektion", "drawer_top"],
    ),
    "mjcf/open_ai_assets/hand/shadow_hand.xml": (
        ["robot0:WRJ1", "robot0:WRJ0"]
        + ["robot0:%sJ%d" % (f, i) for f in ("FF", "MF", "RF") for i in range(4)]
        + ["robot0:%sJ%d" % (f, i) for f in ("LF", "TH") for i in range(5)],
        ["robot0:%sdistal" % f for f in ("ff", "mf", "rf", "lf", "th")],
    ),
    "urdf/kuka_allegro_description/allegro_touch_sensor.urdf": (
        ["%s_joint_%d" % (f, i) for f in FINGERS for i in range(4)],
        ["palm_link"] + ["%s_link_%d" % (f, i) for f in FINGERS for i in range(4)],
    ),
}


def scene(task, *overrides):
    given = ["task=" + task, "sim=isaacgym", "device=cpu", *overrides]
    cfg = resolve(compose(given), given, False)
    validate(cfg)  # the task's list of engines, too
    return task_class(task).scene(cfg.task, "isaacgym")


def fields(name):
    """Fields of one of gymapi's classes, from our stubs."""
    tree = ast.parse((ROOT / "typings/isaacgym/gymapi.pyi").read_text())
    (found,) = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name]
    return {n.target.id for n in found.body if isinstance(n, ast.AnnAssign)}


@pytest.fixture(params=sorted(PUBLISHED))
def task(request):
    return request.param


def test_step_and_solver(task):
    spec = scene(task)
    settings = read_settings(spec)
    dt, simulates, substeps, spacing, position, velocity, contact, rest, depenetration, pairs, buffer, collect = (
        PUBLISHED[task]
    )
    assert (settings.simulates, settings.substeps, settings.env_spacing) == (simulates, substeps, spacing)
    assert spec.control_dt == pytest.approx(simulates * dt, rel=1e-9)
    assert settings.physx == {
        "num_position_iterations": position,
        "num_velocity_iterations": velocity,
        "contact_offset": contact,
        "rest_offset": rest,
        "bounce_threshold_velocity": 0.2,
        "max_depenetration_velocity": depenetration,
        "max_gpu_contact_pairs": pairs,
        "default_buffer_size_multiplier": buffer,
        "contact_collection": collect,
    }


def test_assets_friction_and_plane(task):
    spec = scene(task)
    settings = read_settings(spec)
    assert set(OPTIONS[task]) == {actor.name for actor in spec.actors}
    for actor, options in OPTIONS[task].items():
        found = settings.actor(actor)
        assert found.asset == pytest.approx(options, rel=1e-6), actor
        if task != "Cartpole":  # where nothing touches
            assert found.friction == (1.5 if task == "Ant" else 1.0)
    if spec.ground_plane:
        assert settings.plane == {"static_friction": 1.0, "dynamic_friction": 1.0, "restitution": 0.0}


def test_drives(task):
    actors = scene(task).actors
    for joints, expected in DRIVES[task].items():
        for joint in joints.split():
            (drive,) = [d for a in actors for d in a.drives if re.fullmatch(d.joints, joint)]
            found = (
                drive.mode,
                drive.stiffness,
                drive.damping,
                drive.effort_limit,
                drive.velocity_limit,
                drive.armature,
            )
            assert found == expected, joint


def test_every_key_is_one_of_isaac_gyms_fields(task):
    settings = read_settings(scene(task))
    assert set(settings.physx) <= fields("PhysXParams")
    assert set(settings.plane) <= fields("PlaneParams")
    for actor in settings.actors.values():
        assert set(actor.asset) <= fields("AssetOptions")
        assert set(actor.tendons) <= fields("TendonProperties")
        assert set(actor.attractors) <= fields("AttractorProperties")
        # ActorSpec says these
        given = set(actor.asset) | set(actor.nvidia.asset if actor.nvidia else ())
        assert given <= fields("AssetOptions") - {"fix_base_link", "disable_gravity"}


def test_names_of_nvidias_files(task):
    """Every joint of ours, and every link that is served, has its counterpart; maps name what ours has."""
    spec = scene(task)
    settings = read_settings(spec)
    served = (*spec.body_states, *spec.contact_bodies, *(s.body for s in spec.force_sensors))
    for actor in spec.actors:
        nvidia = settings.actor(actor.name).nvidia
        if nvidia is None:
            continue
        model = mujoco.MjModel.from_xml_path(str(actor.asset))
        joints = [model.joint(i).name for i in range(model.njnt)]
        bodies = [model.body(i).name for i in range(1, model.nbody)]
        assert set(nvidia.joints) <= set(joints)
        assert set(nvidia.bodies) <= set(bodies)
        theirs, links = NVIDIA[nvidia.file]
        assert {nvidia.joints.get(j, j) for j in joints} <= set(theirs)
        assert bool(set(theirs) - {nvidia.joints.get(j, j) for j in joints}) == bool(nvidia.others)
        named = [name.split("/")[1] for name in served if name.split("/")[0] == actor.name]
        assert {nvidia.bodies.get(b, b) for b in named} <= set(links)


def test_contacts_are_collected_where_they_are_read(task):
    spec = scene(task)
    assert bool(spec.contact_bodies) == bool(read_settings(spec).physx["contact_collection"])


def test_tendons_and_attractors():
    hand = read_settings(scene("ShadowHand")).actor("hand")
    assert hand.tendons == {"limit_stiffness": 30.0, "damping": 0.1}
    assert read_settings(scene("BallBalance")).actor("robot").attractors == {"stiffness": 5e7, "damping": 5e3}


def test_doctor_knows_every_file():
    assert _asset_files() == sorted(NVIDIA)


def test_cabinet_in_nvidias_file_has_published_damping():
    others = read_settings(scene("FrankaCabinet")).actor("cabinet").nvidia.others
    assert others == {"stiffness": 0.0, "damping": 10.0}
