"""config.yaml of a run folder, which may come from anybody: plain data that can be used, and no code unasked.

A run folder is passed on like any other file. Nothing in its config.yaml is looked up or computed (no interpolation, no
tags, no aliases), and what names code to be run (a heuristic, a potential, a task from a file) is run only for who made
the run on this account or says trust=true. Who made it is told by a signature that only this account's key can give.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import secrets
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional

import yaml
from omegaconf import DictConfig, OmegaConf

from hepo_isaac.agents.config import train_config
from hepo_isaac.errors import UserError
from hepo_isaac.limits import MAX_BATCH, MAX_ENVS, check_names, check_numbers
from hepo_isaac.methods.method import method_from_config
from hepo_isaac.older import completed
from hepo_isaac.plugins import know

SIGNATURE = ".config.signature"
MAX_BYTES = 1 << 20
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# What a configuration has to hold to be one of a run: dotted key -> kind.
_EXPECTED: Dict[str, type] = {
    "task": dict, "task.name": str, "algo": dict, "algo.name": str, "train": dict, "sim": dict, "sim.name": str,
    "num_envs": int, "seed": int, "device": str, "heuristic": str, "budget": dict, "budget.name": str,
}  # fmt: skip
# Where a run's numbers go is not for a configuration from elsewhere to say.
_NO_WANDB = {"enabled": False, "project": "hepo_isaac", "mode": "offline", "entity": None, "group": None}


def read_run(folder: Path, trust: bool = False) -> DictConfig:
    """The configuration of the run in ``folder``, to be resumed, played or evaluated.

    Raises:
        UserError: it cannot be read or used, or it names code that nobody has consented to run.
    """
    file = folder / "config.yaml"
    config = read_data(folder)
    mine = trust or signed(file)
    code = foreign_code(config)
    if code and not mine:
        raise UserError(
            "the run in %s would run code that it names (%s), and was not made by this account: look at that code, "
            "then add trust=true" % (folder, ", ".join(code))
        )
    if not mine:
        config["wandb"] = dict(_NO_WANDB)
    if config["task"].get("source"):
        know(str(config["task"]["name"]), str(config["task"]["source"]))
    return OmegaConf.create(escaped(config))


def read_data(folder: Path) -> Dict[str, Any]:
    """The configuration of the run in ``folder`` as plain data, for who runs none of the code it may name.

    Raises:
        UserError: it cannot be read or used.
    """
    file = folder / "config.yaml"
    with blamed_on(file):
        return _buildable(completed(_checked(read_plain(file))))


def read_plain(file: Path) -> Dict[str, Any]:
    """A YAML file as plain values.

    Raises:
        UserError: it cannot be read, is no mapping, or holds more than a run writes.
    """
    try:
        if file.stat().st_size > MAX_BYTES:
            raise UserError("%s is larger than %d bytes; expected the file that a run wrote" % (file, MAX_BYTES))
        text = file.read_text(encoding="utf-8")
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text, Loader=_LOADER)):
            raise UserError("%s holds aliases; expected the file that a run wrote, which has none" % file)
        found = yaml.load(text, Loader=_LOADER)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        why = str(getattr(error, "problem", None) or getattr(error, "strerror", None) or error).splitlines()[0]
        raise UserError("%s cannot be read: %s; expected the file that a run wrote" % (file, why)) from error
    if not isinstance(found, dict):
        kind = "nothing" if found is None else "a %s" % type(found).__name__
        raise UserError("%s holds %s; expected the settings of a run, one a line as key: value" % (file, kind))
    return {str(key): value for key, value in found.items()}


def _checked(config: Dict[str, Any]) -> Dict[str, Any]:
    for dotted, kind in _EXPECTED.items():
        node: Any = config
        for part in dotted.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        if not isinstance(node, kind) or isinstance(node, bool):
            raise UserError("%s is %r; expected a %s" % (dotted, node, "mapping" if kind is dict else kind.__name__))
    if not 0 < config["num_envs"] <= MAX_ENVS:
        raise UserError("num_envs is %d; expected 1 to %d" % (config["num_envs"], MAX_ENVS))
    return config


def _buildable(config: Dict[str, Any]) -> Dict[str, Any]:
    """``config``, once its method and its training can be built from it."""
    check_numbers(config)
    check_names(config)
    method_from_config(config["algo"])
    train = train_config(config["train"])
    if not config["num_envs"] * train.horizon_length <= MAX_BATCH:
        text = "num_envs * train.horizon_length is %g; expected at most %d"
        raise UserError(text % (config["num_envs"] * train.horizon_length, MAX_BATCH))
    return config


@contextlib.contextmanager
def blamed_on(file: Path) -> Iterator[None]:
    """Whatever is wrong inside is wrong with ``file``, which need not be what this version wrote: one sentence."""
    try:
        yield
    except UserError as error:
        if str(file) in str(error):
            raise
        raise UserError("%s cannot be used: %s" % (file, error)) from error
    except Exception as error:
        text = "%s cannot be used: %s: %s; expected the settings that a run wrote"
        raise UserError(
            text % (file, type(error).__name__, str(error).splitlines()[0] if str(error) else "")
        ) from error


def escaped(node: Any) -> Any:
    """Strings as OmegaConf gives them back to the letter."""
    if isinstance(node, str):
        return re.sub(r"(\\*)\$\{", r"\1\1\\${", node)
    if isinstance(node, dict):
        return {key: escaped(value) for key, value in node.items()}
    return [escaped(value) for value in node] if isinstance(node, list) else node


# ---- consent --------------------------------------------------------------------------------------------------------


def foreign_code(config: Mapping[str, Any]) -> List[str]:
    """What a configuration names of code outside of this package, as ``key=value``."""
    found = []
    for key in ("heuristic", "potential"):
        value = config.get(key)
        if isinstance(value, str) and ":" in value and not value.startswith("hepo_isaac."):
            found.append("%s=%s" % (key, value))
    source = config["task"].get("source")
    return found + (["task.source=%s" % source] if source else [])


def sign(file: Path) -> None:
    """Mark ``file`` as written by this account; nothing where the account has no place for a key."""
    key = _key()
    if key is not None:
        with contextlib.suppress(OSError):
            (file.parent / SIGNATURE).write_text(_code(key, file), encoding="ascii")


def signed(file: Path) -> bool:
    """Whether this account wrote ``file`` as it is."""
    key = _key(make=False)
    try:
        given = (file.parent / SIGNATURE).read_text(encoding="ascii").strip()
        return key is not None and hmac.compare_digest(given, _code(key, file))
    except (OSError, ValueError):
        return False


def _code(key: bytes, file: Path) -> str:
    return hmac.new(key, file.read_bytes(), hashlib.sha256).hexdigest()


def _key(make: bool = True) -> Optional[bytes]:
    """This account's key, made when first asked for."""
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    path = Path(base) / "hepo_isaac" / "key"
    with contextlib.suppress(OSError):
        return path.read_bytes()
    if not make:
        return None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(str(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(secrets.token_hex(32).encode("ascii"))
        return path.read_bytes()
    except OSError:
        return None
