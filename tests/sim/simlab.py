"""The scene and helpers of the engine tests.

One scene holds every mechanism the contract tests need, so that Warp compiles its kernels once.
"""

from __future__ import annotations

from pathlib import Path

import fake_gym
import pytest
import torch

from hepo_isaac.sim.spec import ActorSpec, DriveSpec, ForceSensorSpec, SceneSpec

ASSETS = Path(__file__).parent / "assets"
N = 4
G = 9.81
H = 1.0 / 240.0  # physics step
SUBSTEPS = 4
DT = H * SUBSTEPS
SERVO = {"mass": 1.5, "stiffness": 60.0, "damping": 30.0}
FAST_LIMIT = 0.5  # m/s


def workshop(**changes):
    """Arm, pendulum, two drawers, three sliders in three drive modes and a free box on the ground."""
    servo = DriveSpec("rail", stiffness=SERVO["stiffness"], damping=SERVO["damping"])
    actors = changes.pop("actors", None) or (
        ActorSpec(
            "arm",
            ASSETS / "arm.xml",
            position=(2.0, 0.0, 1.0),
            drives=(DriveSpec("shoulder|elbow", stiffness=40.0, damping=8.0, effort_limit=30.0),),
        ),
        ActorSpec("pendulum", ASSETS / "pendulum.xml", position=(0.0, 2.0, 1.0), drives=(DriveSpec("swing", "none"),)),
        ActorSpec(
            "drawer",
            ASSETS / "drawer.xml",
            position=(-2.0, 0.0, 0.5),
            drives=(DriveSpec("slide", "none", inelastic_stop=True),),
        ),
        ActorSpec("springy", ASSETS / "drawer.xml", position=(-2.0, 1.0, 0.5), drives=(DriveSpec("slide", "none"),)),
        ActorSpec("servo", ASSETS / "slider.xml", position=(4.0, 0.0, 0.5), drives=(servo,)),
        ActorSpec(
            "fast",
            ASSETS / "slider.xml",
            position=(4.5, 0.0, 0.5),
            drives=(DriveSpec("rail", stiffness=400.0, damping=80.0, velocity_limit=FAST_LIMIT),),
        ),
        ActorSpec("motor", ASSETS / "slider.xml", position=(5.0, 0.0, 0.5), drives=(DriveSpec("rail", "effort"),)),
        ActorSpec(
            "runner",
            ASSETS / "slider.xml",
            position=(5.5, 0.0, 0.5),
            drives=(DriveSpec("rail", "velocity", damping=90.0),),
        ),
        ActorSpec("box", ASSETS / "box.xml", position=(0.0, 0.0, 0.1), fixed=False),
    )
    settings = {
        "control_dt": DT,
        "substeps": SUBSTEPS,
        "ground_plane": True,
        "contact_bodies": ("box/cube", "arm/tip"),
        "force_sensors": (ForceSensorSpec("bob", "pendulum/rod"), ForceSensorSpec("front", "drawer/box")),
        "options": {"mujoco_warp": {"nconmax": 16, "njmax": 48}, "isaacgym": {"substeps": SUBSTEPS}},
    }
    settings.update(changes)
    return SceneSpec(actors=tuple(actors), **settings)


def build(engine, spec, num_envs=N, **options):
    if engine == "warp":
        pytest.importorskip("mujoco_warp")
        from hepo_isaac.sim.mujoco.warp import MujocoWarpSimulation

        device = "cuda:0" if torch.cuda.is_available() else "cpu"
        return MujocoWarpSimulation(spec, num_envs, device=device, **options)
    if engine == "isaacgym":
        fake_gym.install()
        from hepo_isaac.sim.isaacgym.engine import IsaacGymSimulation

        return IsaacGymSimulation(spec, num_envs, device="cpu", **options)
    from hepo_isaac.sim.mujoco.batch import MujocoBatchSimulation

    return MujocoBatchSimulation(spec, num_envs, **options)


SERVED = ("root_state", "dof_pos", "dof_vel", "dof_force", "body_state", "contact_force", "force_sensor")


def every(sim):
    return torch.ones(sim.num_envs, dtype=torch.bool, device=sim.device)


def only(sim, *envs):
    mask = torch.zeros(sim.num_envs, dtype=torch.bool, device=sim.device)
    mask[list(envs)] = True
    return mask


def tensor(sim, values):
    return torch.tensor(values, dtype=torch.float32, device=sim.device)


def put_joint(sim, joint, pos=None, vel=None, mask=None):
    """Set one joint's position and/or velocity (scalars or (N,) lists), keeping the rest."""
    q, v = sim.dof_pos.clone(), sim.dof_vel.clone()
    if pos is not None:
        q[:, sim.dof_index(joint)] = tensor(sim, pos)
    if vel is not None:
        v[:, sim.dof_index(joint)] = tensor(sim, vel)
    sim.set_state(every(sim) if mask is None else mask, dof_pos=q, dof_vel=v)


def put_box(sim, pos=None, quat=None, linear=None, angular=None, mask=None):
    root = sim.root_state.clone()
    box = root[:, sim.actor_index("box")]
    for value, part in ((pos, slice(0, 3)), (quat, slice(3, 7)), (linear, slice(7, 10)), (angular, slice(10, 13))):
        if value is not None:
            box[:, part] = tensor(sim, value)
    sim.set_state(every(sim) if mask is None else mask, root_state=root)


def box_state(sim):
    return sim.root_state[:, sim.actor_index("box")]


def run(sim, steps):
    for _ in range(steps):
        sim.step()


def snapshot(sim):
    return {name: getattr(sim, name).clone() for name in SERVED}


def assert_close(got, expected, atol):
    torch.testing.assert_close(got.cpu().double(), torch.as_tensor(expected).cpu().double(), atol=atol, rtol=0)
