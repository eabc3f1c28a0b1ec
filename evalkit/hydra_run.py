"""`evalkit run`: Hydra composes the configuration, and its errors become one line each."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from evalkit import backends
from evalkit.configuration import configs_dir, nearest, option_names, unknown_name
from evalkit.errors import EvalkitError
from evalkit.models import settings as models
from evalkit.models.interfaces import Runtime
from evalkit.overrides import quote_free_text
from evalkit.records import Result
from evalkit.tasks.settings import TaskSettings

GROUPS = ("task", "model", "backend", "protocol", "runner", "experiment")
# what says where a run reads and writes, or is part of a result's name already, is no deviation of its settings
NEUTRAL = (
    "task.path",
    "model.path",
    "task.name",
    "model.name",
    "device",
    "offline",
    "texts",
    "results_dir",
    "protocol",
    "runner",
)


def run_with_hydra(arguments: list[str]) -> int:
    """Compose the configuration that the arguments ask for, run it (each of it, with -m), and print the summary."""
    _register_bases()
    done: list[tuple[Result, Path]] = []
    failed: list[Exception] = []

    def job(config: DictConfig) -> None:
        try:
            _run(config, done)
        except Exception as error:  # kept from Hydra, which would print it its own way; a sweep goes on
            failed.append(error)

    # Hydra would print its own errors, with a hint at a stack trace, and leave with 1
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv = ["evalkit", *_flags_first(quote_free_text(arguments))]
    try:
        hydra.main(version_base="1.3", config_path=str(configs_dir()), config_name="config")(job)()
    except MissingConfigException as error:
        raise _missing_option(error) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise EvalkitError(_explain(error)) from error
    finally:
        _print_summary(done)
    if len(failed) > 1 and all(isinstance(error, EvalkitError) for error in failed):
        raise EvalkitError(f"{len(failed)} runs of the sweep failed: {'; '.join(dict.fromkeys(map(str, failed)))}")
    if failed:
        raise failed[0]
    return 0


def _register_bases() -> None:
    """Every field of a task, model or backend with its default: what the files of the group are merged over."""
    store = ConfigStore.instance()
    store.store(group="task", name="base", node=TaskSettings.defaults())
    store.store(group="model", name="base", node=models.default_settings())
    store.store(group="backend", name="base", node=backends.default_settings())


def _run(config: DictConfig, done: list[tuple[Result, Path]]) -> None:
    from evalkit.runs import RunSettings, run

    content: Any = OmegaConf.to_container(config, resolve=True)
    settings = RunSettings(
        task=TaskSettings.from_mapping(content["task"]),
        model=models.model_settings(content["model"]),
        backend=content["backend"]["name"],
        runtime=Runtime(
            device=content["device"],
            dtype=content["dtype"],
            threads=content["runner"]["threads"],
            seed=_whole_number("seed", content["seed"]),
            offline=bool(content["offline"]),
        ),
        protocol=content["protocol"]["name"],
        limit=None if content["limit"] is None else _whole_number("limit", content["limit"]),
        texts=bool(content["texts"]),
        results_dir=Path(content["results_dir"]).expanduser(),
        deviations=deviations(content, _pristine()),
        config=content,
    )
    done.extend(run(settings))


def deviations(content: dict[str, Any], pristine: dict[str, Any]) -> dict[str, Any]:
    """The settings, by their last name, that differ from what the chosen task and model say themselves."""
    own = dict(_flat(pristine))
    changed = {key: value for key, value in _flat(content) if own.get(key) != value}
    return {key.rpartition(".")[2] if key != "backend.name" else "backend": value for key, value in changed.items()}


def _pristine() -> dict[str, Any]:
    """The configuration of the same task and model without any override."""
    choices = HydraConfig.get().runtime.choices
    overrides = [f"{group}={choices[group]}" for group in ("task", "model")]
    content: Any = OmegaConf.to_container(hydra.compose("config", overrides=overrides), resolve=True)
    return dict(content)


def _flat(content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        name = prefix + key
        if name in NEUTRAL or name == "backend.kinds":
            continue
        if isinstance(value, dict) and key != "recipes":
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


def _whole_number(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise EvalkitError(f"{name}={value} is not a whole number")
    return value


def _print_summary(done: list[tuple[Result, Path]]) -> None:
    if done:
        from evalkit.report.summary import print_summary

        print_summary([result for result, _ in done], Console(), paths=[path for _, path in done])


def _flags_first(arguments: list[str]) -> list[str]:
    """Hydra's flags before the overrides, wherever they stood; a wrong flag is refused in one line.

    Raises EvalkitError for a flag that Hydra does not have and for a word that is no override.
    """
    from hydra._internal.utils import get_args_parser

    def refuse(message: str) -> NoReturn:
        raise EvalkitError(f"{message}; see evalkit run --help")

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]
    overrides: list[str] = parser.parse_intermixed_args(arguments).overrides
    for word in overrides:
        if "=" not in word and not word.startswith("~"):
            raise unknown_name("command", word, ("run", "list"))
    flags = [argument for argument in arguments if argument not in overrides]
    return [*flags, "--", *overrides] if overrides else flags


def _missing_option(error: MissingConfigException) -> EvalkitError:
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    return unknown_name(group or "configuration", name, error.options or option_names(group))


def _explain(error: Exception) -> str:
    """Hydra's message as one line, with the nearest right name where a key is unknown."""
    text = " ".join(str(error).partition("See https://")[0].split())
    unknown = re.search(r"Could not override '([^']+)'|In '[^']*': ", text)
    if unknown is None or unknown.group(1) is None:
        return text
    key = unknown.group(1)
    close = nearest(key, known_keys())
    hint = f"did you mean {' or '.join(close)}?" if close else "evalkit run --help shows all"
    return f"there is no setting {key!r}; {hint}"


def known_keys() -> list[str]:
    """Every key that an override can name."""
    config: Any = OmegaConf.load(configs_dir() / "config.yaml")
    top = [key for key in config if key not in ("defaults", "hydra")]
    fields = {
        "task": TaskSettings.defaults(),
        "model": models.default_settings(),
        "runner": {"threads": None},
    }
    return [*top, *GROUPS, *(f"{group}.{name}" for group, names in fields.items() for name in names)]
