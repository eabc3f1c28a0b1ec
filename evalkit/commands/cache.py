"""`evalkit cache`: what its commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evalkit.commands.arguments import Command, JsonFile, json_target

CacheDir = Annotated[Path | None, typer.Option(help="The folder of the store; without it, the user's cache.")]
app = typer.Typer(rich_markup_mode=None, help="Show, check or clear the stored scores.")


@app.command("info", cls=Command)
def show_info(cache_dir: CacheDir = None, json_file: JsonFile = None) -> None:
    """Show what the store holds."""
    from evalkit.commands.store import print_info

    print_info(cache_dir, json_target(json_file, "ways"))


@app.command("verify", cls=Command)
def verify(cache_dir: CacheDir = None) -> int:
    """Check every stored score; exit code 1 where some are damaged."""
    from evalkit.commands.store import print_verification

    return print_verification(cache_dir)


@app.command("prune", cls=Command)
def prune(
    model: Annotated[
        list[str] | None, typer.Option(help="Delete this model's scores and converted networks (may be repeated).")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Delete all scores and converted networks.")] = False,
    max_size: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Delete what was used longest ago until the rest is no larger: 500MB, 2GB."),
    ] = None,
    older_than: Annotated[
        str | None, typer.Option(metavar="AGE", help="Delete what was last used that long ago: 12h, 30d, 8w.")
    ] = None,
    cache_dir: CacheDir = None,
) -> None:
    """Delete stored scores, and networks converted for another system.

    With --model, --max-size and --older-than heed that model's alone.
    """
    from evalkit.commands.store import prune_store

    prune_store(cache_dir, model or [], everything, max_size, older_than)
