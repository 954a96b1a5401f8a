"""Tokens in the environment of a run end up in no file of its folder and in nothing that it prints."""

from __future__ import annotations

import gzip
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Names under which tokens commonly lie in the environment of a training.
NAMES = (
    "WANDB_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "GITHUB_TOKEN", "GH_TOKEN", "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_CLIENT_SECRET", "OPENAI_API_KEY", "ANTHROPIC_API_KEY",
    "COMET_API_KEY", "NEPTUNE_API_TOKEN", "MLFLOW_TRACKING_PASSWORD", "CI_JOB_TOKEN", "DOCKER_PASSWORD", "PGPASSWORD",
)  # fmt: skip
SMALL = ["task=Push2D", "algo=hepo", "num_envs=4", "train.max_iterations=2", "torch_threads=1"]


def secret(name):
    """40 characters as a key of W&B has them, another for each name."""
    return ("5ec2e7" + "%08x" % (sum(map(ord, name)) * 2654435761 % 2**32) * 5)[:40]


def environment(**more):
    kept = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    return {**kept, **{name: secret(name) for name in NAMES}, "PYTHONPATH": str(ROOT), **more}


def leaks(folder, *texts):
    """(where, name) of every secret in a text or in a file under ``folder``, compressed ones included."""
    found = []
    places = [("output", text.encode()) for text in texts]
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            places.append((str(path), data))
            if data[:2] == b"\x1f\x8b":
                places.append((str(path), gzip.decompress(data)))
    for where, data in places:
        found += [(where, name) for name in NAMES if secret(name).encode() in data]
    return found


def run(folder, *arguments, **more):
    command = [sys.executable, str(ROOT / "train.py"), *arguments]
    done = subprocess.run(command, cwd=folder, env=environment(**more), capture_output=True, text=True, timeout=240)
    return done.returncode, done.stdout, done.stderr


def test_leaks_are_found(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.bin").write_bytes(b"\0" + secret("HF_TOKEN").encode() + b"\0")
    (tmp_path / "y.gz").write_bytes(gzip.compress(secret("GH_TOKEN").encode()))
    found = leaks(tmp_path, "key " + secret("WANDB_API_KEY"))
    assert sorted(name for _, name in found) == ["GH_TOKEN", "HF_TOKEN", "WANDB_API_KEY"]
    assert len({secret(name) for name in NAMES}) == len(NAMES)


def test_a_run_keeps_no_secret(tmp_path):
    """A run, a mistake that the command line quotes, and one in the settings."""
    code, out, err = run(tmp_path, *SMALL)
    assert code == 0, err
    assert list(tmp_path.glob("runs/*/*/*/checkpoints/last.pt"))
    bad = run(tmp_path, *SMALL, "nun_envs=3")
    assert bad[0] == 2
    assert leaks(tmp_path, out, err, *bad[1:]) == []


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["offline", "online"])
def test_a_run_with_wandb_keeps_no_secret(tmp_path, mode):
    """Of wandb itself too, and where nobody answers its requests."""
    if importlib.util.find_spec("wandb") is None:
        pytest.skip("wandb is not installed; make test-slow installs it")
    nobody = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_INIT_TIMEOUT": "5"}
    code, out, err = run(tmp_path, *SMALL, "wandb.enabled=true", "wandb.mode=" + mode, **nobody)
    assert code == 0, err
    assert list(tmp_path.glob("runs/*/*/*/wandb/offline-run-*")) if mode == "offline" else "warning: W&B" in out
    assert leaks(tmp_path, out, err) == []
