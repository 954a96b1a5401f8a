"""The study behind ShadowHand's drive gains (docs/parity/ShadowHand.md).

``python -m hepo_isaac.studies.shadow_hand_drives [step] [push] [hold] [turn]`` prints one table per part (all by
default) and draws shadow_hand_drives.png from the first. One thread; parts take seconds, ``turn`` minutes.

PhysX's drive, for one joint: TGS splits a physics step of h = 1/120 s into 8 position iterations of d = h/8 and in each
adds the impulse that makes the joint's motion an implicit PD step of length d
(PhysX 5, DyCpuGpuArticulation.h: computeImplicitDriveParamsForceDrive, computeDriveImpulse)

    v <- v + (d kp (target - q) - d (d kp + kd) v) / (I + d (d kp + kd)),    q <- q + d v

with 1/I the joint's response to a unit impulse, armature included; the impulses of one step sum to at most limit h.
"""

from __future__ import annotations

import re
import sys
from typing import Any, Dict, List, NamedTuple, Tuple

import mujoco
import numpy as np
import torch
from torch import Tensor

from hepo_isaac.envs.make import make_env
from hepo_isaac.envs.task_env import TaskEnv
from hepo_isaac.locate import robots_dir, tasks_module
from hepo_isaac.runs.machine.rig import settings
from hepo_isaac.sim.engines import CPU_ENGINE
from hepo_isaac.sim.mujoco.model import compile_scene
from hepo_isaac.sim.spec import ActorSpec, DriveSpec, SceneSpec
from hepo_isaac.studies.places import DOCS, require_checkout

CONTROL_DT = 0.01667
PHYSX_STEP, PHYSX_ITERATIONS = CONTROL_DT / 2, 8


class Gains(NamedTuple):
    """Published gains times ``scale``; armature of the fingers, damping of the passive joints, physics steps."""

    scale: float = 1.0
    armature: float = 0.001
    passive: float = 0.1
    substeps: int = 4

    def overrides(self) -> List[str]:
        """As on the command line."""
        drives = "task.physics.drives.mujoco."
        return [
            "budget=paper",
            "%swrist.stiffness=%g" % (drives, 5.0 * self.scale),
            "%swrist.damping=%g" % (drives, 0.5 * self.scale),
            "%sfinger.stiffness=%g" % (drives, self.scale),
            "%sfinger.damping=%g" % (drives, 0.1 * self.scale),
            "%sfinger.armature=%g" % (drives, self.armature),
            "%spassive.damping=%g" % (drives, self.passive),
            "task.physics.substeps=%d" % self.substeps,
        ]

    def hand(self) -> ActorSpec:
        """The robot alone."""
        cfg = settings("ShadowHand", 1, "hepo", "sim=" + CPU_ENGINE, *self.overrides())["task"]
        return tasks_module("robots.shadow_hand").ShadowHand.hand(cfg, CPU_ENGINE)


def make(num_envs: int, gains: Gains, seed: int = 0) -> TaskEnv:
    """The task on MuJoCo C, one thread, episodes from their start."""
    given = ["sim=" + CPU_ENGINE, "device=cpu", "sim.threads=1", "seed=%d" % seed, *gains.overrides()]
    return make_env(settings("ShadowHand", num_envs, "hepo", *given), random_start=False)


def task_of(env: TaskEnv) -> Any:
    """The hand, whose class lives where a checkout or a wheel has it."""
    return env.task


# -- step: the response of one joint in the air ------------------------------------------------------------------
def physx_step(inertia: float, kp: float, kd: float, limit: float, target: float, seconds: float) -> np.ndarray:
    """Joint angles after every position iteration."""
    d = PHYSX_STEP / PHYSX_ITERATIONS
    a = d * (d * kp + kd)
    q = v = total = 0.0
    angles = []
    for i in range(int(seconds / d)):
        if i % PHYSX_ITERATIONS == 0:
            total = 0.0
        impulse = inertia * (d * kp * (target - q) - a * v) / (inertia + a)
        new = min(max(total + impulse, -limit * PHYSX_STEP), limit * PHYSX_STEP)
        v += (new - total) / inertia
        total = new
        q += d * v
        angles.append(q)
    return np.array(angles)


