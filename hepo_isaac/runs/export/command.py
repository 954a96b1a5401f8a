"""``hepo-isaac export run=<run folder> [policy=pi] [format=onnx] [checkpoint=best] [out=file] [overwrite=true]``.

A trained policy as a file that acts without this package: observations in, mean actions out, clipping and normalisation
inside, what its numbers mean beside them. Nothing is written before the file acts as the policy does.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Sequence, Tuple

from hepo_isaac.errors import UserError, unknown

KEYS = ("run", "task", "policy", "format", "checkpoint", "out", "overwrite", "trust")
TOLERANCE = 1e-5  # of actions in [-1, 1]
USAGE = "hepo-isaac export run=runs/… [policy=pi] [format=onnx] [checkpoint=best] [out=policy.onnx] [overwrite=true]"


@dataclass(frozen=True)
class Format:
    """A kind of file. module: of runs/export, with write, run and metadata.  runtime: what runs it, for messages.
    needs: packages that this one does not require."""

    module: str
    suffix: str
    runtime: str
    needs: Tuple[str, ...] = ()


FORMATS = {
    "onnx": Format("onnx_file", ".onnx", "onnxruntime", ("onnx", "onnxruntime")),
    "torchscript": Format("torchscript", ".ts", "torch.jit"),
    "rl_games": Format("rl_games_file", ".pth", "rl-games' player"),
}


def main(arguments: Sequence[str]) -> int:
    """Command line; returns 0."""
    given = _given(arguments)
    kind = given.get("format", "onnx")
    _check_installed(kind)
    from hepo_isaac.runs.export.source import find_source
    from hepo_isaac.runs.record import bundled

    run = given["run"] if "run" in given else str(bundled.bundled_run(given["task"]))
    source = find_source(run, given.get("checkpoint"), given.get("trust") == "true")
    if "run" in given and given.get("task", source.cfg["task"]["name"]) != source.cfg["task"]["name"]:
        raise UserError("run=%s is of task=%s, not %s" % (run, source.cfg["task"]["name"], given["task"]))
    target = _target(given, source, kind)
    print("exporting %s" % source.file, flush=True)
    import torch

    torch.set_num_threads(1)  # a few rows at a time: more threads only wait for each other
    data, said = exported(source, given.get("policy", "pi"), kind)
    from hepo_isaac.runs.record.files import write_atomic

    try:
        write_atomic(target, data)
    except OSError as error:
        raise UserError("out=%s cannot be written: %s" % (target, error.strerror or error)) from error
    print(said)
    print("exported: %s (%d kB)" % (target, len(data) // 1024))
    return 0


def _given(arguments: Sequence[str]) -> Dict[str, str]:
    """The settings, checked as far as they can be without a run."""
    given: Dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals:
            raise UserError("hepo-isaac export takes key=value, got %r; e.g. %s" % (argument, USAGE))
        if key not in KEYS:
            raise unknown("setting of hepo-isaac export", key, KEYS)
        if key in given:
            raise UserError("%s= is given twice; expected it once" % key)
        if not value:
            raise UserError("%s= has no value; e.g. %s" % (key, USAGE))
        given[key] = value
    for key in ("overwrite", "trust"):
        given[key] = given.get(key, "false").lower()
        if given[key] not in ("true", "false"):
            raise UserError("%s must be true or false, got %s" % (key, given[key]))
    if "run" not in given and "task" not in given:
        raise UserError("hepo-isaac export needs run=<run folder or checkpoint>, or task=<one that has a policy>")
    if given.get("format", "onnx") not in FORMATS:
        raise unknown("format", given["format"], FORMATS)
    return given


def _check_installed(kind: str) -> None:
    for package in FORMATS[kind].needs:
        try:
            importlib.import_module(package)
        except ImportError as error:
            if sys.version_info < (3, 11):
                text = "format=%s needs Python 3.11 or newer; format=torchscript and format=rl_games work here"
                raise UserError(text % kind) from error
            raise UserError("%s is not installed (%s): pip install 'hepo-isaac[export]'" % (package, error)) from error


def _target(given: Dict[str, str], source: Any, kind: str) -> Path:
    """Where the file goes: beside the run's other results, or here if the run came along with the package."""
    from hepo_isaac.agents.trained import policy_index
    from hepo_isaac.methods.method import method_from_config
    from hepo_isaac.runs.record.bundled import is_bundled

    method = method_from_config(source.cfg["algo"])
    policy = method.policy_names[policy_index(method, given.get("policy", "pi"))]
    suffix = FORMATS[kind].suffix
    usual = source.folder.path / (policy + suffix)
    if is_bundled(source.folder.path):
        usual = Path("%s_%s%s" % (source.cfg["task"]["name"], policy, suffix))
    target = Path(given.get("out", str(usual)))
    if target.is_dir():
        target = target / ("%s_%s%s" % (source.cfg["task"]["name"], policy, suffix))
    if target.suffix != suffix:
        raise UserError("out=%s: a file of format=%s is called <name>%s" % (target, kind, suffix))
    if not target.parent.is_dir():
        raise UserError("out=%s: there is no folder %s" % (target, target.parent))
    if target.exists() and given["overwrite"] != "true":
        raise UserError("%s is there already; out=<another name> keeps it, overwrite=true replaces it" % target)
    return target


