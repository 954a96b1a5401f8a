"""hepo_isaac: train robots on a task reward and shaping together, without the shaping being hacked.

The stack follows HEPO (arXiv 2507.05328). Layers, lowest first: ``sim`` (physics engines), ``envs`` (step loop
and adapters), ``methods`` (the math of each algorithm), ``agents`` (rl-games agents), ``runs`` (everything a
run leaves on disk). See docs/architecture.md.
"""

from __future__ import annotations

from importlib.util import find_spec

__version__ = "0.1.0"

# Isaac Gym refuses to be imported after torch. Every process of ours, a sweep's worker too, imports this package first.
if find_spec("isaacgym") is not None:
    from hepo_isaac.sim.isaacgym.install import import_first

    import_first()
