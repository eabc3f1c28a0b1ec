"""`evalkit run`, `doctor` and `parity`: what is done with the settings that Hydra composes."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

from evalkit.commands.composition import compose_each
from evalkit.errors import EvalkitError
from evalkit.output.console import OutputConsole

if TYPE_CHECKING:
    from evalkit.evaluation.runs import RunSettings
    from evalkit.results.result import Result

JSON_FLAG = "--json"
logger = logging.getLogger("evalkit")


def run_with_hydra(arguments: list[str]) -> int:
    """Run what the arguments ask for (each of it, with -m), and print the summary: tables, or JSON where `--json` is among them.

    Gives the exit code: 1 where published figures were to be reproduced and were not.
    """
    done: list[Result] = []

    def act(settings: RunSettings) -> None:
        from evalkit.evaluation.runs import run

        for finished in run(settings):  # one by one: what is done stays done
            done.append(finished)

    code = 0
    try:
        compose_each([argument for argument in arguments if argument != JSON_FLAG], act)
    finally:
        _dismiss_actors()
        if done:
            code = _print_summary(done, as_json=JSON_FLAG in arguments)
    if not done and any(argument.startswith("hydra/launcher=") for argument in arguments):
        logger.info("the launcher's processes wrote the results; evalkit report FOLDER ranks them")
    return code


def _dismiss_actors() -> None:
    """End what runner=ray started, if it was chosen."""
    cluster = sys.modules.get("evalkit.cluster.crew")
    if cluster is not None:
        cluster.dismiss()


def _here(settings: RunSettings) -> RunSettings:
    """The settings, of a command that measures a model in this process."""
    if settings.ray is not None:
        raise EvalkitError(
            "runner=ray is for evalkit run; doctor and parity measure a model in this process: leave it out"
        )
    return settings


def diagnose_with_hydra(arguments: list[str]) -> int:
    """Examine the model and task that the arguments name (each pair, with -m), and print what was found."""
    from evalkit.doctor.command import Doctor

    doctor = Doctor(as_json=JSON_FLAG in arguments)
    try:
        compose_each(
            [argument for argument in arguments if argument != JSON_FLAG],
            lambda settings: doctor.examine(_here(settings)),
        )
    finally:
        code = doctor.finish()
    return code


def compare_backends_with_hydra(arguments: list[str]) -> int:
    """Run the same pairs through the backends that the arguments name, and print how far they agree."""
    from evalkit.parity.command import compare_backends
    from evalkit.parity.words import read_words

    return compare_backends(read_words(arguments), _compose)


def _compose(arguments: list[str]) -> RunSettings:
    """The settings of the one run that the arguments ask for."""
    composed: list[RunSettings] = []
    compose_each(arguments, lambda settings: composed.append(_here(settings)))
    if len(composed) != 1:  # such as --cfg, with which Hydra prints and runs nothing
        raise EvalkitError("evalkit parity takes a run's settings, and none of Hydra's flags but --config-dir")
    return composed[0]


def _print_summary(done: list[Result], *, as_json: bool) -> int:
    """Print the table of the results, and the card's table where that was to be reproduced: 1 if it was not, else 0."""
    if as_json:
        from evalkit.report.summary import print_summary_json

        return 0 if print_summary_json(done) else 1
    from evalkit.report.reproduction import print_reproduction
    from evalkit.report.summary import print_summary

    console = OutputConsole()
    print_summary(done, console)
    reproduced = [result for result in done if result.config.get("reproduce")]
    return 0 if not reproduced or print_reproduction(reproduced, console) else 1
