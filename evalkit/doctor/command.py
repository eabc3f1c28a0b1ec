"""`evalkit doctor`: examines models on samples of tasks, and prints what each check found."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.text import Text

from evalkit.doctor.checks import Check, judge_evidence
from evalkit.doctor.examination import SECONDS, examine
from evalkit.doctor.records import Evidence, Opinion, Verdict
from evalkit.errors import WrongWeightsError
from evalkit.evaluation.model_recipes import recipe_fields, recipe_sheet
from evalkit.evaluation.runs import RunSettings, model_of, tasks_of
from evalkit.output.console import OutputConsole, Tone, print_lines, toned
from evalkit.output.json import STDOUT, write_json
from evalkit.output.numbers import counted
from evalkit.output.sheets import print_sheets

TONES: Mapping[Verdict, Tone] = {"ok": "good", "warning": "warning", "fault": "bad", "skipped": "dim"}
NAMES = {"ok": "ok", "warning": "warning", "fault": "FAULT", "skipped": "–"}
logger = logging.getLogger("evalkit")


class Doctor:
    """Examines what it is given, one after the other, and keeps count of faults. JSON is written once, at the end."""

    def __init__(self, json_file: Path | None) -> None:
        self._json_file = json_file
        self._reports: list[dict[str, Any]] = []
        self._console = OutputConsole()

    def examine(self, settings: RunSettings) -> None:
        """Examine a model on a task, or on each of a suite's, which share the time. Raises EvalkitError as a run does."""
        try:
            model = model_of(settings)
        except WrongWeightsError as error:  # which its files say already
            for task in tasks_of(settings):
                self._tell(Evidence(settings.model, settings.runtime.dtype, task, broken=str(error)), {})
            return
        tasks = tasks_of(settings)
        fields = {} if model.recipe is None else recipe_fields(model.recipe)
        recipe = {"recipe": {name: asdict(one) for name, one in fields.items()}}
        if fields and model.recipe is not None and self._json_file != STDOUT:
            print_sheets([recipe_sheet(model.settings.name, fields, model.recipe.findings)], self._console)
        for task in tasks:
            logger.info("examining %s on %s", model.settings.name, task.name)
            self._tell(examine(model, task, seconds=SECONDS / len(tasks), folders=settings.config_folders), recipe)

    def _tell(self, evidence: Evidence, recipe: Mapping[str, Any]) -> None:
        """Keep and print what was found."""
        opinions = judge_evidence(evidence)
        self._reports.append(report(evidence, opinions) | dict(recipe))
        if self._json_file != STDOUT:
            print_lines(lines(evidence, opinions), self._console)

    def finish(self) -> int:
        """Print what is left to print. Return the exit code: 1 where a check found a fault, else 0."""
        verdicts = [check["verdict"] for report in self._reports for check in report["checks"]]
        faults = verdicts.count("fault")
        if self._json_file is not None and (self._reports or self._json_file == STDOUT):
            write_json(self._reports, self._json_file)
        if self._reports and self._json_file != STDOUT:
            warnings = verdicts.count("warning")
            found = (counted(faults, "fault"), counted(warnings, "warning"))
            print_lines([", ".join(found)], self._console)
        return 1 if faults else 0


def report(evidence: Evidence, opinions: Sequence[tuple[Check, Opinion]]) -> dict[str, Any]:
    """Return a diagnosis for machines: the model, the task, the size of the sample, and each check with its verdict."""
    sample = evidence.measured.sample.task.statistics if evidence.measured else None
    return {
        "model": evidence.settings.name,
        "task": evidence.task.name,
        "dtype": evidence.dtype,
        "sample": {"queries": sample.queries, "pairs": sample.pairs} if sample else None,
        "checks": [{"check": check.name, **asdict(opinion), "why": check.why} for check, opinion in opinions],
    }


def lines(evidence: Evidence, opinions: Sequence[tuple[Check, Opinion]]) -> list[Text]:
    """Return a diagnosis for people: a heading, a line per check, and below what is wrong why it matters and what to do."""
    heading = f"{evidence.settings.name} on {evidence.task.name}"
    if evidence.measured is not None:
        sample, whole = evidence.measured.sample.task.statistics, evidence.task.statistics
        heading += (
            f": a sample of {sample.queries:,} of {counted(whole.queries, 'query')}, "
            f"{sample.pairs:,} of {counted(whole.pairs, 'pair')}"
        )
    shown = [toned(heading, "strong")]
    for check, opinion in opinions:
        line = toned(f"  {NAMES[opinion.verdict]:<8}", TONES[opinion.verdict])
        shown.append(line.append(f"{check.name:<14}{opinion.seen}", style="not bold default"))
        if opinion.verdict in ("warning", "fault"):
            shown.append(Text(f"{'':24}why: {check.why}"))
            if opinion.advice:
                shown.append(Text(f"{'':24}do:  {opinion.advice}"))
    return shown