def mujoco_step(gains: Gains, joint: str, target: float, seconds: float) -> Tuple[np.ndarray, float]:
    """Joint angles after every physics step, and the joint's inertia (all others free) at the start."""
    model = compile_scene(SceneSpec((gains.hand(),), CONTROL_DT, gains.substeps)).model
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    mass = np.zeros((model.nv, model.nv))
    mujoco.mj_fullM(model, data, mass)
    where = model.joint("hand/" + joint)
    data.ctrl[model.actuator("hand/" + joint).id] = target
    angles = []
    for _ in range(int(seconds / model.opt.timestep)):
        mujoco.mj_step(model, data)
        angles.append(float(data.qpos[where.qposadr[0]]))
    return np.array(angles), 1.0 / np.linalg.inv(mass)[where.dofadr[0], where.dofadr[0]]


def _summary(angles: np.ndarray, step: float, target: float) -> str:
    share = angles / target
    rise = [np.argmax(share >= level) * step if (share >= level).any() else np.nan for level in (0.1, 0.9)]
    return "%5.0f ms %+5.1f %%" % (1e3 * (rise[1] - rise[0]), 1e2 * max(share.max() - 1.0, 0.0))


def step() -> None:
    """10-90 % rise time and overshoot; the figure."""
    print("joint    scale armature passive | PhysX, closed form |  2 steps        |  4 steps        |  8 steps")
    cases = [
        (joint, Gains(scale, armature, passive))
        for joint, passives in (("FFJ2", (0.1,)), ("THJ4", (0.1,)), ("WRJ0", (0.1,)), ("FFJ1", (0.1, 0.03, 0.01)))
        for passive in passives
        for armature in ((0.001, 0.005) if joint == "FFJ2" else (0.001,))
        for scale in (1.0, 2.0, 5.0, 20.0, 50.0)
        if passive == 0.1 or scale in (1.0, 20.0)
    ]
    for joint, gains in cases:
        drive, target = _drive(gains, joint), 0.3
        row = []
        for substeps in (2, 4, 8):
            angles, inertia = mujoco_step(gains._replace(substeps=substeps), joint, target, 1.0)
            row.append(_summary(angles, CONTROL_DT / substeps, target))
        physx = physx_step(inertia, drive.stiffness, drive.damping, drive.effort_limit, target, 1.0)
        row.insert(0, _summary(physx, PHYSX_STEP / PHYSX_ITERATIONS, target))
        print("%-8s %4g  %7g %7g  | %s" % (joint, gains.scale, gains.armature, gains.passive, " | ".join(row)))
    _draw()


def _drive(gains: Gains, joint: str) -> DriveSpec:
    return next(d for d in gains.hand().drives if re.fullmatch(d.joints, joint))


def _draw() -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(12, 3.2), sharey=True, constrained_layout=True)
    panels = (
        ("FFJ2 (driven alone)", "FFJ2", [Gains(1.0), Gains(20.0)]),
        (
            "FFJ3, 20 x gains saturate",
            "FFJ3",
            [Gains(20.0, substeps=2), Gains(20.0, substeps=4), Gains(20.0, substeps=8)],
        ),
        ("FFJ1 (drags FFJ0 by its tendon)", "FFJ1", [Gains(passive=0.1), Gains(passive=0.03), Gains(passive=0.01)]),
    )
    for axis, (title, joint, variants) in zip(axes, panels):
        for gains in variants:
            angles, inertia = mujoco_step(gains, joint, 0.3, 0.6)
            times = np.arange(1, len(angles) + 1) * CONTROL_DT / gains.substeps
            label = "%g x, %d steps, passive %g" % (gains.scale, gains.substeps, gains.passive)
            axis.plot(times, angles, label=label)
            drive = _drive(gains, joint)
        physx = physx_step(inertia, drive.stiffness, drive.damping, drive.effort_limit, 0.3, 0.6)
        times = np.arange(1, len(physx) + 1) * PHYSX_STEP / PHYSX_ITERATIONS
        axis.plot(times, physx, "k--", linewidth=1.0, label="PhysX, closed form")
        axis.set(title=title, xlabel="time [s]")
        axis.legend(fontsize=7)
    axes[0].set_ylabel("joint angle [rad]")
    figure.savefig(DOCS / "parity" / "shadow_hand_drives.png", dpi=110)


