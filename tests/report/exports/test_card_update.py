"""`--format model-index --update README.md`: cards of which nothing but the model's figures changes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from cmedqa import COMMIT, scores_of
from command import run_here

from evalkit.errors import EvalkitError
from evalkit.report.exports.card import updated_text

CARD = """---
license: mit   # as on the Hub
language: [zh, en]
# figures of others come first
model-index:
- name: someone-else
  results:
  - task: {type: Reranking}
    dataset: {type: C-MTEB/CMedQAv1-reranking, name: MTEB CMedQAv1, config: default, split: test}
    metrics:
    - {type: map, value: 11.0}
- name: scorer          # this one
  results:
  - task:
      type: Retrieval
    dataset:
      type: C-MTEB/CmedqaRetrieval
      name: MTEB CmedqaRetrieval
    metrics:
    - type: ndcg_at_10
      value: 39.5       # measured elsewhere
  # reranking
  - task:
      type: Reranking
    dataset:
      type: C-MTEB/CMedQAv1-reranking
      name: MTEB CMedQAv1
      config: default
      split: test
      revision: None
    metrics:
    - type: map
      value: 12.5
    - type: mrr
      value: 13.5
    - type: map_at_1000   # of mteb 2
      value: 14.5

# below
tags:
- 重排序 🍎
---

# A card

