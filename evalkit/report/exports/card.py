"""New figures in a model card: just the entries that change are written, everything else stays byte for byte."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from evalkit.configuration.files import parse_yaml
from evalkit.errors import EvalkitError
from evalkit.output.files import write_bytes
from evalkit.report.exports.model_index import KEY, Entry, index_entries, yaml_text
from evalkit.results.result import Result

# as the Hub and huggingface_hub's RepoCard find it
_FRONT_MATTER = re.compile(r"^(\s*---(?:\r\n|\r|\n))([\S\s]*?)((?:\r\n|\r|\n)---[ \t]*(?:\r\n|\n|$))")
_OPENED = re.compile(r"^\s*---[ \t]*(?:\r\n|\r|\n)(?=[ \t]*(?:#|[\w-]+:))")
_LINE_BREAK = re.compile(r"\r\n|\r|\n")
logger = logging.getLogger("evalkit")
_BYTE_ORDER_MARK = "\ufeff"
_Span = tuple[int, int, str]
_UNSAID = (None, "", "None", "main")  # what cards write where they do not know the dataset's revision


@dataclass(frozen=True)
class IndexChange:
    """The model's place in the model-index (None: it has none), its entries to replace by their places, and those to add."""

    name: str
    place: int | None
    replaced: Mapping[int, Entry]
    added: tuple[Entry, ...]

    def apply(self, index: Sequence[Any]) -> list[Any]:
        """Give the model-index as it is to become."""
        if self.place is None:
            return [*index, {"name": self.name, "results": list(self.added)}]
        own = index[self.place]
        kept = own.get("results") or []
        results = [self.replaced.get(number, entry) for number, entry in enumerate(kept)] + list(self.added)
        return [{**own, "results": results} if number == self.place else one for number, one in enumerate(index)]


def update_card(results: Sequence[Result], path: Path) -> None:
    """Put one model's figures into the model-index of a card, which gets one (and YAML at its top) where it has none.

    Entries of other models, tasks and metrics stay. The file is left alone where nothing changes. Raises EvalkitError for
    several models, and where the card can't be read, written or understood.
    """
    if path.exists() and not path.is_file():  # to read or replace a device or pipe would do harm
        raise EvalkitError(f"--update {path}: it is no file; name a model card")
    try:
        before = path.read_bytes()
        text = before.decode("utf-8")
    except OSError as error:
        raise EvalkitError(f"--update {path}: cannot be read ({error.strerror}); name a model card") from error
    except UnicodeDecodeError as error:
        raise EvalkitError(f"--update {path}: it is not UTF-8 ({error.reason}); save it as UTF-8") from error
    name, entries = index_entries(results)
    owner = results[0].model.hub_id.rpartition("/")[0]
    after = updated_text(text, name, owner, entries, path).encode()
    if after != before:
        write_bytes(after, path)


def updated_text(text: str, name: str, owner: str, entries: Sequence[dict[str, Any]], path: Path) -> str:
    """Give a card's text with a model's entries in its model-index. `path` is for messages. Errors: see `update_card`."""
    mark = _BYTE_ORDER_MARK if text.startswith(_BYTE_ORDER_MARK) else ""
    text = text.removeprefix(mark)
    found = _FRONT_MATTER.match(text)
    if found is None and _OPENED.match(text):
        raise EvalkitError(f"--update {path}: the YAML at its top is not closed by a line ---; add it")
    line_break = _first_line_break(found[1] if found else text)
    if found is None:
        block = _block(KEY, [{"name": name, "results": list(entries)}], line_break)
        return f"{mark}---{line_break}{block}{line_break}---{line_break}{text}"
    front = found[2]
    content = _parsed(front, path)
    index = content.get(KEY) or []
    if not isinstance(index, list):
        raise EvalkitError(f"--update {path}: its {KEY} is no list of models; mend it, or take it out")
    change = plan_change(index, name, owner, entries)
    expected = {**content, KEY: change.apply(index)}
    ways: tuple[Callable[[], str | None], ...] = (
        lambda: _with_entries(front, index, change, line_break),
        lambda: _with_block(front, expected[KEY], line_break),
    )
    for way in ways:
        changed = way()
        if changed is not None and _means(changed, expected):
            _tell_of_others(index, change, path)
            return f"{mark}{found[1]}{changed}{text[found.end(2) :]}"
    raise EvalkitError(
        f"--update {path}: the YAML at its top is written in a way that can't be changed in place; write {KEY} as a list of its "
        "own, with a line per value and without anchors"
    )


