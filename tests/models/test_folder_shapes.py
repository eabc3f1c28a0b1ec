"""docs/models.md, cell by cell: each shape of folder equals sentence-transformers, or is refused with the reason."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from folder_shapes.comparison import BACKENDS, EQUAL, TOLERANCE, named, outcome, pairs, reference_of
from folder_shapes.page import PAGE, SECTIONS, as_in_the_page, cells_of, render, rows_of
from folder_shapes.shapes import SHAPES, Shape
from real_models import write_json

from evalkit.errors import EvalkitError
from evalkit.models.folders.files import read_folder
from evalkit.models.folders.kinds import find_kind

CELLS = [(shape, backend) for shape in SHAPES for backend in BACKENDS]
RUN = [shape for shape in SHAPES if set(shape.refused) < set(BACKENDS)]
MUST_RUN = (
    *("cls", "mean", "max", "mean-sqrt-len", "weighted-mean", "last-token", "cls-and-mean", "prompts", "prompt-left-out"),
    *("length-16", "lower-case", "dense", "dense-twice", "layer-norm", "normalize-dot", "truncate-dim", "dot", "euclidean"),
    *("qwen3-left", "t5", "bert-classifier", "roberta-classifier", "xlm-r-classifier", "mpnet-classifier", "distilbert-classifier"),
    *("electra-classifier", "deberta-v2-classifier", "modernbert-classifier", "albert-classifier", "qwen2-classifier"),
    *("qwen3-classifier", "llama-classifier", "gemma-classifier", "t5-classifier"),
)  # fmt: skip


@pytest.fixture(scope="module")
def rows() -> dict[str, str]:
    return rows_of(PAGE.read_text("utf-8"))


@pytest.mark.parametrize(("shape", "backend"), CELLS, ids=[f"{shape.name}-{backend}" for shape, backend in CELLS])
def test_a_folder_is_run_as_its_authors_mean_it_or_refused(
    shape: Shape, backend: str, tmp_path: Path, rows: dict[str, str]
) -> None:
    found = outcome(shape, backend, tmp_path)
    assert found.is_expected_of(shape, backend), (
        f"{found.verdict} {found.reason}; expected {shape.refused.get(backend, EQUAL)}"
    )
    assert cells_of(rows[shape.name])[backend] == as_in_the_page(found.cell), "`make models-table` writes the page anew"


@pytest.mark.parametrize("shape", RUN, ids=[shape.name for shape in RUN])
def test_the_reference_tells_texts_and_shapes_apart(shape: Shape) -> None:
    """Scores that lie together, or that a shape shares with the one that it is held against, would show nothing."""
    scores = reference_of(shape)
    largest = np.abs(scores).max()
    assert scores.shape == (len(pairs()),)
    assert np.isfinite(scores).all()
    assert scores.std() > 100 * TOLERANCE * largest
    if shape.unlike:
        assert np.abs(scores - reference_of(named(shape.unlike))).max() > 0.001 * largest


def test_the_page_is_that_of_the_shapes() -> None:
    """All but what the cells hold: their own test compares those."""
    page = PAGE.read_text("utf-8")
    names = [shape.name for shape in SHAPES]
    assert list(rows_of(page)) == names
    told = {(name, backend): cell for name, row in rows_of(page).items() for backend, cell in cells_of(row).items()}
    assert render(told, escaped=True) == page


def test_enough_is_shown_and_nothing_twice() -> None:
    assert len(SHAPES) >= 60
    assert sum(map(len, SECTIONS.values())) == len(SHAPES)
    assert {name: count for name, count in Counter(shape.name for shape in SHAPES).items() if count > 1} == {}
    for name in MUST_RUN:
        assert not {"torch", "sentence-transformers"} & set(named(name).refused), name


def test_a_page_is_read_as_it_was_written() -> None:
    reasons = {"openvino": "refused: it_has | and <pad>", "onnx": "refused: a, b: c", "torch": "equal"}
    cells = {(shape.name, backend): reasons.get(backend, "equal") for shape in SHAPES for backend in BACKENDS}
    for shape in SHAPES:
        cells[shape.name, "sentence-transformers"] = "refused: it_has | and <pad>"
    rows = rows_of(render(cells))
    for name, backend in cells:
        assert cells_of(rows[name])[backend] == as_in_the_page(cells[name, backend])


@pytest.mark.parametrize(
    ("architecture", "encodes", "says"),
    [
        (
            "T5GemmaForConditionalGeneration",
            True,
            "an encoder with a decoder: evalkit runs none as a reranker \\(KaLM-Reranker-V1, monoT5\\)",
        ),
        ("MT5ForConditionalGeneration", True, "an encoder with a decoder"),
        ("BartForConditionalGeneration", True, "an encoder with a decoder"),
        ("Gemma3ForConditionalGeneration", False, "its files don't say what it is for"),
    ],
)
def test_an_encoder_with_a_decoder_is_no_reranker_here(
    architecture: str, encodes: bool, says: str, tmp_path: Path
) -> None:
    write_json(tmp_path / "config.json", {"architectures": [architecture], "is_encoder_decoder": encodes})
    with pytest.raises(EvalkitError, match=says):
        find_kind(read_folder(tmp_path))