---
model-index: not this one
---
"""


def update(result: Path, card: Path) -> str:
    done = run_here("report", str(result), "--format", "model-index", "--update", str(card))
    assert (done.code, done.stdout, done.stderr) == (0, "", "")
    return card.read_bytes().decode("utf-8")


def entry(value: float = 81.5) -> dict[str, Any]:
    return {
        "task": {"type": "Reranking"},
        "dataset": {"type": "C-MTEB/CMedQAv1-reranking", "name": "MTEB CMedQAv1", "config": "default", "split": "test"},
        "metrics": [{"type": "map", "value": value}, {"type": "mrr", "value": 84.25}],
    }


def changed(text: str, *entries: dict[str, Any]) -> str:
    return updated_text(text, "scorer", "owner", entries or (entry(),), Path("README.md"))


def front_of(text: str) -> Any:
    return yaml.safe_load(text.split("---")[1])


def test_a_cards_own_figures_change_and_nothing_else(cmedqa: Path, tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_bytes(CARD.encode())
    after = update(cmedqa, card)
    values = {metric: round(100 * scores_of(cmedqa)[metric], 10) for metric in ("map", "mrr")}
    index = front_of(after)["model-index"]
    assert index[0] == front_of(CARD)["model-index"][0]
    (retrieval, reranking) = index[1]["results"]
    assert retrieval == front_of(CARD)["model-index"][1]["results"][0]
    assert reranking["dataset"]["revision"] == COMMIT
    assert {one["type"]: round(one["value"], 10) for one in reranking["metrics"]} == {**values, "map_at_1000": 14.5}
    # outside the entry it is the same bytes, comments, emoji, key order and the end of the text included
    start, end = CARD.index("  # reranking\n") + len("  # reranking\n"), CARD.index("\n\n# below")
    assert after.startswith(CARD[:start])
    assert after.endswith(CARD[end:])
    assert update(cmedqa, card) == after


def test_cards_with_other_line_breaks_keep_them(cmedqa: Path, tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_bytes(b"\xef\xbb\xbf" + CARD.replace("\n", "\r\n").encode())
    after = update(cmedqa, card)
    assert after.startswith("\ufeff---\r\n")
    assert after.count("\n") == after.count("\r\n")
    plain = tmp_path / "plain.md"
    plain.write_bytes(CARD.encode())
    assert after == "\ufeff" + update(cmedqa, plain).replace("\n", "\r\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "---\n{index}---\n"),
        ("# A card\n\ntext", "---\n{index}---\n# A card\n\ntext"),
        ("# A card\r\n", "---\r\n{index}---\r\n# A card\r\n"),
        ("---\nlicense: mit\n---\ntext\n", "---\nlicense: mit\n{index}---\ntext\n"),
        ("---\nlicense: mit\n# the end\n\n---\n", "---\nlicense: mit\n# the end\n\n{index}---\n"),
        ("---\nmodel-index:\nlicense: mit\n---\n", "---\n{index}license: mit\n---\n"),
        ("---\nmodel-index: []  # none yet\nlicense: mit\n---\n", "---\n{index0}  # none yet\nlicense: mit\n---\n"),
    ],
)
def test_cards_without_figures_get_them(text: str, expected: str) -> None:
    index = yaml.safe_dump({"model-index": [{"name": "scorer", "results": [entry()]}]}, sort_keys=False)
    if "\r\n" in text:
        index = index.replace("\n", "\r\n")
    assert changed(text) == expected.format(index=index, index0=index.rstrip("\n"))
    assert changed(changed(text)) == changed(text)


def spaced(text: str) -> str:
    """The same model-index with its lists indented."""
    front = text.split("---")[1]
    at = front.index("model-index:") + len("model-index:\n")
    end = front.index("\n\n# below")
    block = "\n".join(f"    {line}" for line in front[at:end].split("\n"))
    return text.replace(front[at:end], block)


def with_second_reranking_task(text: str) -> str:
    return text.replace("CMedQAv1", "CMedQAv2")


def with_flow_style(text: str) -> str:
    front = front_of(text)
    return f"---\nlicense: mit\nmodel-index: {json.dumps(front['model-index'])}\ntags: [a]\n---\nbody\n"


def with_another_model_only(text: str) -> str:
    return text.replace("- name: scorer ", "- name: other  ")


def with_the_owner(text: str) -> str:
    return text.replace("- name: scorer ", "- name: Owner/Scorer ")


@pytest.mark.parametrize(
    "form", [spaced, with_second_reranking_task, with_flow_style, with_another_model_only, with_the_owner]
)
def test_cards_of_every_form_get_the_same_figures(form: Callable[[str], str]) -> None:
    """What is read back is what was there, with the model's own entries changed: nothing lost, nothing doubled."""
    from huggingface_hub import ModelCard

    card = form(CARD)
    after = changed(card)
    before, found = (front_of(text) for text in (card, after))
    assert list(found) == list(before)
    assert {key: value for key, value in found.items() if key != "model-index"} == {
        key: value for key, value in before.items() if key != "model-index"
    }
    mine = [one for one in found["model-index"] if one["name"].casefold() in ("scorer", "owner/scorer")]
    (own,) = [
        one for model in mine for one in model["results"] if one["dataset"]["type"] == "C-MTEB/CMedQAv1-reranking"
    ]
    assert [(one["type"], one["value"]) for one in own["metrics"][:2]] == [("map", 81.5), ("mrr", 84.25)]
    kept = [
        one
        for model in before["model-index"]
        for one in model["results"]
        if one["dataset"]["type"] != own["dataset"]["type"]
    ]
    assert all(one in [two for model in found["model-index"] for two in model["results"]] for one in kept)
    assert after.partition("---\n")[2].partition("---\n")[2] == card.partition("---\n")[2].partition("---\n")[2]
    assert ModelCard(after).data.eval_results
    assert changed(after) == after


def test_a_figure_with_a_source_is_not_ones_own() -> None:
    theirs = entry(70.0) | {"source": {"name": "a board", "url": "https://example.org"}}
    card = f"---\n{yaml.safe_dump({'model-index': [{'name': 'scorer', 'results': [theirs]}]})}---\n"
    assert front_of(changed(card))["model-index"][0]["results"] == [theirs, entry()]


def test_other_metrics_of_another_revision_are_not_put_under_this_one() -> None:
    old, new = entry(70.0), entry()
    old["dataset"]["revision"], new["dataset"]["revision"] = "0" * 40, "1" * 40
    card = f"---\n{yaml.safe_dump({'model-index': [{'name': 'scorer', 'results': [old]}]})}---\n"
    assert front_of(changed(card, new))["model-index"][0]["results"] == [new]
    old["metrics"].append({"type": "ndcg_at_10", "value": 1.0})
    card = f"---\n{yaml.safe_dump({'model-index': [{'name': 'scorer', 'results': [old]}]})}---\n"
    assert front_of(changed(card, new))["model-index"][0]["results"] == [old, new]


