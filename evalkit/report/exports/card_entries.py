"""What new figures change in a card's model-index: which entries they replace, and which they add."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Entry = dict[str, Any]

_UNSAID = (None, "", "None", "main")  # what cards write where they do not know the dataset's revision


@dataclass(frozen=True)
class Change:
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


def plan_change(index: Sequence[Any], name: str, owner: str, entries: Sequence[Entry]) -> Change:
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
    return Change(name, place, replaced, tuple(added))


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
    """The old entry with the new figures, in its own order; what the old one says beside stays."""
    ours = {metric["type"]: metric for metric in new["metrics"]}
    metrics = [_with_value(metric, ours.pop(_get(metric, "type"), None)) for metric in old["metrics"]]
    return {**old, "dataset": {**old["dataset"], **new["dataset"]}, "metrics": [*metrics, *ours.values()]}


def _with_value(old: Any, new: Entry | None) -> Any:
    """A metric with another value; the Hub's mark that it verified the old one goes."""
    if new is None:
        return old
    return {**{key: value for key, value in old.items() if key not in ("verified", "verifyToken")}, **new}


def _get(holder: Any, key: str) -> Any:
    return holder.get(key) if isinstance(holder, dict) else None
