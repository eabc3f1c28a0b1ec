"""Hydra composes the configuration of a run from files and overrides, and its errors become one line each."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from evalkit import backends, interruption
from evalkit.cluster.settings import RaySettings
from evalkit.commands.run_configuration import RunConfiguration, deviations
from evalkit.configuration.files import configs_dir, is_nested_deep, option_names, refuse_endless_defaults
from evalkit.configuration.overrides import quote_free_text
from evalkit.errors import EvalkitError, nearest, unknown_name
from evalkit.models import settings as models
from evalkit.models.interfaces import Runtime
from evalkit.models.server_settings import ServerSettings
from evalkit.tasks.settings import TaskSettings

if TYPE_CHECKING:
    from evalkit.evaluation.runs import RunSettings

COMMANDS = ("run", "doctor", "parity", "compare", "report", "audit", "check", "list", "cache")
GROUPS = ("task", "model", "backend", "protocol", "runner", "experiment")
_UNREADABLE = "LexerNoViableAltException: "  # a character that Hydra's grammar does not have
_ELSEWHERE = re.compile(r"\.\.|\\|\0|(^|,)['\"]?/")


def compose_each(arguments: list[str], act: Callable[[RunSettings], None]) -> None:
    """Compose the configuration that the arguments ask for (several with -m) and act on each.

    Raises EvalkitError for whatever is wrong with them; in a sweep the others are acted on first. A launcher may act in other
    processes: what these learn stays there, but for errors.
    """
    register_bases()
    failed: list[Exception] = []
    here = os.getpid()

    def job(config: DictConfig) -> None:
        if os.getpid() != here:
            act(run_settings(config))
            return
        try:
            act(run_settings(config))
        except OmegaConfBaseException as error:
            interruption.check()
            failed.append(EvalkitError(_explain(error)))
        except Exception as error:  # kept from Hydra, which would print it its own way; a sweep goes on
            interruption.check()
            failed.append(error)

    _call_hydra(job, arguments)
    if len(failed) > 1 and all(isinstance(error, EvalkitError) for error in failed):
        raise EvalkitError(f"{len(failed)} runs of the sweep failed: {'; '.join(dict.fromkeys(map(str, failed)))}")
    if failed:
        raise failed[0]


def _call_hydra(job: Callable[[DictConfig], None], arguments: list[str]) -> None:
    """Let Hydra call the job; what it says against the arguments becomes an EvalkitError."""
    # Hydra would print its own errors, with a hint at a stack trace, and leave with 1
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv = ["evalkit", *_flags_first(quote_free_text(arguments))]
    try:
        hydra.main(version_base="1.3", config_path=str(configs_dir()), config_name="config")(job)()
    except SystemExit as stop:  # Hydra's way to end --help
        if stop.code:
            raise
    except MissingConfigException as error:
        raise _missing_option(error) from error
    except BrokenPipeError:
        raise
    except RecursionError as error:
        raise EvalkitError(
            "the configuration is nested too deep: look for a file that names itself, or brackets"
        ) from error
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError, OSError) as error:
        # the last two come of flags, such as two that exclude each other
        raise EvalkitError(_explain(error)) from error


def register_bases() -> None:
    """Every field of a task, model or backend with its default: what the files of the group are merged over."""
    store = ConfigStore.instance()
    store.store(group="task", name="base", node=TaskSettings.defaults())
    store.store(group="model", name="base", node=models.default_settings())
    store.store(group="backend", name="base", node=backends.default_settings(server=False))
    store.store(group="backend", name="server", node=backends.default_settings(server=True))
    OmegaConf.register_new_resolver("fp16_on_cuda", _fp16_on_cuda, replace=True)


def _fp16_on_cuda(device: str | None) -> str:
    """fp16 where the run's device is a CUDA one, else fp32: what `dtype=${fp16_on_cuda:${device}}` stands for."""
    from evalkit.backends.torch import choose_device

    return "fp16" if choose_device(device).type == "cuda" else "fp32"


