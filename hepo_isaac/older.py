"""The configuration of a run folder, completed: keys that its config.yaml lacks, and keys that there were once.

config.yaml holds every setting of a run since the schema (hepo_isaac/schema.py). Before, a method's file listed some
keys only, and the rest stood at the defaults of that time. runs/record/stored.py reads the files.
"""

from __future__ import annotations

from typing import Any, Dict, Mapping, Tuple

from hepo_isaac.errors import UserError

# What a missing key meant, where that is another value than its default today.
BEFORE: Dict[str, Any] = {
    "algo.contrast": "raw_gae",
    "algo.share_data": "none",
    "algo.foreign_advantage": "owner",
    "train.fused": False,
}
# Keys that are no settings any more, and the one value they may stand at: what is done without them.
REMOVED: Dict[str, Any] = {
    "algo.unit_norm": False,
    "algo.multiplier.beta1": 0.9,
    "algo.multiplier.beta2": 0.999,
    "algo.multiplier.eps": 1e-8,
}
# Keys of ``train`` that had no default: every configuration gave them.
GIVEN: Tuple[str, ...] = ("max_iterations", "horizon_length", "minibatch_size", "mini_epochs", "units")


def completed(config: Mapping[str, Any]) -> Dict[str, Any]:
    """A copy of a run's configuration in which ``algo`` and ``train`` have every key.

    Raises:
        UserError: it has a removed setting at a value that there is no way to have any more.
    """
    from hepo_isaac.schema import defaults

    out = dict(config)
    for group, usual in defaults().items():
        if isinstance(config.get(group), Mapping):
            out[group] = _filled(group, usual, config[group])
    return out


def _filled(path: str, usual: Mapping[str, Any], given: Mapping[str, Any]) -> Dict[str, Any]:
    """``given`` without removed keys and, for what it lacks, with what that meant; its own keys come first."""
    out = {}
    for key, value in given.items():
        dotted = "%s.%s" % (path, key)
        if dotted not in REMOVED:
            out[str(key)] = value
        elif value != REMOVED[dotted]:
            raise UserError(
                "%s=%s is no setting any more, only what %s meant is left; that run needs the version it was made with"
                % (dotted, value, REMOVED[dotted])
            )
    for key, value in usual.items():
        dotted = "%s.%s" % (path, key)
        if isinstance(value, Mapping):
            out[key] = _filled(dotted, value, out.get(key) or {})
        elif key not in out:
            out[key] = BEFORE.get(dotted, value)
    return out
