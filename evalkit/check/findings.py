"""From two folders to rows: every pair judged, and everything named that can't be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from evalkit.check.changes import Judgement, compare, judged_metrics
from evalkit.check.folders import Pair, Side, Unreadable, pair_results, place_of
from evalkit.check.rows import CheckRow, CheckRules, CheckVerdict
from evalkit.output.numbers import listed
from evalkit.results.result import Result

_LONG_REVISION = 40  # hex digits of a commit
_SHOWN_DIGITS = 12


def find_rows(before: Side, after: Side, rules: CheckRules) -> list[CheckRow]:
    """Compare all that can be, and give a row for each verdict: by model, task, settings and metric."""
    pairing = pair_results(before.results, after.results)
    rows = [row for pair in pairing.pairs for row in _pair_rows(pair, rules)]
    if not after.is_lost:
        gone = [result for result in pairing.missing if not after.has_unreadable(_place(result))]
        rows += _lone_rows(gone, CheckVerdict.MISSING, f"the baseline has it, {after.folder} has not")
    if not before.is_lost:
        added = [result for result in pairing.new if not before.has_unreadable(_place(result))]
        rows += _lone_rows(added, CheckVerdict.NEW, "the baseline does not have it")
    rows += [_ambiguous_row(old, new) for old, new in pairing.ambiguous]
    known = {_place(result): result for result in (*after.results, *before.results)}
    rows += [_unreadable_row(one, known.get(place_of(one.path))) for side in (before, after) for one in side.unreadable]
    return sorted(rows, key=lambda row: (row.model, row.task, row.settings))


def _pair_rows(pair: Pair, rules: CheckRules) -> Iterator[CheckRow]:
    for metric, judgement in _judge(pair, rules).items():
        yield _row(pair.after, metric, judgement, _revisions(pair))


def _judge(pair: Pair, rules: CheckRules) -> dict[str, Judgement]:
    before, after = pair.before, pair.after
    refusal = None
    if before.protocol != after.protocol:
        note = f"{before.protocol} leads in the baseline, {after.protocol} in the results; run with protocol={before.protocol}"
        refusal = Judgement(CheckVerdict.OTHER_PROTOCOL, note=note)
    elif before.task.fingerprint != after.task.fingerprint:
        note = (
            f"the baseline scored other data (fingerprint {before.task.fingerprint[:_SHOWN_DIGITS]} there, "
            f"{after.task.fingerprint[:_SHOWN_DIGITS]} here); score the same data, or renew the baseline"
        )
        refusal = Judgement(CheckVerdict.OTHER_DATA, note=note)
    if refusal:
        return dict.fromkeys(judged_metrics(before, after), refusal)
    return compare(before, after, rules)


def _lone_rows(results: Iterable[Result], verdict: CheckVerdict, note: str) -> Iterator[CheckRow]:
    for result in results:
        for metric in judged_metrics(result):
            yield _row(result, metric, Judgement(verdict, note=note))


def _ambiguous_row(old: tuple[Result, ...], new: tuple[Result, ...]) -> CheckRow:
    named = [listed(str(result.path) for result in results) for results in (old, new)]
    choose = f"choose one with --revision, as in --revision {_shortened(new[-1].model.revision)}"
    note = f"can't tell which belong together: {named[0]} in the baseline, {named[1]} in the results; " + (
        choose if len(old) == 1 else f"keep one in the baseline, and {choose}"
    )
    return _row(new[0], "", Judgement(CheckVerdict.AMBIGUOUS, note=note))


def _unreadable_row(unreadable: Unreadable, counterpart: Result | None) -> CheckRow:
    if counterpart is not None:
        return _row(counterpart, "", Judgement(CheckVerdict.UNREADABLE, note=unreadable.reason))
    if unreadable.path.suffix != ".json":
        return CheckRow(str(unreadable.path), "", CheckVerdict.UNREADABLE, note=unreadable.reason)
    folder, settings, task = place_of(unreadable.path)
    model = _shown_model(folder.replace("__", "/", 1))
    return CheckRow(model, task, CheckVerdict.UNREADABLE, settings=settings, note=unreadable.reason)


def _row(result: Result, metric: str, judgement: Judgement, revisions: str = "") -> CheckRow:
    return CheckRow(
        model=_shown_model(result.model.hub_id),
        task=result.task.name,
        verdict=judgement.verdict,
        metric=metric,
        settings=result.experiment,
        revisions=revisions,
        change=judgement.change,
        note=judgement.note,
    )


def _place(result: Result) -> tuple[str, str, str]:
    return place_of(result.path or Path())  # read from a folder, it has one


def _shown_model(hub_id: str) -> str:
    return hub_id.removeprefix("local/")


def _revisions(pair: Pair) -> str:
    old, new = pair.before.model.revision, pair.after.model.revision
    return "" if old == new else f"{_shortened(old)} → {_shortened(new)}"


def _shortened(revision: str) -> str:
    return (revision[:_SHOWN_DIGITS] if len(revision) == _LONG_REVISION else revision) or "none"
