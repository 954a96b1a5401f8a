"""From what the user typed to the settings of one run: resolve what is ``auto``, refuse what cannot work.

``resolve`` and ``validate`` are functions of their arguments and of cfg/ alone; ``check_machine`` looks at what is
installed. hepo_isaac/overrides.py reads the command line before Hydra does.
"""

from __future__ import annotations

import os
from typing import Any, Dict, List, Mapping, Sequence

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hepo_isaac.errors import UserError, unknown
from hepo_isaac.limits import LARGEST_SEED, check_names, check_numbers
from hepo_isaac.locate import cfg_dir, group_names, task_class
from hepo_isaac.sim.engines import CPU_ENGINE, CUDA_ENGINE, ENGINES, NO_PHYSICS

GROUPS = ("task", "algo", "sim", "budget")
WANDB_MODES = ("offline", "online", "disabled")


def override_keys(overrides: Sequence[str]) -> List[str]:
    """Dotted keys that the overrides set; choices of a group (task=…) are not among them."""
    keys = [o.lstrip("+~").split("=", 1)[0].split("@", 1)[0] for o in overrides]
    return [k for k in keys if k and k not in GROUPS and not k.startswith("hydra")]


def resolve(cfg: DictConfig, user_overrides: Sequence[str], cuda: bool) -> DictConfig:
    """Settle everything that is ``auto``; returns a new configuration.

    Args:
        cfg: what Hydra composed.
        user_overrides: the command line as ``key=value`` strings: what they set, no budget changes.
        cuda: whether torch sees a CUDA device.

    Raises:
        UserError: the task lacks the budget, or an engine option does not exist.
    """
    mine = override_keys(user_overrides)
    out: DictConfig = OmegaConf.create(OmegaConf.to_container(cfg, resolve=False))  # type: ignore[assignment]
    out.sim = _resolve_sim(cfg, mine, cuda)
    out.device = _resolve_device(str(cfg.device), str(out.sim.name), cuda)
    budget_envs = _apply_budget(out, cfg, mine)
    _fit_minibatch(out, mine, budget_envs)
    if out.update_threads == "auto":
        # The compiled step's threads sleep while physics runs, and its results do not depend on their number.
        out.update_threads = usable_cores() if out.torch_threads == "auto" else out.torch_threads
    if out.torch_threads == "auto":
        # The networks are small: half the cores learn as fast as all of them, and do not fight the physics threads.
        out.torch_threads = max(1, usable_cores() // 2)
    if out.heuristic == "default":
        out.heuristic = next(iter(task_class(out.task.name).heuristics))
    _refuse_partner_keys(out, mine)
    _resolve_method(out)
    OmegaConf.set_struct(out, True)
    return out


def _refuse_partner_keys(out: DictConfig, mine: Sequence[str]) -> None:
    """Say so where the user asks for something between two policies and the method trains one."""
    from hepo_isaac.methods.method import asks_for_a_partner

    for key in [k for k in mine if k.startswith("algo.") and num_policies(out.algo) == 1]:
        value = OmegaConf.select(out, key)
        if asks_for_a_partner(key[len("algo.") :], value):
            raise UserError(
                "%s=%s needs two policies, and algo=%s trains one: take it out, or choose another algo, e.g. algo=hepo"
                % (key, value, out.algo.name)
            )


def _resolve_method(out: DictConfig) -> None:
    """Settle what means nothing to the method, and what it takes from its task: a threshold for J, and Phi(s), which
    is the heuristic unless named."""
    from hepo_isaac.methods.method import in_effect

    out.algo.update(in_effect(OmegaConf.to_container(out.algo, resolve=True)))  # type: ignore[arg-type]
    shaping = out.algo.get("shaping") or {}
    if shaping.get("kind") == "potential" and shaping.get("potential") == "state":
        out.potential = out.potential or out.heuristic
    scores = out.task.get("scores")
    if out.algo.get("constraint") == "threshold" and out.algo.threshold is None and scores:
        out.algo.threshold = 0.5 * (float(scores.random) + float(scores.optimal))


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _resolve_sim(cfg: DictConfig, mine: Sequence[str], cuda: bool) -> DictConfig:
    """The engine's own file plus what the user set on ``sim=auto``."""
    if cfg.sim.name != "auto":
        return cfg.sim
    wants_cuda = cuda if cfg.device == "auto" else str(cfg.device).startswith("cuda")
    name = CUDA_ENGINE if wants_cuda else CPU_ENGINE
    if list(cfg.task.get("engines", [])) == [NO_PHYSICS]:
        name = NO_PHYSICS
    options: Any = OmegaConf.load(cfg_dir() / "sim" / (name + ".yaml"))
    for key in [k[len("sim.") :] for k in mine if k.startswith("sim.")]:
        if key not in options:
            raise UserError(
                "sim.%s is no option of %s, which sim=auto chose here; its options: %s"
                % (key, name, ", ".join(k for k in options if k != "name") or "none")
            )
        options[key] = cfg.sim[key]
    return options


def _resolve_device(device: str, engine: str, cuda: bool) -> str:
    """The engine decides: physics and learning share one device."""
    if device == "auto":
        # an engine for CUDA stays there without a GPU, and check_machine refuses it
        automatic = ENGINES[engine].automatic if engine in ENGINES else "cpu"
        on_gpu = cuda if automatic == "any" else automatic == "cuda"
        return "cuda:0" if on_gpu else "cpu"
    return "cuda:0" if device == "cuda" else device


def _apply_budget(out: DictConfig, cfg: DictConfig, mine: Sequence[str]) -> Any:
    """Lay the budget over task and algo, and the user's own settings over the budget; returns its num_envs."""
    if out.budget.name == "auto":
        out.budget.name = "demo" if out.device == "cpu" else "paper"
    budgets = out.task.pop("budgets", {})
    if out.budget.name not in budgets:
        raise unknown("budget of %s" % out.task.name, out.budget.name, budgets)
    budget = budgets[out.budget.name]
    budget_envs = budget.get("num_envs", out.num_envs)
    if out.num_envs != "auto":
        budget.pop("num_envs", None)
    OmegaConf.set_struct(out, True)
    try:
        out.merge_with(budget)
    except OmegaConfBaseException as error:
        raise UserError(
            "task.budgets.%s of %s: %s" % (out.budget.name, out.task.name, str(error).splitlines()[0])
        ) from error
    finally:
        OmegaConf.set_struct(out, False)
    for key in mine:
        # What the budget can change, and the user set: theirs again. (sim, device and budgets are settled.)
        if key.startswith(("train.", "algo.", "task.")) and not key.startswith("task.budgets"):
            OmegaConf.update(out, key, OmegaConf.select(cfg, key), merge=False)
    return budget_envs


def _fit_minibatch(out: DictConfig, mine: Sequence[str], budget_envs: Any) -> None:
    """Scale a minibatch_size that no longer divides the batch with the number of environments.

    So ``num_envs=64`` alone just works; a minibatch_size that the user typed is theirs, and validate judges it.
    """
    size = out.train.minibatch_size
    if "train.minibatch_size" in mine or not _positive(out.num_envs, out.train.horizon_length, size, budget_envs):
        return
    from hepo_isaac.agents.config import nearest_divisors

    batch = out.num_envs * out.train.horizon_length
    if batch % size:
        wanted = round(size * out.num_envs / budget_envs)
        out.train.minibatch_size = nearest_divisors(batch, wanted, num_blocks(out.algo))[0]


def _positive(*values: Any) -> bool:
    return all(isinstance(v, int) and v > 0 for v in values)


def num_policies(algo: Mapping[str, Any]) -> int:
    """Policies that an algorithm trains: one per objective."""
    return len(algo["objectives"])


def num_blocks(algo: Mapping[str, Any]) -> int:
    """Blocks that a run's envs are divided into: one per policy, or as many as its shares add up to."""
    return sum(algo.get("shares") or ()) or num_policies(algo)


def cuda_available() -> bool:
    """Whether torch can use a GPU."""
    import torch

    return bool(torch.cuda.is_available())


def plain(cfg: DictConfig) -> Dict[str, Any]:
    """Plain dicts and lists, interpolations resolved."""
    found = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(found, dict)
    return {str(k): v for k, v in found.items()}


# ---- what cannot work -------------------------------------------------------------------------------------------


def validate(cfg: DictConfig, training: bool = True) -> None:
    """Refuse a resolved configuration that cannot work; an evaluation needs less of it than a training.

    Raises:
        UserError: one sentence with the setting, what is wrong and what would do.
    """
    settings = plain(cfg)
    check_numbers(settings)
    check_names(settings)
    _check_counts(cfg)
    if training:
        _check_train(cfg.train)
        _check_method(cfg)
        _check_batch(cfg)
    check_heuristic(cfg.task.name, str(cfg.heuristic))
    if cfg.get("potential") is not None:
        check_heuristic(cfg.task.name, str(cfg.potential))
    engines = list(cfg.task.get("engines", group_names("sim")))
    if cfg.sim.name not in engines:
        raise UserError(
            "task=%s does not run on sim=%s; it runs on: %s" % (cfg.task.name, cfg.sim.name, ", ".join(engines))
        )
    engine = ENGINES[cfg.sim.name]
    # without physics there is nothing to draw: film_run says so in a line when the run is saved
    if cfg.get("video") and engine.physics and not engine.films:
        raise UserError(
            "sim=%s makes no films: take video=true out, and film the run's policy on MuJoCo with hepo-isaac play"
            " run=<run folder> sim=%s device=cpu" % (engine.name, CPU_ENGINE)
        )
    if cfg.wandb.mode not in WANDB_MODES:
        raise unknown("wandb.mode", str(cfg.wandb.mode), WANDB_MODES)
    if cfg.test and not cfg.checkpoint:
        raise UserError("test=true needs checkpoint=<file or run folder>")


def _at_least(cfg: Any, key: str, least: float, what: str = "") -> None:
    value = OmegaConf.select(cfg, key)
    if value is not None and not value >= least:  # NaN is refused too
        raise UserError("%s must be %s, got %s" % (key, what or "at least %g" % least, value))


def _check_counts(cfg: DictConfig) -> None:
    for key in (
        "num_envs",
        "torch_threads",
        "update_threads",
        "checkpoint_every",
        "eval.episodes",
        "task.episode_length",
    ):
        _at_least(cfg, key, 1)
    if not 0 <= int(cfg.seed) < LARGEST_SEED:
        raise UserError("seed must be from 0 to %d, got %s" % (LARGEST_SEED - 1, cfg.seed))
    for key in ("keep_checkpoints", "sim.threads", "evaluation_episodes", "video_every"):
        _at_least(cfg, key, 0)
    _check_seeds(cfg.seeds)
    if isinstance(cfg.seeds, int) and int(cfg.seed) + cfg.seeds > LARGEST_SEED:
        raise UserError("seed=%d seeds=%d goes beyond the largest seed, %d" % (cfg.seed, cfg.seeds, LARGEST_SEED - 1))
    shaping = cfg.algo.get("shaping") or {}
    if shaping.get("kind") == "potential" and shaping.get("potential") == "immediate" and cfg.train.horizon_length < 2:
        raise UserError(
            "train.horizon_length=1 leaves algo=%s no step to look ahead to; expected at least 2" % cfg.algo.name
        )
    for key in ("max_iterations", "horizon_length", "minibatch_size", "mini_epochs"):
        _at_least(cfg, "train." + key, 1)


def _check_seeds(seeds: Any) -> None:
    if isinstance(seeds, int):
        if seeds < 1:
            raise UserError("seeds must be at least 1, got %d" % seeds)
        return
    given = list(seeds)
    if not given or not all(isinstance(s, int) and 0 <= s < LARGEST_SEED for s in given):
        text = "seeds must be a number of runs or a list of whole numbers from 0 to %d, got %s"
        raise UserError(text % (LARGEST_SEED - 1, given))
    if len(set(given)) < len(given):
        raise UserError("seeds=%s names a seed twice; two runs of one seed are the same run" % given)


def _check_train(train: DictConfig) -> None:
    def positive(key: str) -> None:
        if key in train and not float(train[key]) > 0:
            raise UserError("train.%s must be positive, got %s" % (key, train[key]))

    for key in ("learning_rate", "min_lr", "max_lr", "kl_threshold", "e_clip", "grad_norm"):
        positive(key)
    for key in ("critic_coef", "entropy_coef", "bounds_loss_coef"):
        if key in train and not float(train[key]) >= 0:
            raise UserError("train.%s must not be negative, got %s" % (key, train[key]))
    for key in ("gamma", "tau", "max_bad_fraction"):
        if key in train and not 0 <= float(train[key]) <= 1:
            raise UserError("train.%s must be between 0 and 1, got %s" % (key, train[key]))
    if float(train.get("min_lr", 0)) > float(train.get("max_lr", 1)):
        raise UserError("train.min_lr=%s is above train.max_lr=%s" % (train.min_lr, train.max_lr))
    units = list(train.network.units)
    if not units or not all(isinstance(u, int) and u > 0 for u in units):
        raise UserError("train.network.units must be a list of positive whole numbers, got %s" % units)


def _check_method(cfg: DictConfig) -> None:
    """Let the dataclasses that will hold these settings judge them."""
    from hepo_isaac.agents.config import train_config
    from hepo_isaac.methods.method import method_from_config

    try:
        method = method_from_config(OmegaConf.to_container(cfg.algo, resolve=True))  # type: ignore[arg-type]
        train_config(OmegaConf.to_container(cfg.train, resolve=True))  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise UserError(str(error)) from error
    if method.name is None:
        raise UserError("algo.name is missing: a method's file names it, and its run folders with it, as in name: hepo")
    if method.constraint == "threshold" and method.threshold is None:
        raise UserError(
            "algo=%s needs algo.threshold=<J to reach>, because task=%s has no task.scores to take half way between"
            % (method.name, cfg.task.name)
        )


def _check_batch(cfg: DictConfig) -> None:
    """Environments split evenly over the policies, and the batch over the minibatches."""
    from hepo_isaac.agents.config import train_config

    envs, policies, blocks = int(cfg.num_envs), num_policies(cfg.algo), num_blocks(cfg.algo)
    if envs % blocks:
        shares = " in shares of %s" % ":".join(map(str, cfg.algo.shares)) if cfg.algo.get("shares") else ""
        below = max(envs - envs % blocks, blocks)
        raise UserError(
            "num_envs=%d cannot be split over the %d policies of algo=%s%s; use a multiple of %d, e.g. %d or %d"
            % (envs, policies, cfg.algo.name, shares, blocks, below, below + blocks)
        )
    try:
        train_config(OmegaConf.to_container(cfg.train, resolve=True)).minibatches(envs, blocks)  # type: ignore[arg-type]
    except ValueError as error:
        raise UserError(str(error)) from error


def check_heuristic(task: str, name: str) -> None:
    """Refuse a heuristic that the task does not have or that cannot be imported."""
    task_class(task).find_heuristic(name)


def check_machine(cfg: DictConfig, cuda: bool) -> None:
    """Refuse an engine or device that this machine does not have, with the command that installs it.

    Args:
        cfg: resolved configuration.
        cuda: whether torch sees a CUDA device.

    Raises:
        UserError: one sentence with what is missing and what to do.
    """
    import torch

    from hepo_isaac.sim.registry import resolve_engine

    device = str(cfg.device)
    kind, _, index = device.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise UserError("unknown device %r; valid: auto, cpu, cuda, cuda:0, cuda:1, …" % device)
    resolve_engine(str(cfg.sim.name), device, max(1, torch.cuda.device_count()) if cuda else 0)
