"""`evalkit doctor`: what it takes."""

from __future__ import annotations

import typer

from evalkit.commands.arguments import ConfigDir, JsonFile, json_target
from evalkit.commands.settings_arguments import Multirun, Overrides, read_words, run_here


def doctor(
    ctx: typer.Context,
    overrides: Overrides = None,
    multirun: Multirun = False,
    json_file: JsonFile = None,
    config_dir: ConfigDir = None,
) -> int:
    """Examine a model on a sample of a task, in under a minute: evalkit doctor model=NAME task=NAME [key=value …].

    Takes the settings of a run. Exit code 1 where a check found a fault.
    """
    words = read_words(ctx, overrides or [], config_dir, multirun=multirun)
    target = json_target(json_file, "checks")
    from evalkit.commands.run_settings import settle_each
    from evalkit.doctor.command import Doctor

    examined = Doctor(target)
    try:
        settle_each(words, lambda settings: examined.examine(run_here(settings)))
    finally:
        code = examined.finish()
    return code
