"""Show that tasks compute what they computed at a commit, and keep the runs recorded with the code of then.

    python -m hepo_isaac.studies.claims.same_code <commit>       # all tasks of the claims whose code reads otherwise

For each heuristic of a task, 300 steps of random actions in 16 environments are played by the code of then, in a work
tree of its own, and by that of now. Where every observation, reward, term, metric and end of an episode is the same to
the bit, docs/claims/same_code.json maps the hash of the code (taskcode.py) to that of then. Commit the code first: the
map is of what is in the files.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Dict, List

from hepo_isaac.errors import UserError, report_errors
from hepo_isaac.locate import task_class
from hepo_isaac.studies.claims import taskcode
from hepo_isaac.studies.claims.experiments import PROBLEMS
from hepo_isaac.studies.places import CHECKOUT, require_checkout

# Runs in both work trees, so it keeps to what both have. Prints {heuristic: digest of everything that a step returns}.
PROBE = """
import hashlib, json, sys
import torch
from hepo_isaac.config import plain, resolve
from hepo_isaac.envs.make import make_env
from hepo_isaac.overrides import compose
torch.set_num_threads(1)
task, found = sys.argv[1], {}
for heuristic in sys.argv[2:]:
    given = ["task=" + task, "heuristic=" + heuristic, "device=cpu", "num_envs=16", "seed=3"]
    cfg = plain(resolve(compose(given), given, cuda=False))
    env = make_env(cfg)
    digest = hashlib.sha256()
    digest.update(env.reset().numpy().tobytes())
    draw = torch.Generator().manual_seed(5)
    for _ in range(300):
        result = env.step(2.0 * torch.rand(16, env.num_actions, generator=draw) - 1.0)
        for part in (result.obs, result.final_obs, result.rewards, result.terms, result.metrics,
                     result.terminated, result.time_out):
            digest.update(part.contiguous().numpy().tobytes())
        digest.update(repr((result.term_names, result.metric_names)).encode())
    found[heuristic] = digest.hexdigest()
    env.close()
print("\\n" + json.dumps(found))
"""


def digests(tree: Path, task: str, heuristics: List[str]) -> Dict[str, str]:
    """What a work tree's code computes, heuristic by heuristic.

    Raises:
        UserError: it fails.
    """
    command = [sys.executable, "-c", PROBE, task, *heuristics]
    done = subprocess.run(
        command,
        cwd=str(tree),
        env={**os.environ, "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise UserError("%s cannot be played in %s: %s" % (task, tree, done.stderr.strip().splitlines()[-1]))
    found: Dict[str, str] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def compare(commit: str, tasks: List[str]) -> int:
    """Extend the map; returns the number of tasks that compute something else."""
    known = taskcode.same()
    different = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "then"
        subprocess.run(["git", "-C", str(CHECKOUT), "worktree", "add", "-q", "--detach", str(tree), commit], check=True)
        try:
            for task in tasks:
                mine, then = taskcode.written(task), taskcode.code(task, commit)
                if taskcode.code(task) == then:
                    print("%-15s the same code, or known to compute the same" % task, flush=True)
                    continue
                heuristics = list(task_class(task).heuristics)
                if digests(CHECKOUT, task, heuristics) == digests(tree, task, heuristics):
                    known.setdefault(task, {})[mine] = then
                    print("%-15s computes the same, %d heuristics" % (task, len(heuristics)), flush=True)
                else:
                    different += 1
                    print("%-15s DIFFERENT" % task, flush=True)
        finally:
            subprocess.run(["git", "-C", str(CHECKOUT), "worktree", "remove", "--force", str(tree)], check=False)
    taskcode.SAME.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return different


def main() -> int:
    """Command line; returns 1 if a task computes something else."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit", help="whose code the recorded runs have")
    parser.add_argument("--tasks", nargs="+", default=sorted({p.task for p in PROBLEMS.values()}))
    args = parser.parse_args()
    require_checkout()
    return 1 if compare(args.commit, args.tasks) else 0


if __name__ == "__main__":
    sys.exit(report_errors(main))
