"""What films show of a scene besides its physics: markers, sky, floor and a lamp."""

from __future__ import annotations

import mujoco

from hepo_isaac.sim.spec import MarkerSpec, SceneSpec

MARKER_GREEN = (0.15, 0.65, 0.3, 1.0)


def picture(root: mujoco.MjSpec, spec: SceneSpec) -> str:
    """MJCF of the assembled scene ``root`` for a renderer.

    Visual geoms stay, markers become mocap bodies in the spec's order; qpos means the same as in the physics.
    """
    for marker in spec.markers:
        _add_marker(root, marker)
    texture = mujoco.mjtTexture
    root.add_texture(
        name="sky", type=texture.mjTEXTURE_SKYBOX, builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT, width=256, height=256,
        rgb1=[0.93, 0.95, 0.98], rgb2=[0.72, 0.79, 0.88],
    )  # fmt: skip
    root.add_texture(
        name="floor", type=texture.mjTEXTURE_2D, builtin=mujoco.mjtBuiltin.mjBUILTIN_CHECKER, width=256, height=256,
        rgb1=[0.78, 0.8, 0.83], rgb2=[0.72, 0.74, 0.78],
    )  # fmt: skip
    names = [""] * int(mujoco.mjtTextureRole.mjNTEXROLE)
    names[int(mujoco.mjtTextureRole.mjTEXROLE_RGB)] = "floor"
    root.add_material(name="floor", textures=names, texrepeat=[2, 2], texuniform=True)
    ground = [g for g in root.worldbody.geoms if g.type == mujoco.mjtGeom.mjGEOM_PLANE]
    for plane in ground or [root.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, contype=0, conaffinity=0)]:
        plane.size, plane.material = [0, 0, 1], "floor"
    root.worldbody.add_light(
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,  # robots that run away stay lit
        pos=[1.2, -1.6, 4.0], dir=[-0.3, 0.4, -1], diffuse=[0.7, 0.7, 0.7], castshadow=True,
    )  # fmt: skip
    root.visual.map.shadowclip = 8.0  # the edge of a smaller shadow map speckles the floor
    root.compile()
    return str(root.to_xml())


def _add_marker(root: mujoco.MjSpec, marker: MarkerSpec) -> None:
    if marker.asset is None:
        body = root.worldbody.add_body(name="marker/" + marker.name, mocap=True)
        body.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[marker.radius] * 3, rgba=MARKER_GREEN)
        geoms = body.geoms
    else:
        child = mujoco.MjSpec.from_file(str(marker.asset))
        child.worldbody.bodies[0].mocap = True
        for joint in list(child.joints):  # a marker is shown as its asset stands, and qpos has no room for it
            child.delete(joint)
        geoms = child.geoms
    for geom in geoms:
        geom.contype = geom.conaffinity = 0
        geom.rgba = [*geom.rgba[:3], geom.rgba[3] * marker.opacity]
    if marker.asset is not None:
        root.attach(child, prefix="marker/%s/" % marker.name, frame=root.worldbody.add_frame())
