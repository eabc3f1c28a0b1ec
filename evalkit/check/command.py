"""`evalkit check`: compare, write the reports, print the table, and say it in an exit code."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from evalkit.check.findings import find_rows
from evalkit.check.folders import Side, load_side
from evalkit.check.rendering import check_content, junit_xml, markdown_summary, print_check
from evalkit.check.rows import CheckRow, CheckRules, outcome
from evalkit.errors import EvalkitError
from evalkit.output.console import OutputConsole
from evalkit.output.files import write_bytes
from evalkit.output.json import STDOUT, write_json
from evalkit.results.reading import refuse_result

_SMALLEST_ALPHA = 0.001  # ten times the smallest p that 10,000 resamples give


def run_check(
    baseline: Path,
    results: Path,
    rules: CheckRules,
    junit: Path | None,
    summary: Path | None,
    json_file: Path | None,
    revisions: Sequence[str] = (),
) -> int:
    """Compare the results in two folders and print the table. Gives the exit code: 1 for a regression or an error.

    With `revisions` only results whose revision is one of them, or begins so, are compared with the baseline.
    JSON goes to a file beside the table, or to standard output in its place. `junit` is replaced; `summary` is appended to,
    since the steps of a job on GitHub share that file. Raises EvalkitError, after everything else is done, where a result can't
    be read or a report can't be written.
    """
    _refuse_wrong_usage(baseline, results, rules)
    refuse_result(junit, "--junit")
    refuse_result(summary, "--summary")
    before, after = load_side(baseline, other=results), load_side(results, other=baseline, revisions=revisions)
    rows = find_rows(before, after, rules)
    try:
        _write_reports(rows, rules, junit, summary)
        if json_file is not None and json_file != STDOUT:
            write_json(check_content(rows, rules), json_file)
    finally:
        _print(rows, rules, as_json=json_file == STDOUT)
    _refuse_unreadable(before, after)
    return int(any(outcome(row, rules) in ("failed", "error") for row in rows))


def _print(rows: Sequence[CheckRow], rules: CheckRules, *, as_json: bool) -> None:
    """Print the table, or JSON in its place. A reader that has seen enough, such as `head`, does not change the verdict."""
    try:
        if as_json:
            write_json(check_content(rows, rules))
        else:
            print_check(rows, rules, OutputConsole())
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _refuse_wrong_usage(baseline: Path, results: Path, rules: CheckRules) -> None:
    if baseline.resolve() == results.resolve():
        raise EvalkitError(f"--baseline and --results are the same folder, {baseline}; give two")
    if not (math.isfinite(rules.tolerance) and rules.tolerance >= 0):
        raise EvalkitError(f"--tolerance {rules.tolerance:g}: give percentage points, 0 or more")
    if not _SMALLEST_ALPHA <= rules.alpha < 1:
        raise EvalkitError(f"--alpha {rules.alpha:g}: give a chance between {_SMALLEST_ALPHA} and 1, as in 0.01")


def _write_reports(rows: Sequence[CheckRow], rules: CheckRules, junit: Path | None, summary: Path | None) -> None:
    if junit is not None:
        write_bytes(junit_xml(rows, rules), junit)
    if summary is not None:
        _append(summary, markdown_summary(rows, rules).encode())


def _append(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(content)
    except OSError as error:
        raise EvalkitError(f"cannot write {path} ({error.strerror}); choose another file") from error


def _refuse_unreadable(before: Side, after: Side) -> None:
    reasons = [one.reason for side in (before, after) for one in side.unreadable]
    if reasons:
        more = f" (and {len(reasons) - 1} more: see the table)" if len(reasons) > 1 else ""
        raise EvalkitError(f"not everything could be compared: {reasons[0]}{more}")