# -- push: a fingertip against something fixed -------------------------------------------------------------------
def push() -> None:
    """Force of the index finger on a block that cannot move, its jitter, and how deep it sinks in."""
    print("scale armature steps | force N  (statics)  jitter N  depth mm")
    for gains in [
        Gains(scale, armature, substeps=n)
        for n in (2, 4, 8)
        for armature in (0.001, 0.005)
        for scale in (1.0, 5.0, 20.0, 50.0)
    ]:
        block = ActorSpec(
            "block",
            robots_dir() / "assets" / "in_hand_block.xml",
            (-0.033, -0.46, 0.534),
            collision_group=2,
            collision_mask=1,
        )
        scene = SceneSpec((gains.hand(), block), CONTROL_DT, gains.substeps, contact_bodies=("block/object",))
        model = compile_scene(scene).model
        data = mujoco.MjData(model)
        data.ctrl[model.actuator("hand/FFJ2").id] = 0.6
        forces, depths = [], []
        for _ in range(int(2.0 / model.opt.timestep)):
            mujoco.mj_step(model, data)
            forces.append(np.linalg.norm(data.sensordata[:3]))
            depths.append(-min((data.contact.dist[i] for i in range(data.ncon)), default=0.0))
        half = len(forces) // 2
        # Torque balance about the knuckle: what the drive gives, over the arm to where the tip touches.
        touch = next(iter(data.contact.pos), np.full(3, np.nan))
        arm = np.linalg.norm(touch[1:] - data.body("hand/ffproximal").xpos[1:])
        torque = float(data.actuator_force[model.actuator("hand/FFJ2").id])
        print(
            "%4g  %7g %5d | %7.2f  (%6.2f)  %8.3f  %8.2f"
            % (
                *gains[:2],
                gains.substeps,
                np.mean(forces[half:]),
                torque / arm,
                np.std(forces[half:]),
                1e3 * depths[-1],
            )
        )


# -- hold: the block lies in the hand ----------------------------------------------------------------------------
CRADLE: Dict[str, float] = {
    **{finger + joint: angle for finger in ("FF", "MF", "RF", "LF") for joint, angle in (("J2", 0.5), ("J1", 0.5))},
    **{finger + "J0": 0.57 for finger in ("FF", "MF", "RF", "LF")},
    "THJ4": 0.3,
    "THJ3": 0.6,
}


def hold() -> None:
    """How far the block's weight bends the fingers of a cradle, and what it does to them when dropped in."""
    print("scale armature passive steps | bend mrad (worst)  block sinks mm  rattle rad/s")
    still = None
    for gains in [
        Gains(50.0, substeps=8),
        *(Gains(scale, armature, 0.1, n) for n in (2, 4, 8) for armature in (0.001, 0.005) for scale in (1, 5, 20, 50)),
        *(Gains(scale, 0.001, 0.01, 4) for scale in (1, 5, 20)),
    ]:
        env = make(1, gains)
        pose = torch.tensor([[CRADLE.get(name.split("/")[1], 0.0) for name in env.sim.dof_names]])
        root = env.sim.root_state.clone()
        root[:, 1] = torch.tensor([-0.005, -0.37, 0.535, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0])
        env.sim.set_state(torch.tensor([True]), pose, torch.zeros_like(pose), root, pose)
        for _ in range(180):
            env.sim.step()
        speeds = []
        for _ in range(60):
            env.sim.step()
            speeds.append(env.sim.dof_vel.abs().max().item())
        height = env.sim.root_state[0, 1, 2].item()
        still = height if still is None else still
        bend = (env.sim.dof_pos - pose)[0, task_of(env).columns].abs()
        print(
            "%4g  %7g %7g %5d | %9.1f          %9.2f      %8.4f"
            % (*gains, 1e3 * bend.max().item(), 1e3 * (still - height), max(speeds))
        )


