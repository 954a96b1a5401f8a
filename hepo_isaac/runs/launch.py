"""From the command line to a finished run: train, resume, evaluate.

``main`` is what train.py calls: the command line is checked before Hydra sees it (hepo_isaac/overrides.py), Hydra
composes each job (several in a multirun), the job is resolved and validated, then it runs.
"""

from __future__ import annotations

import sys
import traceback
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from omegaconf import DictConfig, OmegaConf

from hepo_isaac.config import check_machine, cuda_available, plain, resolve, validate
from hepo_isaac.errors import UnstablePhysicsError, UserError
from hepo_isaac.locate import cfg_dir
from hepo_isaac.overrides import check_overrides, check_setting

# What a resumed run may change: none of it alters what is learned until the old end of the run.
RESUME_MAY_CHANGE = (
    "train.max_iterations",
    "wandb",
    "checkpoint_every",
    "keep_checkpoints",
    "video",
    "torch_threads",
    "tensorboard",
)
MULTIRUN = ("-m", "--multirun")


def main(argv: Sequence[str]) -> int:
    """Run ``python train.py <argv>``; returns the exit code: 2 for a mistake of the user, said in one line."""
    return report_errors(lambda: _main(list(argv)))


def report_errors(function: Callable[[], int]) -> int:
    """Call ``function``; turn the user's mistakes into one line on stderr, and keep the traceback of ours."""
    try:
        return function()
    except UserError as error:
        print("error: " + " ".join(str(error).split()), file=sys.stderr)
        return 1 if isinstance(error, UnstablePhysicsError) else 2
    except KeyboardInterrupt:
        return 130
    except Exception:
        traceback.print_exc()
        return 1


def _main(argv: List[str]) -> int:
    flags = [a for a in argv if a.startswith("-")]
    overrides = [a for a in argv if not a.startswith("-")]
    if any(flag not in MULTIRUN for flag in flags):
        return _hydra(argv)  # --help, --cfg job, --info …: Hydra's own business
    given = dict(o.lstrip("+").split("=", 1) for o in overrides if "=" in o)
    if given.get("resume", "null") not in ("null", ""):
        if flags:
            raise UserError("resume continues one run; it cannot be combined with --multirun")
        return resume(given.pop("resume"), [o for o in overrides if not o.lstrip("+").startswith("resume=")])
    check_overrides(overrides)
    return _hydra(argv)


