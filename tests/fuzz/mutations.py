"""Inputs that are almost right: valid ones with fields dropped, doubled, renamed or of another type, and bytes damaged."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

NASTY = [
    "", " ", "\0", "\n", "a\nb", "\r", "\t", "NaN", "nan", "inf", "-Infinity", "null", "0", "-1", "1e400", "1e-400", "٣", "1_000",
    "../../etc", "/etc/passwd", "\\\\host\\c$", "C:\\x", "CON", "..", "\x1b[31mred\x1b[0m", "\x9b2J", "\u202egnp.exe", "\ud800",
    "\u2028", "\ufeff", "<script>alert(1)</script>", "=1+1", "@x", "|", "`", "${oc.env:HOME}", "${", "{{7*7}}", "%s%n", "'\"", "\\",
    "!!python/object/apply:os.system ['true']", "&a [*a]", "问题", "🍎", "é", "e\u0301", "x" * 5000,
]  # fmt: skip
NUMBERS = st.sampled_from(
    [0, -1, 1, 2, 2**31, 2**63, -(2**63) - 1, 10**30, 10**400, 0.5, -0.5, 1e308, 5e-324, 1e-9, -0.0, 1.0000001]
) | st.sampled_from([float("nan"), float("inf"), float("-inf")])
TEXTS = st.sampled_from(NASTY) | st.text(st.characters(), max_size=12)
LEAVES = st.none() | st.booleans() | NUMBERS | st.integers() | st.floats() | TEXTS
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
DEEP = st.sampled_from([100, 500, 900, 2_000, 100_000])


@st.composite
def mutated(draw: st.DrawFn, value: Any, most: int = 3) -> Any:
    """A copy of a JSON value with up to so many changes at any places."""
    changed = copy.deepcopy(value)
    for _ in range(draw(st.integers(0, most))):
        places = list(_places(changed))
        if not places:
            return draw(TREES)
        holder, key = draw(st.sampled_from(places))
        draw(st.sampled_from(CHANGES))(draw, holder, key)
    return changed


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every field and item: its holder and key; those further up are as likely as the many below them."""
    if isinstance(value, dict):
        yield from ((value, key) for key in value)
        for part in value.values():
            yield from _places(part)
    elif isinstance(value, list):
        yield from ((value, number) for number in range(len(value)))
        for part in value[:4]:
            yield from _places(part)


def _drop(draw: st.DrawFn, holder: Any, key: Any) -> None:
    del holder[key]


def _replace(draw: st.DrawFn, holder: Any, key: Any) -> None:
    holder[key] = draw(TREES)


def _nudge(draw: st.DrawFn, holder: Any, key: Any) -> None:
    """Another value of the same type."""
    old = holder[key]
    if isinstance(old, bool):
        holder[key] = not old
    elif isinstance(old, int | float):
        holder[key] = draw(NUMBERS | st.just(old + 1) | st.just(-old))
    elif isinstance(old, str):
        cut = draw(st.integers(0, len(old)))
        holder[key] = old[:cut] + draw(TEXTS) + old[cut:]
    elif isinstance(old, list):
        holder[key] = draw(st.sampled_from([old * 2, old[:1], old[::-1], [old]]))
    else:
        holder[key] = [old] if isinstance(old, dict) else draw(LEAVES)


def _retag(draw: st.DrawFn, holder: Any, key: Any) -> None:
    if isinstance(holder, dict):
        name = draw(st.sampled_from(sorted(map(str, holder))) | TEXTS)
        holder[name] = holder.pop(key)
    else:
        other = draw(st.integers(0, len(holder) - 1))
        holder[key], holder[other] = holder[other], holder[key]


def _double(draw: st.DrawFn, holder: Any, key: Any) -> None:
    if isinstance(holder, dict):
        holder[f"{key}{draw(st.sampled_from(['', ' ', '2', chr(0)]))}"] = holder[key]
    else:
        holder.insert(key, copy.deepcopy(holder[key]))


CHANGES: list[Callable[[st.DrawFn, Any, Any], None]] = [_drop, _replace, _nudge, _nudge, _retag, _double]


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes with some of them flipped, cut off, cut out, doubled or put in."""
    found = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(found) - 1)))
        length = draw(st.integers(0, 40))
        how = draw(st.sampled_from(["flip", "flip", "cut off", "cut out", "double", "put in"]))
        if how == "flip" and found:
            found[place] ^= 1 << draw(st.integers(0, 7))
        elif how == "cut off":
            del found[place:]
        elif how == "cut out":
            del found[place : place + length]
        elif how == "double":
            found[place:place] = found[place : place + length]
        else:
            found[place:place] = draw(
                st.binary(max_size=8) | TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass"))
            )
    return bytes(found)


def json_bytes(value: Any) -> bytes:
    """JSON as Python writes it: NaN and lone surrogates included."""
    return json.dumps(value).encode()


def deep_json(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def parquet_bytes(rows: list[Any]) -> bytes | None:
    """Rows as parquet, of whatever types they have; None where parquet can't hold them."""
    try:
        columns = dict.fromkeys(key for row in rows for key in row)
        # a column of mixed types is written as text where it must be
        table = pa.table({name: pa.array([row.get(name) for row in rows]) for name in columns})
    except (pa.ArrowException, TypeError, ValueError, OverflowError, AttributeError):
        return None
    sink = io.BytesIO()
    try:
        pq.write_table(table, sink)
    except (pa.ArrowException, ValueError, OverflowError):
        return None
    return sink.getvalue()
