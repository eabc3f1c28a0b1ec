"""Tasks of mteb's: an object of mteb in memory becomes evalkit's Task; names, splits and subsets are mteb's."""

from __future__ import annotations

import re
from typing import Any

import pytest
from command import run_here
from datasets import Dataset
from made_tasks import make_task
from mteb_tasks import mteb_task, split_data

import evalkit
from evalkit.errors import EvalkitError
from evalkit.records import Request
from evalkit.tasks.findings import FindingLog
from evalkit.tasks.layouts.mteb import requests_from_parts
from evalkit.tasks.settings import TaskSettings, read_settings
from evalkit.tasks.sources import complete_task, raw_dataset

MADE = make_task(
    (["感冒了怎么办？"], [("多喝水。", 1), ("苹果。", 0), ("多休息。", 2)]),
    (["How?"], [("So.", 1), ("Not so.", 0)]),
)
SETTINGS = TaskSettings(name="Made", mteb_name="Made", split="test", subset="default", registry="mteb")


def settings_of(name: str, **fields: Any) -> TaskSettings:
    return read_settings("mteb").model_copy(update={"name": name, **fields})


def requests_of(task: Any) -> tuple[Request, ...]:
    raw = raw_dataset(task, SETTINGS)
    assert (raw.layout, raw.split) == ("mteb", "test")
    log = FindingLog()
    requests = requests_from_parts(raw.parts, log)
    log.raise_errors()
    return requests


def loaded(**changes: Any) -> Any:
    task = mteb_task(MADE)
    task.load_data()
    task.dataset["default"]["test"].update(changes)
    return task


def test_ids_texts_gains_and_order() -> None:
    assert requests_of(loaded()) == MADE.requests


def test_titles_missed_documents_and_strays() -> None:
    """As in any dataset of mteb's layout: a title stands before its text, and the qrels say which queries count."""
    content = split_data(MADE)
    corpus = [
        {"id": row["id"], "title": "题" if n == 0 else "", "text": row["text"]}
        for n, row in enumerate(content["corpus"])
    ]
    ranked = {"q0": ["q0-b", "q0-a"], "q1": ["q1-a", "q1-b"]}
    first, second = requests_of(loaded(corpus=Dataset.from_list(corpus), top_ranked=ranked))
    assert [candidate.doc_id for candidate in first.candidates] == ["q0-b", "q0-a"]
    assert first.candidates[1].text == "题 多喝水。"
    assert first.unretrieved_gains == (2,)
    assert second.unretrieved_gains == ()
    only = {"q1": {"q1-a": 1}}
    assert [one.query.query_id for one in requests_of(loaded(relevant_docs=only))] == ["q1"]


def test_without_top_ranked_the_judged_documents_are_the_candidates() -> None:
    assert requests_of(loaded(top_ranked=None)) == MADE.requests


def test_instructions_stand_behind_queries_as_in_mteb() -> None:
    from mteb._create_dataloaders import _retrieval_texts
    from mteb.types import PromptType

    queries = Dataset.from_list(
        [
            {"id": "q0", "text": "感冒了怎么办？", "instruction": "只要中文。"},
            {"id": "q1", "text": "How?", "instruction": None},
        ]
    )
    found = [one.query.texts[0] for one in requests_of(loaded(queries=queries))]
    assert found == ["感冒了怎么办？ 只要中文。", "How?"] == list(_retrieval_texts(queries, PromptType.query))


def test_the_older_form() -> None:
    """Attributes of the task instead of `dataset`, which mteb's own conversion knows."""
    task = mteb_task(MADE)
    content = split_data(MADE)
    task.queries = {"test": {row["id"]: row["text"] for row in content["queries"]}}
    task.corpus = {"test": {row["id"]: {"title": "", "text": row["text"]} for row in content["corpus"]}}
    task.relevant_docs = {"test": content["relevant_docs"]}
    task.top_ranked = {"test": content["top_ranked"]}
    assert requests_of(task) == MADE.requests


def test_conversations_are_refused() -> None:
    queries = Dataset.from_list([{"id": "q0", "text": ["a", "b"]}])
    with pytest.raises(EvalkitError, match="query 'q0' is a conversation"):
        requests_of(loaded(queries=queries))


def test_data_that_do_not_fit_are_named() -> None:
    with pytest.raises(EvalkitError, match=r"mteb's Made, top_ranked.*'nope' names no corpus"):
        requests_of(loaded(top_ranked={"q0": ["nope"], "q1": ["q1-a"]}))


@pytest.mark.parametrize("name", ["T2Reranking", "CMedQAv1-reranking"])
def test_names_splits_and_languages_are_mtebs(name: str) -> None:
    own = read_settings(name)
    found = complete_task(settings_of(name))
    assert (found.mteb_name, found.split, found.languages) == (own.mteb_name, own.split, own.languages)
    assert found.subset == "default"


def test_one_of_several_subsets() -> None:
    found = complete_task(settings_of("MIRACLReranking", subset="zh"))
    assert (found.subset, found.languages, found.split) == ("zh", ("zho-Hans",), "dev")


@pytest.mark.parametrize(
    ("name", "fields", "says"),
    [
        ("mteb", {}, "task=mteb needs task.name=NAME, a reranking task of mteb's"),
        ("T2Rerankin", {}, "there is no reranking task of mteb's 'T2Rerankin'; did you mean T2Reranking"),
        (
            "T2Retrieval",
            {},
            "is a task of type Retrieval with text; of mteb's tasks evalkit runs those of type Reranking",
        ),
        ("MIRACLReranking", {}, "MIRACLReranking has several subsets: ar, bn, "),
        ("MIRACLReranking", {"subset": "xx"}, "MIRACLReranking has no subset 'xx' but ar, bn, "),
        ("XGlueWPRReranking", {"subset": "zh"}, "XGlueWPRReranking has no split"),
    ],
)
def test_tasks_that_it_does_not_run(name: str, fields: dict[str, str], says: str) -> None:
    with pytest.raises(EvalkitError) as caught:
        complete_task(settings_of(name, **fields, **({"split": "nope"} if "XGlue" in name else {})))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_hub_out_of_reach() -> None:
    done = run_here("task=mteb", "task.name=CMedQAv2-reranking", "model=bm25", "offline=true")
    assert done.code == 2
    line = done.stderr.splitlines()[-1]
    assert re.match("evalkit: mteb can't load the task CMedQAv2-reranking: ", line)
    assert line.endswith("or give a copy with task=local task.path=PATH")


def test_from_python() -> None:
    with pytest.raises(EvalkitError, match="there is no reranking task of mteb's 'Nope'"):
        evalkit.load_task("mteb", name="Nope")