def exported(source: Any, policy: str, kind: str) -> Tuple[bytes, str]:
    """The bytes of the file and a sentence on how near it is to the policy.

    Args:
        source: what find_source returned.  policy: its name.  kind: of FORMATS.

    Raises:
        UserError: no such policy, a policy that is no number, or the file does not act as the policy does.
    """
    import torch

    from hepo_isaac.agents.config import train_config
    from hepo_isaac.agents.trained import actor_of, policy_index, restored_policies
    from hepo_isaac.envs.make import make_env
    from hepo_isaac.methods.method import method_from_config
    from hepo_isaac.runs.export.describe import describe
    from hepo_isaac.runs.export.source import acts, recorded, wild

    cfg = source.cfg
    method = method_from_config(cfg["algo"])
    index = policy_index(method, policy)
    env = make_env(cfg, random_start=False)
    try:
        sizes = (env.num_obs, env.num_actions, env.num_states)
        policies = restored_policies(cfg["algo"], cfg["train"], source.checkpoint["agent"], *sizes)
        actor = actor_of(policies, index, train_config(cfg["train"]))
        if not all(bool(part.isfinite().all()) for layer in actor.layers for part in layer):
            raise UserError("%s holds weights that are not finite; export an earlier checkpoint" % source.file)
        seen = recorded(env, policies, index)
        about = describe(source, env, method.policy_names[index])
    finally:
        env.close()
    data = bytes(_module(kind).write(actor, policies, index, about))
    obs = torch.cat((seen, wild(seen.shape[1])))
    expected = acts(policies, index, obs).numpy()
    run = _from_bytes(data, kind)
    found = run(obs[:, : actor.num_obs].contiguous().numpy())
    if found.shape != expected.shape:
        raise UserError("the %s file returns actions of shape %s, not %s" % (kind, found.shape, expected.shape))
    worst = float(abs(found.astype("float64") - expected).max())
    if not worst <= TOLERANCE:  # NaN is no parity either
        raise UserError(
            "the %s file differs from the policy by %.2g in an action, more than %g; nothing was written"
            % (kind, worst, TOLERANCE)
        )
    said = "parity: actions differ by at most %.1e over %d observations from the environment and %d far outside (%s)"
    return data, said % (worst, len(seen), len(obs) - len(seen), FORMATS[kind].runtime)


def run_file(file: Path, kind: str) -> Callable[[Any], Any]:
    """An exported file as observations (N, O) to actions (N, A), float32 arrays, in its own runtime."""
    act: Callable[[Any], Any] = _module(kind).run(file)
    return act


def read_metadata(file: Path, kind: str) -> Dict[str, Any]:
    """What an exported file says of itself, see describe.py."""
    return dict(_module(kind).metadata(file))


def _module(kind: str) -> Any:
    return importlib.import_module("hepo_isaac.runs.export." + FORMATS[kind].module)


def _from_bytes(data: bytes, kind: str) -> Callable[[Any], Any]:
    """``run_file`` of a file that is nowhere yet: what is loaded stays in memory."""
    with tempfile.TemporaryDirectory(prefix="hepo_isaac_export_") as folder:
        file = Path(folder) / ("policy" + FORMATS[kind].suffix)
        file.write_bytes(data)
        return run_file(file, kind)
