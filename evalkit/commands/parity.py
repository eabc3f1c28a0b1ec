"""`evalkit parity`: what it takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from evalkit.commands.arguments import ConfigDir, JsonFile, json_target
from evalkit.commands.settings_arguments import Overrides, read_words, run_here
from evalkit.errors import EvalkitError

if TYPE_CHECKING:
    from evalkit.evaluation.runs import RunSettings


def parity(
    ctx: typer.Context,
    overrides: Overrides = None,
    json_file: JsonFile = None,
    config_dir: ConfigDir = None,
    multirun: Annotated[bool, typer.Option("--multirun", "-m", hidden=True)] = False,
) -> int:
    """Run the same pairs through several backends: evalkit parity model=NAME task=NAME backends=A,B,… [key=value …].

    The first backend is what the others are compared with; without backends=, transformers as the card's page uses it, with all
    that can run the model here. NAME.key=value is said to one backend alone: tei.url=http://127.0.0.1:8080 or torch.dtype=bf16.
    tolerance=1e-4 is how far scores may be apart (low precisions have wider ones). Takes the settings of a run too.
    Where a backend differs, the cause is looked for. Exit code 1 where one does or can't be compared, 2 where one can't run the
    model.
    """
    if multirun:
        raise EvalkitError("evalkit parity looks at one model: leave out -m, and run it once for each")
    words = read_words(ctx, overrides or [], config_dir)
    target = json_target(json_file, "agreements")
    from dataclasses import replace

    from evalkit.commands.run_settings import settle_each
    from evalkit.parity.command import compare_backends
    from evalkit.parity.words import parity_words

    def compose(of_one: Sequence[str]) -> RunSettings:
        composed: list[RunSettings] = []
        settle_each(replace(words, overrides=tuple(of_one)), lambda settings: composed.append(run_here(settings)))
        if len(composed) != 1:  # such as hydra.mode=MULTIRUN
            raise EvalkitError("evalkit parity takes one run's settings, and none of Hydra's")
        return composed[0]

    return compare_backends(parity_words(words.overrides, words.folders), compose, target)
