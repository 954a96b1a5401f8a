"""The ``hepo-isaac`` command."""

from __future__ import annotations

import argparse
import sys
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from hepo_isaac import __version__
from hepo_isaac.arguments import pairs
from hepo_isaac.errors import UserError, report_errors, unknown
from hepo_isaac.helps import HELP, help_of, wants_help

ANSWER = "__complete"


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run ``hepo-isaac <argv>``; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == [ANSWER]:  # the shell's question, at every press of Tab: no checks, nothing on stderr
        return _answer(arguments[1:])
    return report_errors(lambda: _dispatch(arguments))


def _dispatch(arguments: List[str]) -> int:
    if arguments[:1] in (["-m"], ["--multirun"]) and len(arguments) > 1:
        arguments = [arguments[1], *arguments[2:], arguments[0]]  # hepo-isaac -m train …
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        _parser().print_help()
        return 0
    command, rest = arguments[0], arguments[1:]
    if command == "--version":
        print("hepo-isaac " + __version__)
        return 0
    if not command:
        raise UserError("the command is empty; hepo-isaac --help lists the commands")
    if command.startswith("-"):
        raise UserError("unknown option %s; hepo-isaac --help lists the commands" % command)
    if command not in COMMANDS:
        raise unknown("command", command, COMMANDS)
    if wants_help(rest) and command in HELP:
        print(help_of(command))
        return 0
    # everything after the command is key=value settings, or the command's own flags: not argparse's business
    return COMMANDS[command][0](_with_latest(command, rest))


def _with_latest(command: str, arguments: List[str]) -> List[str]:
    """``run=latest`` as the newest run folder; run_root= and task= say where to look."""
    if command == "train" or "run=latest" not in arguments:
        return arguments
    from hepo_isaac.runs.record.folder import latest_run

    given = dict(a.split("=", 1) for a in arguments if "=" in a)
    found = str(latest_run(given.get("run_root", "runs"), given.get("task")))
    print("run=latest: %s" % found, flush=True)
    spent = ("run", "run_root", "task") if command in ("audit", "replay-bad") else ("run", "run_root")
    rest = [a for a in arguments if a.partition("=")[0] not in spent]
    return ["run=" + found, *rest]


