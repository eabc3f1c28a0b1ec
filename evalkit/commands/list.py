"""`evalkit list`: what it takes."""

from __future__ import annotations

from typing import Annotated

import typer

from evalkit.commands.arguments import ConfigDir, JsonFile, json_target


def list_options(
    what: Annotated[str, typer.Argument(help="{lists}; without it, all of them")] = "",
    name: Annotated[
        str, typer.Argument(help="With models: a model, whose recipe is shown: a name, ./FOLDER or ORG/NAME")
    ] = "",
    json_file: JsonFile = None,
    config_dir: ConfigDir = None,
) -> None:
    """Show the models, tasks, backends and protocols there are, or the recipe of one model: evalkit list models NAME."""
    from evalkit.commands.lists import LISTS, print_lists, print_recipe
    from evalkit.configuration.files import config_folders
    from evalkit.errors import EvalkitError, unknown_name

    if what and what not in LISTS:
        raise unknown_name("list", what, LISTS)
    if name:
        if what != "models":
            raise EvalkitError(
                f"evalkit list {what} {name}: only models have a recipe to show; evalkit list models NAME"
            )
        print_recipe(name, config_folders(config_dir), json_target(json_file, "recipe"))
        return
    print_lists(what, config_folders(config_dir), json_target(json_file, what or next(iter(LISTS))))
