"""What the lattice can tell and what it cannot, against enumeration."""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from evalkit.audit.figures import Figure, decimals_of, value_of
from evalkit.audit.rules.lattice import _chance_of_multiple, _chance_of_so_many, divisor, lattice_state


def figure(printed: str, queries: int | None, metric: str = "mrr") -> Figure:
    return Figure(
        model="me/mine",
        task="T",
        metric=metric,
        value=value_of(printed, "fraction"),
        printed=printed,
        decimals=decimals_of(printed),
        unit="fraction",
        protocol="cmteb-v1",
        file="f",
        place="p",
        row="r",
        kind="card",
        queries=queries,
    )


@pytest.mark.parametrize(("cutoff", "multiple"), [(1, 1), (5, 60), (10, 2520), (20, 232_792_560)])
def test_divisors(cutoff: int, multiple: int) -> None:
    assert divisor(cutoff) == multiple
    assert all(multiple % rank == 0 for rank in range(1, cutoff + 1))


@pytest.mark.parametrize("cutoff", [3, 5, 10])
@pytest.mark.parametrize("queries", [1, 2, 3])
def test_every_mean_of_every_ranking_is_on_its_lattice_at_every_precision(queries: int, cutoff: int) -> None:
    metric = f"mrr_at_{cutoff}"
    for ranks in itertools.combinations_with_replacement(range(1, cutoff + 2), queries):
        mean = sum(Fraction(1, rank) if rank <= cutoff else Fraction(0) for rank in ranks) / queries
        for decimals in range(1, 17):
            state = lattice_state(figure(f"{float(mean):.{decimals}f}", queries, metric))
            assert state in ("on", "rounded too far"), (ranks, decimals)
        assert lattice_state(figure(f"{float(mean):.16f}", queries, metric)) == "on"


@pytest.mark.parametrize("queries", [100, 1000, 5908])
def test_means_summed_in_any_way_are_on_it(queries: int) -> None:
    generator = np.random.default_rng(queries)
    for _ in range(50):
        ranks = generator.geometric(generator.uniform(0.05, 0.9), queries)
        values = np.where(ranks <= 10, 1 / ranks, 0.0)
        naive = 0.0
        for value in values.tolist():
            naive += value
        for mean in (float(values.mean()), naive / queries, float(np.float64(naive) / queries)):
            assert lattice_state(figure(f"{mean:.17f}", queries)) == "on"
            assert lattice_state(figure(repr(mean), queries)) in ("on", "rounded too far")  # 0.54 may be anything


@pytest.mark.parametrize(
    ("printed", "queries", "state"),
    [
        ("0.346024", 100, "on"),  # bge-reranker-base on MMarcoReranking, rounded
        ("0.346026", 100, "off"),
        ("0.34602", 100, "rounded too far"),
        ("0.841424", 1000, "rounded too far"),
        ("0.8414238", 1000, "on"),
        ("0.8414236", 1000, "off"),
        ("0.77131519", 5908, "on"),
        ("0.7713152", 5908, "rounded too far"),
        ("0.8414238", None, "the number of queries of this split is unknown"),
    ],
)
def test_rounding_decides_what_can_be_tested(printed: str, queries: int | None, state: str) -> None:
    assert lattice_state(figure(printed, queries)) == state


def test_other_metrics_and_deep_cutoffs_are_left_alone() -> None:
    assert lattice_state(figure("0.8127206722525007", 1000, "map")) is None
    assert lattice_state(figure("0.8127206722525007", 1000, "ndcg_at_10")) is None
    assert lattice_state(figure("0.8127206722525007", 1000, "mrr_at_100")) == "the cutoff is too high"
    assert lattice_state(replace(figure("0.84", 1000), value=float("nan"))) is None


def test_the_chance_of_a_multiple_is_that_of_a_poisson_variable() -> None:
    draws = np.random.default_rng(1).poisson(3.0, 200_000)
    for number in (2, 3, 7):
        assert _chance_of_multiple(3.0, number) == pytest.approx((draws % number == 0).mean(), abs=0.005)


def test_the_chance_of_so_many_is_that_of_enumeration() -> None:
    chances = [0.1, 0.5, 0.25]
    for least in range(4):
        expected = sum(
            float(np.prod([p if event else 1 - p for p, event in zip(chances, events, strict=True)]))
            for events in itertools.product((0, 1), repeat=3)
            if sum(events) >= least
        )
        assert _chance_of_so_many(chances, least) == pytest.approx(expected)
