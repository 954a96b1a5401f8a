"""Warp kernels between mujoco_warp's arrays and the contract's tensors, one small kernel per tensor group.

All of them read and write in place and are safe inside a CUDA graph. Sizes: N worlds, D scalar joints, B served
bodies, A actors, U actuators. MuJoCo's quaternions are wxyz, in ``wp.quat`` too; ours are xyzw.
"""

# ruff: noqa: ANN201, UP018  (Warp: kernels return nothing; float(0.0) declares a variable, 0.0 a constant)
# No ``from __future__ import annotations``: Warp reads the annotations of a kernel.
import mujoco
import warp as wp

wp.set_module_options({"enable_backward": False})

PLANE = wp.constant(int(mujoco.mjtGeom.mjGEOM_PLANE))
CAPSULE = wp.constant(int(mujoco.mjtGeom.mjGEOM_CAPSULE))
UPRIGHT = wp.constant(1e-6)  # below this the horizontal part of a capsule's axis is rounding


@wp.kernel
def write_controls(
    qpos: wp.array2d[float],
    dof_qpos: wp.array[int],
    act_dof: wp.array[int],
    act_mode: wp.array[int],
    act_error: wp.array2d[float],
    target_pos: wp.array2d[float],
    target_vel: wp.array2d[float],
    effort: wp.array2d[float],
    ctrl: wp.array2d[float],
):
    """(N, U): the command of each drive; a position drive sees at most ``act_error`` of its error."""
    world, act = wp.tid()
    dof = act_dof[act]
    if act_mode[act] == 0:
        q = qpos[world, dof_qpos[dof]]
        bound = act_error[world % act_error.shape[0], act]
        ctrl[world, act] = q + wp.clamp(target_pos[world, dof] - q, -bound, bound)
    elif act_mode[act] == 1:
        ctrl[world, act] = target_vel[world, dof]
    else:
        ctrl[world, act] = effort[world, dof]


@wp.kernel
def align_capsules(
    count: wp.array[int],
    world_id: wp.array[int],
    geoms: wp.array[wp.vec2i],
    geom_type: wp.array[int],
    geom_rot: wp.array2d[wp.mat33],
    frame: wp.array[wp.mat33],
):
    """(contacts,): the first tangent of a capsule on a plane is the capsule's axis, however steep it stands."""
    contact = wp.tid()
    if contact >= count[0]:
        return
    pair = geoms[contact]
    if pair[0] < 0 or pair[1] < 0 or geom_type[pair[0]] != PLANE or geom_type[pair[1]] != CAPSULE:
        return
    rot = geom_rot[world_id[contact], pair[1]]
    axis = wp.vec3(rot[0, 2], rot[1, 2], rot[2, 2])
    old = frame[contact]
    normal = wp.vec3(old[0, 0], old[0, 1], old[0, 2])
    along = axis - normal * wp.dot(normal, axis)
    if wp.length(along) < UPRIGHT:
        return
    b = wp.normalize(along)
    c = wp.cross(normal, b)
    frame[contact] = wp.mat33(normal[0], normal[1], normal[2], b[0], b[1], b[2], c[0], c[1], c[2])


@wp.kernel
def refresh_dofs(
    qpos: wp.array2d[float],
    qvel: wp.array2d[float],
    dof_qpos: wp.array[int],
    dof_qvel: wp.array[int],
    dof_pos: wp.array2d[float],
    dof_vel: wp.array2d[float],
):
    """(N, D)."""
    world, dof = wp.tid()
    dof_pos[world, dof] = qpos[world, dof_qpos[dof]]
    dof_vel[world, dof] = qvel[world, dof_qvel[dof]]


@wp.kernel
def refresh_bodies(
    xpos: wp.array2d[wp.vec3],
    xquat: wp.array2d[wp.quat],
    cvel: wp.array2d[wp.spatial_vector],
    subtree_com: wp.array2d[wp.vec3],
    body_id: wp.array[int],
    body_root: wp.array[int],
    velocities: bool,
    state: wp.array3d[float],
):
    """(N, B): pose, and the velocity of the body's origin (cvel is about its tree's centre of mass)."""
    world, row = wp.tid()
    body = body_id[row]
    pos = xpos[world, body]
    quat = xquat[world, body]
    for i in range(3):
        state[world, row, i] = pos[i]
        state[world, row, 3 + i] = quat[i + 1]
    state[world, row, 6] = quat[0]
    if velocities:
        spatial = cvel[world, body]
        angular = wp.vec3(spatial[0], spatial[1], spatial[2])
        offset = pos - subtree_com[world, body_root[row]]
        linear = wp.vec3(spatial[3], spatial[4], spatial[5]) + wp.cross(angular, offset)
        for i in range(3):
            state[world, row, 7 + i] = linear[i]
            state[world, row, 10 + i] = angular[i]


