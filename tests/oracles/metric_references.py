"""The metrics as the reference libraries themselves compute them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pytrec_eval
from sklearn.metrics import average_precision_score

CUTOFFS = (1, 3, 5, 10, 20, 100, 1000)

# pytrec_eval's name, and mteb's for the same measure
TREC_NAMES = {"map": "map_cut", "ndcg": "ndcg_cut", "recall": "recall", "precision": "P", "hit_rate": "success"}

Run = Mapping[str, Mapping[str, float]]
Qrels = Mapping[str, Mapping[str, int]]


def cmteb_v1_values(scores: Mapping[str, float], gains: Mapping[str, int]) -> tuple[float, float] | None:
    """C-MTEB's average precision and reciprocal rank at 10 of one query, None where it drops the query.

    numpy's sort is made stable, as the definition under test is.
    """
    positive = [score for doc_id, score in scores.items() if gains.get(doc_id, 0) > 0]
    negative = [score for doc_id, score in scores.items() if gains.get(doc_id, 0) <= 0]
    if not positive or not negative:
        return None
    labels = np.array([1] * len(positive) + [0] * len(negative))
    predicted = np.array(positive + negative)
    first_ten = labels[np.argsort(-predicted, kind="stable")][:10]
    reciprocal_rank = 1.0 / (np.flatnonzero(first_ten)[0] + 1) if first_ten.any() else 0.0
    return float(average_precision_score(labels, predicted)), float(reciprocal_rank)


def mteb_v2_scores(run: Run, qrels: Qrels) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """mteb's own means by mteb's names, and its values per query by pytrec_eval's names."""
    from mteb._evaluators.retrieval_metrics import calculate_retrieval_scores

    result = calculate_retrieval_scores(run, qrels, list(CUTOFFS))
    means = {
        f"{name}_at_{label.split('@')[1]}": value
        for name, values in (
            ("map", result.map),
            ("ndcg", result.ndcg),
            ("recall", result.recall),
            ("precision", result.precision),
            ("hit_rate", result.hit_rate),
            ("mrr", result.mrr),
        )
        for label, value in values.items()
    }
    return means, result.all_scores


def mteb_v2_reciprocal_ranks(run: Run, qrels: Qrels) -> dict[str, list[float]]:
    """mteb's own reciprocal ranks per query, by its name for the mean."""
    from mteb._evaluators.retrieval_metrics import mrr

    return {name.replace("MRR@", "mrr_at_"): values for name, values in mrr(qrels, run, CUTOFFS).items()}


def values_of_orders(
    orders: Iterable[Sequence[int]], unretrieved_gains: Sequence[int], cutoffs: Sequence[int]
) -> dict[str, np.ndarray]:
    """pytrec_eval's values for lists given as gains from first to last: one array (a value per order) per mteb name."""
    run, qrels = {}, {}
    missed = {f"missed{i}": gain for i, gain in enumerate(unretrieved_gains)}
    for number, gains in enumerate(orders):
        run[str(number)] = {f"d{rank}": -float(rank) for rank in range(len(gains))}
        qrels[str(number)] = {f"d{rank}": int(gain) for rank, gain in enumerate(gains)} | missed
    measures = {f"{name}.{','.join(map(str, cutoffs))}" for name in TREC_NAMES.values()} | {"recip_rank"}
    found = pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(run)
    rows = [found[query_id] for query_id in run]
    values = {
        f"{name}_at_{k}": np.array([row[f"{trec_name}_{k}"] for row in rows])
        for name, trec_name in TREC_NAMES.items()
        for k in cutoffs
    }
    reciprocal_ranks = np.array([row["recip_rank"] for row in rows])
    return values | {f"mrr_at_{k}": np.where(reciprocal_ranks >= 1 / k, reciprocal_ranks, 0.0) for k in cutoffs}
