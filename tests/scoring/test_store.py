"""The score store: what is written is found again, by content alone, and made once."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import Pairs, Vectors
from hypothesis import given
from hypothesis import strategies as st
from made_tasks import make_task
from model_folders import edit_weights
from stored_scores import TASK, WAY, opened, score, truth

from evalkit.backends import prepare_model
from evalkit.errors import EvalkitError
from evalkit.models.interfaces import RunnableModel, Runtime, Scorer
from evalkit.models.settings import model_settings
from evalkit.records import ModelIdentity
from evalkit.scoring import store_file
from evalkit.scoring.engine import ScoreMemory, score_task
from evalkit.scoring.store import FILE_NAME, KEY_BYTES, StoredOutput, damaged_rows, item_key, open_store, ways


def never() -> Scorer:
    raise AssertionError("the model is loaded though every score is stored")


# keys


@given(texts=st.lists(st.text(max_size=4), max_size=3), others=st.lists(st.text(max_size=4), max_size=3))
def test_keys_are_equal_for_equal_texts_alone(texts: list[str], others: list[str]) -> None:
    assert (item_key(*texts) == item_key(*others)) == (texts == others)
    assert len(item_key(*texts)) == KEY_BYTES


def test_keys_tell_where_a_text_ends_and_which_comes_first() -> None:
    texts = [
        ("ab", "c"),
        ("a", "bc"),
        ("abc", ""),
        ("", "abc"),
        ("abc",),
        ("c", "ab"),
        ("query", "a"),
        ("document", "a"),
    ]
    texts += [("a\0b",), ("a", "b"), ("感冒",), ("感", "冒"), ("é",), ("e\u0301",), ("a\ud800",), ("a\udfff",)]
    assert len({item_key(*parts) for parts in texts}) == len(texts)


# what is kept


def test_what_is_written_is_read(tmp_path: Path) -> None:
    special = np.array([1e-45, -0.0, 3.4e38, np.pi], np.float32)
    outputs = {
        item_key("vector"): StoredOutput(special, 512, True),
        item_key("score"): StoredOutput(np.float32(0.1), -1, False),
    }
    with opened(tmp_path / "a" / "b") as store:
        store.write(outputs)
    with opened(tmp_path / "a" / "b") as store:
        found = dict(store.read([item_key("missing"), *outputs]))
    assert found.keys() == outputs.keys()
    for key, stored in outputs.items():
        assert found[key].output.tobytes() == np.atleast_1d(stored.output).tobytes()
        assert (found[key].tokens, found[key].truncated) == (stored.tokens, stored.truncated)


def test_many_keys_at_once(tmp_path: Path) -> None:
    keys = [item_key(str(number)) for number in range(1_203)]
    with opened(tmp_path) as store:
        store.write({key: StoredOutput(np.float32([number]), number, False) for number, key in enumerate(keys)})
        found = dict(store.read(keys[::-1]))
    assert [found[key].tokens for key in keys] == list(range(1_203))


def test_what_is_written_again_replaces(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        for number in (1, 2):
            store.write({item_key("a"): StoredOutput(np.float32([number]), number, False)})
        assert [stored.tokens for _, stored in store.read([item_key("a")])] == [2]
    assert damaged_rows(tmp_path) == (1, 0)


def test_ways_are_kept_apart(tmp_path: Path) -> None:
    """Also where a description holds what is not in UTF-8, as a folder's name may."""
    descriptions = [WAY, WAY | {"max_length": 5}, WAY | {"prompt": "查询："}, WAY | {"prompt": "\udcff"}, {}]
    for number, way in enumerate(descriptions):
        with opened(tmp_path, way) as store:
            assert list(store.read([item_key("a")])) == []
            store.write({item_key("a"): StoredOutput(np.float32([number]), number, False)})
    for number, way in enumerate(descriptions):
        with opened(tmp_path, dict(reversed(way.items()))) as store:
            assert [stored.tokens for _, stored in store.read([item_key("a")])] == [number]
    assert [(info.description, info.rows, info.output_bytes) for info in ways(tmp_path)] == [
        (way, 1, 4) for way in descriptions
    ]