@wp.kernel
def refresh_roots(
    qpos: wp.array2d[float],
    qvel: wp.array2d[float],
    actor_qpos: wp.array[int],
    actor_qvel: wp.array[int],
    state: wp.array3d[float],
):
    """(N, A): free actors only; a free joint's spin is body-frame in MuJoCo and world-frame here."""
    world, actor = wp.tid()
    q = actor_qpos[actor]
    v = actor_qvel[actor]
    if q < 0:
        return
    x = qpos[world, q + 4]
    y = qpos[world, q + 5]
    z = qpos[world, q + 6]
    w = qpos[world, q + 3]
    spin = wp.quat_rotate(wp.quat(x, y, z, w), wp.vec3(qvel[world, v + 3], qvel[world, v + 4], qvel[world, v + 5]))
    for i in range(3):
        state[world, actor, i] = qpos[world, q + i]
        state[world, actor, 7 + i] = qvel[world, v + i]
        state[world, actor, 10 + i] = spin[i]
    state[world, actor, 3] = x
    state[world, actor, 4] = y
    state[world, actor, 5] = z
    state[world, actor, 6] = w


@wp.kernel
def refresh_forces(
    actuator_force: wp.array2d[float],
    sensordata: wp.array2d[float],
    dof_act: wp.array[int],
    split: int,
    end: int,
    dof_force: wp.array2d[float],
    force_sensor: wp.array2d[float],
    contact_force: wp.array2d[float],
):
    """(N,): forces of the last physics step. MuJoCo's sensor signs are the other party's, hence the minus."""
    world = wp.tid()
    for dof in range(dof_act.shape[0]):
        value = float(0.0)
        if dof_act[dof] >= 0:
            value = actuator_force[world, dof_act[dof]]
        dof_force[world, dof] = value
    for i in range(split):
        force_sensor[world, i] = -sensordata[world, i]
    for i in range(end - split):
        contact_force[world, i] = -sensordata[world, split + i]


@wp.kernel
def flag_bad(
    qpos: wp.array2d[float],
    qvel: wp.array2d[float],
    overflow: wp.array[int],
    buffer_bits: int,
    max_value: float,
    bad: wp.array[bool],
    overflow_count: wp.array[wp.int64],
):
    """(N,): worlds that hold NaN or huge values (Warp never resets them) or lost contacts or constraints."""
    world = wp.tid()
    broken = bool(False)
    for i in range(qpos.shape[1]):
        if not (wp.abs(qpos[world, i]) <= max_value):
            broken = True
    for i in range(qvel.shape[1]):
        if not (wp.abs(qvel[world, i]) <= max_value):
            broken = True
    if (overflow[world] & buffer_bits) != 0:
        broken = True
        wp.atomic_add(overflow_count, 0, wp.int64(1))
    bad[world] = broken


@wp.kernel
def settle(
    mask: wp.array[bool],
    qacc_warmstart: wp.array2d[float],
    qfrc_applied: wp.array2d[float],
    xfrc_applied: wp.array2d[wp.spatial_vector],
    time: wp.array[float],
    overflow: wp.array[int],
    bad: wp.array[bool],
    target_vel: wp.array2d[float],
    effort: wp.array2d[float],
    dof_force: wp.array2d[float],
    force_sensor: wp.array2d[float],
    contact_force: wp.array2d[float],
):
    """(N,): make masked worlds forget what belongs to their old episode."""
    world = wp.tid()
    if not mask[world]:
        return
    time[world] = 0.0
    overflow[world] = 0
    bad[world] = False
    for i in range(qacc_warmstart.shape[1]):
        qacc_warmstart[world, i] = 0.0
        qfrc_applied[world, i] = 0.0
    for i in range(xfrc_applied.shape[1]):
        xfrc_applied[world, i] = wp.spatial_vector()
    for i in range(effort.shape[1]):
        target_vel[world, i] = 0.0
        effort[world, i] = 0.0
        dof_force[world, i] = 0.0
    for i in range(force_sensor.shape[1]):
        force_sensor[world, i] = 0.0
    for i in range(contact_force.shape[1]):
        contact_force[world, i] = 0.0
