"""Hydra, in this module alone: it composes a run's settings from files and overrides, and sweeps over several.

The words of a command line become plain mappings, each value with who said it. What is wrong with a word is found before Hydra
sees it, where that is possible; what Hydra still has to say becomes one line.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import hydra
from hydra._internal.utils import _run_hydra, get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, OverrideType
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, GrammarParseError, OmegaConfBaseException
from yaml import YAMLError

from evalkit import interruption
from evalkit.configuration.files import (
    BASES,
    Origin,
    configs_dir,
    default_options,
    default_settings,
    is_nested_deep,
    merge,
    option_names,
    read_option,
)
from evalkit.configuration.overrides import READABLE, quote_free_text
from evalkit.errors import EvalkitError, nearest, unknown_name

Show = Literal["job", "hydra", "all"]


@dataclass(frozen=True)
class Schema:
    """What Hydra has to know of the settings.

    `bases` hold by group and name what its options are merged over: every setting with its default. `keys` are all that an
    override can name. `absent` says of one of these why the composed settings may lack it. `resolvers` are what `${NAME:…}` calls.
    """

    bases: Mapping[str, Mapping[str, Mapping[str, Any]]]
    keys: Sequence[str]
    absent: Callable[[str], str]
    resolvers: Mapping[str, Callable[..., Any]]


@dataclass(frozen=True)
class Words:
    """What was typed: overrides, the user's own configs folders, and what is to be done with them.

    With `multirun` commas separate values, and each combination is composed. `show` prints the composition in place of acting on
    it: the run's settings (job), Hydra's own, or all; with `resolve` interpolations are replaced by their values.
    """

    overrides: tuple[str, ...]
    folders: tuple[Path, ...] = ()
    multirun: bool = False
    show: Show | None = None
    resolve: bool = False


@dataclass(frozen=True)
class Composed:
    """The settings of one run as plain values, by group or name.

    `own` holds what evalkit's defaults and the files of the chosen task and model say by themselves. `origins` says of each value,
    by its dotted name, and of each group's choice, who said it: the user, a file (an option's or an experiment's), or nobody.
    """

    values: Mapping[str, Any]
    own: Mapping[str, Any]
    origins: Mapping[str, Origin]
    folders: tuple[Path, ...]


def compose_each(words: Words, schema: Schema, act: Callable[[Composed], None]) -> None:
    """Compose the settings that the words ask for (several in a multirun) and act on each.

    Raises EvalkitError for whatever is wrong with them; in a sweep the others are acted on first. A launcher may act in other
    processes: what these learn stays there, but for errors.
    """
    register(schema)
    failed: list[Exception] = []
    here = os.getpid()

    def job(config: DictConfig) -> None:
        if os.getpid() != here:
            register(schema)
            act(_composed(config, schema))
            return
        try:
            act(_composed(config, schema))
        except (HydraException, OmegaConfBaseException) as error:
            interruption.check()
            failed.append(_explained(error, schema, words.overrides))
        except Exception as error:  # kept from Hydra, which would print it its own way; a sweep goes on
            interruption.check()
            failed.append(error)

    _call_hydra(job, words, schema)
    if len(failed) > 1 and all(isinstance(error, EvalkitError) for error in failed):
        raise EvalkitError(f"{len(failed)} runs of the sweep failed: {'; '.join(dict.fromkeys(map(str, failed)))}")
    if failed:
        raise failed[0]


def register(schema: Schema) -> None:
    """Give Hydra the groups' bases and the resolvers."""
    store = ConfigStore.instance()
    for group, bases in schema.bases.items():
        for name, base in bases.items():
            store.store(group=group, name=name, node=dict(base))
    for name, resolver in schema.resolvers.items():
        OmegaConf.register_new_resolver(name, resolver, replace=True)