def run_settings(config: DictConfig) -> RunSettings:
    """All that a run is told, out of a composed configuration. Raises EvalkitError for a setting that is wrong."""
    from evalkit.evaluation.runs import RunSettings

    content: Any = OmegaConf.to_container(config, resolve=True)
    checked = RunConfiguration.from_mapping(content)
    pristine = _pristine()
    changed = {key: value for key, value in checked.model.items() if pristine["model"].get(key) != value}
    model = models.model_settings(pristine["model"], changed)
    pristine["backend"] = backends.read_backend(checked.backend.name).model_dump(mode="json")
    return RunSettings(
        task=TaskSettings.from_mapping(checked.task),
        model=model,
        backend=checked.backend.name,
        runtime=_runtime(checked, pristine["backend"]),
        protocol=checked.protocol.name,
        limit=checked.limit,
        texts=checked.texts,
        reproduce=checked.reproduce,
        cache=checked.cache,
        results_dir=Path(checked.results_dir).expanduser(),
        deviations=deviations(content, pristine),
        config={**content, "model": model.model_dump(mode="json")},
        config_folders=_config_folders(),
        ray=RaySettings.from_mapping(checked.ray or {}) if checked.runner.name == "ray" else None,
    )


def _runtime(checked: RunConfiguration, backend: dict[str, Any]) -> Runtime:
    """Where and how the model runs; `backend` holds the backend's own settings, of which the run may say others."""
    says = {key: value for key, value in (checked.backend.model_extra or {}).items() if backend.get(key) != value}
    return Runtime(
        device=checked.device,
        dtype=checked.dtype,
        threads=checked.runner.threads,
        seed=checked.seed,
        offline=checked.offline,
        cache_dir=Path(checked.cache_dir).expanduser() if checked.cache_dir else None,
        server=backends.server_settings(checked.backend.name, says),
    )


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


def _flags_first(arguments: list[str]) -> list[str]:
    """Hydra's flags before the overrides, wherever they stood; a wrong flag is refused in one line.

    Raises EvalkitError for a flag that Hydra does not have and for a word that is no override.
    """
    from hydra._internal.utils import get_args_parser

    def refuse(message: str) -> NoReturn:
        raise EvalkitError(f"{message}; see evalkit run --help")

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]
    parsed = parser.parse_intermixed_args(arguments)
    if parsed.config_dir:
        refuse_endless_defaults(Path(parsed.config_dir))
    overrides: list[str] = parsed.overrides
    for word in overrides:
        if "=" not in word and not word.startswith("~"):
            raise unknown_name("command", word, COMMANDS)
        if is_nested_deep(word):
            raise EvalkitError(f"{word[:40]}…: its brackets are nested too deep")
        group, _, name = word.partition("=")
        if group.lstrip("+") in GROUPS and _ELSEWHERE.search(name):  # Hydra would read a file from there
            raise unknown_name(group.lstrip("+"), name, option_names(group.lstrip("+")))
    flags = [argument for argument in arguments if argument not in overrides]
    return [*flags, "--", *overrides] if overrides else flags


def _missing_option(error: MissingConfigException) -> EvalkitError:
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    options = [option for option in error.options or option_names(group) if option not in ("base", "server")]
    return unknown_name(group or "configuration", name, options)


def _explain(error: Exception) -> str:
    """Hydra's message as one line, with the nearest right name where a key is unknown."""
    text = " ".join(str(error).partition("See https://")[0].split())
    text = text.removeprefix("EvalkitError raised while resolving interpolation: ")
    if text.startswith("Config group override must be"):
        return f"{', '.join(GROUPS[:-1])} each need a name, as in task=demo; evalkit list shows them"
    if text.startswith("Ambiguous value"):
        return f"{text.partition('1.')[0].strip()} several values need a sweep, evalkit -m …; one value with commas needs quotes"
    if text.startswith(_UNREADABLE):
        argument = text.removeprefix(_UNREADABLE).rstrip("^ ")
        example = f"\"{argument.partition('=')[0]}='…'\""
        return (
            f"{argument}: a value with signs beyond Latin letters, digits and -_./ needs quotes of its own: {example}"
        )
    unknown = re.search(r"Could not override '([^']+)'|In '[^']*': ", text)
    if unknown is None or unknown.group(1) is None:
        return text
    key = unknown.group(1)
    if key.partition(".")[0] == "ray" and key in known_keys():
        return f"{key} says nothing without runner=ray"
    if key in known_keys():
        group, _, name = key.partition(".")
        hint = f"; name the server's too, as in backend=openai {key}=…" if name in ServerSettings.model_fields else ""
        return f"{key} says nothing to the chosen {group}, which has no such setting{hint}"
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
        "backend": ServerSettings.model_fields,
        "runner": {"threads": None},
        "ray": RaySettings.model_fields,
    }
    return [*top, *GROUPS, *(f"{group}.{name}" for group, names in fields.items() for name in names)]
