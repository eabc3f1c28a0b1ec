"""What `run`, `doctor` and `parity` take: the settings of a run. Their help shows all there are, without Hydra."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evalkit.commands.arguments import Command
from evalkit.errors import EvalkitError

if TYPE_CHECKING:
    from evalkit.configuration.hydra import Words
    from evalkit.evaluation.runs import RunSettings

Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings of the run, such as model=NAME.")
]
Multirun = Annotated[bool, typer.Option("--multirun", "-m", help="Commas separate values: every combination.")]


class Shown(StrEnum):
    """What `--cfg` prints."""

    job = "job"
    hydra = "hydra"
    all = "all"


Show = Annotated[
    Shown | None, typer.Option("--cfg", "-c", help="Print the composed settings (job) or Hydra's own, and stop.")
]
Resolve = Annotated[bool, typer.Option("--resolve", help="With --cfg: replace ${…} by its value.")]


class SettingsCommand(Command):
    """A command of a run's settings, whose help ends in all of them."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the groups with their options, then every setting as the files say it."""
        from evalkit.configuration.files import default_options, option_names

        super().format_epilog(ctx, formatter)
        with formatter.section("Options of each group (group=option)"):
            formatter.write_dl([(group, ", ".join(option_names(group))) for group in default_options()])
        with formatter.section("Settings (key=value) and their defaults"):
            for line in _setting_lines():
                formatter.write(f"  {line}\n")


def grouped_settings() -> dict[str, dict[str, Any]]:
    """Return every setting that an override can name within a group, by group, with its default."""
    from evalkit.cluster.settings import RaySettings
    from evalkit.models.server_settings import ServerSettings
    from evalkit.models.settings import default_model
    from evalkit.tasks.settings import TaskSettings

    return {
        "task": TaskSettings.defaults(),
        "model": default_model(),
        "backend": ServerSettings().model_dump(mode="json"),
        "runner": {"threads": None},
        "ray": RaySettings().model_dump(mode="json"),
    }


def _setting_lines() -> list[str]:
    """Return what `config.yaml` says of the settings that belong to no group, and the settings of each group."""
    from evalkit.configuration.files import configs_dir

    text = (configs_dir() / "config.yaml").read_text(encoding="utf-8")
    lines = text[text.index("\n\n") : text.index("\nhydra:")].strip().splitlines()
    for group, settings in grouped_settings().items():
        lines += ["", *(f"{group}.{name}: {_yaml(value)}" for name, value in settings.items())]
    return lines


def _yaml(value: object) -> str:
    import yaml

    return yaml.safe_dump(value, default_flow_style=True, allow_unicode=True).removesuffix("...\n").strip()


def refuse_words(overrides: Sequence[str], commands: Sequence[str]) -> None:
    """Raise EvalkitError for a word that is no setting: it may be meant for a command."""
    from evalkit.errors import unknown_name

    for word in overrides:
        if "=" not in word and not word.startswith("~"):
            raise unknown_name("command", word, commands)


def read_words(
    ctx: typer.Context,
    overrides: Sequence[str],
    config_dir: Path | None,
    *,
    multirun: bool = False,
    show: Shown | None = None,
    resolve: bool = False,
) -> Words:
    """Sort what was typed. Raises EvalkitError for a word that is no setting, and for flags that exclude each other."""
    from evalkit.configuration.files import config_folders
    from evalkit.configuration.hydra import Words

    refuse_words(overrides, command_names(ctx))
    if multirun and show:
        raise EvalkitError("--multirun and --cfg exclude each other; leave one of them out")
    if resolve and not show:
        raise EvalkitError("--resolve goes with --cfg job; add that, or leave it out")
    folders = config_folders(config_dir)
    named = model_words(overrides, folders, multirun=multirun)
    return Words(tuple(named), folders, multirun, None if show is None else show.value, resolve)


def model_words(overrides: Sequence[str], folders: Sequence[Path], *, multirun: bool) -> list[str]:
    """Write `model=FOLDER` and `model=ORGANISATION/NAME` as the settings that they stand for, in a sweep each of several.

    Raises EvalkitError where a sweep goes over folders and names at once.
    """
    words: list[str] = []
    for override in overrides:
        key, _, value = override.partition("=")
        if key != "model":
            words.append(override)
            continue
        from evalkit.models.choosing import choose_model, names_folder

        plain = "/" not in value and not value.startswith((".", "~", "'", '"')) and not names_folder(value)
        if plain:
            words.append(override)
            continue

        named = [one.strip("'\"") for one in (value.split(",") if multirun else [value])]
        choices = [choose_model(one, folders) for one in named]
        keys = {tuple(choice.settings) for choice in choices}
        if len(keys) > 1:
            raise EvalkitError(
                f"{override}: a sweep goes over folders, over Hub ids or over names; run the others by themselves"
            )
        words.append(f"model={','.join(dict.fromkeys(choice.option for choice in choices))}")
        words += [f"model.{key}={','.join(choice.settings[key] for choice in choices)}" for key in keys.pop()]
    return words


def command_names(ctx: typer.Context) -> list[str]:
    """Return the names of all commands."""
    root: Any = ctx.find_root().command
    return list(root.commands)


def run_here(settings: RunSettings) -> RunSettings:
    """Return the settings, of a command that measures a model in this process."""
    if settings.ray is not None:
        raise EvalkitError(
            "runner=ray is for evalkit run; doctor and parity measure a model in this process: leave it out"
        )
    return settings
