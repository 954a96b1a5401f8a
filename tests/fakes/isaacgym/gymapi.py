"""The public names of gymapi (see the package's docstring)."""

from __future__ import annotations

from isaacgym._scene import SceneCalls
from isaacgym._tensors import TensorCalls
from isaacgym._types import AXIS_TRANSLATION as AXIS_TRANSLATION
from isaacgym._types import INVALID_HANDLE as INVALID_HANDLE
from isaacgym._types import Asset as Asset
from isaacgym._types import AssetOptions as AssetOptions
from isaacgym._types import AttractorProperties as AttractorProperties
from isaacgym._types import ContactCollection as ContactCollection
from isaacgym._types import CoordinateSpace as CoordinateSpace
from isaacgym._types import DofDriveMode as DofDriveMode
from isaacgym._types import Env as Env
from isaacgym._types import ForceSensorProperties as ForceSensorProperties
from isaacgym._types import IndexDomain as IndexDomain
from isaacgym._types import Mat33 as Mat33
from isaacgym._types import PhysXParams as PhysXParams
from isaacgym._types import PlaneParams as PlaneParams
from isaacgym._types import Quat as Quat
from isaacgym._types import RigidBodyProperties as RigidBodyProperties
from isaacgym._types import RigidShapeProperties as RigidShapeProperties
from isaacgym._types import Sim as Sim
from isaacgym._types import SimParams as SimParams
from isaacgym._types import SimType as SimType
from isaacgym._types import TendonProperties as TendonProperties
from isaacgym._types import Tensor as Tensor
from isaacgym._types import Transform as Transform
from isaacgym._types import UpAxis as UpAxis
from isaacgym._types import Vec3 as Vec3
from isaacgym._types import Version as Version

UP_AXIS_Z = UpAxis.UP_AXIS_Z
SIM_PHYSX = SimType.SIM_PHYSX
DOF_MODE_NONE = DofDriveMode.DOF_MODE_NONE
DOF_MODE_POS = DofDriveMode.DOF_MODE_POS
DOF_MODE_VEL = DofDriveMode.DOF_MODE_VEL
DOF_MODE_EFFORT = DofDriveMode.DOF_MODE_EFFORT
ENV_SPACE = CoordinateSpace.ENV_SPACE
LOCAL_SPACE = CoordinateSpace.LOCAL_SPACE
GLOBAL_SPACE = CoordinateSpace.GLOBAL_SPACE
DOMAIN_ACTOR = IndexDomain.DOMAIN_ACTOR
DOMAIN_ENV = IndexDomain.DOMAIN_ENV
DOMAIN_SIM = IndexDomain.DOMAIN_SIM
CC_NEVER = ContactCollection.CC_NEVER
CC_LAST_SUBSTEP = ContactCollection.CC_LAST_SUBSTEP
CC_ALL_SUBSTEPS = ContactCollection.CC_ALL_SUBSTEPS


class Gym(SceneCalls, TensorCalls):
    """The one object that all calls go through."""


def acquire_gym() -> Gym:
    return Gym()
