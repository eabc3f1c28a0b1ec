"""`evalkit list`: what it takes."""

from __future__ import annotations

from typing import Annotated

import typer

from evalkit.commands.arguments import ConfigDir, JsonFile, json_target


def list_options(
    what: Annotated[str, typer.Argument(help="{lists}; without it, all of them")] = "",
    json_file: JsonFile = None,
    config_dir: ConfigDir = None,
) -> None:
    """Show the models, tasks, backends and protocols there are."""
    from evalkit.commands.lists import LISTS, print_lists
    from evalkit.configuration.files import config_folders
    from evalkit.errors import unknown_name

    if what and what not in LISTS:
        raise unknown_name("list", what, LISTS)
    print_lists(what, config_folders(config_dir), json_target(json_file, what or next(iter(LISTS))))