# -- turn: what a hand can do with the block ---------------------------------------------------------------------
def flail(gains: Gains, envs: int = 32, steps: int = 240) -> Tuple[float, float]:
    """New random targets every quarter of a second: share of blocks still held after 4 s, and rad/s they turned."""
    env = make(envs, gains)
    task = task_of(env)
    task.fall_distance = float("inf")  # a dropped block stays down
    env.reset()
    generator = torch.Generator().manual_seed(0)
    held, turned, time = torch.ones(envs, dtype=torch.bool), 0.0, 0
    action = torch.zeros(envs, env.num_actions)
    for i in range(steps):
        if i % 15 == 0:
            action = 2.0 * torch.rand(envs, env.num_actions, generator=generator) - 1.0
        env.step(action)
        state = task.state()
        held &= state.distance < 0.24
        turned += float((held * state.object_angvel.norm(dim=-1)).sum())
        time += int(held.sum())
    return held.float().mean().item(), turned / time


def plan(gains: Gains, seconds: float = 10.0, seed: int = 0) -> Tuple[int, int]:
    """Goals and drops in ``seconds`` of predictive sampling: every 8 control steps the best of 32 constant actions over
    the next 24 steps, by the published distance and rotation terms, drawn around the present one."""
    samples, horizon, each = 32, 24, 8
    env = make(samples, gains, seed=seed)
    task, sim = task_of(env), env.sim
    generator = torch.Generator().manual_seed(seed)
    everyone = torch.ones(samples, dtype=torch.bool)
    env.reset()
    goals = drops = 0
    nominal = torch.zeros(env.num_actions)

    def snapshot() -> List[Tensor]:
        """The first world's state, for all of them."""
        state = (sim.dof_pos, sim.dof_vel, sim.root_state, sim.dof_target_pos)
        return [x[:1].expand_as(x).clone() for x in state]

    def run(actions: Tensor, count: int) -> Tensor:
        value = torch.zeros(samples)
        for _ in range(count):
            task.apply(actions)
            sim.step()
            s = task.state()
            value += -10.0 * s.distance + 1.0 / (s.angle + 0.1) - 100.0 * s.fallen
        return value

    def same_goal() -> None:
        task.set_goal(task.goal[:1, 3:].expand(samples, -1).clone())

    same_goal()
    for _ in range(int(seconds / CONTROL_DT / each)):
        start = snapshot()
        sim.set_state(everyone, *start)
        actions = (nominal + 0.5 * torch.randn(samples, env.num_actions, generator=generator)).clamp(-1.0, 1.0)
        actions[0] = nominal
        nominal = actions[run(actions, horizon).argmax()].clone()
        sim.set_state(everyone, *start)
        for _ in range(each):
            run(nominal.expand(samples, -1), 1)
            state = task.state()
            if bool(state.fallen[0]):
                drops += 1
                env.reset()
                nominal = torch.zeros(env.num_actions)
                same_goal()
                break
            if bool(state.reached[0]):
                goals += 1
                task.new_goals(everyone, 2.0 * task.streams.rand(2) - 1.0)
                same_goal()
    return goals, drops


def turn() -> None:
    """What the same random targets, and the same planner, do with the block."""
    print("scale armature passive steps | held after 4 s  turned rad/s | planner: goals, drops in 10 s (2 seeds)")
    for gains in (
        Gains(1.0),
        Gains(1.0, passive=0.01),
        Gains(5.0, passive=0.01),
        Gains(20.0, passive=0.01),
        Gains(20.0, 0.005, passive=0.01),
        Gains(1.0, passive=0.01, substeps=2),
    ):
        planned = [plan(gains, seed=seed) for seed in range(2)]
        print(
            "%4g  %7g %7g %5d | %9.2f  %12.2f     | %s"
            % (*gains, *flail(gains), "  ".join("%d, %d" % pair for pair in planned)),
            flush=True,
        )


if __name__ == "__main__":
    require_checkout()
    parts = {"step": step, "push": push, "hold": hold, "turn": turn}
    for name in sys.argv[1:] or parts:
        print("\n" + name)
        parts[name]()
