"""Named models on small networks of their architectures: their files' recipes against sentence-transformers' own reading."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from folder_shapes.comparison import one_thread, reference_of, scores_of, task
from folder_shapes.named_models import BERT, NAMED, WIDE, embedder
from folder_shapes.shapes import Shape

import evalkit


@pytest.mark.parametrize("shape", NAMED, ids=lambda shape: shape.title)
def test_a_named_model_is_read_as_sentence_transformers_reads_its_folder(shape: Shape, tmp_path: Path) -> None:
    expected = reference_of(shape)
    with one_thread():
        found = scores_of(shape, "torch", tmp_path)
    assert np.ptp(expected) > 1e-2
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max(), rtol=0)


def test_a_folder_that_pools_otherwise_than_the_named_model_is_reported(tmp_path: Path) -> None:
    folder = tmp_path / "conan"
    embedder("Conan-embedding-v1", "bert", WIDE, pooling="cls", **BERT)(folder)
    model = evalkit.load_model("Conan-embedding-v1", path=folder, backend="torch", device="cpu")
    findings = evalkit.evaluate(model, task()).findings
    assert any(
        "says otherwise: pooling: 'mean' here, 'cls' in 1_Pooling/config.json" in finding for finding in findings
    )