def test_two_new_tasks_follow_the_old_ones_in_order() -> None:
    others = [entry(), entry()]
    for number, one in enumerate(others):
        one["dataset"]["type"] = f"C-MTEB/new{number}"
    results = front_of(changed(CARD, entry(), *others))["model-index"][1]["results"]
    assert [one["dataset"]["type"].rpartition("/")[2] for one in results] == [
        "CmedqaRetrieval",
        "CMedQAv1-reranking",
        "new0",
        "new1",
    ]


def refusal(*arguments: object) -> str:
    done = run_here("report", *map(str, arguments))
    assert (done.code, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"---\na: [\n---\n", "the YAML at its top is broken"),
        (b"---\n- a\n---\n", "the YAML at its top is no mapping"),
        (b"---\nmodel-index: {a: 1}\n---\n", "its model-index is no list of models"),
        (b"---\n{license: mit}\n---\n", "is written in a way that can't be changed in place"),
        (
            b"---\nmodel-index: &a [{name: x, results: []}]\nb: *a\n---\n",
            "is written in a way that can't be changed in place",
        ),
        (b"\xff\xfe---", "it is not UTF-8"),
    ],
)
def test_cards_that_cannot_be_changed_stay_as_they_are(
    content: bytes, told: str, demo_results: Path, tmp_path: Path
) -> None:
    card = tmp_path / "README.md"
    card.write_bytes(content)
    line = refusal(demo_results / "local__random", "--format", "model-index", "--update", card)
    assert told in line
    assert str(card) in line
    assert card.read_bytes() == content
    assert [file.name for file in tmp_path.iterdir()] == ["README.md"]


def test_what_is_wrong_is_told_in_one_line(demo_results: Path, tmp_path: Path) -> None:
    one = demo_results / "local__random"
    assert "model-index is of one model, but the results are of local/bm25 (bm25s-" in refusal(
        demo_results, "--format", "model-index"
    )
    assert "missing.md: cannot be read (No such file" in refusal(
        one, "--format", "model-index", "--update", tmp_path / "missing.md"
    )
    card = tmp_path / "README.md"
    card.write_text("# mine\n")
    assert "goes with --format model-index, and without -o" in refusal(one, "--update", card)
    told = refusal(one, "--format", "model-index", "-o", card)
    assert "exists and holds no report as model-index; name another place, or change a card's own with --update" in told
    assert f"{card} exists and holds no report as markdown" in refusal(one, "-o", card)
    assert card.read_text() == "# mine\n"


def test_a_card_of_another_name_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    card = "---\nmodel-index:\n- name: released\n  results: []\n---\n"
    entry = {
        "task": {"type": "Reranking"},
        "dataset": {"type": "a", "name": "b"},
        "metrics": [{"type": "map", "value": 1.0}],
    }
    with caplog.at_level("WARNING", "evalkit"):
        updated_text(card, "checkpoint", "local", [entry], Path("README.md"))
    assert caplog.messages == [
        "README.md: checkpoint stands beside released, whose figures stay; is it the same model?"
    ]


@pytest.mark.parametrize("text", ["---\nlicense: mit\n# never closed\n", "---\n# a comment\nlicense: mit\n...\nText\n"])
def test_front_matter_that_is_not_closed_is_refused(text: str) -> None:
    with pytest.raises(EvalkitError, match="is not closed by a line ---"):
        updated_text(text, "scorer", "org", [], Path("README.md"))


def test_a_rule_at_the_top_is_no_front_matter() -> None:
    text = "---\n\nA text below a rule.\n"
    assert updated_text(text, "scorer", "org", [], Path("README.md")).endswith(text)


def test_what_is_no_file_is_not_replaced(cmedqa: Path, tmp_path: Path) -> None:
    """Nor read: a device would be gone afterwards, and a pipe that nobody writes to never ends."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert "it is no file; name a model card" in refusal(cmedqa, "--format", "model-index", "--update", pipe)
    assert pipe.is_fifo()