def _tell_of_others(index: Sequence[Any], change: IndexChange, path: Path) -> None:
    """Warn where a model that is new in the card may be one that it has under another name."""
    if change.place is None and index:
        others = ", ".join(str(model.get("name")) for model in index if isinstance(model, dict))
        logger.warning("%s: %s stands beside %s, whose figures stay; is it the same model?", path, change.name, others)


def _parsed(front: str, path: Path) -> dict[str, Any]:
    try:
        content = parse_yaml(front)
    except ValueError as error:
        raise EvalkitError(f"--update {path}: the YAML at its top is broken ({error}); mend it") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise EvalkitError(f"--update {path}: the YAML at its top is no mapping of keys to values; mend it")
    return content


def _means(front: str, expected: dict[str, Any]) -> bool:
    try:
        content = parse_yaml(front)
    except ValueError:
        return False
    return bool(content == expected) and list(content) == list(expected)


def _with_entries(front: str, index: Sequence[Any], change: IndexChange, line_break: str) -> str | None:
    """Write the entries that change, each in its place; None where the YAML's form does not allow that."""
    models = _value_of(yaml.compose(front, Loader=yaml.SafeLoader), KEY)
    if not _is_block_list(models):
        return None
    if change.place is None:
        return _spliced(front, [_addition(front, models, change.apply(index)[-1], line_break)])
    results = _value_of(models.value[change.place], "results")
    if not _is_block_list(results):
        return None
    old = index[change.place]["results"]
    spans = [
        _replacement(front, results.value[number], entry, line_break)
        for number, entry in change.replaced.items()
        if entry != old[number]
    ]
    added = [_addition(front, results, entry, line_break) for entry in change.added]
    return _spliced(front, [*spans, *added])


def _with_block(front: str, index: Sequence[Any], line_break: str) -> str | None:
    """Write the whole model-index anew, in its place or at the end."""
    block = _block(KEY, index, line_break)
    root: Any = yaml.compose(front, Loader=yaml.SafeLoader)
    value = _value_of(root, KEY)
    if value is None:
        return f"{front}{line_break}{block}" if front.strip() else block
    key = next(key for key, _ in root.value if key.value == KEY)
    return _spliced(front, [(key.start_mark.index, _end(value, front), block)])


def _value_of(node: Any, key: str) -> Any:
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    return next((value for name, value in pairs if name.value == key), None)


def _is_block_list(node: Any) -> bool:
    return isinstance(node, yaml.SequenceNode) and not node.flow_style and bool(node.value)


def _replacement(front: str, node: Any, entry: dict[str, Any], line_break: str) -> _Span:
    return node.start_mark.index, _end(node, front), _indented(entry, node.start_mark.column, line_break)


def _addition(front: str, items: Any, entry: dict[str, Any], line_break: str) -> _Span:
    """Where and how an item is added to a list: below its last one's last line."""
    rest = _LINE_BREAK.search(front, _end(items, front))
    place = rest.start() if rest else len(front)
    column = items.start_mark.column
    return place, place, f"{line_break}{' ' * column}- {_indented(entry, column + 2, line_break)}"


def _end(node: Any, front: str) -> int:
    """Where a node's last character stands; a block's own end mark is that of the comments and empty lines below it."""
    if isinstance(node, yaml.ScalarNode) or node.flow_style:
        start: int = node.start_mark.index
        end: int = node.end_mark.index
        return max(start, len(front[:end].rstrip()))
    last = node.value[-1]
    return _end(last[1] if isinstance(node, yaml.MappingNode) else last, front)


