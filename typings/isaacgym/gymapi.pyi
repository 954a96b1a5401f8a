"""The classes, constants and methods of isaacgym.gymapi that hepo_isaac uses.

Names before a ``/`` are ours: the binding calls those parameters arg0, arg1, … and takes them by position only.
"""

from typing import ClassVar, List, Optional, Tuple

import numpy
from numpy.typing import NDArray

AXIS_TRANSLATION: int
INVALID_HANDLE: int

class UpAxis:
    UP_AXIS_Y: ClassVar[UpAxis]
    UP_AXIS_Z: ClassVar[UpAxis]
    def __init__(self, value: int, /) -> None: ...
    def __int__(self) -> int: ...

class SimType:
    SIM_PHYSX: ClassVar[SimType]
    SIM_FLEX: ClassVar[SimType]
    def __init__(self, value: int, /) -> None: ...
    def __int__(self) -> int: ...

class DofDriveMode:
    DOF_MODE_NONE: ClassVar[DofDriveMode]
    DOF_MODE_POS: ClassVar[DofDriveMode]
    DOF_MODE_VEL: ClassVar[DofDriveMode]
    DOF_MODE_EFFORT: ClassVar[DofDriveMode]
    def __init__(self, value: int, /) -> None: ...
    def __int__(self) -> int: ...

class CoordinateSpace:
    ENV_SPACE: ClassVar[CoordinateSpace]
    LOCAL_SPACE: ClassVar[CoordinateSpace]
    GLOBAL_SPACE: ClassVar[CoordinateSpace]
    def __init__(self, value: int, /) -> None: ...
    def __int__(self) -> int: ...

class IndexDomain:
    DOMAIN_ACTOR: ClassVar[IndexDomain]
    DOMAIN_ENV: ClassVar[IndexDomain]
    DOMAIN_SIM: ClassVar[IndexDomain]
    def __init__(self, value: int, /) -> None: ...
    def __int__(self) -> int: ...

class ContactCollection:
    CC_NEVER: ClassVar[ContactCollection]
    CC_LAST_SUBSTEP: ClassVar[ContactCollection]
    CC_ALL_SUBSTEPS: ClassVar[ContactCollection]
    def __init__(self, value: int, /) -> None: ...
    def __int__(self) -> int: ...

UP_AXIS_Z: UpAxis
SIM_PHYSX: SimType
DOF_MODE_NONE: DofDriveMode
DOF_MODE_POS: DofDriveMode
DOF_MODE_VEL: DofDriveMode
DOF_MODE_EFFORT: DofDriveMode
ENV_SPACE: CoordinateSpace
LOCAL_SPACE: CoordinateSpace
GLOBAL_SPACE: CoordinateSpace
DOMAIN_ACTOR: IndexDomain
DOMAIN_ENV: IndexDomain
DOMAIN_SIM: IndexDomain
CC_NEVER: ContactCollection
CC_LAST_SUBSTEP: ContactCollection
CC_ALL_SUBSTEPS: ContactCollection

class Sim: ...
class Env: ...
class Asset: ...

class Tensor:
    data_address: int
    device: int  # index of the CUDA device, -1 for the CPU
    own_data: bool
    shape: Tuple[int, ...]
    def __init__(self) -> None: ...
    @property
    def ndim(self) -> int: ...

class Version:
    major: int
    minor: int
    def __init__(self) -> None: ...

class Vec3:
    x: float
    y: float
    z: float
    def __init__(self, x: float = ..., y: float = ..., z: float = ...) -> None: ...

class Quat:
    """Real part last; the identity by default."""

    x: float
    y: float
    z: float
    w: float
    def __init__(self, x: float = ..., y: float = ..., z: float = ..., w: float = ...) -> None: ...

class Transform:
    p: Vec3  # m
    r: Quat
    def __init__(self, p: Vec3 = ..., r: Quat = ...) -> None: ...

class Mat33:
    """Rows x, y, z."""

    x: Vec3
    y: Vec3
    z: Vec3
    def __init__(self) -> None: ...

