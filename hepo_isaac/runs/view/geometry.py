"""A MuJoCo model as a viewer in a browser wants it: one coloured mesh per body, and where the bodies are."""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

import numpy as np

VISIBLE_GROUPS = (0, 1, 2)  # MuJoCo draws these groups of geoms; the others are for collisions
_ROUND = {"subdivisions": 2}


class BodyMeshes:
    """The meshes of a compiled model, and its kinematics.

    Args:
        mjcf_xml: the model as MJCF text that refers to no files.

    Attributes:
        meshes: of each body that has something to draw, a trimesh.Trimesh in the body's frame, m.
        floor: height [m] of a horizontal plane of the world, or None.
        extent: of the model, m.
    """

    def __init__(self, mjcf_xml: str) -> None:
        import mujoco

        self._mujoco = mujoco
        self.model = mujoco.MjModel.from_xml_string(mjcf_xml)
        self._data = mujoco.MjData(self.model)
        self.floor = None
        self.extent = float(self.model.stat.extent)
        parts: Dict[int, List[Any]] = {}
        for geom in range(self.model.ngeom):
            if self.model.geom_group[geom] not in VISIBLE_GROUPS or self._rgba(geom)[3] == 0.0:
                continue
            if self.model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_PLANE:
                self.floor = float(self.model.geom_pos[geom][2])
                continue
            parts.setdefault(int(self.model.geom_bodyid[geom]), []).append(self._mesh(geom))
        self.bodies = sorted(parts)
        self.meshes = {body: _joined(parts[body]) for body in self.bodies}

    def poses(self, qpos: np.ndarray, markers: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Positions (B, 3) m and quaternions (B, 4) wxyz of ``bodies``.

        Args:
            qpos: (nq,).  markers: (M, 7) poses of mocap bodies, m and quaternion xyzw.
        """
        data = self._data
        data.qpos[:] = qpos
        if len(markers):
            data.mocap_pos[:], data.mocap_quat[:] = markers[:, :3], markers[:, [6, 3, 4, 5]]
        self._mujoco.mj_kinematics(self.model, data)
        return data.xpos[self.bodies].copy(), data.xquat[self.bodies].copy()

    def place_of(self, body: str) -> np.ndarray:
        """(3,) m, of a body by name, as ``poses`` left it."""
        index = self._mujoco.mj_name2id(self.model, self._mujoco.mjtObj.mjOBJ_BODY, body)
        return np.array(self._data.xpos[index])

    def _rgba(self, geom: int) -> np.ndarray:
        material = int(self.model.geom_matid[geom])
        colour = self.model.mat_rgba[material] if material >= 0 else self.model.geom_rgba[geom]
        return np.asarray(colour)

    def _mesh(self, geom: int) -> Any:
        """A geom in its body's frame, with its colour."""
        import trimesh

        mesh = self._shape(geom)
        pose = np.eye(4)
        rotation = np.zeros(9)
        self._mujoco.mju_quat2Mat(rotation, self.model.geom_quat[geom])
        pose[:3, :3], pose[:3, 3] = rotation.reshape(3, 3), self.model.geom_pos[geom]
        mesh.apply_transform(pose)
        colour = (np.clip(self._rgba(geom), 0.0, 1.0) * 255).astype(np.uint8)
        mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=np.tile(colour, (len(mesh.vertices), 1)))
        return mesh

    def _shape(self, geom: int) -> Any:
        import trimesh

        kinds, kind, size = self._mujoco.mjtGeom, self.model.geom_type[geom], self.model.geom_size[geom]
        if kind == kinds.mjGEOM_BOX:
            return trimesh.creation.box(extents=2.0 * size)
        if kind == kinds.mjGEOM_SPHERE:
            return trimesh.creation.icosphere(radius=size[0], **_ROUND)
        if kind == kinds.mjGEOM_ELLIPSOID:
            ball = trimesh.creation.icosphere(radius=1.0, **_ROUND)
            ball.apply_scale(size)
            return ball
        if kind == kinds.mjGEOM_CAPSULE:
            return trimesh.creation.capsule(height=2.0 * size[1], radius=size[0], count=[12, 12])
        if kind == kinds.mjGEOM_CYLINDER:
            return trimesh.creation.cylinder(radius=size[0], height=2.0 * size[1], sections=24)
        if kind == kinds.mjGEOM_MESH:
            return self._mesh_asset(int(self.model.geom_dataid[geom]))
        return trimesh.creation.box(extents=np.maximum(2.0 * size, 1e-3))  # a kind that no task of ours has

    def _mesh_asset(self, mesh: int) -> Any:
        import trimesh

        model = self.model
        first, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
        face, faces = model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
        vertices, triangles = model.mesh_vert[first : first + count], model.mesh_face[face : face + faces]
        return trimesh.Trimesh(vertices=np.array(vertices), faces=np.array(triangles), process=False)


def _joined(parts: List[Any]) -> Any:
    import trimesh

    return parts[0] if len(parts) == 1 else trimesh.util.concatenate(parts)


def places(count: int, spacing: float) -> np.ndarray:
    """(count, 3) where robots stand side by side, in rows around the origin, m."""
    columns = int(np.ceil(np.sqrt(count)))
    index = np.arange(count)
    across, along = index % columns, index // columns
    spots = np.stack((along.astype(float), across.astype(float), np.zeros(count)), 1)
    return (spots - spots.mean(0)) * spacing
