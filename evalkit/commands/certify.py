"""`evalkit certify`: what it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from evalkit.commands.arguments import ConfigDir, JsonFile, json_target
from evalkit.commands.settings_arguments import Overrides, read_words
from evalkit.errors import EvalkitError

EVERY = "all"
WRITTEN = Path("evalkit-certificates.json")
TAKEN = (
    *("backend", "device", "offline", "cache_dir", "runner.threads", "dtype"),
    *("model.path", "model.revision", "model.trust_remote_code", "model.allow_pickle"),
)
"""The settings that may be said beside the model's name: no recipe, since a certificate is of the model's own."""


def certify(
    ctx: typer.Context,
    overrides: Overrides = None,
    json_file: JsonFile = None,
    config_dir: ConfigDir = None,
    folder: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write each certificate there too, as DIR/NAME.certificate.json."),
    ] = None,
) -> int:
    """Write down what named models give here, as one JSON to send back: evalkit certify model=NAME (or model=all).

    Per model: token ids, three golden scores in fp32 (on torch, unless backend= says another), what its tokenizer and its files
    say, and the versions here. It goes to evalkit-certificates.json, or where --json says. A model that has a certificate is
    compared with it. model=A,B names several, model=all every one with a Hub id; what can't be had is listed with the reason.
    Exit code 1 where something differs, 2 where nothing could be had.
    """
    named, rest = _sorted_words(overrides or [])
    words = read_words(ctx, rest if named == EVERY else [f"model={named}", *rest], config_dir)
    target = json_target(json_file or WRITTEN, "certificates")
    if folder is not None and not folder.is_dir():
        raise EvalkitError(f"--folder {folder}: there is no such folder; make it first")
    from evalkit.commands.run_settings import settle_each
    from evalkit.evaluation.certifying import Certifier, certifiable_models, certifying_backend

    if named != EVERY:
        named, rest = _sorted_words(words.overrides)  # where a Hub id was typed, its name
    models = certifiable_models(None if named == EVERY else named.split(","), words.folders)
    certifier = Certifier(target or WRITTEN, folder)
    try:
        for name in models:
            try:
                chosen = [] if _says(rest, "backend") else [f"backend={certifying_backend(name, words.folders)}"]
                of_one = replace(words, overrides=(f"model={name}", *rest, *chosen))
                settle_each(of_one, lambda settings, name=name: certifier.certify(name, settings))  # type: ignore[misc]
            except Exception as error:  # after hours of downloads no model may take the others' certificates with it
                certifier.miss(name, error)
    finally:
        code = certifier.finish()
    return code


def _sorted_words(overrides: Sequence[str]) -> tuple[str, list[str]]:
    """Return the models that are named, and the other words. Raises EvalkitError for what has no effect on a certificate."""
    named = [word.partition("=")[2] for word in overrides if word.startswith("model=")]
    if len(named) != 1 or not named[0]:
        raise EvalkitError("evalkit certify takes one model=NAME, model=A,B or model=all")
    rest = [word for word in overrides if not word.startswith("model=")]
    for word in rest:
        key = word.partition("=")[0]
        if "=" in word and key not in TAKEN:
            raise EvalkitError(
                f"{word}: a certificate is of a model's own recipe, and of no task; evalkit certify takes {', '.join(TAKEN)}"
            )
    return named[0], rest


def _says(words: Sequence[str], key: str) -> bool:
    return any(word.startswith(f"{key}=") for word in words)
