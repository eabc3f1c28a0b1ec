"""`evalkit help [COMMAND]`: the same as `evalkit [COMMAND] --help`."""

from __future__ import annotations

from typing import Annotated, Any

import typer


def show_help(
    ctx: typer.Context,
    command: Annotated[
        list[str] | None, typer.Argument(metavar="COMMAND", help="Such as report, or cache info.")
    ] = None,
) -> None:
    """Show what a command takes; without one, the commands there are."""
    from evalkit.errors import unknown_name

    top = ctx.find_root()
    root: Any = top.command
    place: Any = root
    for name in command or []:
        commands = getattr(place, "commands", {})
        if name not in commands:
            raise unknown_name("command", name, commands)
        place = commands[name]
    with root.make_context(top.info_name, [*(command or []), "--help"]) as asked:
        root.invoke(asked)
