"""What somebody's disk may hold: runs with broken files, tasks and heuristics with mistakes in them."""

from __future__ import annotations

import shutil
from pathlib import Path

from hepo_isaac.runs import launch
from hepo_isaac.runs.record.bundled import bundled_run

SMALL = (
    "task=Push2D", "algo=hepo", "num_envs=16", "train.minibatch_size=64", "train.network.units=[16]", "seed=1",
    "train.max_iterations=3", "evaluation_episodes=0", "plot=false", "tensorboard=false", "torch_threads=1",
    "train.fused=false", "device=cpu",
)  # fmt: skip
CONFIGS = {
    "empty": b"",
    "binary": bytes(range(256)) * 4,
    "syntax": b"task: {name: [Push2D\nalgo: }",
    "list": b"- 1\n- 2\n",
    "word": b"hello",
    "foreign": b"site_name: my documentation\nnav: [index.md]\n",
    "utf16": "task: Push2D\n".encode("utf-16"),
    "tag": b"task: !!python/object/apply:os.system ['touch hacked']\n",
}
METRICS = {
    "empty": b"",
    "binary": bytes(range(256)) * 4,
    "foreign": b"name,age\nanna,3\n",
    "words": b"iteration,env_steps,return_task/pi\none,two,three\n",
    "header": b"iteration,env_steps,return_task/pi\n",
    "huge_cell": b"iteration,env_steps,return_task/pi\n1,2," + b"9" * 200_000 + b"\n",
    "nul": b"iteration,env_steps,return_task/pi\n1,\x00,3\n",
}
# replaced in the text of a good config.yaml
EDITS = {
    "envs_word": ("num_envs: 16", "num_envs: many"),
    "envs_huge": ("num_envs: 16", "num_envs: 10000000000"),
    "envs_none": ("num_envs: 16", "num_envs: null"),
    "seed_inf": ("seed: 1\n", "seed: .inf\n"),
    "task_unknown": ("name: Push2D", "name: Pull2D"),
    "algo_path": ("name: hepo\n", "name: ../../../escaped\n"),
    "rate_nan": ("learning_rate: 0.0", "learning_rate: .nan # "),
    "key_extra": ("horizon_length:", "horizon_lenght:"),
    "units_word": ("  - 16\n", "  - wide\n"),
    "steps_nan": ("episode_length: ", "episode_length: .nan # "),
}
TASK = """
import torch
from hepo_isaac.envs.task import Task
from tasks.suite.push2d import Push2D as Base


class %s(Base):
    name = %r
"""
HEURISTICS = """
import torch

number = 3


def raises(state):
    return 1.0 / 0


def no_parameter():
    return 0


def two_parameters(state, goal):
    return state.pos[:, 0]


def unknown_field(state):
    return state.colour


def returns_nothing(state):
    pass


def returns_rows(state):
    return state.pos


def exits(state):
    raise SystemExit(3)


def no_terms(state):
    return {}


def in_place(state):
    state.pos.mul_(2.0)
    return state.pos[:, 0]
"""


