"""``python -m hepo_isaac.runs.parity.worker job.json``: one engine's rollouts in a process of their own.

Isaac Gym lives in Python 3.8 and MuJoCo 4 in 3.11, so two engines may need two interpreters; what they did goes
through files (hepo_isaac/runs/parity/recording.py).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Sequence

from hepo_isaac.errors import UserError


def main(arguments: Sequence[str]) -> int:
    """Roll the job of a file and write what came of it; a mistake of the user is written beside it as one sentence.

    The job is what parity_rollout.roll takes, with ``out`` (file to write) and ``reference`` (recording, or None).
    """
    job = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    out = Path(job.pop("out"))
    try:
        _roll(job, out)
    except UserError as error:
        out.with_suffix(".error").write_text(" ".join(str(error).split()), encoding="utf-8")
        return 2
    return 0


def _roll(job: Dict[str, Any], out: Path) -> None:
    import torch

    from hepo_isaac.runs.parity.recording import load, save
    from hepo_isaac.runs.parity.rollout import roll

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)  # a few environments: threads would only wait for each other
    reference = job.pop("reference")
    save(out, roll(job, None if reference is None else load(Path(reference)), _say))


def _say(line: str) -> None:
    print(line, flush=True)


def roll_elsewhere(job: Mapping[str, Any], folder: Path, python: Optional[str] = None) -> Path:
    """Run ``main`` in a process of its own; returns the file of the recording.

    Args:
        job: see parity_rollout.roll; ``reference`` is the path of a recording, or None.
        folder: for the files.  python: interpreter that has the engine; this one by default.

    Raises:
        UserError: what the process complained of, an interpreter that cannot be run, or that it died.
    """
    out = folder / (job["engine"] + ".npz")
    task = folder / (job["engine"] + ".json")
    task.write_text(json.dumps({**job, "out": str(out)}), encoding="utf-8")
    command = [python or sys.executable, "-m", "hepo_isaac.runs.parity.worker", str(task)]
    try:
        code = subprocess.run(command, env=_environment()).returncode
    except OSError as error:
        raise UserError(
            "%s cannot be run (%s); python.%s= takes the path of an interpreter that has this engine, torch and"
            " rl-games" % (command[0], error.strerror, job["engine"])
        ) from error
    complaint = out.with_suffix(".error")
    if complaint.is_file():
        raise UserError(complaint.read_text(encoding="utf-8"))
    if code:
        raise UserError(
            "the rollout on %s ended with exit code %d; the lines above say why (%s)"
            % (job["engine"], code, command[0])
        )
    return out


def _environment() -> Dict[str, str]:
    """This process's, with the checkout on the path: another interpreter need not have the package installed.

    Of an installed package the folder above is site-packages, which is no other interpreter's business.
    """
    from hepo_isaac.locate import PACKAGE, bundled

    environment = dict(os.environ)
    if not bundled():
        before = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join([str(PACKAGE.parent), *([before] if before else [])])
    return environment


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
