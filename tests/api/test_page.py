"""docs/python_api.md: its blocks run, one after the other in one program, and its tables name what there is."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import hepo_isaac

PAGE = (Path(__file__).parents[2] / "docs" / "python_api.md").read_text(encoding="utf-8")


def test_the_blocks_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    assert len(blocks) == 6
    program = {"__name__": "page"}
    for block in blocks:
        block = block.replace('run_root="my_runs"', 'run_root="my_runs", plot=False, tensorboard=False')  # for the time
        exec(compile(block, "python_api.md", "exec"), program)
    out = capsys.readouterr().out
    assert "(8, 4)" in out and "Run(Push2D / hepo, seed 42, finished" in out and "over 32 episodes" in out
    assert list((tmp_path / "my_runs").rglob("summary.json"))


def test_every_argument_of_make_is_in_its_table():
    names = [n for n in inspect.signature(hepo_isaac.make).parameters if n != "overrides"]
    table = PAGE.split("| argument | |")[1].split("\n\n")[0]
    assert re.findall(r"`(\w+)`", "".join(re.findall(r"^\|(.*?)\|", table, re.M))) == names


def test_every_key_of_infos_is_in_its_table():
    env = hepo_isaac.make("Push2D", 2, task__episode_length=1)
    env.reset()
    infos = env.step(env.action_space.sample())[-1]
    table = PAGE.split("### What `infos` hold")[1].split("\n\n")[1]
    named = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\|(.*?)\|", table, re.M))))
    assert {name for name in infos if name[0] != "_"} == named - {"state", "faults"}


def test_every_example_is_in_its_table():
    examples = {path.name for path in (Path(__file__).parents[2] / "examples").glob("*.py")}
    assert set(re.findall(r"\((?:\.\./examples/)(\w+\.py)\)", PAGE)) == examples
