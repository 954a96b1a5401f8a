"""docs/first_run.ipynb: what is stored is a valid notebook whose cells ran; slow, they run again. With

python -m pytest -m slow tests/test_notebook.py
"""

from __future__ import annotations

import base64
import copy
import json
from pathlib import Path

import pytest

from hepo_isaac.studies import notebook

FILE = Path(__file__).resolve().parents[1] / "docs" / "first_run.ipynb"


@pytest.fixture
def stored():
    return json.loads(FILE.read_text(encoding="utf-8"))


def said(cell):
    return "".join("".join(out.get("text", [])) for out in cell["outputs"])


def code(found):
    return [cell for cell in found["cells"] if cell["cell_type"] == "code"]


def test_it_is_a_notebook_whose_cells_ran_in_order(stored):
    assert (stored["nbformat"], set(stored)) == (4, {"cells", "metadata", "nbformat", "nbformat_minor"})
    for cell in stored["cells"]:
        keys = {"cell_type", "metadata", "source"}
        keys |= {"execution_count", "outputs"} if cell["cell_type"] == "code" else set()
        assert set(cell) == keys and cell["source"]
        for line in cell["source"][:-1]:
            assert line.endswith("\n")
    assert [cell["execution_count"] for cell in code(stored)] == list(range(1, len(code(stored)) + 1))
    assert all(out["output_type"] in ("stream", "display_data") for cell in code(stored) for out in cell["outputs"])
    pictures = [out["data"]["image/png"] for cell in code(stored) for out in cell["outputs"] if "data" in out]
    assert [base64.b64decode(p)[:4] for p in pictures] == [b"\x89PNG"]
    assert FILE.stat().st_size < 150_000


def test_running_stores_what_is_printed_and_drawn_and_leaves_no_file(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    cells = [
        {"cell_type": "markdown", "source": ["print(1)"]},
        {"cell_type": "code", "source": ["x = 2\n", "print('x')\n", "open('here', 'w').close()"], "outputs": ["old"]},
        {"cell_type": "code", "source": ["import matplotlib.pyplot as plt\n", "plt.figure(figsize=(x, 1))"]},
        {"cell_type": "code", "source": ["y = x"]},
    ]
    found = notebook.run({"cells": cells})["cells"]
    assert found[1]["outputs"] == [{"name": "stdout", "output_type": "stream", "text": ["x\n"]}]
    picture = base64.b64decode(found[2]["outputs"][0]["data"]["image/png"])
    assert int.from_bytes(picture[16:20], "big") == 2 * notebook.DPI  # the width, of IHDR
    assert found[3]["outputs"] == [] and [c.get("execution_count") for c in found] == [None, 1, 2, 3]
    assert list(tmp_path.iterdir()) == [] and Path.cwd() == tmp_path


@pytest.mark.slow
def test_the_cells_run_and_say_what_is_stored(stored):
    """Numbers of a CPU's physics and training may differ in the last digits; what is checked is what the text says."""
    before = copy.deepcopy(stored)
    after = notebook.run(stored)
    for old, new in zip(code(before), code(after)):
        assert [sorted(out) for out in old["outputs"]] == [sorted(out) for out in new["outputs"]]
        assert len(said(old).splitlines()) == len(said(new).splitlines())
    first, *_, last = (said(cell) for cell in code(after))
    assert "observations (8, 4)" in first
    assert "J = 1 ± 0" in said(code(after)[3])  # the policy that came along survives
    assert float(last.split("J = ")[1].split(" ")[0]) > 0.8  # Push2D is learned