def _call_hydra(job: Callable[[DictConfig], None], words: Words, schema: Schema) -> None:
    """Let Hydra call the job as its `hydra.main` does; what it says against the words becomes an EvalkitError."""
    # Hydra would print its own errors, with a hint at a stack trace, and leave with 1
    os.environ["HYDRA_FULL_ERROR"] = "1"
    hydra.version.setbase("1.3")
    parser = get_args_parser()
    arguments = parser.parse_args([*_flags(words), "--", *_checked(words, schema)])
    try:
        _run_hydra(arguments, parser, job, str(configs_dir()), "config")
    except MissingConfigException as error:
        raise _missing_option(error) from error
    except BrokenPipeError:
        raise
    except RecursionError as error:
        raise EvalkitError(
            "the configuration is nested too deep: look for a file that names itself, or brackets"
        ) from error
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError, OSError) as error:
        raise _explained(error, schema, words.overrides) from error


def _flags(words: Words) -> list[str]:
    """Hydra's own flags for what was typed."""
    flags = [f"--config-dir={folder}" for folder in words.folders]
    flags += ["--multirun"] if words.multirun else []
    flags += [f"--cfg={words.show}"] if words.show else []
    return flags + (["--resolve"] if words.resolve else [])


def _checked(words: Words, schema: Schema) -> list[str]:
    """Return the overrides as Hydra reads them. Raises EvalkitError for the first that is wrong by itself."""
    quoted = quote_free_text(words.overrides, multirun=words.multirun)
    sweeps = words.multirun or any(_key(word) == "hydra.mode" for word in words.overrides)
    for word, override in zip(words.overrides, quoted, strict=True):
        _check_word(word, override, schema, words.folders, sweeps=sweeps)
    return quoted


def _check_word(word: str, quoted: str, schema: Schema, folders: Sequence[Path], *, sweeps: bool) -> None:
    """Refuse a word that is wrong by itself: as Hydra's grammar reads it, and in what it names."""
    if "=" not in word and not word.startswith("~"):
        raise EvalkitError(f"{word}: a setting is told as key=value; evalkit run --help shows all")
    if is_nested_deep(word):
        raise EvalkitError(f"{word[:40]}…: its brackets are nested too deep")
    key, _, value = word.partition("=")
    if not key:
        raise _nameless()
    try:
        override = OverridesParser.create().parse_override(quoted)
    except HydraException as error:
        if not READABLE.fullmatch(value):
            raise EvalkitError(
                f"{word}: a value with signs beyond Latin letters, digits and -_./ needs quotes of its own: \"{key}='…'\""
            ) from error
        raise EvalkitError(f"{word}: {_one_line(error)}") from error
    if override.is_sweep_override() and not sweeps:
        raise EvalkitError(f"{word}: several values need a sweep, evalkit -m …; one value with commas needs quotes")
    if override.key_or_group in default_options():
        _check_choice(override, folders)
    elif override.type is OverrideType.CHANGE:
        _check_key(override.key_or_group, schema)


def _check_choice(override: Override, folders: Sequence[Path]) -> None:
    """Refuse an option that its group does not have, which Hydra would look for elsewhere too."""
    group = override.key_or_group
    if override.is_delete():
        return
    chosen: Any = override.value()
    if isinstance(chosen, ChoiceSweep):
        chosen = [getattr(value, "text", value) for value in chosen.list]
    if override.is_sweep_override() and not isinstance(chosen, list):  # such as glob(*), of what there is
        return
    for name in chosen if isinstance(chosen, list) else [chosen]:
        if name is None and default_options()[group] is None:
            continue
        if not isinstance(name, str) or not name:
            raise _nameless()
        names = option_names(group, folders)
        if name not in names:
            raise unknown_name(group, name, names)


def _nameless() -> EvalkitError:
    groups = [group for group, option in default_options().items() if option is not None]
    return EvalkitError(f"{', '.join(groups)} each need a name, as in task=demo; evalkit list shows them")


