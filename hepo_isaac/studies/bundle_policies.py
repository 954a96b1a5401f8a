"""Make the policies that come along (hepo_isaac/policies) out of finished runs.

    python -m hepo_isaac.studies.reference --jobs 2                      # train the reference runs, see there
    python -m hepo_isaac.studies.bundle_policies runs/reference          # and take the best of each task along

Takes run folders, or folders with run folders somewhere in them. Of several runs of a task, whatever their methods, the
one with the highest J is taken, and measured anew with episodes that did not choose it. A task stays out if its policy
is not clearly better than random actions. What is stored is a run folder with the checkpoint that is played, in half
precision and without what only training needs; J and H in policies.yaml are measured with that file. Tasks that are not
given keep theirs.
"""

from __future__ import annotations

import argparse
import math
import shlex
import shutil
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
import yaml

from hepo_isaac.errors import UserError
from hepo_isaac.runs.record.bundled import FOLDER, INDEX, entries
from hepo_isaac.runs.record.folder import FINISHED, RunFolder
from hepo_isaac.runs.record.metadata import git_state
from hepo_isaac.studies.places import CHECKOUT, require_checkout

MAX_BYTES = 300_000  # of a policy's folder, in the wheel
CHOOSING_SEED, MEASURING_SEED = 1001, 2002
CHOOSING_EPISODES = 64
CLEARLY = 3.0  # standard errors that J is above random actions' J
# What says where a run wrote and not what it learned.
NOT_LEARNED = (
    *("run_root", "tensorboard", "plot", "checkpoint_every", "keep_checkpoints", "evaluation_episodes"),
    *("skip_finished", "video", "wandb"),
)


def find_runs(paths: Sequence[Path]) -> Dict[str, List[RunFolder]]:
    """Finished runs in ``paths``, by task."""
    found: Dict[str, List[RunFolder]] = {}
    for path in paths:
        configs = [path / "config.yaml"] if (path / "config.yaml").is_file() else sorted(path.rglob("config.yaml"))
        if not configs:
            raise UserError("%s holds no run folder" % path)
        for config in configs:
            folder = RunFolder.open(config.parent)
            if folder.status() == FINISHED:
                found.setdefault(str(folder.metadata.get("task")), []).append(folder)
            else:
                print("left out: %s is not finished" % folder.path)
    return found


def settings_of(run: RunFolder) -> Dict[str, Any]:
    """A run's settings without where it wrote and how many threads it had."""
    from hepo_isaac.config import plain
    from hepo_isaac.overrides import compose
    from hepo_isaac.runs.record.stored import foreign_code, read_run
    from hepo_isaac.sim.engines import CPU_ENGINE

    cfg = plain(read_run(run.path))
    if foreign_code(cfg):
        raise UserError("%s needs code that would not come along: %s" % (run.path, ", ".join(foreign_code(cfg))))
    usual = plain(compose(["task=%s" % cfg["task"]["name"], "sim=" + CPU_ENGINE]))
    for key in ("run_root", "wandb", "sim", "plot", "tensorboard", "checkpoint_every", "keep_checkpoints"):
        cfg[key] = usual[key]
    return {**cfg, "device": "cpu", "evaluation_episodes": 0}


def store(run: RunFolder, folder: Path) -> None:
    """Write the small run folder of ``run`` into ``folder``."""
    from hepo_isaac.runs.record.checkpoint import load_checkpoint, save_checkpoint
    from hepo_isaac.runs.record.files import write_json

    cfg = settings_of(run)
    checkpoint = load_checkpoint(run.policy_checkpoint(), cfg["task"]["name"], cfg["algo"]["name"])
    learner = checkpoint["agent"]["learner"]
    kept = {"flat": learner["flat"].to(torch.float16), **{k: learner[k] for k in ("obs_norm", "value_norm")}}
    header = ("format", "version", "task", "algo", "num_envs", "seed", "iteration", "env_steps")
    (folder / "checkpoints").mkdir(parents=True)
    save_checkpoint(
        folder / "checkpoints" / "best.pt", {**{k: checkpoint[k] for k in header}, "agent": {"learner": kept}}
    )
    (folder / "config.yaml").write_text(yaml.safe_dump(cfg, sort_keys=False), encoding="utf-8")
    described = {key: run.metadata.get(key) for key in ("task", "algo", "seed", "git", "versions")}
    write_json(folder / "metadata.json", {**described, "command": command_of(run)})


def command_of(run: RunFolder) -> str:
    """The command that trains this run again."""
    words = shlex.split(str(run.metadata.get("command", "")))
    kept = [w for w in words if w.partition("=")[0].partition(".")[0] not in NOT_LEARNED]
    return " ".join(shlex.quote(w) for w in kept)


def measure(folder: Path, episodes: int, seed: int, random: bool = False) -> Dict[str, Dict[str, Any]]:
    """What play.command.evaluate returns for every policy of a run folder, or for random actions in its place."""
    from hepo_isaac.config import plain
    from hepo_isaac.runs.play.command import evaluate
    from hepo_isaac.runs.record.checkpoint import load_checkpoint
    from hepo_isaac.runs.record.stored import read_run

    cfg = plain(read_run(folder))
    cfg.update(seed=seed, num_envs=episodes, eval={"episodes": episodes, "deterministic": True})
    return evaluate(cfg, None if random else load_checkpoint(folder / "checkpoints" / "best.pt"))