def _hydra(argv: Sequence[str]) -> int:
    """Let Hydra compose and run the job or jobs."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig

    def job(cfg: DictConfig) -> None:
        code = report_errors(lambda: run_job(cfg, list(HydraConfig.get().overrides.task)))
        if code:
            # SystemExit passes through Hydra untouched; an exception would be reworded by it.
            raise SystemExit(code)

    GlobalHydra.instance().clear()
    before = sys.argv
    sys.argv = ["train.py", *argv]
    try:
        hydra.main(version_base="1.3", config_path=str(cfg_dir()), config_name="config")(job)()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    finally:
        sys.argv = before
    return 0


def run_job(cfg: DictConfig, overrides: Sequence[str]) -> int:
    """Run one composed job; returns the exit code."""
    if cfg.test:
        from hepo_isaac.runs.play import evaluate_command

        return evaluate_command(cfg, overrides)
    settled = prepare(cfg, overrides)
    return train(settled, _facts(cfg, settled))


def prepare(cfg: DictConfig, overrides: Sequence[str]) -> Dict[str, Any]:
    """Resolve and check a composed configuration; returns it as plain dicts and lists."""
    cuda = cuda_available()
    settled = resolve(cfg, overrides, cuda)
    check_machine(settled, cuda)
    validate(settled)
    return plain(settled)


def _facts(cfg: DictConfig, settled: Dict[str, Any]) -> List[Tuple[str, str]]:
    """First lines of a run; a demonstration says that it is one and names the command for the full run."""
    lines = [("engine", settled["sim"]["name"]), ("device", settled["device"])]
    budget = settled["budget"]["name"]
    if budget == "demo":
        full = "python train.py task=%s algo=%s budget=paper" % (settled["task"]["name"], settled["algo"]["name"])
        lines += [("budget", "demonstration: a few minutes on a CPU, not the published length"), ("full run", full)]
    else:
        lines.append(("budget", budget))
    lines.append(("heuristic", settled["heuristic"]))
    return lines


# ---- train ------------------------------------------------------------------------------------------------------


def train(cfg: Dict[str, Any], facts: Sequence[Tuple[str, str]]) -> int:
    """Train with a resolved configuration into a new run folder."""
    from hepo_isaac.envs.make import make_env
    from hepo_isaac.runs.folder import RunFolder

    env = make_env(cfg)
    folder = RunFolder.create(cfg["task"]["name"], cfg["algo"]["name"], cfg["seed"], cfg, cfg["run_root"])
    return _train_in(folder, cfg, env, facts, None)


def _train_in(
    folder: Any, cfg: Dict[str, Any], env: Any, facts: Sequence[Tuple[str, str]], checkpoint: Optional[Dict[str, Any]]
) -> int:
    from hepo_isaac.agents.register import run_training
    from hepo_isaac.envs.rl_games import RlGamesVecEnv
    from hepo_isaac.runs.observer import RunObserver, RunOptions

    options = RunOptions(
        checkpoint_every=cfg["checkpoint_every"],
        keep_checkpoints=cfg["keep_checkpoints"],
        success=cfg["task"].get("success"),
        tensorboard=cfg["tensorboard"],
        wandb=cfg["wandb"],
    )
    header = {
        "task": cfg["task"]["name"],
        "algo": cfg["algo"]["name"],
        "num_envs": cfg["num_envs"],
        "seed": cfg["seed"],
    }
    # the observer hands the checkpoint's agent part to the agent, and its own part to itself
    observer = RunObserver(folder, header, facts, options, resume=checkpoint, config=cfg)
    try:
        run_training(cfg, RlGamesVecEnv(env), observer)
    finally:
        env.close()
    if observer.interrupted:
        return 128 + int(observer.stop.signal or 2)
    if cfg["video"]:
        from hepo_isaac.runs.play import film_run

        film_run(folder, cfg)
    return 0


# ---- resume -----------------------------------------------------------------------------------------------------


def resume(path: str, overrides: Sequence[str]) -> int:
    """Continue the run in ``path`` (a run folder or a checkpoint in one) with its own settings.

    Raises:
        UserError: no run there, or an override that would make it another run.
    """
    from hepo_isaac.envs.make import make_env
    from hepo_isaac.runs.checkpoint import load_checkpoint
    from hepo_isaac.runs.files import write_atomic
    from hepo_isaac.runs.folder import locate_resume

    folder, file = locate_resume(path.strip("'\""))
    cfg = resumed_config(OmegaConf.load(folder.config_file), overrides)
    check_machine(cfg, cuda_available())
    validate(cfg)
    settled = plain(cfg)
    checkpoint = load_checkpoint(file, settled["task"]["name"], settled["algo"]["name"])
    if int(checkpoint["iteration"]) >= int(settled["train"]["max_iterations"]):
        raise UserError(
            "the run in %s is complete (iteration %d of %d); train.max_iterations=<more> continues it"
            % (folder.path, checkpoint["iteration"], settled["train"]["max_iterations"])
        )
    env = make_env(settled)
    folder.begin_resume()
    # the next resume must know of a longer max_iterations
    write_atomic(folder.config_file, OmegaConf.to_yaml(cfg, resolve=True).encode("utf-8"))
    return _train_in(folder, settled, env, _facts(cfg, settled), checkpoint)


def resumed_config(cfg: Any, overrides: Sequence[str]) -> DictConfig:
    """The configuration of a run with harmless overrides on top; any other is refused by name."""
    for override in overrides:
        key, _, value = override.partition("=")
        if key in ("task", "algo") and value == cfg[key].name:
            continue
        if key not in RESUME_MAY_CHANGE and key.split(".")[0] not in RESUME_MAY_CHANGE:
            raise UserError(
                "resume continues a run with its own settings, so %s cannot be set; what can: %s"
                % (key, ", ".join(RESUME_MAY_CHANGE))
            )
        parsed = OmegaConf.from_dotlist([override])
        check_setting(cfg, key, [OmegaConf.select(parsed, key)])
        cfg = OmegaConf.merge(cfg, parsed)
    return cfg
