"""Golden scores: which models have them, and what comes of weights that miss them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from doctor.made_models import GivenModel, Pairs

from evalkit.backends.probes import TOLERANCES
from evalkit.errors import MismatchError
from evalkit.evaluation.evaluate import build_model
from evalkit.evaluation.goldens import GOLDEN_SCORES, check_golden_scores, has_goldens, refuse_other_weights
from evalkit.models.interfaces import Runtime
from evalkit.models.settings import ModelSettings, read_model

CARD = read_model("bge-reranker-base")
SCORES = {(query, document): score for query, document, score in GOLDEN_SCORES}


def scored(moved: float, settings: ModelSettings = CARD) -> Any:
    """The golden check of a scorer that is off by so much at one pair."""
    scorer = Pairs(lambda pair: SCORES[pair] + moved * (pair[1] == "hi"))
    return check_golden_scores(GivenModel(settings, "made", Runtime(), scorer=scorer))


@pytest.mark.parametrize(
    ("changes", "has"),
    [
        ({}, True),
        ({"path": "/a/copy"}, True),
        ({"path": "/a/copy", "revision": None}, True),
        ({"revision": "another"}, False),
        ({"hub_id": "BAAI/bge-reranker-large"}, False),
        ({"hub_id": None, "path": "/a/copy"}, False),
        ({"kind": "embedder"}, False),
    ],
)
def test_who_has_golden_scores(changes: dict[str, Any], has: bool) -> None:
    settings = CARD.model_copy(update=changes)
    assert has_goldens(settings) == has
    if not has:
        assert scored(0, settings) == ()


@pytest.mark.parametrize(("moved", "matches"), [(0.0, True), (9e-4, True), (-1.1e-3, False), (5.0, False)])
def test_tolerance(moved: float, matches: bool) -> None:
    (check,) = scored(moved)
    assert check.matches == matches
    assert check.largest_difference == pytest.approx(abs(moved), abs=1e-6)
    assert (check.dtype, check.tolerance) == ("fp32", 1e-3)


def test_other_weights_from_the_hub_stop_the_run_and_a_folder_s_do_not() -> None:
    with pytest.raises(MismatchError) as caught:
        refuse_other_weights(scored(0.5), CARD)
    assert caught.value.exit_code == 1
    assert (
        "bge-reranker-base misses its golden scores, so nothing was run: 0.4475 for 0.4475, -7.6544 for -8.1544"
        in str(caught.value)
    )
    refuse_other_weights(scored(0.0), CARD)
    local = CARD.model_copy(update={"path": "/a/copy"})
    refuse_other_weights(scored(0.5, local), local)


@pytest.mark.parametrize(("dtype", "dtypes"), [("fp32", ["fp32"]), ("bf16", ["fp32", "bf16"])])
def test_in_fp32_first_then_in_the_run_s_own_precision(dtype: str, dtypes: list[str], tiny_reranker: Path) -> None:
    settings = CARD.model_copy(update={"path": str(tiny_reranker)})
    checks = check_golden_scores(build_model(settings, "torch", Runtime(device="cpu", dtype=dtype)))
    assert [(check.dtype, check.tolerance, check.backend) for check in checks] == [
        (name, TOLERANCES[name], "torch") for name in dtypes
    ]
    assert not any(check.matches for check in checks)
    if len(checks) == 2:  # rounding stays far within what the precision is allowed
        close = replace(checks[1], expected=checks[0].found)
        assert 0 < close.largest_difference < TOLERANCES[dtype]