def test_a_batch_is_stored_whole_or_not_at_all(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        outputs = {item_key(str(n)): StoredOutput(np.float32([n]), n, False) for n in range(5)}
        with pytest.raises(OverflowError):  # the fourth row is more than SQLite takes
            store.write(outputs | {item_key("3"): StoredOutput(np.float32([3]), 2**70, False)})
        assert list(store.read(list(outputs))) == []
        store.write(outputs)
        assert len(list(store.read(list(outputs)))) == 5


# through the engine


@pytest.mark.parametrize("kind", ["cross-encoder", "embedder"])
def test_scores_are_made_once(kind: str, tmp_path: Path) -> None:
    scorer: Pairs | Vectors = Pairs() if kind == "cross-encoder" else Vectors()
    first = score(tmp_path, scorer, kind=kind)
    assert first.usage.items_from_store == 0
    model = RunnableModel(ModelIdentity("made", "local/made", "made", kind), {}, WAY, never)
    with opened(tmp_path, WAY | {"kind": kind}) as store:
        again = score_task(model, model_settings({"name": "made", "kind": kind}), TASK, ScoreMemory(store))
    np.testing.assert_array_equal(again.scores, first.scores)
    assert again.usage.items_from_store == again.usage.items == first.usage.items
    assert (again.usage.seconds, again.usage.latencies) == (0.0, ())


def test_tasks_share_what_their_texts_share(tmp_path: Path) -> None:
    """Where no plan of evalkit's decides what an item is scored with."""
    one = make_task((["感冒"], [("多喝水", 1), ("苹果", 0)]), name="one")
    two = make_task((["发烧"], [("苹果", 0)]), (["感冒"], [("苹果", 1), ("休息", 0)]), name="two")
    score(tmp_path, Pairs(), one, independent=True)
    scorer = Pairs()
    np.testing.assert_array_equal(score(tmp_path, scorer, two, independent=True).scores, truth(two))
    # a chunk is run whole; of its outputs the new ones are kept
    assert damaged_rows(tmp_path) == (4, 0)
    vectors = Vectors()
    score(tmp_path, Vectors(), one, kind="embedder", independent=True)
    run = score(tmp_path, vectors, two, kind="embedder", independent=True)
    assert run.usage.items_from_store == 2


def test_the_first_queries_scores_serve_the_whole_task(tmp_path: Path) -> None:
    first = make_task((["问题0"], [(f"答案0-{d}" * (1 + d % 3), d % 2) for d in range(20)]))
    score(tmp_path, Pairs(), first, independent=True)
    run = score(tmp_path, Pairs(), independent=True)
    assert run.usage.items_from_store == 20
    np.testing.assert_array_equal(run.scores, truth())


def test_refresh_makes_all_again(tmp_path: Path) -> None:
    score(tmp_path, Pairs(lambda query, document: 7.0))
    np.testing.assert_array_equal(score(tmp_path, Pairs()).scores, 7.0)
    run = score(tmp_path, Pairs(), refresh=True)
    assert run.usage.items_from_store == 0
    np.testing.assert_array_equal(run.scores, truth())
    np.testing.assert_array_equal(score(tmp_path, Pairs()).scores, truth())


@pytest.mark.parametrize("other", [{"another": "way"}, WAY])
def test_rows_of_a_run_whose_epoch_is_deleted_meanwhile_are_nobody_else_s(
    other: dict[str, Any], tmp_path: Path
) -> None:
    """Two refreshes delete the epoch that a slower run writes; what begins then has a number of its own."""
    keys = [item_key("query", str(number)) for number in range(6)]
    late = open_store(tmp_path, WAY)
    late.write({keys[0]: StoredOutput(np.float32([1]), 1, False)})
    for number in (1, 2):
        with closing(open_store(tmp_path, WAY)) as again:
            again.begin_anew(keys)
            again.write({keys[number]: StoredOutput(np.float32([2]), 1, False)})
    with closing(open_store(tmp_path, {**other, "begun": "later"})) as begun:
        begun.write({key: StoredOutput(np.float32([3]), 1, False) for key in keys})
        late.write({keys[3]: StoredOutput(np.float32([4]), 1, False)})
        assert {key: row.output.tolist() for key, row in late.read(keys)} == {keys[3]: [4.0]}
        assert {key: row.output.tolist() for key, row in begun.read(keys)} == {key: [3.0] for key in keys}
    late.close()
    assert damaged_rows(tmp_path) == (len(keys) + 3, 0)


# what decides


def way_of(folder: Path, runtime: Runtime = Runtime(device="cpu"), **fields: Any) -> str:  # noqa: B008
    settings = model_settings({"name": "made", "path": str(folder), "kind": "embedder"} | fields)
    return json.dumps(prepare_model("torch", settings, runtime).way, sort_keys=True)


def test_all_that_can_change_a_score_is_another_way(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_bert_reranker, tmp_path / "model")
    plain = way_of(folder)
    fields: list[dict[str, Any]] = [
        {"query_prompt": "query: "},
        {"document_prompt": "query: "},
        {"pooling": "cls"},
        {"similarity": "dot"},
        {"max_length": 512},
        {"max_length": 128},
        {"truncation": "only_second"},
        {"kind": "cross-encoder"},
    ]
    found = [plain, *(way_of(folder, **one) for one in fields)]
    found += [way_of(folder, Runtime(device="cpu", dtype=dtype)) for dtype in ("bf16", "fp16")]
    for path in (folder / "tokenizer.json", folder / "tokenizer_config.json", folder / "config.json"):
        path.write_text(path.read_text(encoding="utf-8") + " ", encoding="utf-8")
        found.append(way_of(folder))
    (folder / "vocab.txt").touch()
    found.append(way_of(folder))
    edit_weights(folder, lambda tensors: {name: tensor * 2 for name, tensor in tensors.items()})
    found.append(way_of(folder))
    assert len(set(found)) == len(found)


def test_what_cannot_change_a_score_is_not(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_bert_reranker, tmp_path / "model")
    plain = way_of(folder)
    (folder / "README.md").touch()
    runtimes = [Runtime(device="cpu", seed=7), Runtime(device="cpu", offline=True), Runtime(cache_dir=tmp_path)]
    assert {way_of(folder, runtime) for runtime in runtimes} == {plain}
    assert way_of(folder, name="another", revision="abc", parameters=3.0) == plain
    # the same weights elsewhere
    assert way_of(shutil.copytree(folder, tmp_path / "elsewhere" / "model")) == plain


# circumstances


def test_a_store_that_is_locked_is_not_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_file, "BUSY_SECONDS", 0.1)
    with opened(tmp_path) as store, closing(sqlite3.connect(tmp_path / FILE_NAME)) as other:
        store.write({item_key("a"): StoredOutput(np.float32([1]), 1, False)})
        other.execute("begin immediate")
        with pytest.raises(EvalkitError, match=r"can't be used: database is locked; .* cache=off"):
            store.write({item_key("b"): StoredOutput(np.float32([1]), 1, False)})
        assert len(list(store.read([item_key("a")]))) == 1
        other.execute("rollback")
        store.write({item_key("b"): StoredOutput(np.float32([1]), 1, False)})
    assert damaged_rows(tmp_path) == (2, 0)
    assert not list(tmp_path.glob("*.damaged-*"))


def test_a_folder_in_the_file_s_place(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(EvalkitError, match=r"can't be used: .* cache=off"):
        open_store(tmp_path, WAY)
