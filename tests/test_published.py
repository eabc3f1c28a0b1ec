import csv
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from evalkit.errors import EvalkitError
from evalkit.results import published

REPOSITORY = Path(__file__).parent.parent
BASE, LARGE, SMALL = "BAAI/bge-reranker-base", "BAAI/bge-reranker-large", "intfloat/multilingual-e5-small"


def rows() -> list[dict[str, str]]:
    found = []
    for name in ("cmteb-reranking.csv", "cmteb-retrieval.csv"):
        with (REPOSITORY / "evalkit/results/data" / name).open(encoding="utf-8", newline="") as file:
            found += list(csv.DictReader(file))
    return found


def test_every_row_becomes_a_figure_with_its_own_digits() -> None:
    figures = published.all_figures()
    assert len(figures) == len(rows()) == 1564 + 31
    for row, figure in zip(rows(), figures, strict=True):
        assert figure.printed == row["value"]
        assert len(row["value"].split(".")[1]) == figure.decimals
        assert figure.value == pytest.approx(float(row["value"]) / (100 if row["unit"] == "percent" else 1), rel=1e-15)
        assert 0 < figure.value < 1


def test_every_figure_is_found_under_its_own_name_and_none_is_lost() -> None:
    keys = {
        (figure.model, figure.task, figure.metric, figure.protocol, figure.first_stage)
        for figure in published.all_figures()
    }
    found = [figure for key in keys for figure in published.find(*key)]
    assert sorted(map(repr, found)) == sorted(map(repr, published.all_figures()))


def test_the_models_own_card_comes_before_the_table() -> None:
    figures = published.find(BASE, "CMedQAv1", "map", "cmteb-v1")
    assert [(figure.printed, published.origin(figure)) for figure in figures] == [
        ("81.27206722525007", "card"),
        ("81.26", "table"),
    ]
    assert published.preferred(BASE, "CMedQAv1", "map", "cmteb-v1") == figures[0]


def test_a_copy_of_a_card_does_not_pass_for_the_models_own() -> None:
    figures = published.find(LARGE, "T2Reranking", "map", "cmteb-v1")
    assert [(figure.printed, published.origin(figure)) for figure in figures] == [
        ("67.6", "table"),
        ("67.6007", "card copy"),
    ]
    mrr = published.preferred(LARGE, "CMedQAv1", "mrr", "cmteb-v1")
    assert mrr is not None
    assert mrr.printed == "84.9235"


def test_no_figure_of_large_repeats_one_of_base() -> None:
    printed = {
        model: {figure.printed for figure in published.all_figures() if figure.model == model}
        for model in (BASE, LARGE)
    }
    assert not printed[BASE] & printed[LARGE]


def test_the_cards_table_comes_before_cmtebs_and_that_before_the_repository() -> None:
    figures = published.find(SMALL, "CMedQAv1", "map", "cmteb-v1")
    assert [(figure.printed, published.origin(figure)) for figure in figures] == [
        ("67.26", "table"),
        ("63.44", "C-MTEB"),
        ("0.6468555921308085", "MTEB"),  # mteb 1.12.41
        ("0.6343782399577538", "MTEB"),  # mteb 1.1.1
    ]


def test_within_the_repository_the_authors_claim_comes_first_then_the_newest_mteb() -> None:
    claim, other = published.find("Alibaba-NLP/gme-Qwen2-VL-2B-Instruct", "CMedQAv1", "map", "cmteb-v1")
    assert (claim.note, other.note) == ("external", "mteb 1.2.0")
    notes = [
        figure.note for figure in published.find("intfloat/multilingual-e5-base", "T2Reranking", "map", "cmteb-v1")
    ]
    assert notes == ["", "", "mteb 1.12.75", "mteb 1.12.41", "mteb 1.1.1.dev0"]


def test_disagreeing_figures_are_kept_and_told_apart_from_noise() -> None:
    figures = published.find(SMALL, "CMedQAv1", "map", "cmteb-v1")
    assert published.disagreeing(figures) == figures[1:]
    assert published.disagreeing(published.find(BASE, "CMedQAv1", "map", "cmteb-v1")) == ()  # 81.272 and 81.26
    assert published.disagreeing(()) == ()


@pytest.mark.parametrize(("metric", "value"), [("map_at_1000", "0.64683"), ("mrr_at_10", "0.698046")])
def test_mteb_v2_figures_have_the_names_of_mteb_v2_results(metric: str, value: str) -> None:
    (figure,) = published.find(SMALL, "CMedQAv1", metric, "mteb-v2")
    assert figure.printed == value
    assert published.find(SMALL, "CMedQAv1", metric, "cmteb-v1") == ()
    assert published.find(SMALL, "CMedQAv1", "map", "mteb-v2") == ()


def test_a_task_is_found_by_mtebs_name_too() -> None:
    arguments = ("map", "cmteb-v1")
    assert published.find(BASE, "CMedQAv1-reranking", *arguments) == published.find(BASE, "CMedQAv1", *arguments)
    assert published.find(BASE, "MMarcoReranking", *arguments)


def test_what_nobody_published_is_none() -> None:
    assert published.preferred("local/my-model", "CMedQAv1", "map", "cmteb-v1") is None
    assert published.find(BASE, "demo-zh", "map", "cmteb-v1") == ()


FOUR = ("T2Reranking", "MMarcoReranking", "CMedQAv1-reranking", "CMedQAv2")
SIX = (*FOUR, "T2RerankingZh2En", "T2RerankingEn2Zh")


@pytest.mark.parametrize(("tasks", "printed"), [(FOUR, "53.86"), (SIX, "57.78"), (FOUR[:3], None), (SIX[:5], None)])
def test_an_average_is_of_precisely_the_tasks(tasks: tuple[str, ...], printed: str | None) -> None:
    figure = published.find_average(SMALL, tasks, "map", "cmteb-v1")
    assert (figure and figure.printed) == printed


def test_every_published_average_is_the_mean_of_the_tasks_found_for_it() -> None:
    averages = [figure for figure in published.all_figures() if figure.task == published.AVERAGE_TASK]
    assert len(averages) == 23
    for average in averages:
        tasks = SIX if average.note == "mean of the six" else FOUR
        assert published.find_average(average.model, tasks, "map", "cmteb-v1") == average
        row = [
            figure.value
            for task in tasks
            for figure in published.find(average.model, task, "map", "cmteb-v1")
            if figure.reference == average.reference
        ]
        assert sum(row) / len(tasks) == pytest.approx(average.value, abs=0.0006)


def test_the_file_beside_the_code_is_read_and_a_missing_one_is_one_clear_error(tmp_path: Path) -> None:
    package = tmp_path / "evalkit"
    (package / "results" / "data").mkdir(parents=True)
    for name in ("errors.py", "results/__init__.py", "results/published.py"):
        shutil.copy(REPOSITORY / "evalkit" / name, package / name)
    (package / "__init__.py").write_text("", encoding="utf-8")
    shutil.copy(REPOSITORY / "evalkit/results/data/cmteb-retrieval.csv", package / "results/data")
    copy = package / "results/data/cmteb-reranking.csv"
    lines = (REPOSITORY / "evalkit/results/data/cmteb-reranking.csv").read_text(encoding="utf-8").splitlines()
    copy.write_text("\n".join(lines[:3]), encoding="utf-8")
    code = "from evalkit.results import published; print(len(published.all_figures()))"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout == "33\n"
    copy.unlink()
    failed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert failed.stderr.splitlines()[-1].startswith(f"{EvalkitError.__module__}.EvalkitError: cannot read published")
