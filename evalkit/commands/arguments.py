"""What several commands take, and words put in order before a command reads them: its name first, `--json` with its file.

`--json [FILE]` is the same for every command that has it. Without a file, or with `-`, JSON stands alone on standard output; with
one it is written there, beside what the command prints. The word behind `--json` is the file only where it ends in `.json`, so
that `evalkit compare --json results` compares what lies in `results`; any other name is given as `--json=FILE`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from evalkit.errors import EvalkitError
from evalkit.output.json import STDOUT

JSON = "--json"
TOP_FLAGS = {"--help", "-h", "--version"}
JsonFile = Annotated[
    Path | None,
    typer.Option(
        JSON,
        metavar="[FILE]",
        help="Print JSON in place of tables; with FILE (a word that ends in .json, or --json=FILE) write it there, beside them.",
    ),
]
ConfigDir = Annotated[
    Path | None,
    typer.Option(
        "--config-dir",
        "-cd",
        metavar="DIR",
        help="Options of your own beside evalkit's: files such as DIR/model/NAME.yaml.",
    ),
]
Metric = Annotated[str | None, typer.Option(help="A metric of the results; without it, the protocol's main score.")]
Alpha = Annotated[float, typer.Option(min=1e-6, max=1, help="Systems are told apart where p is below this.")]
Seed = Annotated[int, typer.Option(min=0, help="The seed of resamples and random signs.")]
Slices = Annotated[list[str] | None, typer.Option("--slice", metavar="NAME", help="Cut queries by {slices}.")]


def arranged(arguments: Sequence[str], commands: TyperGroup, default: str) -> list[str]:
    """Put the command's name first (`default` where none is given), then what stood before it, then the rest.

    An option's value is no command: `evalkit --config-dir list list models` lists models.
    """
    words = _with_json_files(list(arguments))
    if words and set(words) <= TOP_FLAGS:
        return words
    found = _command_first(words, commands)
    if found is None:
        return [default, *words]
    command = commands.commands[found[0]]
    inner = _command_first(found[1:], command) if isinstance(command, TyperGroup) else None
    return [found[0], *(inner or found[1:])]


def _with_json_files(words: list[str]) -> list[str]:
    """Join `--json` with its file, or with `-` where it has none, as the parser wants it."""
    joined: list[str] = []
    while words and words[0] != "--":
        word = words.pop(0)
        if word == JSON:
            is_file = bool(words) and (words[0] == str(STDOUT) or (words[0].endswith(".json") and "=" not in words[0]))
            word = f"{JSON}={words.pop(0) if is_file else STDOUT}"
        joined.append(word)
    return joined + words


def _command_first(words: Sequence[str], commands: TyperGroup) -> list[str] | None:
    """Return the words with the command in front: the first one that is neither an option nor an option's value, if it is one."""
    valued = _valued_options(commands)
    is_value = False
    for place, word in enumerate(words):
        if is_value or word.startswith("-"):
            is_value = not is_value and word in valued
        else:
            return [word, *words[:place], *words[place + 1 :]] if word in commands.commands else None
    return None


def _valued_options(commands: TyperGroup) -> set[str]:
    """Return the options of any command that a value follows."""
    found: set[str] = set()
    for command in commands.commands.values():
        if isinstance(command, TyperGroup):
            found |= _valued_options(command)
        valued = (one for one in command.params if isinstance(one, TyperOption) and not one.is_flag)
        found |= {name for option in valued for name in option.opts}
    return found


class Command(TyperCommand):
    """A command whose help is completed when it is asked for: `{NAME}` in it stands for what a registry holds then."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        for option in self.params:
            if isinstance(option, TyperArgument | TyperOption) and option.help:
                option.help = re.sub(r"\{(\w+)\}", lambda found: REGISTRIES[found[1]](), option.help)
        super().format_help(ctx, formatter)


def _formats() -> str:
    from evalkit.report.formats import format_names_help

    return format_names_help()


def _folder_formats() -> str:
    from evalkit.report.formats import folder_names_help

    return folder_names_help()


def _lists() -> str:
    from evalkit.commands.lists import LISTS

    return _listed(LISTS)


def _slices() -> str:
    from evalkit.compare.slices import SLICES

    return _listed(SLICES)


def _listed(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last


# asked for one by one, since what holds them may take long to import
REGISTRIES: Mapping[str, Callable[[], str]] = {
    "formats": _formats,
    "folder_formats": _folder_formats,
    "lists": _lists,
    "slices": _slices,
}


def json_target(path: Path | None, key: str) -> Path | None:
    """Check where JSON goes, before the work starts; `key` is one that the command's own documents have at their top.

    Raises EvalkitError where there is no such folder, and for a file that holds something else: it would be lost.
    """
    if path is None or path == STDOUT:
        return path
    if not path.parent.is_dir():
        raise EvalkitError(f"cannot write {path}: there is no folder {path.parent}; make it first")
    if path.is_file() and path.stat().st_size:
        content = _content_of(path)
        first = content[0] if isinstance(content, list) and content else content
        if isinstance(first, Mapping) and key in first:
            return path
        what = "a result" if isinstance(first, Mapping) and "evalkit" in first else "what this command did not write"
        raise EvalkitError(
            f"{JSON} {path} would replace {what}; name another file, or put {JSON} last if it is a file to read"
        )
    return path


def _content_of(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
