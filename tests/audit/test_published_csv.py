"""The registry itself under audit: clean as it is, and every change of a full-precision MRR noticed."""

from __future__ import annotations

import csv
import random
from collections import Counter
from pathlib import Path

import pytest
from command import run_here

from evalkit.audit.command import audit_files, coverage

REGISTRY = Path(__file__).parent.parent.parent / "evalkit/results/data/cmteb-reranking.csv"


def rows() -> list[dict[str, str]]:
    with REGISTRY.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, content: list[dict[str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(content[0]))
        writer.writeheader()
        writer.writerows(content)
    return path


def test_of_the_published_figures_346_can_be_tested_and_all_pass() -> None:
    (report,) = audit_files([REGISTRY])
    tested = coverage(report.figures)
    assert tested.figures == 1564
    assert tested.on_lattice == {"cmteb-v1": 326, "mteb-v2": 20}
    assert tested.off_lattice == 0
    assert tested.untestable == {"rounded too far": 365}
    assert tested.averages == 23


def test_the_published_figures_give_notes_alone() -> None:
    (report,) = audit_files([REGISTRY])
    assert Counter((finding.severity, finding.rule) for finding in report.findings) == {
        ("note", "copy"): 14,
        ("note", "map and mrr"): 3,
    }
    pairs = [finding.what for finding in report.findings if finding.rule == "copy"]
    assert "text-embedding-ada-002 has the figures of openai/text-embedding-ada-002" in pairs
    assert "OpenSearch-text-hybrid has the figures of dunzhang/stella-large-zh-v3-1792d" in pairs
    apart = {finding.evidence.split(":")[0] for finding in report.findings if finding.rule == "map and mrr"}
    assert apart == {"TencentBAC/Conan-embedding-v2", "minishlab/M2V_base_glove"}


def with_other_digit(printed: str, place: int, random_numbers: random.Random) -> str:
    """Change one significant digit, the first of which is number 1."""
    first = next(number for number, char in enumerate(printed) if char in "123456789")
    digits = [number for number in range(first, len(printed)) if printed[number].isdecimal()]
    at = digits[place - 1]
    return printed[:at] + random_numbers.choice([d for d in "0123456789" if d != printed[at]]) + printed[at + 1 :]


def test_each_of_1000_changes_of_the_6th_to_9th_digit_is_caught(tmp_path: Path) -> None:
    random_numbers = random.Random(20230915)
    precise = [row for row in rows() if row["metric"] == "mrr" and len(row["value"]) >= 16]
    assert len(precise) > 300
    changed = []
    for _ in range(1000):
        row = random_numbers.choice(precise)
        changed.append(row | {"value": with_other_digit(row["value"], random_numbers.randint(6, 9), random_numbers)})
    (report,) = audit_files([write(tmp_path / "changed.csv", changed)])
    caught = {finding.place for finding in report.findings if (finding.severity, finding.rule) == ("error", "lattice")}
    assert len(caught) == 1000


@pytest.mark.parametrize("decimals", [5, 6])
def test_where_rounding_hides_a_change_it_is_said_not_to_be_testable(tmp_path: Path, decimals: int) -> None:
    rounded = [
        row | {"value": f"{float(row['value']):.{decimals}f}"}
        for row in rows()
        if row["metric"] == "mrr" and row["unit"] == "fraction" and len(row["value"]) >= 16
    ]
    (report,) = audit_files([write(tmp_path / "rounded.csv", rounded)])
    tested = coverage(report.figures)
    tasks = Counter(row["task"] for row in rounded)
    on = {5: {}, 6: {"cmteb-v1": tasks["MMarcoReranking"]}}[decimals]
    assert (tested.on_lattice, tested.off_lattice) == (on, 0)
    assert tested.untestable == {"rounded too far": sum(tasks.values()) - sum(on.values())}


def test_a_changed_map_of_a_published_model_is_noticed_beside_its_neighbours(tmp_path: Path) -> None:
    content = rows()
    content[0] |= {"value": "81.27206722525107"}
    (report,) = audit_files([write(tmp_path / "changed.csv", content)])
    (finding,) = [finding for finding in report.findings if finding.severity != "note"]
    assert (finding.rule, finding.place) == ("changed", "row 2")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"unit": "percents"}, "row 2: unit is 'percents'"),
        ({"value": "n/a"}, None),
        ({"value": "181.2"}, None),
        ({"value": "1e999999999"}, None),
        ({"value": "nan"}, None),
    ],
)
def test_wrong_cells_are_errors(tmp_path: Path, change: dict[str, str], said: str | None) -> None:
    content = rows()
    content[0] |= change
    done = run_here("audit", str(write(tmp_path / "wrong.csv", content)))
    if said:
        assert (done.code, done.stdout.splitlines()[-1]) == (2, "0 files audited: 0 errors, 0 warnings, 0 notes")
        assert said in done.stderr
    else:
        assert done.code == 1
        assert "[range]" in done.stdout
        assert "row 2: " in done.stdout
