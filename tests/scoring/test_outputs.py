"""A table of outputs: what the store has comes first, what was known stays, and a batch goes into the store whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from evalkit.errors import EvalkitError
from evalkit.scoring.outputs import NOT_COUNTED, OutputTable
from evalkit.scoring.store import ScoreStore, item_key, open_store

KEYS = [item_key(text) for text in "abcdef"]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ScoreStore]:
    with closing(open_store(tmp_path, {"way": 1})) as opened:
        yield opened


def items(*numbers: int) -> NDArray[np.int64]:
    return np.array(numbers, np.int64)


def floats(*numbers: float) -> NDArray[np.float32]:
    return np.array(numbers, np.float32)


def test_an_empty_table_knows_nothing(store: ScoreStore) -> None:
    table = OutputTable(KEYS, store)
    assert (table.complete, table.from_store, table.elapsed) == (False, 0, 0.0)
    assert table.lacks(slice(0, 6))
    assert OutputTable([], store).complete


def test_what_one_table_took_the_next_finds(store: ScoreStore) -> None:
    first = OutputTable(KEYS, store)
    first.add(items(4, 1), floats(0.25, -1.5), 3.0, [30, 60], [False, True])
    assert first.seconds[[4, 1]].tolist() == [1.0, 2.0]  # by tokens
    assert not first.lacks(items(1, 4))
    assert first.lacks(items(0, 1))
    second = OutputTable(KEYS, store)
    assert second.from_store == 2
    assert second.known.tolist() == [False, True, False, False, True, False]
    assert second.values[[4, 1]].tolist() == [0.25, -1.5]
    assert (second.tokens[[4, 1]].tolist(), second.truncated[[4, 1]].tolist()) == ([30, 60], [False, True])
    assert np.isnan(second.seconds).all()
    second.add(items(0, 2, 3, 5), floats(1, 2, 3, 4), 1.0)
    assert second.complete
    assert second.tokens[0] == NOT_COUNTED
    assert second.seconds[[0, 2, 3, 5]].tolist() == [0.25] * 4


@pytest.mark.parametrize("dimensions", [2, 3])
def test_vectors(store: ScoreStore, dimensions: int) -> None:
    vectors = np.arange(6 * dimensions, dtype=np.float32).reshape(6, dimensions)
    OutputTable(KEYS, store).add(items(0, 1, 2), vectors[:3], 1.0)
    table = OutputTable(KEYS, store)
    table.add(items(2, 3, 4, 5), vectors[2:], 1.0)
    np.testing.assert_array_equal(table.values, vectors)


def test_what_is_known_stays_as_it_is(store: ScoreStore) -> None:
    """A batch that is run again for one item's sake rounds the others differently."""
    OutputTable(KEYS, store).add(items(0, 1), floats(1, 2), 1.0, [5, 6])
    table = OutputTable(KEYS, store)
    table.add(items(0, 1, 2), floats(1.5, 2.5, 3.5), 1.0, [7, 8, 9])
    for found in (table, OutputTable(KEYS, store)):
        assert found.values[:3].tolist() == [1, 2, 3.5]
        assert found.tokens[:3].tolist() == [5, 6, 9]


def test_a_refresh_takes_nothing_and_what_was_there_is_not_read_again(store: ScoreStore) -> None:
    OutputTable(KEYS, store).add(items(0, 1), floats(1, 2), 1.0)
    store.begin_anew(KEYS)
    table = OutputTable(KEYS, store)
    assert table.from_store == 0
    assert not table.known.any()
    table.add(items(0), floats(9), 1.0)
    found = OutputTable(KEYS, store)
    assert (found.known.tolist(), found.values[0]) == ([True] + [False] * 5, 9)


def test_without_a_store() -> None:
    table = OutputTable(KEYS, None)
    table.add(items(*range(6)), floats(*range(6)), 1.0)
    assert table.complete
    assert table.values.tolist() == list(range(6))


def test_what_could_not_be_stored_is_not_known(store: ScoreStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(outputs: object) -> None:
        raise EvalkitError("no room")

    table = OutputTable(KEYS, store)
    monkeypatch.setattr(store, "write", full)
    with pytest.raises(EvalkitError, match="no room"):
        table.add(items(0), floats(1), 1.0)
    assert not table.known.any()
