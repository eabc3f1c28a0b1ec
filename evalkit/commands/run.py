"""`evalkit run`: evaluates models on tasks, and prints what came of it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from evalkit import interruption
from evalkit.commands.arguments import ConfigDir, JsonFile, json_target
from evalkit.commands.settings_arguments import Multirun, Overrides, Resolve, Show, read_words
from evalkit.output.text import Told, is_one_stream

if TYPE_CHECKING:
    from evalkit.evaluation.runs import RunSettings
    from evalkit.results.result import Result

GOES_ON = "finished results and stored scores are kept: the same command goes on from there"
REFRESH_GOES_ON = (
    "finished results and stored scores are kept: the same command without cache=refresh goes on from there"
)
logger = logging.getLogger("evalkit")


def run(
    ctx: typer.Context,
    overrides: Overrides = None,
    multirun: Multirun = False,
    json_file: JsonFile = None,
    config_dir: ConfigDir = None,
    show: Show = None,
    resolve: Resolve = False,
) -> int:
    """Evaluate a model on a task (the default): evalkit [run] task=NAME model=NAME [key=value …].

    Every combination: evalkit -m task=A,B model=C,D. Exit code 1 where published figures were to be reproduced and were not.
    """
    interruption.advise(GOES_ON)
    words = read_words(ctx, overrides or [], config_dir, multirun=multirun, show=show, resolve=resolve)
    target = json_target(json_file, "results")
    from evalkit.cluster.crew import dismiss
    from evalkit.commands.run_settings import settle_each

    done: list[Result] = []
    told = Told()
    logger.addFilter(told)

    def act(settings: RunSettings) -> None:
        from evalkit.evaluation.runs import run as evaluate_all

        if settings.cache == "refresh":
            interruption.advise(REFRESH_GOES_ON)
        for finished in evaluate_all(settings):  # one by one: what is done stays done
            done.append(finished)

    code = 0
    try:
        settle_each(words, act)
    finally:
        logger.removeFilter(told)
        dismiss()  # what runner=ray started, if it was chosen
        if done:
            code = _print_summary(done, target, told.lines if is_one_stream() else ())
    if not done and any(word.startswith("hydra/launcher=") for word in words.overrides):
        logger.info("the launcher's processes wrote the results; evalkit report FOLDER ranks them")
    return code


def _print_summary(results: Sequence[Result], target: Path | None, told: Collection[str]) -> int:
    """Print the results, and the card's table where that was to be reproduced: 1 if it was not, else 0.

    Of the remarks that were `told` to the same reader before, it says where they are.
    """
    from evalkit.report.summary import print_summary, summary_content, was_reproduced

    if target is not None:
        from evalkit.output.json import STDOUT, write_json

        write_json(summary_content(results), target)
        if target == STDOUT:
            return 0 if was_reproduced(results) else 1
    from evalkit.output.console import OutputConsole

    console = OutputConsole()
    print_summary(results, console, told)
    reproduced = [result for result in results if result.config.get("reproduce")]
    if not reproduced:
        return 0
    from evalkit.report.reproduction import print_reproduction

    return 0 if print_reproduction(reproduced, console) else 1