class PhysXParams:
    always_use_articulations: bool
    bounce_threshold_velocity: float  # m/s
    contact_collection: ContactCollection
    contact_offset: float  # m
    default_buffer_size_multiplier: float
    friction_correlation_distance: float  # m
    friction_offset_threshold: float  # m
    max_depenetration_velocity: float  # m/s
    max_gpu_contact_pairs: int
    num_position_iterations: int
    num_subscenes: int
    num_threads: int
    num_velocity_iterations: int
    rest_offset: float  # m
    solver_type: int  # 0 PGS, 1 TGS
    use_gpu: bool
    def __init__(self) -> None: ...

class SimParams:
    dt: float  # s, of one simulate
    gravity: Vec3  # m/s^2
    num_client_threads: int
    physx: PhysXParams
    substeps: int
    up_axis: UpAxis
    use_gpu_pipeline: bool
    def __init__(self) -> None: ...

class PlaneParams:
    distance: float  # m
    dynamic_friction: float
    normal: Vec3
    restitution: float
    segmentation_id: int
    static_friction: float
    def __init__(self) -> None: ...

class AssetOptions:
    angular_damping: float
    armature: float
    collapse_fixed_joints: bool
    convex_decomposition_from_submeshes: bool
    default_dof_drive_mode: int  # int(DOF_MODE_…)
    density: float  # kg/m^3, of shapes without a mass
    disable_gravity: bool
    enable_gyroscopic_forces: bool
    fix_base_link: bool
    flip_visual_attachments: bool
    linear_damping: float
    max_angular_velocity: float  # rad/s
    max_linear_velocity: float  # m/s
    override_com: bool
    override_inertia: bool
    replace_cylinder_with_capsule: bool
    slices_per_cylinder: int
    tendon_limit_stiffness: float
    thickness: float  # m
    use_mesh_materials: bool
    use_physx_armature: bool
    vhacd_enabled: bool
    def __init__(self) -> None: ...

class ForceSensorProperties:
    enable_constraint_solver_forces: bool
    enable_forward_dynamics_forces: bool
    use_world_frame: bool
    def __init__(self) -> None: ...

class AttractorProperties:
    axes: int  # AXIS_… flags
    damping: float
    offset: Transform  # in the body's frame
    rigid_handle: int  # find_actor_rigid_body_handle
    stiffness: float
    target: Transform  # in the env's frame
    def __init__(self) -> None: ...

class TendonProperties:
    damping: float
    fixed_lower_limit: float
    fixed_spring_rest_length: float
    fixed_upper_limit: float
    is_fixed_limited: bool
    limit_stiffness: float
    stiffness: float
    def __init__(self) -> None: ...
    @property
    def num_joints(self) -> int: ...

class RigidBodyProperties:
    com: Vec3  # m, in the link's frame
    flags: int
    inertia: Mat33  # kg m^2, about the centre of mass
    invInertia: Mat33  # noqa: N815
    invMass: float  # noqa: N815
    mass: float  # kg
    def __init__(self) -> None: ...

class RigidShapeProperties:
    compliance: float
    contact_offset: float  # m
    filter: int  # shapes collide only where the filters share no bit
    friction: float
    rest_offset: float  # m
    restitution: float
    rolling_friction: float
    thickness: float  # m
    torsion_friction: float
    def __init__(self) -> None: ...

