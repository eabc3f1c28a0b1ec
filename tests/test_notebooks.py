"""The notebooks run from start to end on the bundled data, and say in their texts what their cells show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def test_all_are_here() -> None:
    names = [path.stem for path in NOTEBOOKS]
    assert names == ["01_first_evaluation", "02_compare_models", "03_error_analysis", "04_your_own_data"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(
    path: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    # one for all of them, in whichever process: what one has scored the others find
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp().parent / "notebooks"))
    notebook: Any = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells), "keep notebooks without outputs"
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = "\n".join(_text(output) for cell in notebook.cells for output in cell.get("outputs", []))
    assert PRINTED[path.stem] in printed, printed


# something that only a right run prints
PRINTED = {
    "01_first_evaluation": "{'map': 89.84, 'mrr': 92.22}",
    "02_compare_models": "bm25                      demo-zh     MAP 42.72%",
    "03_error_analysis": "0.854167",
    "04_your_own_data": "TaskStatistics(queries=3, pairs=12",
}


def _text(output: Any) -> str:
    return str(output.get("text") or output.get("data", {}).get("text/plain", ""))
