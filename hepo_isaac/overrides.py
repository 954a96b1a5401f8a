"""Read the command line before Hydra does, so that a mistake is one sentence with the nearest names."""

from __future__ import annotations

import itertools
from typing import Any, Dict, Iterable, List, Sequence, Tuple

from omegaconf import DictConfig, ListConfig, OmegaConf

from hepo_isaac.config import GROUPS
from hepo_isaac.errors import UserError, nearest, unknown
from hepo_isaac.locate import cfg_dir, group_names, plugin_tasks

# Settings whose default says nothing about their type: (accepted words, type, its name).
_SPECIAL: Dict[str, Tuple[Tuple[str, ...], Any, str]] = {
    "num_envs": (("auto",), int, "a whole number or auto"),
    "torch_threads": (("auto",), int, "a whole number or auto"),
    "update_threads": (("auto",), int, "a whole number or auto"),
    "skip_finished": (("auto",), bool, "true, false or auto"),
    "seeds": ((), (int, list), "a number of runs or a list of seeds, e.g. 5 or [1,2,7]"),
}


def check_overrides(overrides: Sequence[str]) -> None:
    """Refuse overrides that Hydra would refuse with less help, or accept and let fail later.

    Every value of a multirun sweep is looked at; ``+key=``, ``~key`` and ``hydra.*`` are left to Hydra.

    Raises:
        UserError: an unparsable override, an unknown group choice or key, a key added that there is, or a value of
            the wrong type.
    """
    parsed = _parse(overrides)
    choices: Dict[str, List[str]] = {}
    settings: List[Tuple[str, List[Any]]] = []
    added: List[str] = []
    for override in parsed:
        key = override.key_or_group
        if override.is_delete() or override.is_add() or key.startswith("hydra"):
            added += [key] if override.is_add() and not override.is_force_add() else []
            continue
        values = _values(override)
        if key in GROUPS:
            choices[key] = [str(v) for v in values]
        else:
            settings.append((key, values))
    for group, names in choices.items():
        for name in names:
            if name not in group_names(group):
                raise unknown(group, name, group_names(group))
            if group == "task" and name in plugin_tasks():
                plugin_tasks()[name].settings()  # raises what is wrong with them
    for combination in itertools.product(*choices.values()):
        defaults = compose(["%s=%s" % pair for pair in zip(choices, combination)])
        for key, values in settings:
            check_setting(defaults, key, values)
        for key in added:
            if key in known_keys(defaults):
                raise UserError("+%s: there is a setting %s, so it takes no plus: %s=<value>" % (key, key, key))


def compose(overrides: Sequence[str]) -> DictConfig:
    """Configuration for ``overrides`` without running anything."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    from hepo_isaac.schema import register

    register()
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(cfg_dir()), version_base="1.3"):
        return hydra.compose("config", list(overrides))


def check_setting(defaults: DictConfig, key: str, values: Iterable[Any]) -> None:
    """Refuse a ``key`` that ``defaults`` does not have and values of another type than its default's."""
    missing = object()
    default = OmegaConf.select(defaults, key, default=missing)
    if default is missing or (default is None and key not in known_keys(defaults)):
        raise _unknown_key(defaults, key)
    for value in values:
        _check_type(key, value, default)


def known_keys(cfg: DictConfig) -> List[str]:
    """Dotted name of every setting, inner nodes included."""
    found: List[str] = []
    for key in cfg:
        name = str(key)
        found.append(name)
        node = cfg._get_node(key)
        if isinstance(node, DictConfig) and not node._is_none():
            found += ["%s.%s" % (name, inner) for inner in known_keys(node)]
    return found


def _unknown_key(defaults: DictConfig, key: str) -> UserError:
    keys = [k for k in known_keys(defaults) if not k.startswith("task.budgets.")]
    close = list(nearest(key, keys))
    # train.network.gamma or gamma for train.gamma: the right name in the wrong place
    close = [k for k in keys if k.rsplit(".", 1)[-1] == key.rsplit(".", 1)[-1]][:3] or close
    if not close:
        close = list(nearest(key.rsplit(".", 1)[-1], [k for k in keys if "." not in k]))
    hint = " did you mean %s?" % " or ".join(repr(k) for k in close) if close else ""
    return UserError("unknown setting %r:%s python train.py --cfg job prints all of them" % (key, hint))


def _check_type(key: str, value: Any, default: Any) -> None:
    """Accept what OmegaConf would turn into the default's type without a loss."""
    words, kind, what = _SPECIAL.get(key, ((), type(default), ""))
    if value in words or default is None or (isinstance(value, str) and value.startswith("${")):
        return
    if isinstance(kind, tuple):
        good = isinstance(value, kind) and not isinstance(value, bool)
    elif kind is bool:
        good, what = isinstance(value, bool), what or "true or false"
    elif kind is int:
        good, what = isinstance(value, int) and not isinstance(value, bool), what or "a whole number"
    elif kind is float:
        good, what = isinstance(value, (int, float)) and not isinstance(value, bool), "a number"
    elif isinstance(default, DictConfig):
        good, what = (
            isinstance(value, dict),
            "a group of settings; set one of them, e.g. %s.%s" % (key, str(next(iter(default)))),
        )
    elif isinstance(default, ListConfig):
        good, what = isinstance(value, list), "a list, as in %s=[1,2]" % key
    else:
        good, what = not isinstance(value, (dict, list)), "a word"
    if not good:
        raise UserError("%s must be %s, got %s" % (key, what, value if value != "" else "nothing"))


def _parse(overrides: Sequence[str]) -> List[Any]:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    found = []
    for text in overrides:
        try:
            found += parser.parse_overrides([text])
        except HydraException as error:
            reason = str(error).splitlines()[0]
            reason = "" if reason.startswith("Error parsing") else " (%s)" % reason
            raise UserError(
                "cannot read %r%s; settings look like key=value, e.g. num_envs=512, and a value with special "
                "characters is quoted: 'key=\"a=b\"'" % (text, reason)
            ) from error
    return found


def _values(override: Any) -> List[Any]:
    """The plain values that an override can take: one, or all of a sweep; nothing where they are not enumerable."""
    if not override.is_sweep_override():
        return [_plain(override.value())]
    if not override.is_discrete_sweep():
        return []
    from hydra.core.override_parser.types import Transformer

    return [_plain(v) for v in override.sweep_iterator(transformer=Transformer.identity)]


def _plain(value: Any) -> Any:
    """Without Hydra's wrapper of quoted strings."""
    from hydra.core.override_parser.types import QuotedString

    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return value