def _check_key(key: str, schema: Schema) -> None:
    """Refuse a setting that there is not, whatever was chosen."""
    # below a setting of its own group stand fields of a mapping, such as task.cmteb.revision
    names = {key, ".".join(key.split(".")[:2]) if key.count(".") > 1 else key}
    if key.partition(".")[0] == "hydra" or key.partition("/")[0] == "hydra" or names & set(schema.keys):
        return
    close = nearest(key, schema.keys)
    hint = f"did you mean {' or '.join(close)}?" if close else "evalkit run --help shows all"
    raise EvalkitError(f"there is no setting {key!r}; {hint}")


def _composed(config: DictConfig, schema: Schema) -> Composed:
    values: Any = OmegaConf.to_container(config, resolve=True)
    about = HydraConfig.get()
    folders = tuple(
        Path(source.path)
        for source in about.runtime.config_sources
        if source.schema == "file" and Path(source.path) != configs_dir()
    )
    choices = {group: about.runtime.choices.get(group) for group in default_options()}
    stated = {group: read_option(group, name, folders) for group, name in choices.items() if isinstance(name, str)}
    grouped = {
        group: merge(schema.bases[group]["base"], _of_group(group, stated.get(group, {})))
        for group in ("task", "model")
    }
    own: Any = OmegaConf.to_container(OmegaConf.create({**default_settings(), **grouped}), resolve=True)
    return Composed(values, own, _origins(values, choices, stated, list(about.overrides.task)), folders)


def _of_group(group: str, content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what an option's file says of its own group, also where it says it as `# @package _global_`."""
    inner = content.get(group)
    return inner if isinstance(inner, Mapping) else content


def _origins(
    values: Mapping[str, Any],
    choices: Mapping[str, Any],
    stated: Mapping[str, Mapping[str, Any]],
    overrides: Sequence[str],
) -> dict[str, Origin]:
    """Say who said each value and made each choice; `stated` is what the chosen options' files say, by group."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    said = [override.key_or_group for override in parsed if not override.is_delete()]
    grouped = {group: _of_group(group, content) for group, content in stated.items() if group in values}
    everywhere = [
        content for group, content in stated.items() if grouped.get(group) is not content
    ]  # @package _global_
    filed = {name for content in (grouped, *everywhere) for name, _ in _leaves(content)}

    def origin(name: str) -> Origin:
        if any(name == key or name.startswith(f"{key}.") for key in said if key not in choices):
            return "user"
        return "file" if name in filed else "default"

    usual = default_options()
    chosen: dict[str, Origin] = {
        group: "user" if group in said else "default" if choices[group] == usual[group] else "file" for group in choices
    }
    return chosen | {name: origin(name) for name, _ in _leaves(values)}


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Return the values that are no mappings, by dotted name; an empty mapping is a value."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _missing_option(error: MissingConfigException) -> EvalkitError:
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    options = [option for option in error.options or option_names(group) if option and option not in BASES]
    return unknown_name(group or "configuration", name, options)


def _explained(error: Exception, schema: Schema, overrides: Sequence[str]) -> EvalkitError:
    """Hydra's error as one line; of a known setting that the chosen options do not have, why they have not."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, EvalkitError):  # of a resolver
            return cause
        if isinstance(cause, ConfigAttributeError | ConfigKeyError):
            said = (
                key for key in map(_key, overrides) if key == cause.full_key or key.startswith(f"{cause.full_key}.")
            )
            key = next((key for key in said if key in schema.keys), None)
            if key is not None:
                return EvalkitError(schema.absent(key))
        if isinstance(cause, GrammarParseError):
            chosen = ", ".join(word for word in overrides if "." not in _key(word)) or "the configuration"
            problem = f"a value that begins an interpolation, ${{…}}, can't be read ({_one_line(cause)})"
            return EvalkitError(f"a file that {chosen} reads: {problem}; for a plain text write \\${{")
        cause = cause.__cause__ or cause.__context__
    return EvalkitError(_one_line(error) or f"{type(error).__name__}, of which nothing more is known")


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).partition("See https://")[0].split())