class Gym:
    # -- simulation --------------------------------------------------------------------------------------------
    def create_sim(
        self, compute_device: int = ..., graphics_device: int = ..., type: SimType = ..., params: SimParams = ...
    ) -> Sim: ...
    def destroy_sim(self, sim: Sim, /) -> None: ...
    def add_ground(self, sim: Sim, params: PlaneParams) -> None: ...
    def prepare_sim(self, sim: Sim, /) -> bool: ...
    def simulate(self, sim: Sim, /) -> None:
        """Advance by SimParams.dt. What setters wrote takes effect here."""

    def fetch_results(self, sim: Sim, wait: bool, /) -> None:
        """Needed between simulate and refresh on the CPU pipeline only."""

    def get_sim_time(self, sim: Sim, /) -> float: ...  # s
    def get_sim_params(self, sim: Sim, /) -> SimParams: ...
    def set_sim_params(self, sim: Sim, params: SimParams, /) -> None: ...
    def get_version(self) -> Version: ...
    def get_env_count(self, sim: Sim, /) -> int: ...
    def get_sim_actor_count(self, sim: Sim, /) -> int: ...
    def get_sim_dof_count(self, sim: Sim, /) -> int: ...
    def get_sim_rigid_body_count(self, sim: Sim, /) -> int: ...
    def get_sim_force_sensor_count(self, sim: Sim, /) -> int: ...

    # -- assets ------------------------------------------------------------------------------------------------
    def load_asset(self, sim: Sim, rootpath: str, filename: str, options: Optional[AssetOptions] = ...) -> Asset: ...
    def get_asset_dof_count(self, asset: Asset, /) -> int: ...
    def get_asset_dof_names(self, asset: Asset, /) -> List[str]: ...
    def get_asset_dof_properties(self, asset: Asset, /) -> NDArray[numpy.void]:
        """(D,): hasLimits, lower, upper, driveMode, stiffness, damping, velocity, effort, friction, armature."""

    def get_asset_rigid_body_count(self, asset: Asset, /) -> int: ...
    def get_asset_rigid_body_names(self, asset: Asset, /) -> List[str]: ...
    def get_asset_rigid_shape_count(self, asset: Asset, /) -> int: ...
    def find_asset_rigid_body_index(self, asset: Asset, name: str, /) -> int: ...  # -1 if there is none
    def get_asset_rigid_shape_properties(self, asset: Asset, /) -> List[RigidShapeProperties]: ...
    def set_asset_rigid_shape_properties(self, asset: Asset, props: List[RigidShapeProperties], /) -> bool: ...
    def get_asset_tendon_count(self, asset: Asset, /) -> int: ...
    def get_asset_tendon_properties(self, asset: Asset, /) -> List[TendonProperties]: ...
    def set_asset_tendon_properties(self, asset: Asset, props: List[TendonProperties], /) -> bool: ...
    def create_asset_force_sensor(
        self, asset: Asset, body_idx: int, local_pose: Transform, props: Optional[ForceSensorProperties] = ...
    ) -> int: ...

    # -- environments and actors -------------------------------------------------------------------------------
    def create_env(self, sim: Sim, lower: Vec3, upper: Vec3, num_per_row: int, /) -> Env: ...
    def begin_aggregate(self, env: Env, max_bodies: int, max_shapes: int, self_collisions: bool, /) -> bool: ...
    def end_aggregate(self, env: Env, /) -> bool: ...
    def create_actor(
        self,
        env: Env,
        asset: Asset,
        pose: Transform,
        name: Optional[str] = ...,
        group: int = ...,
        filter: int = ...,
        segmentationId: int = ...,  # noqa: N803
    ) -> int: ...
    def get_actor_index(self, env: Env, actor: int, domain: IndexDomain, /) -> int: ...
    def get_actor_dof_names(self, env: Env, actor: int, /) -> List[str]: ...
    def get_actor_rigid_body_names(self, env: Env, actor: int, /) -> List[str]: ...
    def get_actor_dof_properties(self, env: Env, actor: int, /) -> NDArray[numpy.void]: ...
    def set_actor_dof_properties(self, env: Env, actor: int, props: NDArray[numpy.void], /) -> bool: ...
    def get_actor_rigid_body_properties(self, env: Env, actor: int, /) -> List[RigidBodyProperties]: ...
    def set_actor_rigid_body_properties(
        self,
        env: Env,
        actorHandle: int,  # noqa: N803
        props: List[RigidBodyProperties],
        recomputeInertia: bool = ...,  # noqa: N803
    ) -> bool: ...
    def get_actor_rigid_shape_properties(self, env: Env, actor: int, /) -> List[RigidShapeProperties]: ...
    def set_actor_rigid_shape_properties(self, env: Env, actor: int, props: List[RigidShapeProperties], /) -> bool: ...
    def enable_actor_dof_force_sensors(self, env: Env, actor: int, /) -> bool: ...
    def create_rigid_body_attractor(self, env: Env, props: AttractorProperties, /) -> int: ...
    def find_actor_rigid_body_handle(self, env: Env, actor: int, name: str, /) -> int: ...
    def find_actor_rigid_body_index(self, env: Env, actor: int, name: str, domain: IndexDomain, /) -> int: ...

    # -- tensors: float32, rows of the whole simulation, env after env -----------------------------------------
    def acquire_actor_root_state_tensor(self, sim: Sim, /) -> Tensor:
        """(actors, 13) position m, quaternion xyzw, velocity of the centre of mass m/s, angular velocity rad/s."""

    def acquire_dof_state_tensor(self, sim: Sim, /) -> Tensor: ...  # (dofs, 2) rad or m, rad/s or m/s
    def acquire_rigid_body_state_tensor(self, sim: Sim, /) -> Tensor: ...  # (bodies, 13) as the roots
    def acquire_net_contact_force_tensor(self, sim: Sim, /) -> Tensor: ...  # (bodies, 3) N
    def acquire_force_sensor_tensor(self, sim: Sim, /) -> Tensor: ...  # (sensors, 6) N, N m
    def acquire_dof_force_tensor(self, sim: Sim, /) -> Tensor: ...  # (dofs,) N m or N
    def acquire_jacobian_tensor(self, sim: Sim, actor: str, /) -> Tensor:
        """(envs, links, 6, D) of the actors of that name; a fixed base has no row. Linear rows are those of the
        links' centres of mass."""

    def acquire_mass_matrix_tensor(self, sim: Sim, actor: str, /) -> Tensor: ...  # (envs, D, D)
    def refresh_actor_root_state_tensor(self, sim: Sim, /) -> bool: ...
    def refresh_dof_state_tensor(self, sim: Sim, /) -> bool: ...
    def refresh_rigid_body_state_tensor(self, sim: Sim, /) -> bool: ...
    def refresh_net_contact_force_tensor(self, sim: Sim, /) -> bool: ...
    def refresh_force_sensor_tensor(self, sim: Sim, /) -> bool: ...
    def refresh_dof_force_tensor(self, sim: Sim, /) -> bool: ...
    def refresh_jacobian_tensors(self, sim: Sim, /) -> bool: ...
    def refresh_mass_matrix_tensors(self, sim: Sim, /) -> bool: ...
    def set_actor_root_state_tensor(self, sim: Sim, states: Tensor, /) -> bool: ...
    def set_actor_root_state_tensor_indexed(self, sim: Sim, states: Tensor, actors: Tensor, num_actors: int, /) -> bool:
        """``states`` of all actors, of which the rows ``actors`` (int32) are taken; once between two simulates."""

    def set_dof_state_tensor(self, sim: Sim, states: Tensor, /) -> bool: ...
    def set_dof_state_tensor_indexed(self, sim: Sim, states: Tensor, actors: Tensor, num_actors: int, /) -> bool: ...
    def set_dof_position_target_tensor(self, sim: Sim, targets: Tensor, /) -> bool: ...
    def set_dof_position_target_tensor_indexed(
        self, sim: Sim, targets: Tensor, actors: Tensor, num_actors: int, /
    ) -> bool: ...
    def set_dof_velocity_target_tensor(self, sim: Sim, targets: Tensor, /) -> bool: ...
    def set_dof_actuation_force_tensor(self, sim: Sim, forces: Tensor, /) -> bool: ...
    def apply_rigid_body_force_tensors(
        self,
        sim: Sim,
        forceTensor: Optional[Tensor] = ...,  # noqa: N803
        torqueTensor: Optional[Tensor] = ...,  # noqa: N803
        space: CoordinateSpace = ...,
    ) -> bool:
        """(bodies, 3) N and N m, for the next simulate only."""

def acquire_gym() -> Gym: ...
