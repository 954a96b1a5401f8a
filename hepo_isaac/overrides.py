"""Read the command line before Hydra does, so that a mistake is one sentence with the nearest names."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import pickle
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hepo_isaac.aliases import together
from hepo_isaac.config import GROUPS
from hepo_isaac.errors import UserError, listed, nearest, unknown
from hepo_isaac.limits import NAMES, check_name, check_number, check_numbers
from hepo_isaac.locate import cfg_dir, group_names, plugin_tasks, train_command
from hepo_isaac.schema import defaults
from hepo_isaac.sim.engines import ENGINES

# Settings whose default says nothing about their type: (accepted words, type, its name).
_SPECIAL: Dict[str, Tuple[Tuple[str, ...], Any, str]] = {
    "num_envs": (("auto",), int, "a whole number or auto"),
    "torch_threads": (("auto",), int, "a whole number or auto"),
    "update_threads": (("auto",), int, "a whole number or auto"),
    "skip_finished": (("auto",), bool, "true, false or auto"),
    "seeds": ((), (int, list), "a number of runs or a list of seeds, e.g. 5 or [1,2,7]"),
    "train.schedule_iterations": ((), int, "a whole number or null"),
    "train.fused": (("auto",), bool, "true, false or auto"),
    "algo.threshold": ((), float, "a number or null"),
}
# Settings that mean something only if something is there.
_NOT_EMPTY = {
    "run_root": "a folder, e.g. run_root=runs",
    "heuristic": "one of the task's (hepo-isaac tasks --long) or package.module:function",
    "device": "auto, cpu or cuda:0",
    "wandb.project": "a name",
}
_ALL = "; %s --cfg job prints all of them" % train_command()
# fmt: off
HYDRA_KEYS = (
    "callbacks", "env", "help", "hydra_help", "hydra_logging", "job", "job_logging", "launcher", "mode",
    "output_subdir", "overrides", "run", "runtime", "searchpath", "sweep", "sweeper", "verbose",
)
# fmt: on
# Launcher of multiruns -> (its plug-in, the extra that brings it).
LAUNCHERS = {
    "basic": ("", ""),
    "joblib": ("hydra_joblib_launcher", "sweep-joblib"),
    "submitit_local": ("hydra_submitit_launcher", "sweep-slurm"),
    "submitit_slurm": ("hydra_submitit_launcher", "sweep-slurm"),
    "ray": ("hydra_ray_launcher", "sweep-ray"),
    "ray_aws": ("hydra_ray_launcher", "sweep-ray"),
}


def check_overrides(overrides: Sequence[str]) -> None:
    """Refuse overrides that Hydra would refuse with less help, or accept and let fail later.

    Every value of a multirun sweep is looked at; ``hydra.*`` is left to Hydra.

    Raises:
        UserError: an unparsable override, an unknown group choice or keys (all of them at once), a key added that there
            is or that nobody reads, one taken away, or a value of the wrong type or size.
    """
    choices: Dict[str, List[str]] = {}
    settings: List[Tuple[str, List[Any]]] = []
    added: List[str] = []
    for override in _parse(overrides):
        key = override.key_or_group
        if key.startswith("hydra"):
            _check_hydra(override)
            continue
        if override.is_delete():
            raise UserError(
                "~%s takes a setting away, and a run needs all of them: %s"
                % (key, "%s=<value> sets another one" % key if key else "expected key=value")
            )
        if override.is_add() and not override.is_force_add():
            added.append(key)
        if not key:
            raise _unreadable(override.input_line or "=", "")
        values = _values(override)
        if key in GROUPS:
            choices[key] = [_choice(key, v) for v in values]
        else:
            settings.append((key, values))
    for key in added:
        if key in GROUPS:
            raise UserError("+%s: there is a group %s, so it takes no plus: %s=<name>" % (key, key, key))
    _check_choices(choices)
    for combination in itertools.product(*choices.values()):
        chosen = dict(zip(choices, combination))
        composed = _composed(chosen)
        keys = known_keys(composed)
        for key in added:
            if key in keys:
                raise UserError("+%s: there is a setting %s, so it takes no plus: %s=<value>" % (key, key, key))
        wrong = dict.fromkeys(_unknown_key(keys, key) for key, _ in settings if key not in keys)
        if wrong:
            raise UserError(together(list(wrong)) + _ALL)
        for key, values in settings:
            check_setting(composed, key, values, keys)
        _check_interpolations(composed, settings)


def _check_interpolations(composed: DictConfig, settings: Sequence[Tuple[str, List[Any]]]) -> None:
    """Refuse ``key=${other}`` where there is no other."""
    for key, value in [(k, v) for k, values in settings for v in values if isinstance(v, str) and v.startswith("${")]:
        try:
            changed = composed.copy()
            OmegaConf.update(changed, key, value)
            OmegaConf.select(changed, key, throw_on_missing=True)
        except OmegaConfBaseException as error:
            raise UserError("%s=%s cannot be resolved: %s" % (key, value, str(error).splitlines()[0])) from error


def unknown_keys(overrides: Sequence[str]) -> List[str]:
    """A sentence on every setting that there is not, and on nothing else that may be wrong."""
    parsed = [o for o in _parse(overrides) if not o.key_or_group.startswith("hydra")]
    chosen = {o.key_or_group: str(_values(o)[0]) for o in parsed if o.key_or_group in GROUPS and _values(o)}
    keys = known_keys(_composed({group: name for group, name in chosen.items() if name in group_names(group)}))
    wrong = [o.key_or_group for o in parsed if o.key_or_group not in GROUPS and o.key_or_group not in keys]
    return list(dict.fromkeys(_unknown_key(keys, key) for key in wrong))


def refuse_lists(overrides: Sequence[str]) -> None:
    """Refuse several values for a setting where one run is asked for.

    Raises:
        UserError: which setting, and that -m makes several runs of it.
    """
    for override in _parse(overrides):
        if override.is_sweep_override():
            raise UserError(
                "%s names several values, and this is one run: -m trains one after the other, and a value with commas "
                "of its own is quoted" % override.input_line
            )


def _check_choices(choices: Dict[str, List[str]]) -> None:
    for group, names in choices.items():
        for name in names:
            if name not in group_names(group):
                raise unknown(group, name, group_names(group))
            if group == "task" and name in plugin_tasks():
                plugin_tasks()[name].settings()  # raises what is wrong with them


def _choice(group: str, value: Any) -> str:
    if value is None or value == "" or isinstance(value, (list, dict)):
        raise UserError("%s must be the name of one of %s, got %s" % (group, listed(group_names(group)), _got(value)))
    return str(value)


def _got(value: Any) -> Any:
    return "nothing" if value in ("", None) else value


def _check_hydra(override: Any) -> None:
    """What of Hydra's own settings can be told to fail before Hydra prints pages about it."""
    key = override.key_or_group
    if key == "hydra/launcher":
        check_launcher(str(override.value()))
        return
    group = key.split("/")[0].split(".")
    if override.is_add() or "/" in key or len(group) < 2:
        return
    if group[1] not in HYDRA_KEYS:
        raise unknown("setting of Hydra", key, ["hydra." + name for name in HYDRA_KEYS])