def _spliced(front: str, spans: Sequence[_Span]) -> str:
    """Replace spans, which do not overlap; those that begin at one place follow each other in their order."""
    parts, place = [], 0
    for start, end, new in sorted(spans, key=lambda span: span[0]):
        parts += [front[place:start], new]
        place = end
    return "".join([*parts, front[place:]])


def _indented(content: object, column: int, line_break: str) -> str:
    return yaml_text(content).rstrip("\n").replace("\n", line_break + " " * column)


def _block(key: str, content: object, line_break: str) -> str:
    return _indented({key: content}, 0, line_break)


def _first_line_break(text: str) -> str:
    found = _LINE_BREAK.search(text)
    return found[0] if found else "\n"


def plan_change(index: Sequence[Any], name: str, owner: str, entries: Sequence[Entry]) -> IndexChange:
    """Find the places of a model's new entries. `owner` is its organisation, which a card may put before its name.

    An entry of the same task, dataset, subset and split is the model's own and replaced, but for metrics of other names,
    which stay. It is another's where it names a source, or holds other metrics of another revision of the dataset.
    """
    place = next((number for number, one in enumerate(index) if _is_named(one, name, owner)), None)
    old = (index[place].get("results") or []) if place is not None else []
    replaced: dict[int, Entry] = {}
    added: list[Entry] = []
    for entry in entries:
        own = next((number for number, one in enumerate(old) if _is_own(one, entry)), None)
        if own is None:
            added.append(entry)
        else:
            replaced[own] = _merged(old[own], entry)
    return IndexChange(name, place, replaced, tuple(added))


def _is_named(one: Any, name: str, owner: str) -> bool:
    stated = _get(one, "name")
    return isinstance(stated, str) and stated.casefold() in (name.casefold(), f"{owner}/{name}".casefold())


def _is_own(old: Any, new: Entry) -> bool:
    if not isinstance(old, dict) or "source" in old or not isinstance(old.get("metrics"), list):
        return False
    return _identity(old) == _identity(new) and (_same_revision(old, new) or not _other_metrics(old, new))


def _identity(entry: Entry) -> tuple[str, ...]:
    dataset = entry.get("dataset")
    parts = (_get(entry.get("task"), "type"), _get(dataset, "type"), _get(dataset, "config"), _get(dataset, "split"))
    kind, identifier, subset, split = ("" if part is None else str(part) for part in parts)
    return (kind.casefold(), identifier.casefold(), subset or "default", split, str(_get(dataset, "args")))


def _same_revision(old: Entry, new: Entry) -> bool:
    stated, ours = (_get(entry["dataset"], "revision") for entry in (old, new))
    return stated in _UNSAID or stated == ours


def _other_metrics(old: Entry, new: Entry) -> list[Any]:
    ours = {metric["type"] for metric in new["metrics"]}
    return [metric for metric in old["metrics"] if _get(metric, "type") not in ours]


def _merged(old: Entry, new: Entry) -> Entry:
    """Return the old entry with the new figures, in its own order; what the old one says beside stays."""
    ours = {metric["type"]: metric for metric in new["metrics"]}
    metrics = [_with_value(metric, ours.pop(_get(metric, "type"), None)) for metric in old["metrics"]]
    return {**old, "dataset": {**old["dataset"], **new["dataset"]}, "metrics": [*metrics, *ours.values()]}


def _with_value(old: Any, new: Entry | None) -> Any:
    """Return a metric with another value; the Hub's mark that it verified the old one goes."""
    if new is None:
        return old
    return {**{key: value for key, value in old.items() if key not in ("verified", "verifyToken")}, **new}


def _get(holder: Any, key: str) -> Any:
    return holder.get(key) if isinstance(holder, dict) else None
