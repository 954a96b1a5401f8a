"""What ``--help`` says of every command: usage, examples, keys. Completion reads the keys from here too."""

from __future__ import annotations

from typing import Dict, List, NamedTuple, Sequence, Tuple

HELP_FLAGS = ("-h", "--help")
RUN = ("run=", "run folder, checkpoint in one, or latest: the newest under run_root (of task=, if given)")
ANY = ("<setting>=", "any setting of train, e.g. num_envs=64 sim=mujoco_batch")
TRUST = ("trust=", "true: run the code that a run folder from elsewhere names")


class Help(NamedTuple):
    """usage: after "usage:".  examples: commands.  keys: (key= or --option, what it is).  notes: what else to know."""

    usage: str
    what: str
    examples: Tuple[str, ...]
    keys: Tuple[Tuple[str, str], ...] = ()
    notes: str = ""


HELP: Dict[str, Help] = {
    "train": Help(
        "hepo-isaac train [setting=value …] [-m]   (python train.py in a checkout)",
        "Train a policy on a task.",
        (
            "hepo-isaac train task=FrankaCabinet algo=hepo",
            "hepo-isaac train task=Ant algo=hepo,ppo_h seed=1,2,3 -m",
            "hepo-isaac train resume=latest train.max_iterations=500",
        ),
        (
            ("task=", "hepo-isaac tasks lists them; path/to/x.py:Class is one of yours"),
            ("algo=", "the method: hepo, ppo_h, ppo_j … (docs/methods.md)"),
            ("heuristic=", "one of the task's (hepo-isaac tasks --long) or package.module:function"),
            ("budget=", "demo, cpu, paper or auto"),
            ("sim=", "mujoco_batch, mujoco_warp, isaacgym, analytic or auto"),
            ("device=", "cpu, cuda:0 or auto"),
            ("num_envs=", "environments, or auto"),
            ("seed=", "of the run; seeds=5 trains five side by side"),
            ("seeds=", "number of runs side by side, or a list of seeds"),
            ("run_root=", "where run folders go; default runs"),
            ("resume=", "run folder to continue, or latest"),
            ("video=", "true: film the policy when training ends"),
            ("test=", "true: evaluate checkpoint= instead of training"),
            ("checkpoint=", "for test=true: run folder, checkpoint or random"),
        ),
        "-m makes a run of every combination of values with commas between them.\n"
        "--cfg job prints every setting and its value; docs/settings.md explains them.",
    ),
    "eval": Help(
        "hepo-isaac eval run=<run folder or checkpoint> [episodes=100] [setting=value …]",
        "Play whole episodes of every policy and print the mean returns with standard errors.",
        (
            "hepo-isaac eval run=latest episodes=200",
            "hepo-isaac eval task=Ant",
            "hepo-isaac eval task=Ant run=random episodes=50",
        ),
        (
            RUN,
            ("task=", "without run=: a policy that came along (hepo-isaac policies)"),
            ("episodes=", "of each policy; default 100"),
            ("deterministic=", "true: mean actions (default); false: sampled ones"),
            ("num_envs=", "environments side by side"),
            TRUST,
            ANY,
        ),
    ),
    "play": Help(
        "hepo-isaac play run=<run folder or checkpoint> [setting=value …]",
        "Film a policy; needs no display.",
        (
            "hepo-isaac play run=latest",
            "hepo-isaac play task=Ant",
            "hepo-isaac play task=Ant run=random",
        ),
        (RUN, ("task=", "without run=: a policy that came along (hepo-isaac policies)"), TRUST, ANY),
    ),
    "view": Help(
        "hepo-isaac view run=<run folder or checkpoint> [robots=4] [port=8080] [host=127.0.0.1]",
        "Show robots live in a browser.",
        (
            "hepo-isaac view run=latest",
            "hepo-isaac view task=Ant run=random robots=9",
            "hepo-isaac view run=latest task=Ant host=0.0.0.0 port=8090",
        ),
        (
            RUN,
            ("task=", "with run=random: random actions"),
            ("robots=", "side by side, 1 to 256; default 4"),
            ("port=", "default 8080"),
            ("host=", "default 127.0.0.1: this machine alone"),
            TRUST,
            ANY,
        ),
    ),
    "export": Help(
        "hepo-isaac export run=<run folder> [policy=pi] [format=onnx|torchscript|rl_games] [out=file]",
        "Write a policy to a file that acts without this package (docs/export.md).",
        (
            "hepo-isaac export run=latest",
            "hepo-isaac export run=latest policy=pi_h format=torchscript",
            "hepo-isaac export task=Ant format=rl_games out=ant.pth",
        ),
        (
            RUN,
            ("task=", "without run=: a policy that came along"),
            ("policy=", "pi, or heuristic"),
            ("format=", "onnx, torchscript or rl_games"),
            ("checkpoint=", "best, last or iteration_000100"),
            ("out=", "file; default: beside the run's results"),
            ("overwrite=", "true: replace a file that is there"),
            TRUST,
        ),
    ),
    "replay-bad": Help(
        "hepo-isaac replay-bad run=<run folder> [out=folder]",
        "Film what led to worlds diverging in training.",
        (
            "hepo-isaac replay-bad run=latest",
            "hepo-isaac replay-bad run=latest task=Ant",
            "hepo-isaac replay-bad run=runs/Ant/hepo/2026-01-01_12-00-00_seed1 out=films",
        ),
        (RUN, ("out=", "folder of the films; default: bad_worlds/ of the run"), TRUST),
    ),
    "audit": Help(
        "hepo-isaac audit run=<run folder> [json=file]",
        "Say what the shaping did to a run: J against H, terms that rose while r fell.",
        (
            "hepo-isaac audit run=latest",
            "hepo-isaac audit run=latest task=Ant",
            "hepo-isaac audit run=runs/Ant/hepo/2026-01-01_12-00-00_seed1 json=audit.json",
        ),
        (RUN, ("json=", "also write the numbers to this file")),
    ),
    "parity": Help(
        "hepo-isaac parity task=<task> [engines=a,b] [setting=value …]",
        "The same actions from the same states on two engines, side by side.",
        (
            "hepo-isaac parity task=FrankaCabinet",
            "hepo-isaac parity task=Ant engines=mujoco_batch,mujoco_warp",
            "hepo-isaac parity task=Ant engine=isaacgym save=ant.npz",
            "hepo-isaac parity engine=mujoco_batch against=ant.npz",
            "hepo-isaac parity task=Ant run=runs/Ant/hepo/…",
        ),
        (
            ("task=", "a robot task"),
            ("engines=", "two engines; default: the pair that this machine has"),
            ("engine=", "one engine, against the recording of mujoco_batch that comes along"),
            ("against=", "another recording"),
            ("save=", "write the (last) engine's recording to this file"),
            ("actions=", "random, zero or run (a policy's)"),
            RUN,
            ("steps=", "default 100"),
            ("num_envs=", "default 16"),
            ("seed=", "default 1"),
            ("singles=", "states of the single-step test; default 20"),
            ("episodes=", "of the policy on each engine; default 32"),
            ("out=", "folder of the report"),
            ("page=", "true: also update docs/parity"),
            ("python.isaacgym=", "interpreter of an engine (or HEPO_PYTHON_ISAACGYM)"),
            ("second.<setting>=", "a setting of the second engine alone"),
            ANY,
        ),
    ),
    "tasks": Help(
        "hepo-isaac tasks [--long]",
        "List the tasks.",
        ("hepo-isaac tasks", "hepo-isaac tasks --long", "hepo-isaac train task=Ant --help"),
        (("--long", "with heuristics, engines and budgets; wider than 80 columns"),),
    ),
    "policies": Help(
        "hepo-isaac policies",
        "List the policies that came along.",
        ("hepo-isaac policies", "hepo-isaac play task=Ant", "hepo-isaac eval task=Ant"),
    ),
    "doctor": Help(
        "hepo-isaac doctor",
        "Say what is installed, what will be used, what is missing and how to mend it.",
        ("hepo-isaac doctor", "hepo-isaac doctor > report.txt", "hepo-isaac gpu-check"),
    ),
    "completion": Help(
        "hepo-isaac completion bash|zsh|fish",
        "Print a script that completes commands, settings and their values in a shell.",
        (
            'source <(hepo-isaac completion bash)      # in ~/.bashrc: eval "$(hepo-isaac completion bash)"',
            "source <(hepo-isaac completion zsh)       # after compinit, in ~/.zshrc",
            "hepo-isaac completion fish > ~/.config/fish/completions/hepo-isaac.fish",
        ),
        (("bash|zsh|fish", "the shell"),),
        "hepo-isaac and python train.py are completed; what comes after task=, algo=, sim=, budget= and run= too.",
    ),
}
# Of commands with argparse's options, which list their keys themselves.
EXAMPLES: Dict[str, Tuple[str, ...]] = {
    "compare": (
        "hepo-isaac compare runs/ --baseline ppo_h",
        "hepo-isaac compare runs/Ant runs/Anymal --arms hepo,ppo_h --score final",
        "hepo-isaac compare 'runs/*/hepo*' --reps 5000 --out report/",
    ),
    "bench": (
        "hepo-isaac bench",
        "hepo-isaac bench --tasks Ant Cartpole --blocks 5 --env-only",
        "hepo-isaac bench --processes 1 2 --out scaling.json",
    ),
    "gpu-check": (
        "hepo-isaac gpu-check",
        "hepo-isaac gpu-check --tasks Ant --only tasks --seconds 300",
        "hepo-isaac gpu-check --fake --arch sm_90 --tasks Cartpole",
    ),
    "bundle": (
        "hepo-isaac bundle OUT",
        "hepo-isaac bundle OUT --max-part 60MiB --tasks Ant",
        "hepo-isaac bundle OUT --arch sm_80 --python 3.11",
    ),
}


def wants_help(arguments: Sequence[str]) -> bool:
    """Whether --help is among the arguments."""
    return any(argument in HELP_FLAGS for argument in arguments)


def help_of(command: str) -> str:
    """The text of ``hepo-isaac <command> --help``."""
    found = HELP[command]
    lines = ["usage: " + found.usage, "", found.what, "", "examples:"]
    lines += ["  " + example for example in found.examples]
    if found.keys:
        width = min(22, max(len(key) for key, _ in found.keys))
        lines += ["", "keys:"] + ["  %s  %s" % (key.ljust(width), text) for key, text in found.keys]
    if found.notes:
        lines += ["", found.notes]
    return "\n".join(lines)


def examples_text(command: str) -> str:
    """The examples of a command with argparse's options, as its epilog."""
    return "\n".join(["examples:"] + ["  " + example for example in EXAMPLES[command]])


def keys_of(command: str) -> List[str]:
    """``key=`` names of a command that takes them."""
    return [key for key, _ in HELP[command].keys if key.endswith("=") and "<" not in key] if command in HELP else []
