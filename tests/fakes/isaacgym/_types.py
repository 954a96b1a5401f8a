"""The records and enums of gymapi, with the real defaults where they are known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Optional, Tuple

import numpy as np

from isaacgym._binding import Enum, Struct

AXIS_TRANSLATION = 7
INVALID_HANDLE = -1
FLT_MAX = float(np.finfo(np.float32).max)


class UpAxis(Enum):
    UP_AXIS_Y: UpAxis
    UP_AXIS_Z: UpAxis


class SimType(Enum):
    SIM_PHYSX: SimType
    SIM_FLEX: SimType


class DofDriveMode(Enum):
    DOF_MODE_NONE: DofDriveMode
    DOF_MODE_POS: DofDriveMode
    DOF_MODE_VEL: DofDriveMode
    DOF_MODE_EFFORT: DofDriveMode


class CoordinateSpace(Enum):
    ENV_SPACE: CoordinateSpace
    LOCAL_SPACE: CoordinateSpace
    GLOBAL_SPACE: CoordinateSpace


class IndexDomain(Enum):
    DOMAIN_ENV: IndexDomain
    DOMAIN_SIM: IndexDomain
    DOMAIN_ACTOR: IndexDomain


class ContactCollection(Enum):
    CC_NEVER: ContactCollection
    CC_LAST_SUBSTEP: ContactCollection
    CC_ALL_SUBSTEPS: ContactCollection


class Version(Struct):
    major: int
    minor: int


class Vec3(Struct):
    x: float
    y: float
    z: float

    def __init__(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> None:
        self.x, self.y, self.z = x, y, z

    def _array(self) -> Any:
        return np.array([self.x, self.y, self.z])


class Quat(Struct):
    x: float
    y: float
    z: float
    w: float

    def __init__(self, x: float = 0.0, y: float = 0.0, z: float = 0.0, w: float = 1.0) -> None:
        self.x, self.y, self.z, self.w = x, y, z, w

    def _array(self) -> Any:
        return np.array([self.x, self.y, self.z, self.w])


class Transform(Struct):
    p: Vec3
    r: Quat

    def __init__(self, p: Vec3 = Vec3(), r: Quat = Quat()) -> None:  # noqa: B008
        self.p, self.r = p, r


class Mat33(Struct):
    x: Vec3
    y: Vec3
    z: Vec3


class PhysXParams(Struct):
    always_use_articulations: bool
    bounce_threshold_velocity: float
    contact_collection: ContactCollection
    contact_offset: float
    default_buffer_size_multiplier: float
    friction_correlation_distance: float
    friction_offset_threshold: float
    max_depenetration_velocity: float
    max_gpu_contact_pairs: int
    num_position_iterations: int
    num_subscenes: int
    num_threads: int
    num_velocity_iterations: int
    rest_offset: float
    solver_type: int
    use_gpu: bool
    _defaults = {
        "bounce_threshold_velocity": 0.2,
        "contact_collection": ContactCollection(2),
        "contact_offset": 0.02,
        "default_buffer_size_multiplier": 2.0,
        "max_depenetration_velocity": 100.0,
        "max_gpu_contact_pairs": 1024 * 1024,
        "num_position_iterations": 4,
        "num_velocity_iterations": 1,
        "rest_offset": 0.001,
        "solver_type": 1,
    }


class SimParams(Struct):
    dt: float
    gravity: Vec3
    num_client_threads: int
    physx: PhysXParams
    substeps: int
    up_axis: UpAxis
    use_gpu_pipeline: bool
    _defaults = {"dt": 1 / 60, "gravity": Vec3(0.0, -9.8, 0.0), "substeps": 2, "up_axis": UpAxis(0)}


class PlaneParams(Struct):
    distance: float
    dynamic_friction: float
    normal: Vec3
    restitution: float
    segmentation_id: int
    static_friction: float
    _defaults = {"normal": Vec3(0.0, 1.0, 0.0), "static_friction": 1.0, "dynamic_friction": 1.0}


class AssetOptions(Struct):
    angular_damping: float
    armature: float
    collapse_fixed_joints: bool
    convex_decomposition_from_submeshes: bool
    default_dof_drive_mode: int
    density: float
    disable_gravity: bool
    enable_gyroscopic_forces: bool
    fix_base_link: bool
    flip_visual_attachments: bool
    linear_damping: float
    max_angular_velocity: float
    max_linear_velocity: float
    override_com: bool
    override_inertia: bool
    replace_cylinder_with_capsule: bool
    slices_per_cylinder: int
    tendon_limit_stiffness: float
    thickness: float
    use_mesh_materials: bool
    use_physx_armature: bool
    vhacd_enabled: bool
    _defaults = {
        "angular_damping": 0.5,
        "density": 1000.0,
        "enable_gyroscopic_forces": True,
        "max_angular_velocity": 64.0,
        "max_linear_velocity": 1000.0,
        "slices_per_cylinder": 20,
        "tendon_limit_stiffness": 1.0,
        "thickness": 0.02,
        "use_physx_armature": True,
    }


class ForceSensorProperties(Struct):
    enable_constraint_solver_forces: bool
    enable_forward_dynamics_forces: bool
    use_world_frame: bool
    _defaults = {"enable_constraint_solver_forces": True, "enable_forward_dynamics_forces": True}


class AttractorProperties(Struct):
    axes: int
    damping: float
    offset: Transform
    rigid_handle: int
    stiffness: float
    target: Transform


class TendonProperties(Struct):
    damping: float
    fixed_lower_limit: float
    fixed_spring_rest_length: float
    fixed_upper_limit: float
    is_fixed_limited: bool
    limit_stiffness: float
    stiffness: float

    @property
    def num_joints(self) -> int:
        return int(self.__dict__["joints"])


class RigidBodyProperties(Struct):
    com: Vec3
    flags: int
    inertia: Mat33
    invInertia: Mat33  # noqa: N815
    invMass: float  # noqa: N815
    mass: float


class RigidShapeProperties(Struct):
    compliance: float
    contact_offset: float
    filter: int
    friction: float
    rest_offset: float
    restitution: float
    rolling_friction: float
    thickness: float
    torsion_friction: float
    _defaults = {"friction": 1.0, "contact_offset": 0.02, "rest_offset": 0.001}


class Handle:
    """Opaque: what is behind it is the fake's own business (isaacgym._scene)."""

    def __init__(self) -> None:
        raise TypeError("gymapi.%s: No constructor defined!" % type(self).__name__)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...


class Sim(Handle):
    pass


class Env(Handle):
    pass


class Asset(Handle):
    pass


class Tensor:
    """A handle to memory: the fake's own buffer, or a torch tensor that it does not keep alive."""

    def __init__(self) -> None:
        self.data_address: int = 0
        self.device: int = -1
        self.own_data: bool = False
        self.shape: Tuple[int, ...] = ()
        self._dtype: str = ""
        self._buffer: Any = None  # of an acquired tensor: what wrap_tensor shares
        self._read: Optional[Callable[[], Any]] = None  # of an unwrapped tensor: the torch tensor, if it still lives

    @property
    def ndim(self) -> int:
        return len(self.shape)