def size_of(folder: Path) -> int:
    """Bytes that its files take in the wheel, which is deflated as zlib does it."""
    return sum(len(zlib.compress(path.read_bytes())) for path in folder.rglob("*") if path.is_file())


def short(value: Dict[str, Any]) -> Dict[str, Any]:
    """An estimate to five digits."""
    numbers = {key: float("%.5g" % value[key]) for key in ("mean", "std_error")}
    return {**numbers, "episodes": int(value["n"])}


def entry(run: RunFolder, folder: Path, episodes: int) -> Dict[str, Any]:
    """What policies.yaml says of a stored policy; UserError if it is not clearly better than random actions."""
    cfg = settings_of(run)
    success, metadata = str(cfg["task"]["success"]), run.metadata
    found = measure(folder, episodes, MEASURING_SEED)
    found.update(measure(folder, episodes, MEASURING_SEED, random=True))
    rows = {}
    for name, row in found.items():
        rows[name] = {"J": short(row["returns_task"]), "H": short(row["returns_heuristic"])}
        rows[name][success] = short(row["metrics"][success])
    chance, mine = rows.pop("random"), rows["pi"]["J"]
    margin = CLEARLY * math.hypot(mine["std_error"], chance["J"]["std_error"])
    if not mine["mean"] - chance["J"]["mean"] > margin:
        text = "J = %g ± %g is not clearly above random actions' %g ± %g"
        numbers = [x[key] for x in (mine, chance["J"]) for key in ("mean", "std_error")]
        raise UserError(text % tuple(numbers))
    checkpoint = torch.load(folder / "checkpoints" / "best.pt", weights_only=True)
    git, here = metadata.get("git") or {}, git_state(CHECKOUT) or {}
    how = {"episodes": episodes, "seed": MEASURING_SEED, "actions": "means", "engine": cfg["sim"]["name"]}
    return {
        "method": cfg["algo"]["name"],
        "command": command_of(run),
        "commit": str(git.get("commit")),
        "uncommitted_changes": git.get("dirty"),
        "seed": int(cfg["seed"]),
        "budget": cfg["budget"]["name"],
        "iteration": int(checkpoint["iteration"]),
        "env_steps": int(checkpoint["env_steps"]),
        "success": success,
        "policies": rows,
        "random": chance,
        "measured": {**how, "commit": str(here.get("commit"))},
        "hardware": str((metadata.get("hardware") or {}).get("cpu")),
        "bytes": size_of(folder),
    }


def bundle(task: str, runs: Sequence[RunFolder], episodes: int) -> Optional[Dict[str, Any]]:
    """Put the best of a task's runs into the package; returns its entry, or None if none is worth it."""
    with tempfile.TemporaryDirectory(prefix="hepo_isaac_bundle_") as work:
        stored: List[Tuple[float, Path, RunFolder]] = []
        for k, run in enumerate(runs):
            folder = Path(work) / str(k) / task
            store(run, folder)
            if size_of(folder) > MAX_BYTES:  # policies side by side, in wide networks
                print("  left out: %s takes %d bytes, more than %d" % (run.path, size_of(folder), MAX_BYTES))
                continue
            found = (
                measure(folder, CHOOSING_EPISODES, CHOOSING_SEED)["pi"]["returns_task"]["mean"]
                if len(runs) > 1
                else 0.0
            )
            print("  %s: J(pi) = %.4g" % (run.path, found), flush=True)
            stored.append((found, folder, run))
        if not stored:
            return None
        _, folder, run = max(stored, key=lambda one: one[0])
        try:
            made = entry(run, folder, episodes)
        except UserError as error:
            print("  left out: %s" % error)
            return None
        target = FOLDER / task
        if target.exists():
            shutil.rmtree(str(target))
        shutil.copytree(str(folder), str(target))
    return made


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders, or folders with some in them")
    parser.add_argument("--episodes", type=int, default=256, help="that J is measured with")
    args = parser.parse_args()
    require_checkout()
    torch.set_num_threads(1)
    index = entries()
    found = find_runs(args.runs)
    start = time.time()
    for number, (task, runs) in enumerate(sorted(found.items())):
        print(
            "%s: %d runs (task %d of %d, %.0f s so far)"
            % (task, len(runs), number + 1, len(found), time.time() - start)
        )
        made = bundle(task, runs, args.episodes)
        if made is not None:
            index[task] = made
            print("  %s" % made["policies"]["pi"])
            FOLDER.mkdir(exist_ok=True)
            text = "# Written by python -m hepo_isaac.studies.bundle_policies; docs/export.md says what it means.\n"
            text += yaml.safe_dump(dict(sorted(index.items())), sort_keys=False, width=120)
            (FOLDER / INDEX).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    from hepo_isaac.errors import report_errors

    sys.exit(report_errors(main))
