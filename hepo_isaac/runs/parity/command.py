"""``hepo-isaac parity``: the same actions from the same states on two engines, side by side.

    hepo-isaac parity task=FrankaCabinet                                 # the default pair of this machine
    hepo-isaac parity task=Ant engines=mujoco_batch,mujoco_warp          # these two
    hepo-isaac parity task=Ant engine=isaacgym page=true                 # against the recorded mujoco_batch
    hepo-isaac parity task=Ant engine=isaacgym save=ant.npz              # one engine alone, into a file
    hepo-isaac parity engine=mujoco_batch against=ant.npz                # another machine's file
    hepo-isaac parity task=Ant run=runs/Ant/hepo/…                       # a trained policy: its actions, then itself

Each engine runs in a process of its own; python.isaacgym=<path> (or HEPO_PYTHON_ISAACGYM) names its interpreter.
Any other setting is train.py's, for both engines; second.<setting> is for the second alone.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from hepo_isaac.arguments import check_file, check_folder, pairs
from hepo_isaac.errors import UserError, unknown
from hepo_isaac.helps import help_of
from hepo_isaac.limits import LARGEST_SEED
from hepo_isaac.locate import group_names, robot_tasks, robots_dir
from hepo_isaac.runs.parity.compare import compare
from hepo_isaac.runs.parity.plot import plot_rollouts
from hepo_isaac.runs.parity.recording import Recording, load, save
from hepo_isaac.runs.parity.report import page_file, report, show, update_page
from hepo_isaac.runs.parity.worker import roll_elsewhere
from hepo_isaac.runs.record.files import write_atomic, write_json
from hepo_isaac.sim.engines import CPU_ENGINE, CUDA_ENGINE, ENGINES, PHYSX_ENGINE, physics_engines

ACTIONS = ("random", "zero", "run")
# whole numbers -> (default, least, most)
COUNTS = {
    "steps": (100, 1, 10**6),
    "num_envs": (16, 1, 1 << 16),
    "seed": (1, 0, LARGEST_SEED - 1),
    "singles": (20, 1, 10**6),
    "episodes": (32, 2, 10**6),
}
TEXTS = ("engines", "engine", "save", "against", "actions", "run", "out", "page", "sim")
INTERPRETER = "python."
SECOND = "second."


@dataclass
class Request:
    """What the command line asks for.

    engines: one or two.  reference: file of the first engine's recording instead of rolling it.  overrides, second:
    settings of both engines and of the second alone.  pythons: interpreter by engine.  typed: names of those COUNTS
    and TEXTS that were given.
    """

    engines: Tuple[str, ...]
    task: Optional[str]
    reference: Optional[Path]
    counts: Dict[str, int]
    actions: str
    run: Optional[str]
    save: Optional[Path]
    out: Optional[Path]
    page: bool
    overrides: List[str] = field(default_factory=list)
    second: List[str] = field(default_factory=list)
    pythons: Dict[str, str] = field(default_factory=dict)
    typed: Sequence[str] = ()


def main(arguments: Sequence[str]) -> int:
    """Roll, compare, print and write; returns 0 whatever the engines do.

    Raises:
        UserError: a bad argument, an engine that is not here, recordings that do not fit.
    """
    if not arguments:
        print(help_of("parity"))
        return 0
    request = parse(arguments)
    page = page_file(request.task) if request.page and request.task else None  # before minutes of physics
    with tempfile.TemporaryDirectory(prefix="hepo_parity_") as folder:
        first, second = _recordings(request, Path(folder))
    if second is None:
        assert request.save is not None
        print("recording %s (%d kB)" % (save(request.save, first), request.save.stat().st_size // 1024))
        return 0
    found = compare(first, second)
    show(found)
    if request.save is not None:
        print("recording %s" % save(request.save, second))
    command = shlex.join(["hepo-isaac", "parity", *arguments])
    _write(request, found, first, second, command)
    if request.page:
        page = page or page_file(first.meta["task"])
        text = page.read_text(encoding="utf-8") if page.is_file() else ""
        write_atomic(page, update_page(text, found, command).encode("utf-8"))
        print("page %s" % page)
    return 0


def reference_file(task: str) -> Path:
    """The recording of mujoco_batch that comes along, in a wheel too: a partner for an engine without another one."""
    return robots_dir() / "recordings" / (task + ".npz")


# ---- the command line ---------------------------------------------------------------------------------------------


def parse(arguments: Sequence[str]) -> Request:
    """Read ``key=value`` arguments.

    Raises:
        UserError: an unknown engine, setting or task, a value of the wrong kind, settings that exclude each other.
    """
    given: Dict[str, str] = {}
    overrides, second, pythons = [], [], _pythons_of_environment()
    for key, value in pairs("parity", arguments).items():
        argument = "%s=%s" % (key, value)
        if key.startswith(INTERPRETER):
            pythons[_engine(key[len(INTERPRETER) :])] = value
        elif key.startswith(SECOND):
            second.append(argument[len(SECOND) :])
        elif key in COUNTS or key in TEXTS:
            given[key] = value
        else:
            overrides.append(argument)
    if "sim" in given:
        raise UserError("hepo-isaac parity compares engines: use engine=%s or engines=…, not sim=" % given["sim"])
    task = dict(o.split("=", 1) for o in overrides).get("task")
    _check_task(task)
    _check_settings([*overrides, *second])
    run = given.get("run")
    actions = given.get("actions", "run" if run else "random")
    if actions not in ACTIONS:
        raise unknown("actions", actions, ACTIONS)
    if actions == "run" and not run:
        raise UserError("actions=run needs run=<run folder>, whose policy acts")
    if task is None and run is None and "against" not in given:
        raise UserError("hepo-isaac parity needs task=…, e.g. hepo-isaac parity task=FrankaCabinet")
    engines, reference = _sides(given, task)
    if len(set(engines)) < len(engines) and not second:
        raise UserError(
            "engines=%s compares %s with itself; name two engines, or give the second a setting of its own with "
            "second.<setting>=" % (given["engines"], engines[0])
        )
    check_file("save=", Path(given["save"]) if "save" in given else None)
    check_folder("out=", Path(given["out"]) if "out" in given else None)
    if given.get("against"):
        load(Path(given["against"]))  # raises what is wrong with it, before minutes of physics
    return Request(
        engines=engines,
        task=task,
        reference=reference,
        counts=_counts(given),
        actions=actions,
        run=run,
        save=Path(given["save"]) if "save" in given else None,
        out=Path(given["out"]) if "out" in given else None,
        page=_flag("page", given.get("page", "false")),
        overrides=overrides,
        second=second,
        pythons=pythons,
        typed=list(given),
    )


def _sides(given: Dict[str, str], task: Optional[str]) -> Tuple[Tuple[str, ...], Optional[Path]]:
    """(engines to roll, recording that stands for the first engine or None)."""
    if "engines" in given and ("engine" in given or "against" in given):
        raise UserError("engines=a,b rolls two engines here; leave it out with engine= or against=")
    if "engines" in given:
        names = tuple(_engine(name) for name in given["engines"].strip("[]()").split(","))
        if len(names) != 2:
            raise UserError("engines= takes two engines, e.g. engines=mujoco_batch,mujoco_warp; engine= takes one")
        return names, None
    against = Path(given["against"]) if "against" in given else None
    if "engine" in given:
        engine = _engine(given["engine"])
        if against is None and "save" in given:
            return (engine,), None
        return (engine,), against or _recorded(task)
    if against is None and all(_installed(ENGINES[e].modules[0]) for e in (CPU_ENGINE, CUDA_ENGINE)):
        return (CPU_ENGINE, CUDA_ENGINE), None
    found = [e for e in (PHYSX_ENGINE, CUDA_ENGINE) if _installed(ENGINES[e].modules[0])]
    if not found and against is None:
        raise UserError(
            "there is no second engine here to compare %s with: pip install 'hepo-isaac[cuda]' brings %s (it runs on a "
            "CPU too), and python.%s=<path> names a Python that has Isaac Gym, with engines=%s,%s"
            % (CPU_ENGINE, CUDA_ENGINE, PHYSX_ENGINE, CPU_ENGINE, PHYSX_ENGINE)
        )
    return (found[0] if found else CPU_ENGINE,), against or _recorded(task)


def _recorded(task: Optional[str]) -> Path:
    if task is None:
        raise UserError("name the second engine's partner: engines=a,b, or against=<recording>, or task=…")
    file = reference_file(task)
    if not file.is_file():
        raise UserError(
            "there is no recording %s to compare with; name two engines (engines=a,b) or a recording (against=<file>)"
            % file
        )
    return file


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _engine(name: str) -> str:
    engines = sorted(physics_engines())
    if name not in engines:
        raise unknown("engine", name, engines)
    return name


def _check_task(task: Optional[str]) -> None:
    if task is None:
        return
    robots = robot_tasks()
    if task not in robots and task in group_names("task"):
        raise UserError(
            "task=%s integrates its own equations (sim=analytic), so there are no engines to compare; tasks on physics"
            " engines: %s" % (task, ", ".join(robots))
        )
    if task not in robots:
        raise unknown("task", task, robots)


def _check_settings(overrides: Sequence[str]) -> None:
    """Refuse settings that train.py does not know; options of engines are checked against every engine's file."""
    from omegaconf import OmegaConf

    from hepo_isaac.locate import cfg_dir
    from hepo_isaac.overrides import check_overrides

    check_overrides([o for o in overrides if not o.startswith("sim.")])
    files: List[Any] = [OmegaConf.load(cfg_dir() / "sim" / (name + ".yaml")) for name in group_names("sim")]
    options = {"sim.%s" % key for file in files for key in file if key != "name"}
    for key in [o.partition("=")[0] for o in overrides if o.startswith("sim.")]:
        if ".".join(key.split(".")[:2]) not in options:
            raise unknown("setting", key, options)


