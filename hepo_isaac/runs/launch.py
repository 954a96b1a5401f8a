"""From the command line to a finished run: train, resume, evaluate.

``main`` is what train.py calls: the command line is checked before Hydra sees it (hepo_isaac/overrides.py), Hydra
composes each job (several in a multirun), the job is resolved and validated, then it runs.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence, Tuple

from omegaconf import DictConfig, OmegaConf

from hepo_isaac.aliases import quoted, split_options, unquoted
from hepo_isaac.config import check_machine, cuda_available, plain, resolve, validate
from hepo_isaac.errors import UserError, report_errors
from hepo_isaac.helps import help_of, wants_help
from hepo_isaac.launched import launched, world
from hepo_isaac.locate import cfg_dir, train_command
from hepo_isaac.overrides import check_overrides, check_setting, refuse_lists
from hepo_isaac.settings import changeable, role
from hepo_isaac.sim.engines import ENGINES
from hepo_isaac.typed import check_repeated, read, refuse_a_lone_checkpoint

MULTIRUN = ("-m", "--multirun")
LATEST = "latest"  # resume=latest: the newest run folder


def _no_note(state: str, folders: Sequence[Any]) -> None:
    """Outside of a sweep nobody keeps a record of jobs."""


def typed(argv: Sequence[str]) -> int:
    """``main`` for what a person typed, in which a setting that is there twice is a mistake; programs may put their own
    behind others', and the last one counts."""
    code = report_errors(lambda: check_repeated(argv))
    return code or main(argv)


def main(argv: Sequence[str]) -> int:
    """Run ``python train.py <argv>``; returns the exit code: 2 for a mistake of the user, said in one line."""
    rank, _ = world()
    if rank:
        from hepo_isaac.runs.train import spread

        return spread.in_background(lambda: _main(list(argv)))
    return report_errors(lambda: _main(list(argv)))


def _main(argv: List[str]) -> int:
    if wants_help(argv):
        print(help_of("train"))
        return 0
    options, overrides = split_options(read(argv))
    given = dict(o.lstrip("+").split("=", 1) for o in overrides if "=" in o)
    if launched():
        from hepo_isaac.runs.train import spread

        spread.refuse(options, given)
    if given.get("resume", "null") not in ("null", ""):
        if options:
            raise UserError("resume continues one run; it cannot be combined with --multirun")
        return _resume_typed(unquoted(given["resume"]), overrides, given)
    check_overrides(overrides)
    several = any(option in MULTIRUN for option in options)
    if not several:
        refuse_lists(overrides)
    refuse_a_lone_checkpoint(given)
    # Hydra reads options only in front of all settings
    argv = [*options, *overrides]
    return _sweep(argv, overrides) if several else _hydra(argv)


def _resume_typed(path: str, overrides: Sequence[str], given: Dict[str, str]) -> int:
    rest = [o for o in overrides if not o.lstrip("+").startswith("resume=")]
    if path == LATEST:
        from hepo_isaac.runs.record.folder import latest_run

        path = str(latest_run(unquoted(given.get("run_root", "runs")), given.get("task")))
        rest = [o for o in rest if not o.startswith(("run_root=", "task="))]
        print("resume=latest: %s" % path, flush=True)
    return resume(path, rest)


