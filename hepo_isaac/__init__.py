"""hepo_isaac: train robots on a task reward and shaping together, without the shaping being hacked.

The stack follows HEPO (arXiv 2507.05328). In Python (docs/python_api.md)::

    import hepo_isaac

    env = hepo_isaac.make("Ant", num_envs=64)          # a gymnasium.vector.VectorEnv
    run = hepo_isaac.train("Ant", algo="hepo")         # a run folder, its returns and its policies
    policy = hepo_isaac.load(run.path)                 # policy(obs) -> action
    hepo_isaac.evaluate(policy, env, episodes=100)     # returns with standard errors

Layers, lowest first: ``sim`` (physics engines), ``envs`` (step loop and adapters), ``methods`` (the math of each
algorithm), ``agents`` (rl-games agents), ``runs`` (everything a run leaves on disk), ``api`` (the names above). See
docs/architecture.md.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, List

if TYPE_CHECKING:
    from hepo_isaac.api.evaluation import Evaluation as Evaluation
    from hepo_isaac.api.evaluation import evaluate as evaluate
    from hepo_isaac.api.make import make as make
    from hepo_isaac.api.policy import Policy as Policy
    from hepo_isaac.api.policy import load as load
    from hepo_isaac.api.training import Run as Run
    from hepo_isaac.api.training import train as train
    from hepo_isaac.api.vector import HepoVectorEnv as HepoVectorEnv
    from hepo_isaac.errors import UserError as UserError

__version__ = "0.1.0"

# Where a name is that is imported when it is first asked for: importing the package alone imports no torch.
_LAZY = {
    "Evaluation": "hepo_isaac.api.evaluation",
    "HepoVectorEnv": "hepo_isaac.api.vector",
    "Policy": "hepo_isaac.api.policy",
    "Run": "hepo_isaac.api.training",
    "UserError": "hepo_isaac.errors",
    "evaluate": "hepo_isaac.api.evaluation",
    "load": "hepo_isaac.api.policy",
    "make": "hepo_isaac.api.make",
    "train": "hepo_isaac.api.training",
}
__all__ = [
    "Evaluation",
    "HepoVectorEnv",
    "Policy",
    "Run",
    "UserError",
    "__version__",
    "evaluate",
    "load",
    "make",
    "train",
]

# Isaac Gym refuses to be imported after torch. Every process of ours, a sweep's worker too, imports this package first.
if find_spec("isaacgym") is not None:
    from hepo_isaac.sim.isaacgym.install import import_first

    import_first()


if not TYPE_CHECKING:  # which would take it for a promise that every name is there

    def __getattr__(name: str) -> Any:
        if name not in _LAZY:
            raise AttributeError("module 'hepo_isaac' has no attribute %r" % name)
        value = globals()[name] = getattr(import_module(_LAZY[name]), name)
        return value


def __dir__() -> List[str]:
    return sorted([*globals(), *_LAZY])


def _register() -> None:
    from hepo_isaac.registration import register_when_gymnasium_is_there

    register_when_gymnasium_is_there()


_register()
