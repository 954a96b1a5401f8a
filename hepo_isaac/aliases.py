"""What users of Isaac Gym Envs, Isaac Lab, rl-games, skrl or rsl_rl type: accepted under the name it has here where it
means the same, or answered; all names of a command line at once.

``--num_envs 64 --headless``, as Isaac Lab's scripts have it, is read as ``num_envs=64 headless=True``.
"""

from __future__ import annotations

import re
from typing import Dict, List, Sequence, Tuple

from hepo_isaac.errors import UserError
from hepo_isaac.locate import full_name

_RL_GAMES = {
    "max_epochs": "max_iterations", "horizon_length": "horizon_length", "minibatch_size": "minibatch_size",
    "mini_epochs": "mini_epochs", "learning_rate": "learning_rate", "gamma": "gamma", "tau": "tau", "e_clip": "e_clip",
    "entropy_coef": "entropy_coef", "critic_coef": "critic_coef", "bounds_loss_coef": "bounds_loss_coef",
    "grad_norm": "grad_norm", "kl_threshold": "kl_threshold", "normalize_input": "normalize_input",
    "clip_value": "clip_value",
}  # fmt: skip
# Their name -> ours, where the meaning is the same.
ALIASES: Dict[str, str] = {
    "max_iterations": "train.max_iterations",
    "max_epochs": "train.max_iterations",
    "minibatch_size": "train.minibatch_size",
    "horizon_length": "train.horizon_length",
    "mini_epochs": "train.mini_epochs",
    "learning_rate": "train.learning_rate",
    "wandb_activate": "wandb.enabled",
    "wandb_project": "wandb.project",
    "wandb_project_name": "wandb.project",
    "wandb_entity": "wandb.entity",
    "wandb_group": "wandb.group",
    "track": "wandb.enabled",
    "log_project_name": "wandb.project",
    "capture_video": "video",
    "sim_device": "device",
    "rl_device": "device",
    "task.env.numEnvs": "num_envs",
    "task.env.episodeLength": "task.episode_length",
    "env.scene.num_envs": "num_envs",
    "train.params.seed": "seed",
    "train.params.network.mlp.units": "train.network.units",
    "train.params.network.mlp.activation": "train.network.activation",
    "agent.seed": "seed",
    "agent.max_iterations": "train.max_iterations",
    "agent.num_steps_per_env": "train.horizon_length",
    "agent.algorithm.learning_rate": "train.learning_rate",
    "agent.algorithm.num_learning_epochs": "train.mini_epochs",
    "agent.algorithm.gamma": "train.gamma",
    "agent.algorithm.lam": "train.tau",
    "agent.algorithm.clip_param": "train.e_clip",
    "agent.algorithm.entropy_coef": "train.entropy_coef",
    "agent.algorithm.desired_kl": "train.kl_threshold",
    "agent.algorithm.max_grad_norm": "train.grad_norm",
    "agent.agent.rollouts": "train.horizon_length",
    "agent.agent.learning_epochs": "train.mini_epochs",
    "agent.agent.learning_rate": "train.learning_rate",
    "agent.agent.discount_factor": "train.gamma",
    "agent.agent.lambda": "train.tau",
    "agent.agent.ratio_clip": "train.e_clip",
    "agent.agent.entropy_loss_scale": "train.entropy_coef",
    "agent.agent.grad_norm_clip": "train.grad_norm",
    **{"train.params.config." + theirs: "train." + ours for theirs, ours in _RL_GAMES.items()},
    **{"agent.params.config." + theirs: "train." + ours for theirs, ours in _RL_GAMES.items()},
}
_YES, _NO = ("true", "1"), ("false", "0")
# Their name -> the values that say what is done here anyway.
GRANTED: Dict[str, Sequence[str]] = {
    "headless": _YES,
    "experiment": ("", "''", '""'),
    "force_render": _NO,
    "multi_gpu": _NO,
    "distributed": _NO,
    "livestream": ("0", "-1"),
    "enable_cameras": _NO,
    "ml_framework": ("torch",),
    "disable_fabric": _NO,
}
_TORCHRUN = "several GPUs are torchrun's: torchrun --standalone --nproc_per_node=<GPUs> train.py … (docs/torchrun.md)"
_FOLDER = "a run writes <run_root>/<task>/<algo.name>/…, so use algo.name=<label> or run_root=<folder>"
_NOT_NEEDED = "not needed here, because "
_NO_WINDOW = "no window is ever opened; video=true or hepo-isaac play run=<run folder> films the trained policy"
_LIVE = _NOT_NEEDED + "training opens no window; hepo-isaac view run=<run folder> shows the robots in a browser"
_ROWS = "minibatches are counted in rows: train.minibatch_size=<num_envs * train.horizon_length / their number>"
_ENGINE = "the engine is sim=mujoco_batch, sim=mujoco_warp or sim=isaacgym, and sim=auto chooses"
_FILMS = "films are made when training is over: video=true, or hepo-isaac play run=<run folder>"
_WANDB_NAME = "a W&B run has the name of its run folder; wandb.group=<name> puts runs together"
# Their name -> what to do here instead.
ANSWERS: Dict[str, str] = {
    "headless": _NO_WINDOW,
    "experiment": _FOLDER,
    "pipeline": "tensors stay on the device that simulates, so use device=cpu or device=cuda:0",
    "graphics_device_id": "films are drawn off-screen when training is over, so take it out; video=true makes one",
    "force_render": _NO_WINDOW,
    "multi_gpu": _TORCHRUN,
    "distributed": _TORCHRUN,
    "wandb_name": _WANDB_NAME,
    "wandb_tags": _WANDB_NAME,
    "wandb_logcode_dir": _NOT_NEEDED + "metadata.json of a run names the commit",
    "run_name": _FOLDER,
    "hydra.run.dir": _FOLDER,
    "experiment_name": _FOLDER,
    "train_dir": _FOLDER,
    "full_experiment_name": _FOLDER,
    "num_threads": "use sim.threads=<number> for physics and torch_threads=<number> for learning",
    "num_subscenes": _NOT_NEEDED + "every environment is a world of its own",
    "solver_type": "PhysX is told under task.physics.options.isaacgym (docs/isaacgym.md)",
    "physics_engine": _ENGINE,
    "physics": _ENGINE,
    "use_gpu": _ENGINE,
    "use_gpu_pipeline": _ENGINE,
    "sigma": "the policy's spread is learned and has no start value to set",
    "pbt": "there is no population based training; -m sweeps over settings (docs/sweeps.md)",
    "torch_deterministic": _NOT_NEEDED + "the seed alone repeats a run on a CPU",
    "capture_video_freq": _FILMS,
    "capture_video_len": _FILMS,
    "video_length": _FILMS,
    "video_interval": _FILMS,
    "enable_cameras": _NOT_NEEDED + "films are drawn off-screen; video=true makes one",
    "livestream": _LIVE,
    "real_time": _LIVE,
    "kit_args": _NOT_NEEDED + "there is no Omniverse Kit under it",
    "experience": _NOT_NEEDED + "there is no Omniverse Kit under it",
    "rendering_mode": _NOT_NEEDED + "training draws nothing",
    "renderer": _NOT_NEEDED + "training draws nothing",
    "disable_fabric": _NOT_NEEDED + "there is no USD stage",
    "agent": "methods are algo=<name>, e.g. algo=hepo or algo=ppo_j (docs/methods.md)",
    "algorithm": "methods are algo=<name>, e.g. algo=hepo or algo=ppo_j (docs/methods.md)",
    "ml_framework": "it is torch, always",
    "logger": "TensorBoard is on (tensorboard=false turns it off), and wandb.enabled=true adds W&B",
    "load_run": "resume=<run folder> goes on with a run, and hepo-isaac play run=<run folder> shows it",
    "load_checkpoint": "resume=<run folder or checkpoint> goes on with a run",
    "use_last_checkpoint": "hepo-isaac play run=<run folder>/checkpoints/last.pt",
    "use_pretrained_checkpoint": "hepo-isaac play task=<task> shows a policy that came along (hepo-isaac policies)",
    "play": "hepo-isaac play run=<run folder> shows a trained policy",
    "file": "settings come from cfg/ and the command line, e.g. task=Ant algo=hepo",
    "env_name": "use task=<name>; hepo-isaac tasks lists them",
    "games_to_track": "evaluation_episodes=<number> plays whole episodes when training ends",
    "timesteps": "use train.max_iterations=<timesteps / train.horizon_length>",
    "agent.trainer.timesteps": "use train.max_iterations=<timesteps / train.horizon_length>",
    "agent.agent.mini_batches": _ROWS,
    "agent.algorithm.num_mini_batches": _ROWS,
    "agent.experiment_name": _FOLDER,
    "env.episode_length_s": "episodes are counted in control steps: task.episode_length=<steps>",
    "env.decimation": "use task.physics.substeps=<number>",
    "env.sim.dt": "use task.physics.control_dt=<s>, with task.physics.substeps steps of physics in it",
    "env.sim.device": "use device=cpu or device=cuda:0",
    "task.sim.dt": "use task.physics.control_dt=<s>, with task.physics.substeps steps of physics in it",
    "task.sim.substeps": "use task.physics.substeps=<number>",
    "task.sim.use_gpu_pipeline": _ENGINE,
    "task.task.randomize": "there is no such switch; docs/tasks.md says what each task draws at random",
    "train.params.config.name": _FOLDER,
    "train.params.config.full_experiment_name": _FOLDER,
    "train.params.config.multi_gpu": _TORCHRUN,
}
# Hydra's own options that mean something here, and those of them that take a value.
OPTIONS = {
    "-m", "--multirun", "-h", "--help", "--hydra-help", "--version", "--resolve", "--info", "-i", "--cfg", "-c",
    "--package", "-p", "--run", "-r",
}  # fmt: skip
WITH_VALUE = {"--cfg": ("job", "hydra", "all"), "-c": ("job", "hydra", "all"), "--package": (), "-p": ()}
_ONE_CONFIG = "there is one configuration, cfg/config.yaml, and the command line changes it"
OPTION_ANSWERS = {
    "--config-name": _ONE_CONFIG,
    "-cn": _ONE_CONFIG,
    "--config-dir": _ONE_CONFIG,
    "-cd": _ONE_CONFIG,
    "--config-path": _ONE_CONFIG,
    "-cp": _ONE_CONFIG,
    "--shell-completion": "use hepo-isaac completion bash",
    "-sc": "use hepo-isaac completion bash",
    "--experimental-rerun": "a run folder's metadata.json has its command",
    "--cpu": "use device=cpu",
}