def _hydra(argv: Sequence[str]) -> int:
    """Let Hydra compose and run the job or jobs."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    from hepo_isaac.schema import register

    register()
    GlobalHydra.instance().clear()
    before = sys.argv
    sys.argv = ["train.py", *argv]
    try:
        hydra.main(version_base="1.3", config_path=str(cfg_dir()), config_name="config")(hydra_job)()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    finally:
        sys.argv = before
    return 0


def _sweep(argv: Sequence[str], overrides: Sequence[str]) -> int:
    """Let Hydra run the jobs of a multirun, and say what became of each."""
    if os.environ.get("WANDB_SWEEP_ID") and _setting(overrides, "wandb.enabled") == "true":
        raise UserError(
            "a W&B agent has one run for one job, and -m starts several: let the sweep file list the values, or use "
            "seeds=<number> for seeds side by side"
        )
    from hepo_isaac.runs.sweep import multirun as sweep

    folder = sweep.begin(overrides)
    code = 130  # a Ctrl-C between two jobs
    try:
        with sweep.stoppable(folder):
            code = _launched(folder, [*argv, "hydra.sweep.dir=" + quoted(str(folder))])
    finally:
        code = sweep.finish(folder, code)
    return code


def _setting(overrides: Sequence[str], key: str) -> str:
    """What the command line says of a setting, in lower case; empty if nothing."""
    said = [o.partition("=")[2].lower() for o in overrides if o.lstrip("+").partition("=")[0] == key]
    return said[-1] if said else ""


def _launched(folder: Path, argv: Sequence[str]) -> int:
    """Let the launcher run the jobs, and once more those that were left when a process of its own died: joblib ends a
    sweep with its first worker that is killed."""
    from hepo_isaac.runs.sweep import multirun as sweep

    code, left = 0, -1
    while True:
        try:
            code = _hydra(argv)
        except Exception as error:
            text = (str(error).splitlines() or [""])[0]
            print("warning: the launcher stopped (%s: %s)" % (type(error).__name__, text), file=sys.stderr)
            code = 1
        now = len(sweep.unfinished(folder))
        if not now or now == left:
            return code
        left = now
        print("\n%d jobs are left to do; going on with them" % left, flush=True)


def hydra_job(cfg: DictConfig) -> None:
    """What Hydra calls for each job; a function of the module, so that a launcher can send it to other processes."""
    from hydra.core.hydra_config import HydraConfig

    from hepo_isaac.runs.sweep import multirun as sweep

    overrides, folder = list(HydraConfig.get().overrides.task), sweep.current()
    if folder is not None:
        sweep.run_job_of_sweep(folder, lambda note: run_job(cfg, overrides, note))
        return
    code = _reported(lambda: run_job(cfg, overrides))
    if code:
        # SystemExit passes through Hydra untouched; an exception would be reworded by it.
        raise SystemExit(code)


def _reported(function: Callable[[], int]) -> int:
    """report_errors, on the rank that speaks for all."""
    if world()[0]:
        from hepo_isaac.runs.train import spread

        return spread.quietly(function)
    return report_errors(function)


def run_job(cfg: DictConfig, overrides: Sequence[str], note: Callable[[str, Sequence[Any]], None] = _no_note) -> int:
    """Run one composed job; returns the exit code. ``note`` is told what became of it, see twins.train_once."""
    if cfg.test:
        from hepo_isaac.runs.play.command import evaluate_command

        return evaluate_command(cfg, overrides)
    from hepo_isaac.runs.sweep.multirun import share_cores, skips
    from hepo_isaac.runs.sweep.twins import train_once

    settled = share_cores(prepare(cfg, overrides), cfg.torch_threads)
    if launched():
        from hepo_isaac.runs.train import spread

        settled = spread.share_cores(settled, cfg.torch_threads)
        spread.check(settled)
        return train(settled, _facts(cfg, settled))
    # train.max_iterations is the run's own already: it would be another run with any other. So is the number of
    # threads, on which the last bits of sums depend.
    kept = [o for o in overrides if not o.startswith("train.") and role(o.split("=")[0]).at_resume]
    return train_once(
        settled,
        skips(cfg.skip_finished),
        lambda config: train(config, _facts(cfg, config)),
        lambda folders: resume(folders, kept),
        note,
    )


def prepare(cfg: DictConfig, overrides: Sequence[str]) -> Dict[str, Any]:
    """Resolve and check a composed configuration; returns it as plain dicts and lists."""
    cuda = cuda_available()
    settled = resolve(cfg, overrides, cuda)
    check_machine(settled, cuda)
    validate(settled)
    return _with_reference(plain(settled))


def _with_reference(cfg: Dict[str, Any]) -> Dict[str, Any]:
    """algo.frozen_reference as the checkpoint file that a run folder stands for."""
    from hepo_isaac.runs.record.checkpoint import load_checkpoint
    from hepo_isaac.runs.record.folder import RunFolder

    given = cfg["algo"].get("frozen_reference")
    if given is None:
        return cfg
    path = Path(given)
    if path.is_dir():
        path = RunFolder.open(path).policy_checkpoint()
    if not path.is_file():
        raise UserError("algo.frozen_reference=%s: expected a run folder or a checkpoint, found neither" % given)
    load_checkpoint(path)  # raises what is wrong with it
    return {**cfg, "algo": {**cfg["algo"], "frozen_reference": str(path)}}


def _facts(cfg: DictConfig, settled: Dict[str, Any]) -> List[Tuple[str, str]]:
    """First lines of a run; a demonstration says that it is one and names the command for the full run."""
    lines = [("engine", settled["sim"]["name"]), ("device", settled["device"])]
    if launched():
        lines.append(("processes", "%d, the environments of one run shared out" % world()[1]))
    budget = settled["budget"]["name"]
    if budget == "demo":
        names = train_command(), settled["task"]["name"], settled["algo"]["name"]
        full = "%s task=%s algo=%s budget=paper" % names
        lines += [("budget", "demonstration: a few minutes on a CPU, not the published length"), ("full run", full)]
    else:
        lines.append(("budget", budget))
    lines.append(("heuristic", settled["heuristic"]))
    if settled["device"] == "cpu":
        lines.append(("update", _update(settled["train"]["fused"])))
    return lines


def _update(fused: Any) -> str:
    """How gradient steps are taken on the CPU, and why not compiled."""
    import torch

    from hepo_isaac.agents.fused import reason

    why = reason(torch.device("cpu"), fused)
    return "eager: " + why if why else "compiled"


# ---- train ------------------------------------------------------------------------------------------------------


def train(cfg: Dict[str, Any], facts: Sequence[Tuple[str, str]]) -> int:
    """Train with a resolved configuration into a new run folder, or into one per seed of ``seeds``."""
    return train_in_folders(cfg, facts)[0]


def train_in_folders(
    cfg: Dict[str, Any], facts: Sequence[Tuple[str, str]], quiet: bool = False
) -> Tuple[int, List[Path]]:
    """``train``; returns the exit code and the run folders. A quiet one prints nothing but warnings."""
    from hepo_isaac import ranks
    from hepo_isaac.envs.make import make_env, try_functions
    from hepo_isaac.runs.record.folder import RunFolder
    from hepo_isaac.runs.train import spread
    from hepo_isaac.runs.train.seeds import seed_list
    from hepo_isaac.runs.train.start import follow, grouped, train_in

    seeds = seed_list(int(cfg["seed"]), cfg["seeds"])
    if not quiet:
        announce(cfg, len(seeds))
    # each folder holds the configuration of that run alone, so that it can be resumed, compared and re-made alone
    shared = {**cfg, "wandb": grouped(cfg["wandb"])} if len(seeds) > 1 else cfg
    configs = [{**shared, "seed": seed, "seeds": 1} for seed in seeds]
    task, algo = cfg["task"]["name"], cfg["algo"]["name"]
    with spread.meeting(cfg):
        env = make_env({**spread.own(cfg), "run_seeds": spread.env_seeds(seeds)})
        try_functions(env)  # before anything is written
        if ranks.rank():
            return follow(configs, env, None), []
        folders = [RunFolder.create(task, algo, c["seed"], c, cfg["run_root"]) for c in configs]
        code = train_in(folders, configs, env, facts, None, quiet)
    return _film_finished(code, folders, configs), [folder.path for folder in folders]


def announce(cfg: Dict[str, Any], runs: int) -> None:
    """Say what takes so long, where something does."""
    engine, envs = cfg["sim"]["name"], int(cfg["num_envs"]) * runs
    if ENGINES[engine].starts:
        print("building %d environments on %s: %s" % (envs, engine, ENGINES[engine].starts), flush=True)


def _film_finished(code: int, folders: Sequence[Any], configs: Sequence[Dict[str, Any]]) -> int:
    """Film what has finished well, where that is asked for; returns ``code``."""
    if code == 0 and configs[0]["video"]:
        from hepo_isaac.runs.play.command import film_run

        for folder, config in zip(folders, configs):
            film_run(folder, config)
    return code


# ---- resume -----------------------------------------------------------------------------------------------------


def resume(path: str, overrides: Sequence[str]) -> int:
    """Continue the run in ``path`` (a run folder or a checkpoint in one) with its own settings.

    Several folders with commas between them, of runs that differ in the seed alone and stopped at the same
    iteration, go on side by side.

    Raises:
        UserError: no run there, an override that would make it another run, or runs that cannot go side by side.
    """
    from hepo_isaac import ranks
    from hepo_isaac.envs.make import make_env
    from hepo_isaac.runs.record.checkpoint import load_checkpoint
    from hepo_isaac.runs.record.folder import FINISHED, locate_resume
    from hepo_isaac.runs.record.metrics_csv import check_metrics
    from hepo_isaac.runs.record.stored import blamed_on, read_run
    from hepo_isaac.runs.train import spread
    from hepo_isaac.runs.train.start import follow, train_in

    found = [locate_resume(part) for part in _paths(path)]
    folders = [folder for folder, _ in found]
    overrides, trust = _trusting(overrides)
    configs = [resumed_config(read_run(folder.path, trust), overrides) for folder in folders]
    cfg = configs[0]
    with blamed_on(folders[0].config_file):
        check_machine(cfg, cuda_available())
        validate(cfg)
        settled = [_with_reference(plain(c)) for c in configs]
    task, algo = settled[0]["task"]["name"], settled[0]["algo"]["name"]
    checkpoints = [load_checkpoint(file, task, algo) for _, file in found]
    _check_side_by_side(folders, settled, checkpoints)
    for folder in folders:
        check_metrics(folder.metrics_file)
    reached, wanted = int(checkpoints[0]["iteration"]), int(settled[0]["train"]["max_iterations"])
    if wanted < reached:
        raise UserError(
            "train.max_iterations=%d is less than iteration %d, which the run in %s has reached; expected more than %d"
            % (wanted, reached, folders[0].path, reached)
        )
    trained = reached >= wanted
    if trained and all(folder.status() == FINISHED for folder in folders):
        if _draw_what_is_missing(folders, settled):
            return 0
        raise UserError(
            "the run in %s is complete (iteration %d of %d); train.max_iterations=<more> continues it"
            % (folders[0].path, reached, wanted)
        )
    announce(settled[0], len(settled))
    if launched():
        spread.check(settled[0])
    with spread.meeting(settled[0]):
        with blamed_on(folders[0].config_file):
            env = make_env({**spread.own(settled[0]), "run_seeds": spread.env_seeds([c["seed"] for c in settled])})
        if ranks.rank():
            return follow(settled, env, checkpoints)
        for (folder, file), config in zip(found, configs):
            folder.begin_resume(file)
            # the next resume must know of a longer max_iterations
            folder.write_config(config)
        code = train_in(folders, settled, env, _facts(cfg, settled[0]), checkpoints)
    return _film_finished(code, folders, settled)


def _trusting(overrides: Sequence[str]) -> Tuple[List[str], bool]:
    """The overrides without trust=, and whether it was given as true."""
    said = [o.partition("=")[2].lower() for o in overrides if o.startswith("trust=")]
    return [o for o in overrides if not o.startswith("trust=")], said[-1:] == ["true"]


def _paths(given: str) -> List[str]:
    """The paths in a list with commas between them; a comma may as well be part of a path that exists."""
    found: List[str] = []
    rest = unquoted(given).split(",")
    while rest:
        ends = range(len(rest), 0, -1)
        end = next((k for k in ends if Path(unquoted(",".join(rest[:k]))).exists()), 1)
        found.append(unquoted(",".join(rest[:end])))
        rest = rest[end:]
    return found


def _draw_what_is_missing(folders: Sequence[Any], configs: Sequence[Dict[str, Any]]) -> bool:
    """Make the plot and the film of finished runs that were stopped before they had them; False if nothing lacked."""
    from hepo_isaac.runs.play.command import film_run
    from hepo_isaac.runs.record.plots import plot_run

    drawn = False
    for folder, config in zip(folders, configs):
        if config["plot"] and not folder.plot_file.exists():
            print("plot        %s" % plot_run(folder.path))
            drawn = True
        if config["video"] and not (folder.path / "video.mp4").exists():
            film_run(folder, config)
            drawn = True
    return drawn


def _check_side_by_side(
    folders: Sequence[Any], configs: Sequence[Dict[str, Any]], checkpoints: Sequence[Dict[str, Any]]
) -> None:
    first = {**configs[0], "seed": 0}
    for folder, config, checkpoint in zip(folders, configs, checkpoints):
        for key, value in {**config, "seed": 0}.items():
            if first.get(key) != value:
                raise UserError(
                    "%s and %s cannot go on side by side: %s differs; resume them one by one"
                    % (folders[0].path, folder.path, key)
                )
        if checkpoint["iteration"] != checkpoints[0]["iteration"]:
            raise UserError(
                "%s is at iteration %s and %s at %s; runs go on side by side only from the same iteration: resume "
                "them one by one" % (folders[0].path, checkpoints[0]["iteration"], folder.path, checkpoint["iteration"])
            )


def resumed_config(cfg: Any, overrides: Sequence[str]) -> DictConfig:
    """The configuration of a run with harmless overrides on top; any other is refused by name."""
    for override in overrides:
        key, _, value = override.partition("=")
        if key in ("task", "algo") and value == cfg[key].name:
            continue
        if not role(key).at_resume:
            raise UserError(
                "resume continues a run with its own settings, so %s cannot be set; what can: %s"
                % (key, ", ".join(changeable()))
            )
        parsed = OmegaConf.from_dotlist([override])
        check_setting(cfg, key, [OmegaConf.select(parsed, key)])
        cfg = _with_its_schedule(OmegaConf.merge(cfg, parsed), cfg)
    return cfg


def _with_its_schedule(cfg: Any, before: Any) -> Any:
    """``cfg`` with the schedule of ``before``, also where the run is to be longer."""
    if before.train.get("schedule_iterations") is None and cfg.train.max_iterations != before.train.max_iterations:
        return OmegaConf.merge(cfg, {"train": {"schedule_iterations": before.train.max_iterations}})
    return cfg
