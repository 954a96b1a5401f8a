"""Run the cells of docs/first_run.ipynb and store what they print and draw.

    python -m hepo_isaac.studies.notebook                # half a minute of CPU

Needs no Jupyter. A cell's output is what it prints, and a picture for every figure that it leaves open.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any, Dict, List

from hepo_isaac.runs.record.steps import Steps
from hepo_isaac.studies.places import DOCS, require_checkout

NOTEBOOK = DOCS / "first_run.ipynb"
DPI = 80


def run(notebook: Dict[str, Any]) -> Dict[str, Any]:
    """The notebook with new outputs; what the cells write goes into a folder that is deleted."""
    import matplotlib

    matplotlib.use("agg")
    program: Dict[str, Any] = {"__name__": "notebook"}
    cells, before = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"], os.getcwd()
    with tempfile.TemporaryDirectory() as work, Steps("running the notebook", len(cells), "cells") as progress:
        os.chdir(work)
        try:
            for count, cell in enumerate(cells, 1):
                cell["execution_count"] = count
                cell["outputs"] = _outputs("".join(cell["source"]), program, count, work)
                progress.at(count)
        finally:
            os.chdir(before)
    return notebook


def _outputs(source: str, program: Dict[str, Any], count: int, work: str) -> List[Dict[str, Any]]:
    """What one cell prints and draws, as nbformat 4 has it."""
    from matplotlib import pyplot

    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(source, "<cell %d>" % count, "exec"), program)
    outputs: List[Dict[str, Any]] = []
    text = said.getvalue().replace(work + os.sep, "")  # the folder is called otherwise every time
    if text:
        outputs.append({"name": "stdout", "output_type": "stream", "text": text.splitlines(keepends=True)})
    for number in pyplot.get_fignums():
        drawn = io.BytesIO()
        pyplot.figure(number).savefig(drawn, format="png", dpi=DPI)
        picture = base64.b64encode(drawn.getvalue()).decode()
        outputs.append({"output_type": "display_data", "data": {"image/png": picture}, "metadata": {}})
    pyplot.close("all")
    return outputs


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebook", type=Path, nargs="?", default=NOTEBOOK)
    args = parser.parse_args()
    require_checkout()
    found = run(json.loads(args.notebook.read_text(encoding="utf-8")))
    args.notebook.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print("wrote %s, %d kB" % (args.notebook, args.notebook.stat().st_size // 1000))


if __name__ == "__main__":
    main()