def _parser() -> argparse.ArgumentParser:
    lines = ["  %-10s %s" % (name, text) for name, (_, text) in COMMANDS.items()]
    return argparse.ArgumentParser(
        prog="hepo-isaac",
        usage="hepo-isaac <command> [key=value …]",
        epilog="commands:\n%s\n\nhepo-isaac <command> --help has the keys and examples of one." % "\n".join(lines),
        description="HEPO reinforcement learning on massively parallel robot simulation.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _train(arguments: List[str]) -> int:
    from hepo_isaac.runs.launch import typed

    return typed(arguments)


def _eval(arguments: List[str]) -> int:
    return _played("eval", arguments)


def _play(arguments: List[str]) -> int:
    from hepo_isaac.runs.play.film import main as play

    return play(arguments)


def _played(command: str, arguments: List[str]) -> int:
    """``run=<folder or checkpoint> episodes=… [any setting]`` in terms of train.py's settings."""
    from hepo_isaac.runs.launch import main as launch

    names = {"run": "checkpoint", "episodes": "eval.episodes", "deterministic": "eval.deterministic"}
    settings = {names.get(key, key): value for key, value in pairs(command, arguments).items()}
    if "checkpoint" not in settings and settings.get("task"):
        from hepo_isaac.runs.record.bundled import bundled_run

        settings["checkpoint"] = str(bundled_run(settings["task"]))
    if not settings.get("checkpoint"):
        raise UserError(
            "hepo-isaac %s needs run=<run folder or checkpoint>, task=<one that hepo-isaac policies lists>, or task=… "
            "run=random" % command
        )
    if settings["checkpoint"] == "random" and not settings.get("task"):
        raise UserError("run=random needs task=<name>, e.g. hepo-isaac %s task=Ant run=random" % command)
    settings["test"] = "true"
    return launch(["%s=%s" % pair for pair in settings.items()])


def _view(arguments: List[str]) -> int:
    from hepo_isaac.runs.view.command import main as view

    pairs("view", arguments)  # refuses what is no key=value, or twice there
    return view(arguments)


def _export(arguments: List[str]) -> int:
    from hepo_isaac.runs.export.command import main as export

    return export(arguments)


def _replay_bad(arguments: List[str]) -> int:
    from hepo_isaac.runs.play.replay_bad import main as replay

    return replay(arguments)


def _tasks(arguments: List[str]) -> int:
    """Print what there is to train on."""
    from rich.console import Console
    from rich.table import Table

    long = arguments == ["--long"]
    if not long:
        _refuse_arguments("tasks", arguments, " but --long")
    shown = ("task", "obs/act", "steps", *(("heuristics", "engines", "budgets") if long else BUDGETS))
    # without an outer edge: 80 columns are enough
    table = Table(
        title="tasks",
        caption="obs/act: observations and actions; steps: per episode; then environments × iterations of each budget. "
        "Dexterous tasks are also called as published, ShadowHandOver …"
        + ("" if long else " hepo-isaac tasks --long has heuristics and engines."),
        show_edge=False,
        pad_edge=False,
    )
    for column in shown:
        table.add_column(column, no_wrap=column != "heuristics")
    group = ""
    for row in task_rows():
        if group_of(row) != group:
            table.add_section()
            group = group_of(row)
            table.add_row("[italic]%s[/]" % group)
        if not long:
            sizes = dict(line.split(": ") for line in row[SIZES].splitlines())
            # of a task of somebody else's that cannot be read, why
            row = [*row[:HEURISTICS], *(sizes.get(name, "") for name in BUDGETS)] if sizes else [row[0], "", "", row[3]]
        table.add_row(*row)
    Console().print(table)
    return 0


def _policies(arguments: List[str]) -> int:
    """Print what came along: the policies that play, eval and export take for a task without a run."""
    from rich.console import Console
    from rich.table import Table

    from hepo_isaac.runs.record.bundled import made, rows

    _refuse_arguments("policies", arguments)
    table = Table(title="policies that came along", caption="mean ± standard error over whole episodes; success of π")
    for column in ("task", "J(π)", "H(π)", "J(random)", "success"):
        table.add_column(column, no_wrap=True)
    for row in rows():
        table.add_row(*row)
    console = Console()
    console.print(table)
    for line in made():
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    return 0


HEURISTICS, ENGINES, SIZES = 3, 4, 5  # columns of task_rows
BUDGETS = ("paper", "demo", "cpu")
GROUPS = ("robots", "dexterous hands", "small tasks")


def task_rows() -> List[List[str]]:
    """One row per task: name, sizes, heuristics, engines, budgets; group after group."""
    from hepo_isaac.agents.config import TrainConfig
    from hepo_isaac.locate import PREFIX, group_names, task_class, task_names, task_settings, tasks_package

    rows = []
    for name in task_names():
        try:
            cls, cfg = task_class(name), task_settings(name)
        except UserError as error:  # of somebody else's task: the others are listed all the same
            rows.append([name, "", "", str(error), "", ""])
            continue
        task: Any = cfg["task"]
        usual = cfg.get("train", {}).get("max_iterations", TrainConfig.max_iterations)
        budgets = []
        for budget, values in task.get("budgets", {}).items():
            iterations = values.get("train", {}).get("max_iterations", usual)
            budgets.append("%s: %s × %s" % (budget, values.get("num_envs"), iterations))
        rows.append(
            [
                name,
                "%d/%d" % (cls.num_obs, cls.num_actions),
                str(task["episode_length"]),
                _shorten(list(cls.heuristics)),
                "\n".join(task.get("engines", [e for e in group_names("sim") if e != "auto"])),
                "\n".join(budgets),
            ]
        )
    dexterous = tasks_package().DEXTEROUS
    for row in rows:  # these go by both names, and the short one leaves room for the rest
        row[0] = row[0][len(PREFIX) :] if row[0][len(PREFIX) :] in dexterous else row[0]
    return sorted(rows, key=lambda row: GROUPS.index(group_of(row)))


def group_of(row: Sequence[str]) -> str:
    """Which of GROUPS a row of ``task_rows`` is in."""
    from hepo_isaac.locate import tasks_package
    from hepo_isaac.sim.engines import NO_PHYSICS

    if row[ENGINES] == NO_PHYSICS:
        return GROUPS[2]
    return GROUPS[1] if row[0] in tasks_package().DEXTEROUS else GROUPS[0]


def _shorten(names: List[str]) -> str:
    """Write h1, h2, …, h12 as "h1 … h12"."""
    numbered = [n for n in names if n[:1] == "h" and n[1:].isdigit()]
    if len(numbered) < 4:
        return ", ".join(names)
    return ", ".join([n for n in names if n not in numbered] + ["%s … %s" % (numbered[0], numbered[-1])])


def _compare(arguments: List[str]) -> int:
    from hepo_isaac.runs.compare.command import main as compare

    return compare(arguments)


def _audit(arguments: List[str]) -> int:
    from hepo_isaac.runs.compare.audit import main as audit

    return audit(arguments)


def _doctor(arguments: List[str]) -> int:
    from hepo_isaac.runs.machine.doctor import main as doctor

    _refuse_arguments("doctor", arguments)
    return doctor()


def _bench(arguments: List[str]) -> int:
    from hepo_isaac.runs.machine.bench import main as bench

    return int(bench(arguments) or 0)


def _parity(arguments: List[str]) -> int:
    from hepo_isaac.runs.parity.command import main as parity

    return parity(arguments)


def _gpu_check(arguments: List[str]) -> int:
    from hepo_isaac.runs.machine.gpu_check import main as gpu_check

    return gpu_check(arguments)


def _bundle(arguments: List[str]) -> int:
    from hepo_isaac.runs.machine.bundle import main as bundle

    return bundle(arguments)


def _refuse_arguments(command: str, arguments: List[str], but: str = "") -> None:
    if arguments:
        raise UserError("hepo-isaac %s takes no arguments%s, got %r" % (command, but, arguments[0]))


def _completion(arguments: List[str]) -> int:
    from hepo_isaac.completion import script

    if len(arguments) != 1:
        raise UserError("hepo-isaac completion takes one shell, bash, zsh or fish, got %s" % (arguments or "none"))
    print(script(arguments[0]))
    return 0


def _answer(words: List[str]) -> int:
    from hepo_isaac.completion import complete

    print("\n".join(complete(words)))
    return 0


COMMANDS: Dict[str, Tuple[Callable[[List[str]], int], str]] = {
    "train": (_train, "train, as python train.py does: task=FrankaCabinet algo=hepo …"),
    "eval": (_eval, "play episodes and print their returns: run=<run folder or checkpoint> episodes=100"),
    "play": (
        _play,
        "film a policy, no display needed: run=<run folder> [policy=both] [grid=9] [out=…]; or task=… run=random",
    ),
    "view": (_view, "robots live in the browser: run=<run folder> [robots=4] [port=8080]; or task=… run=random"),
    "export": (
        _export,
        "a policy as a file for a robot: run=<run folder> policy=pi|heuristic format=onnx|torchscript|rl_games",
    ),
    "replay-bad": (_replay_bad, "film what led to worlds diverging in training: run=<run folder> [out=folder]"),
    "tasks": (_tasks, "list the tasks"),
    "policies": (_policies, "list the policies that came along: hepo-isaac play task=Ant shows one"),
    "compare": (_compare, "which algorithm is better, with confidence intervals: runs/ --baseline ppo_h --out report/"),
    "audit": (_audit, "what the shaping did to a run: J against H, terms that rose while r fell: run=<run folder>"),
    "doctor": (_doctor, "what is installed, what will be used, what is missing and how to mend it"),
    "gpu-check": (_gpu_check, "prove the CUDA path on this machine: parity, host syncs, overflow, speed, learning"),
    "parity": (_parity, "the same actions on two engines, side by side: task=… engines=mujoco_batch,mujoco_warp"),
    "bundle": (_bundle, "what a GPU node without a network needs, as a folder or in parts: OUT --max-part 60MiB"),
    "bench": (_bench, "speed, as ratios to bare physics and to PPO"),
    "completion": (_completion, "a script that completes commands, settings and values: bash, zsh or fish"),
}

if __name__ == "__main__":
    sys.exit(main())
