"""`evalkit run`: Hydra composes the configuration, and its errors become one line each."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NoReturn, Self

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from evalkit import backends
from evalkit.configuration import configs_dir, nearest, option_names, settings_error, unknown_name
from evalkit.console import OutputConsole
from evalkit.errors import EvalkitError
from evalkit.models import settings as models
from evalkit.models.interfaces import Runtime
from evalkit.overrides import quote_free_text
from evalkit.records import Result
from evalkit.tasks.settings import TaskSettings

GROUPS = ("task", "model", "backend", "protocol", "runner", "experiment")
# what says where a run reads and writes, or is part of a result's name already, is no deviation of its settings
NEUTRAL = (
    "model.path",
    "task.name",
    "model.name",
    "model.object",
    "device",
    "offline",
    "texts",
    "results_dir",
    "cache",
    "cache_dir",
    "protocol",
    "runner",
)


class Choice(BaseModel):
    """An option of the groups backend and protocol: its name decides, the rest is its module's affair."""

    name: str


class RunnerSettings(BaseModel):
    """The content of `configs/runner/NAME.yaml`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    threads: int | None = Field(ge=1)


class RunConfiguration(BaseModel):
    """All of `configs/config.yaml` but Hydra's own part; tasks and models check theirs themselves."""

    model_config = ConfigDict(extra="forbid", strict=True)

    task: dict[str, Any]
    model: dict[str, Any]
    backend: Choice
    protocol: Choice
    runner: RunnerSettings
    limit: int | None = Field(ge=1)
    device: str | None
    dtype: str
    seed: int = Field(ge=0)
    offline: bool
    texts: bool
    cache: Literal["on", "off", "refresh"]
    cache_dir: str | None
    results_dir: str = Field(min_length=1)

    @classmethod
    def from_mapping(cls, mapping: dict[str, Any]) -> Self:
        """Check the composed configuration; EvalkitError in one line names what is wrong."""
        try:
            return cls.model_validate(mapping)
        except ValidationError as error:
            raise settings_error("", error) from error


def run_with_hydra(arguments: list[str]) -> int:
    """Compose the configuration that the arguments ask for, run it (each of it, with -m), and print the summary."""
    register_bases()
    done: list[tuple[Result, Path]] = []
    failed: list[Exception] = []

    def job(config: DictConfig) -> None:
        try:
            _run(config, done)
        except OmegaConfBaseException as error:
            failed.append(EvalkitError(_explain(error)))
        except Exception as error:  # kept from Hydra, which would print it its own way; a sweep goes on
            failed.append(error)

    # Hydra would print its own errors, with a hint at a stack trace, and leave with 1
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv = ["evalkit", *_flags_first(quote_free_text(arguments))]
    try:
        hydra.main(version_base="1.3", config_path=str(configs_dir()), config_name="config")(job)()
    except SystemExit as stop:  # Hydra's way to end --help
        return int(stop.code or 0)
    except MissingConfigException as error:
        raise _missing_option(error) from error
    except BrokenPipeError:
        raise
    except (HydraException, OmegaConfBaseException, ValueError, OSError) as error:
        # the last two come of flags, such as two that exclude each other
        raise EvalkitError(_explain(error)) from error
    finally:
        _print_summary(done)
    if len(failed) > 1 and all(isinstance(error, EvalkitError) for error in failed):
        raise EvalkitError(f"{len(failed)} runs of the sweep failed: {'; '.join(dict.fromkeys(map(str, failed)))}")
    if failed:
        raise failed[0]
    return 0


def register_bases() -> None:
    """Every field of a task, model or backend with its default: what the files of the group are merged over."""
    store = ConfigStore.instance()
    store.store(group="task", name="base", node=TaskSettings.defaults())
    store.store(group="model", name="base", node=models.default_settings())
    store.store(group="backend", name="base", node=backends.default_settings())


