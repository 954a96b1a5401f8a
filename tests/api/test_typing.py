"""The public names are typed: mypy --strict reads a client's file, and finds what is wrong in another. Run with

python -m pytest -m slow tests/api/test_typing.py
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# torch's own types cost minutes and say nothing about ours.
SETTINGS = """
[mypy]
strict = true
mypy_path = %s
[mypy-hepo_isaac.*]
follow_imports = silent
[mypy-torch.*,numpy.*,gymnasium.*,omegaconf.*,mujoco.*,rl_games.*]
follow_imports = skip
ignore_missing_imports = true
"""
GOOD = """
from typing import Dict, List

import hepo_isaac


def shaping(state: object) -> Dict[str, object]:
    return {}


def use() -> float:
    env: hepo_isaac.HepoVectorEnv = hepo_isaac.make("Ant", num_envs=64, reward="sum", output="torch", seed=1)
    own = hepo_isaac.make("Ant", 4, reward=lambda task, heuristic: task + heuristic, settings={"task.group": 5})
    obs, infos = env.reset(seed=1)
    obs, reward, terminated, truncated, infos = env.step(obs)
    run: hepo_isaac.Run = hepo_isaac.train("Ant", algo="ppo_h", train__max_iterations=3)
    runs: List[hepo_isaac.Run] = hepo_isaac.train("Ant", seeds=3)
    policy: hepo_isaac.Policy = hepo_isaac.load(run.path, policy="pi_h", device="cpu")
    found: hepo_isaac.Evaluation = hepo_isaac.evaluate(policy, own, episodes=10)
    print(policy(obs), runs[0].metrics["iteration"], run.policy().iteration, hepo_isaac.__version__)
    try:
        env.close()
    except hepo_isaac.UserError as error:
        print(error)
    return found.task_return.mean + run.evaluate("best").task_return.std_error + run.final["pi"]["task_return"].mean
"""
BAD = """
import hepo_isaac

reveal_type(hepo_isaac.train("Ant"))
reveal_type(hepo_isaac.train("Ant", seeds=[1, 2]))
env = hepo_isaac.make("Ant", num_envs="many")
hepo_isaac.train("Ant", quiet="no", seeds=2)
hepo_isaac.load(3)
hepo_isaac.evaluate(1, env)
hepo_isaac.nonsense
score: str = hepo_isaac.evaluate(print, env).score
"""


def mypy(tmp_path, text):
    (tmp_path / "client.py").write_text(text)
    (tmp_path / "mypy.ini").write_text(SETTINGS % ROOT)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--config-file",
        "mypy.ini",
        "--cache-dir",
        str(tmp_path / "cache"),
        "client.py",
    ]
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "MYPYPATH")}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("client")  # one cache for both files


@pytest.mark.slow
def test_a_clients_file_is_clean(folder):
    assert mypy(folder, GOOD) == (0, "Success: no issues found in 1 source file\n")


@pytest.mark.slow
def test_a_clients_mistakes_are_found(folder):
    code, said = mypy(folder, BAD)
    assert code == 1
    for piece in (
        '4: note: Revealed type is "hepo_isaac.api.training.Run"',
        'list[hepo_isaac.api.training.Run]"',
        '6: error: Argument "num_envs" to "make" has incompatible type "str"; expected "int"',
        '7: error: No overload variant of "train" matches argument types',
        '8: error: Argument 1 to "load" has incompatible type "int"',
        '9: error: Argument 1 to "evaluate" has incompatible type "int"',
        '10: error: Module has no attribute "nonsense"',
        "11: error: Incompatible types in assignment",
    ):
        assert piece in said, said


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "hepo_isaac" / "py.typed").is_file()
