"""Cross-encoders on backend torch against plain transformers and sentence-transformers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chinese_texts import LONG_DOCUMENT, demo_pairs
from made_tasks import make_task, scored
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from evalkit.backends.torch import prepare
from evalkit.errors import EvalkitError
from evalkit.models.interfaces import LocalNetwork, RunnableModel, Runtime
from evalkit.models.settings import model_settings

PAIRS = demo_pairs(14)
TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=["XLM-R", "BERT"])
def folder(request: pytest.FixtureRequest, tiny_reranker: Path, tiny_bert_reranker: Path) -> Path:
    return tiny_reranker if request.param == "XLM-R" else tiny_bert_reranker


@cache
def loaded(folder: Path, dtype: str = "fp32", **fields: Any) -> RunnableModel:
    settings = model_settings({"name": "made", "path": str(folder)} | fields)
    return prepare(settings, Runtime(device="cpu", dtype=dtype))


def score(model: RunnableModel, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
    """Through the engine, as a run does: one query per pair."""
    task = make_task(*(([query], [(document, 1)]) for query, document in pairs))
    return scored(model.scorer, task).scores


@cache
def plain(folder: Path) -> tuple[Any, Any]:
    """The tokenizer and the network by plain transformers."""
    return AutoTokenizer.from_pretrained(folder), AutoModelForSequenceClassification.from_pretrained(folder).eval()


def reference(folder: Path, pairs: Sequence[tuple[str, str]], max_length: int = 512) -> NDArray[np.float32]:
    """One pair at a time, so nothing is padded."""
    tokenizer, model = plain(folder)
    with torch.inference_mode():
        logits = [
            model(**tokenizer([query], [document], truncation=True, max_length=max_length, return_tensors="pt")).logits
            for query, document in pairs
        ]
    return torch.cat(logits)[:, 0].numpy()


def test_logits_are_those_of_plain_transformers(folder: Path) -> None:
    expected = reference(folder, PAIRS)
    found = score(loaded(folder), PAIRS)
    assert np.ptp(expected) > 1  # different pairs score differently, far beyond the tolerance
    np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0)


def test_a_shorter_length_cuts_as_transformers_does(folder: Path) -> None:
    found = score(loaded(folder, max_length=40), PAIRS)
    np.testing.assert_allclose(found, reference(folder, PAIRS, 40), atol=TOLERANCE, rtol=0)
    assert np.abs(found - score(loaded(folder), PAIRS)).max() > 100 * TOLERANCE


def test_logits_are_those_of_sentence_transformers(folder: Path) -> None:
    from sentence_transformers import CrossEncoder

    encoder = CrossEncoder(str(folder), device="cpu", max_length=512)
    expected = encoder.predict(PAIRS, activation_fn=torch.nn.Identity(), show_progress_bar=False)
    np.testing.assert_allclose(score(loaded(folder), PAIRS), expected, atol=TOLERANCE, rtol=0)


def test_scores_do_not_depend_on_company(folder: Path) -> None:
    """Neither on the order of the pairs nor on which batch a pair falls into."""
    network = loaded(folder).scorer
    assert isinstance(network, LocalNetwork)
    encodings = [
        network.encode_pair(network.tokenize([query], "query")[0], network.tokenize([document], "document")[0])
        for query, document in PAIRS
    ]
    alone = np.concatenate([network.run([encoding]) for encoding in encodings])
    order = np.random.default_rng(0).permutation(len(encodings))
    shuffled = np.empty_like(alone)
    shuffled[order] = network.run([encodings[place] for place in order])
    np.testing.assert_allclose(shuffled, alone, atol=1e-5, rtol=0)
    np.testing.assert_allclose(
        score(loaded(folder), PAIRS[::-1]), score(loaded(folder), PAIRS)[::-1], atol=1e-5, rtol=0
    )


def test_prompts_stand_before_the_texts(folder: Path) -> None:
    found = score(loaded(folder, query_prompt="问：", document_prompt="答："), PAIRS[:6])
    prompted = [("问：" + query, "答：" + document) for query, document in PAIRS[:6]]
    np.testing.assert_allclose(found, reference(folder, prompted), atol=TOLERANCE, rtol=0)


def test_only_second_differs_only_where_long_queries_are_cut(tiny_reranker: Path) -> None:
    """The last two pairs of PAIRS have queries of more than 254 tokens; only beside a long document does it matter."""
    today = score(loaded(tiny_reranker, truncation="only_second"), PAIRS)
    then = score(loaded(tiny_reranker), PAIRS)
    np.testing.assert_allclose(today[:-2], then[:-2], atol=1e-5, rtol=0)
    assert abs(today[-1] - then[-1]) > 100 * TOLERANCE


@pytest.mark.parametrize(("dtype", "tolerance"), [("bf16", 0.15), ("fp16", 0.02)])
def test_half_precision_differs_little(folder: Path, dtype: str, tolerance: float) -> None:
    model = loaded(folder, dtype)
    assert model.description["dtype"] == dtype
    found, expected = score(model, PAIRS), score(loaded(folder), PAIRS)
    assert found.dtype == np.float32
    assert 0 < np.abs(found - expected).max() < tolerance


def test_tokens_and_truncation_are_counted(tiny_reranker: Path) -> None:
    tokenizer, _ = plain(tiny_reranker)
    pairs = [("感冒怎么办", "多喝水"), ("感冒", LONG_DOCUMENT)]
    task = make_task(*(([query], [(document, 1)]) for query, document in pairs))
    run = scored(loaded(tiny_reranker).scorer, task)
    assert run.tokens is not None
    assert run.truncated is not None
    assert run.tokens.tolist() == [len(tokenizer(*pairs[0])["input_ids"]), 512]
    assert run.truncated.tolist() == [False, True]
    assert (run.usage.items, run.usage.tokens, run.usage.truncated_items) == (2, int(run.tokens.sum()), 1)


def test_the_description_says_how_it_runs(tiny_reranker: Path) -> None:
    model = loaded(tiny_reranker)
    assert model.description == {"name": "torch", "device": "cpu", "dtype": "fp32"}
    assert model.identity.hub_id == "local/made"


@pytest.mark.parametrize(
    ("runtime", "says"),
    [
        (Runtime(device="gpu"), "device=gpu is not a device"),
        (Runtime(device="cuda:99"), "device=cuda:99 is not there: this machine has .*cpu"),
        (Runtime(device="meta"), "device=meta is not there"),
    ],
)
def test_what_this_machine_cannot_do(tiny_bert_reranker: Path, runtime: Runtime, says: str) -> None:
    with pytest.raises(EvalkitError, match=says):
        prepare(model_settings({"path": str(tiny_bert_reranker)}), runtime)


def test_more_length_than_positions_is_refused(folder: Path) -> None:
    with pytest.raises(EvalkitError, match=r"max_length=513 is more than made can read: at most 512 tokens"):
        _ = loaded(folder, max_length=513).scorer


def test_threads_are_set(tiny_bert_reranker: Path) -> None:
    before = torch.get_num_threads()
    try:
        _ = prepare(model_settings({"path": str(tiny_bert_reranker)}), Runtime(device="cpu", threads=1)).scorer
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