# Infinity as YAML and our files write it; Hydra's command line knows it without the dot.
INFINITY = re.compile(r"(^|,)([+-]?)\.inf(?=,|$)", re.IGNORECASE)


# Settings whose value is a path: never a list of values to sweep over, whatever is in it.
PATHS = ("run_root", "checkpoint")


class ForeignNamesError(UserError):
    """Names of other projects that mean nothing here. answers: one for each.  rest: all other arguments, translated."""

    def __init__(self, answers: Sequence[str], rest: Sequence[str]) -> None:
        super().__init__(together(answers))
        self.answers, self.rest = list(answers), list(rest)


def together(answers: Sequence[str]) -> str:
    """Several answers in one sentence."""
    if len(answers) == 1:
        return answers[0]
    return "%d names of this command line are no settings here: %s" % (len(answers), "; ".join(answers))


def quoted(text: str) -> str:
    """``text`` as Hydra's command line takes it to the letter: no sweep, no interpolation, no type but a word."""
    text = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)  # OmegaConf's escape of an interpolation
    text = re.sub(r"(\\*)'", r"\1\1\'", text)
    return "'%s'" % re.sub(r"(\\+)$", r"\1\1", text)


def unquoted(text: str) -> str:
    """Without the quotes of Hydra's that somebody who knows them put around it."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def translate(arguments: Sequence[str]) -> List[str]:
    """Command-line arguments with the names of this project, options of Hydra's first; whatever is not
    ``name=value`` of theirs stays.

    Raises:
        UserError: two devices where there is one, an option that nobody knows.
        ForeignNamesError: names that have no counterpart, with what to do instead.
    """
    options, pairs = split_options(arguments)
    out: List[str] = []
    answers: List[str] = []
    devices: Dict[str, str] = {}
    for argument in pairs:
        name, equals, value = argument.partition("=")
        asked = name.lstrip("+")  # Hydra's signs for a new key, which do not make it another's name
        if equals and asked in GRANTED and value.lower() in GRANTED[asked]:
            continue
        if equals and asked in ANSWERS:
            answers.append("%s is no setting here: %s" % (argument, ANSWERS[asked]))
            continue
        ours = ALIASES.get(asked, name)
        if equals and ours == "device":
            again, devices[argument] = bool(devices), value
            if again:
                continue  # said once is enough: they have to agree
        if equals and ours in PATHS and value not in ("", "null"):
            value = quoted(unquoted(value))
        if equals and ours == "task":  # Over is ShadowHandOver
            value = ",".join(full_name(name) for name in value.split(","))
        value = INFINITY.sub(r"\1\2inf", value)
        out.append("%s=%s" % (ours, value) if equals else argument)
    _check_one_device(devices)
    if answers:
        raise ForeignNamesError(answers, [*options, *out])
    return [*options, *out]


def split_options(arguments: Sequence[str]) -> Tuple[List[str], List[str]]:
    """(options of Hydra's with their values, everything else), with ``--name value`` as ``name=value``.

    Raises:
        UserError: an option that nobody knows, or one that lacks its value.
    """
    options: List[str] = []
    pairs: List[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name, equals, value = argument.partition("=")
        if name in OPTION_ANSWERS:
            raise UserError("%s is no option here: %s" % (name, OPTION_ANSWERS[name]))
        if name in WITH_VALUE:
            if not equals and not rest:
                raise UserError("%s needs a value, e.g. %s job" % (name, name))
            value = value if equals else rest.pop(0)
            if WITH_VALUE[name] and value not in WITH_VALUE[name]:
                raise UserError("%s must be one of %s, got %r" % (name, ", ".join(WITH_VALUE[name]), value))
            options += [name, value]
        elif name in OPTIONS:
            options.append(argument)
        elif re.match(r"--[A-Za-z]", argument):
            if not equals:
                follows = bool(rest) and not rest[0].startswith("--") and "=" not in rest[0] and rest[0] != "-m"
                value = rest.pop(0) if follows else "True"
            pairs.append("%s=%s" % (name[2:].replace("-", "_"), value))
        elif argument.startswith("-"):
            raise UserError("unknown option %s; settings look like key=value, e.g. num_envs=512" % argument)
        else:
            pairs.append(argument)
    return options, pairs


def _check_one_device(devices: Dict[str, str]) -> None:
    if len(set(devices.values())) > 1:
        raise UserError(
            "%s: physics and learning share one device, so use device=<one of them>" % " and ".join(devices)
        )