def _run(config: DictConfig, done: list[tuple[Result, Path]]) -> None:
    from evalkit.runs import RunSettings, run

    content: Any = OmegaConf.to_container(config, resolve=True)
    checked = RunConfiguration.from_mapping(content)
    pristine = _pristine()
    changed = {key: value for key, value in checked.model.items() if pristine["model"].get(key) != value}
    model = models.model_settings(pristine["model"], changed)
    cache_dir = Path(checked.cache_dir).expanduser() if checked.cache_dir else None
    settings = RunSettings(
        task=TaskSettings.from_mapping(checked.task),
        model=model,
        backend=checked.backend.name,
        runtime=Runtime(
            checked.device, checked.dtype, checked.runner.threads, checked.seed, checked.offline, cache_dir
        ),
        protocol=checked.protocol.name,
        limit=checked.limit,
        texts=checked.texts,
        cache=checked.cache,
        results_dir=Path(checked.results_dir).expanduser(),
        deviations=deviations(content, pristine),
        config={**content, "model": model.model_dump(mode="json")},
        config_folders=_config_folders(),
        taken={path: result.task.fingerprint for result, path in done},
    )
    for finished in run(settings):  # one by one: what is done stays done, whatever the next task meets
        done.append(finished)


def deviations(content: dict[str, Any], pristine: dict[str, Any]) -> dict[str, Any]:
    """The settings, without their group's name, that differ from what the chosen task and model say themselves.

    The path of a task that has no other place is no deviation: it is the task. That mteb runs a model is one, since its result
    would otherwise stand for evalkit's own of the same weights.
    """
    own = dict(_flat(pristine))
    changed = {key: value for key, value in _flat(content) if own.get(key) != value}
    if not content["task"]["mteb_name"]:
        changed.pop("task.path", None)
    if content["model"]["backends"] == ["mteb"]:
        changed["backend.name"] = "mteb"
    return {
        "backend" if key == "backend.name" else key.partition(".")[2] or key: value for key, value in changed.items()
    }


def _config_folders() -> list[Path]:
    """The configs folders that the user added with --config-dir."""
    sources = (source.path for source in HydraConfig.get().runtime.config_sources if source.schema == "file")
    return [Path(path) for path in sources if Path(path) != configs_dir()]


def _pristine() -> dict[str, Any]:
    """The configuration of the same task and model without any override."""
    choices = HydraConfig.get().runtime.choices
    overrides = [f"{group}={choices[group]}" for group in ("task", "model")]
    content: Any = OmegaConf.to_container(hydra.compose("config", overrides=overrides), resolve=True)
    return dict(content)


def _flat(content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        name = prefix + key
        # what a backend can do follows from its name
        if name in NEUTRAL or (prefix == "backend." and key != "name"):
            continue
        if isinstance(value, dict) and key != "recipes":
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


def _print_summary(done: list[tuple[Result, Path]]) -> None:
    if done:
        from evalkit.report.summary import print_summary

        print_summary([result for result, _ in done], OutputConsole(), paths=[path for _, path in done])


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
            raise unknown_name("command", word, ("run", "list", "cache"))
    flags = [argument for argument in arguments if argument not in overrides]
    return [*flags, "--", *overrides] if overrides else flags


def _missing_option(error: MissingConfigException) -> EvalkitError:
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    options = [option for option in error.options or option_names(group) if option != "base"]
    return unknown_name(group or "configuration", name, options)


def _explain(error: Exception) -> str:
    """Hydra's message as one line, with the nearest right name where a key is unknown."""
    text = " ".join(str(error).partition("See https://")[0].split())
    if text.startswith("Config group override must be"):
        return f"{', '.join(GROUPS[:-1])} each need a name, as in task=demo; evalkit list shows them"
    if text.startswith("Ambiguous value"):
        return f"{text.partition('1.')[0].strip()} several values need a sweep, evalkit -m …; one value with commas needs quotes"
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