def build(folder: Path) -> None:
    """Fill ``folder``."""
    assert launch.main([*SMALL, "run_root=%s" % (folder / "made")]) == 0
    (config,) = (folder / "made").rglob("config.yaml")
    shutil.move(str(config.parent), folder / "good")
    shutil.rmtree(folder / "made")
    shutil.copytree(bundled_run("Cartpole"), folder / "robot")
    (folder / "robot" / "status.json").write_text('{"status": "finished"}')
    for name, data in CONFIGS.items():
        _copy(folder, "good", "config_" + name, "config.yaml", data)
        _copy(folder, "robot", "robot_config_" + name, "config.yaml", data)
    for name, data in METRICS.items():
        _copy(folder, "good", "metrics_" + name, "metrics.csv", data)
    text = (folder / "good" / "config.yaml").read_text()
    for name, (old, new) in EDITS.items():
        assert old in text, old
        _copy(folder, "good", "edit_" + name, "config.yaml", text.replace(old, new, 1).encode())
    for name, data in {"empty": b"", "binary": bytes(range(256)) * 9, "text": b"weights"}.items():
        for checkpoint in ("best.pt", "last.pt"):
            _copy(folder, "good", "checkpoint_" + name, "checkpoints/" + checkpoint, data)
            _copy(folder, "robot", "robot_checkpoint_" + name, "checkpoints/" + checkpoint, data)
    shutil.copytree(folder / "good", folder / "no_config")
    (folder / "no_config" / "config.yaml").unlink()
    shutil.copytree(folder / "good", folder / "no_checkpoint")
    shutil.rmtree(folder / "no_checkpoint" / "checkpoints")
    shutil.copytree(folder / "good", folder / "no_metrics")
    (folder / "no_metrics" / "metrics.csv").unlink()
    (folder / "empty_folder").mkdir()
    (folder / "a_file").write_text("hello")
    (folder / "recording.npz").write_bytes(b"PK no archive")
    (folder / "shaping_of_bad_lab.py").write_text(HEURISTICS)
    (folder / "syntax_of_bad_lab.py").write_text("def h(state:\n    return 1\n")
    (folder / "import_of_bad_lab.py").write_text("import nothing_of_this_name\n")
    (folder / "dies_of_bad_lab.py").write_text("raise RuntimeError('no licence')\n")
    (folder / "exits_of_bad_lab.py").write_text("import sys\nsys.exit(4)\n")
    _tasks(folder)


def _copy(folder: Path, original: str, name: str, file: str, data: bytes) -> None:
    if not (folder / name).exists():
        shutil.copytree(folder / original, folder / name)
    (folder / name / file).write_bytes(data)


def _tasks(folder: Path) -> None:
    from hepo_isaac.locate import cfg_dir

    good = (cfg_dir() / "task" / "Push2D.yaml").read_text()

    def task(name: str, yaml: str | None, code: str | None = None) -> None:
        (folder / ("%s_lab.py" % name.lower())).write_text(TASK % (name, name) if code is None else code)
        if yaml is not None:
            (folder / (name + ".yaml")).write_text(yaml)

    def edited(name: str, *edits: tuple[str, str]) -> str:
        text = good.replace("Push2D", name)
        for old, new in edits:
            assert old in text, old
            text = text.replace(old, new, 1)
        return text

    task("NoYaml", None)
    task("YamlEmpty", "")
    task("YamlBinary", "\x00\x01\x02")
    task("YamlSyntax", "task: {name: [YamlSyntax\n")
    task("YamlList", "- 1\n")
    task("YamlOther", edited("Other"))
    task("LengthMissing", edited("LengthMissing", ("  episode_length:", "  # episode_length:")))
    task("LengthWord", edited("LengthWord", ("  episode_length:", "  episode_length: long #")))
    task("LengthNan", edited("LengthNan", ("  episode_length:", "  episode_length: .nan #")))
    task("BudgetsMissing", edited("BudgetsMissing", ("  budgets:", "  budgetz:")))
    task("BudgetWord", edited("BudgetWord", ("  budgets:", "  budgets: large\n  rest:")))
    task("RateWord", edited("RateWord") + "\ntrain:\n  learning_rate: fast\n")
    task("TrainKey", edited("TrainKey") + "\ntrain:\n  learning_rat: 1.0\n")
    task("EngineWord", edited("EngineWord", ("engines: [analytic]", "engines: [physics]")))
    task("DefaultsWrong", edited("DefaultsWrong", ("/train: suite", "/train: nothing")))
    task("CodeSyntax", edited("CodeSyntax"), "class CodeSyntax(:\n    pass\n")
    task("CodeImport", edited("CodeImport"), "import nothing_of_this_name\nclass CodeImport:\n    pass\n")
    task("CodeRaises", edited("CodeRaises"), "class CodeRaises:\n    pass\n\n1 / 0\n")
    task("CodeNoTask", edited("CodeNoTask"), "class CodeNoTask:\n    name = 'CodeNoTask'\n")
    task("CodeName", edited("CodeName"), TASK % ("CodeName", "OtherName"))
    task("CodeExits", edited("CodeExits"), "import sys\nclass CodeExits:\n    pass\nsys.exit(3)\n")
