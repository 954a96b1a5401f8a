"""The W&B process of runs/record/wandb_sink.py: ``python -m hepo_isaac.runs.record.wandb_worker``.

Standard input: one JSON line that says what to start, then one JSON line per row; its end means finish.
Standard output: "note …" or "fatal …" lines for the user.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, Dict, TextIO


def tell(out: TextIO, kind: str, message: str) -> None:
    """One line to the process that trains."""
    out.write("%s %s\n" % (kind, " ".join(message.split())[:300]))
    out.flush()


def mode(out: TextIO) -> str:
    """Online only where W&B has a key: without one wandb.init would ask on the terminal and wait."""
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    if os.environ.get("WANDB_API_KEY"):
        return "online"
    try:
        import netrc

        if netrc.netrc().authenticators("api.wandb.ai"):
            return "online"
    except Exception:  # no such file, or one that cannot be read: the same as no key
        pass
    tell(out, "note", "W&B has no key here: logging offline; upload later with wandb sync")
    return "offline"


def start(job: Dict[str, Any], out: TextIO) -> Any:
    """Begin the W&B run, or continue the one with this id."""
    import wandb

    options: Dict[str, Any] = {"resume": "allow", **job}
    if "mode" not in options:
        options["mode"] = mode(out)
    return wandb.init(settings=wandb.Settings(console="off", silent=True), **options)


def main() -> None:
    """Log until standard input ends."""
    # whatever wandb prints must not be taken for a message to the user
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        job = json.loads(sys.stdin.readline())
        Path(job["dir"]).mkdir(parents=True, exist_ok=True)
        run = start(job, out)
        for line in sys.stdin:
            row = json.loads(line)
            run.log(row, step=int(row["iteration"]))
        run.finish()
    except ImportError:
        tell(out, "fatal", "W&B logging is on but wandb is not installed: pip install 'hepo-isaac[wandb]'")
    except BaseException as error:  # wandb is known to raise SystemExit as well
        text = "W&B logging stopped (%s: %s); the run goes on without it" % (type(error).__name__, error)
        tell(out, "fatal", text)


if __name__ == "__main__":
    main()