def _counts(given: Dict[str, str]) -> Dict[str, int]:
    found = {}
    for name, (default, least, most) in COUNTS.items():
        text = given.get(name, str(default))
        if not text.isdigit() or not least <= int(text) <= most:
            what = "%s must be a whole number of at least %d and at most %d, got %s"
            raise UserError(what % (name, least, most, text or "nothing"))
        found[name] = int(text)
    return found


def _flag(name: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise UserError("%s must be true or false, got %s" % (name, text))
    return text.lower() == "true"


def _pythons_of_environment() -> Dict[str, str]:
    names = {"HEPO_PYTHON_" + engine.upper(): engine for engine in group_names("sim")}
    return {engine: os.environ[name] for name, engine in names.items() if os.environ.get(name)}


# ---- rolling ------------------------------------------------------------------------------------------------------


def _recordings(request: Request, folder: Path) -> Tuple[Recording, Optional[Recording]]:
    """The first engine's recording and the second's, None where one engine alone was asked for."""
    if request.reference is None:
        first = _rolled(request, request.engines[0], request.overrides, None, folder)
        if len(request.engines) == 1:
            return load(first), None
    else:
        first = request.reference
    recording = load(first)
    _check_replay(request, recording, first)
    own = [o for o in request.overrides if not o.startswith("task=")] if request.reference is not None else []
    overrides = [*recording.meta["overrides"], *own, *request.second]
    second_folder = folder / "second"
    second_folder.mkdir()
    return recording, load(_rolled(request, request.engines[-1], overrides, first, second_folder))


def _rolled(request: Request, engine: str, overrides: Sequence[str], reference: Optional[Path], folder: Path) -> Path:
    python = request.pythons.get(engine)
    job: Dict[str, Any] = {"engine": engine, "overrides": list(overrides), **request.counts}
    job.update(actions=request.actions, run=request.run)
    job["reference"] = None if reference is None else str(reference.resolve())
    return roll_elsewhere(job, folder, python)


def _check_replay(request: Request, recording: Recording, file: Path) -> None:
    """A recording brings its own task, start states and actions; what was typed beside it must agree."""
    if request.reference is None:
        return
    wanted: Dict[str, Any] = {k: v for k, v in request.counts.items() if k in request.typed}
    if "actions" in request.typed or request.run:
        wanted["actions"] = request.actions
    if request.task is not None:
        wanted["task"] = request.task
    for key in [k for k in wanted if k in recording.meta and recording.meta[k] != wanted[k]]:
        raise UserError(
            "%s was recorded with %s=%s, which it replays, not %s=%s; leave that out, or roll both engines with"
            " engines=a,b" % (file, key, recording.meta[key], key, wanted[key])
        )


# ---- what is left behind ------------------------------------------------------------------------------------------


def _write(request: Request, found: Dict[str, Any], first: Recording, second: Recording, command: str) -> None:
    """report.md, report.json and trajectories.png."""
    name = "%s_%s_vs_%s" % (first.meta["task"], first.meta["engine"], second.meta["engine"])
    folder = request.out or Path("parity") / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        picture: Optional[str] = "trajectories.png"
        try:
            plot_rollouts(first, second, folder / "trajectories.png")
        except ImportError as error:
            picture = None
            print("no picture, which needs matplotlib (%s): pip install 'hepo-isaac[report]'" % error)
        write_json(folder / "report.json", {"command": command, **found})
        write_atomic(folder / "report.md", report(found, command, picture).encode("utf-8"))
    except OSError as error:
        raise UserError("out=%s cannot be written: %s" % (folder, error)) from error
    print("report %s" % (folder / "report.md"))