def check_launcher(name: str) -> None:
    """Refuse a launcher of multiruns that is not there, with the command that installs it.

    Raises:
        UserError: an unknown launcher, or one whose package is missing.
    """
    if name not in LAUNCHERS:
        raise unknown("hydra/launcher", name, LAUNCHERS)
    module, extra = LAUNCHERS[name]
    if module and importlib.util.find_spec("hydra_plugins.%s" % module) is None:
        raise UserError(
            "hydra/launcher=%s needs a package that is not installed: pip install 'hepo-isaac[%s]', or leave it out: "
            "the jobs then run one after the other" % (name, extra)
        )


def _composed(chosen: Dict[str, str]) -> DictConfig:
    """What ``chosen`` composes to before anything is set; of a task of somebody else's, judged."""
    from hydra.errors import HydraException

    plugin = plugin_tasks().get(chosen.get("task", ""))
    try:
        composed = compose(["%s=%s" % pair for pair in chosen.items()])
    except (HydraException, OmegaConfBaseException) as error:
        if plugin is None:
            raise
        raise UserError("%s cannot be used: %s" % (plugin.settings_file(), " ".join(str(error).split()))) from error
    if plugin is not None:
        check_task_file(composed, str(plugin.settings_file()))
    return composed


def check_task_file(composed: DictConfig, file: str) -> None:
    """Refuse what the yaml of a task from elsewhere cannot say.

    Raises:
        UserError: the file, the key, what was expected and what it is.
    """
    task, schema = composed.task, OmegaConf.create({"train": defaults()["train"]})
    expected: Tuple[Tuple[str, Any, str], ...] = (
        ("episode_length", int, "a whole number of control steps"),
        ("heuristic", str, "${heuristic}"),
        ("budgets", DictConfig, "a mapping with demo and paper, each with num_envs and what else it sets"),
        ("engines", ListConfig, "a list of engines"),
    )
    for key, kind, what in expected:
        value = task.get(key)
        if (value is None and key == "engines") or (isinstance(value, kind) and not isinstance(value, bool)):
            continue
        raise UserError("%s: task.%s must be %s, got %s" % (file, key, what, _got(value)))
    for name in task.get("engines") or ():
        if name not in ENGINES:
            raise UserError("%s: task.engines names %s; expected some of %s" % (file, name, ", ".join(ENGINES)))
    for name, budget in task.budgets.items():
        if not isinstance(budget, DictConfig):
            raise UserError("%s: task.budgets.%s must be a mapping as {num_envs: 512}, got %s" % (file, name, budget))
    for key in [k for k in known_keys(composed) if k.startswith("train.") and k != "train.network"]:
        try:
            value = OmegaConf.select(composed, key)
            plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
            check_setting(schema, key, [plain], known_keys(schema))
        except UserError as error:
            raise UserError("%s: %s" % (file, error)) from error
    try:
        check_numbers({"task": OmegaConf.to_container(task, resolve=True)})
    except (UserError, OmegaConfBaseException) as error:
        raise UserError("%s: %s" % (file, " ".join(str(error).split()))) from error


def compose(overrides: Sequence[str]) -> DictConfig:
    """Configuration for ``overrides`` without running anything.

    Hydra takes a tenth of a second, so what was asked before is a copy; but for tasks of others, whose files their
    authors are at work on.
    """
    if plugin_tasks():
        return _compose(overrides)
    found: DictConfig = pickle.loads(_kept(tuple(overrides), _newest_setting()))
    return found


@functools.lru_cache(maxsize=256)
def _kept(overrides: Tuple[str, ...], _newest: int) -> bytes:
    return pickle.dumps(_compose(overrides))


def _newest_setting() -> int:
    """When a file of cfg/ was last changed."""
    return max(file.stat().st_mtime_ns for file in cfg_dir().rglob("*.yaml"))


def _compose(overrides: Sequence[str]) -> DictConfig:
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    from hepo_isaac.schema import register

    register()
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(cfg_dir()), version_base="1.3"):
        return hydra.compose("config", list(overrides))


def check_setting(defaults: DictConfig, key: str, values: Iterable[Any], known: Optional[Sequence[str]] = None) -> None:
    """Refuse a ``key`` that ``defaults`` does not have, and values of another type than its default's or that it cannot
    be (hepo_isaac/limits.py)."""
    keys = known_keys(defaults) if known is None else known
    if key not in keys:
        raise UserError(_unknown_key(keys, key) + _ALL)
    default = OmegaConf.select(defaults, key)
    for value in values:
        _check_type(key, value, default)
        check_number(key, value)
        if key in NAMES and not (isinstance(value, str) and value.startswith("${")):
            check_name(key, value)


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


def _unknown_key(known: Sequence[str], key: str) -> str:
    keys = [k for k in known if not k.startswith("task.budgets.")]
    # train.network.gamma or gamma for train.gamma: the right name in the wrong place
    close = [k for k in keys if k.rsplit(".", 1)[-1] == key.rsplit(".", 1)[-1]][:3] or list(nearest(key, keys))
    if not close:
        close = list(nearest(key.rsplit(".", 1)[-1], [k for k in keys if "." not in k]))
    return "unknown setting %r%s" % (key, ": did you mean %s?" % " or ".join(map(repr, close)) if close else "")


def _check_type(key: str, value: Any, default: Any) -> None:
    """Accept what OmegaConf would turn into the default's type without a loss."""
    kind_known = key in _SPECIAL
    words, kind, what = _SPECIAL.get(key, ((), type(default), ""))
    if key in _NOT_EMPTY and value in ("", None):
        raise UserError("%s must be %s, got nothing" % (key, _NOT_EMPTY[key]))
    if isinstance(value, str) and (value in words or value.startswith("${")):
        return
    if default is None and (not kind_known or value is None):
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
            raise _unreadable(text, "" if reason.startswith("Error parsing") else " (%s)" % reason) from error
    return found


def _unreadable(text: str, reason: str) -> UserError:
    return UserError(
        "cannot read %r%s; settings look like key=value, e.g. num_envs=512, and a value with special characters is "
        "quoted: 'key=\"a=b\"'" % (text, reason)
    )


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
