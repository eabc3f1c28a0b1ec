"""Whether the model that a server names is the one that is meant, as far as names can tell."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from evalkit.backends.servers.client import Client
from evalkit.configuration.files import parse_yaml
from evalkit.errors import EvalkitError
from evalkit.models.settings import ModelSettings
from evalkit.models.weights import read_config

Verdict = Literal["same", "unknown", "other"]
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_CACHED = re.compile(
    r"(?:^|[/\\])models--([^/\\]+?)--([^/\\]+)[/\\]snapshots[/\\][^/\\]+$"
)  # a folder of the Hub's cache
# where images mount a model, and what trainers call a folder: they name no model
_ANY_MODEL = re.compile(
    r"|\.|data|(the[-_])?models?|repository|weights|workspace|app|mnt|tmp|out(put)?s?|results?|final|best|last|merged|export(ed)?"
    r"|(best[-_]|final[-_]|last[-_])?(model|checkpoint)s?|(checkpoint|epoch|step|global_step|run|v)?[-_]?\d+|[0-9a-f]{12,64}",
    re.I,
)
_CARD_TOP = re.compile(r"\s*---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|$)", re.DOTALL)
_LONGEST_CARD = 1_000_000
LISTING_TRIES = 2
"""Further tries of the list of models, which a run can do without."""


def compare_names(settings: ModelSettings, served_model: str | None, said: Sequence[str]) -> Verdict:
    """Return whether what a server says of its model names the one that is meant.

    `served_model` is the name that the user gives it, which decides. Of what the server says the last part counts, since it may
    have loaded a folder of that name; `said` begins with what it loaded, where it tells. A folder of the user's own is not known by
    a Hub id, whatever it is called.
    """
    if served_model is not None or not settings.path:
        wanted = served_model or settings.hub_id
        if wanted is None:
            return "unknown"
        return "same" if last_part(wanted) in map(last_part, said) else "other"
    verdicts = [_compare_with_folder(settings, Path(settings.path).expanduser(), name) for name in said]
    if not verdicts or verdicts[0] == "same":
        return verdicts[0] if verdicts else "unknown"
    return "other" if set(verdicts) == {"other"} else "unknown"


def last_part(name: str) -> str:
    """Return the name of a model without its organisation, its folder's place, or the tag that marks the newest."""
    return hub_id_of_cached(name).rstrip("/\\").replace("\\", "/").rpartition("/")[2].removesuffix(":latest")


def hub_id_of_cached(place: str) -> str:
    """Return the Hub id of a snapshot's folder in the Hub's cache, and any other name as it is."""
    cached = _CACHED.search(place.rstrip("/\\"))
    return f"{cached[1]}/{cached[2]}" if cached else place


def _compare_with_folder(settings: ModelSettings, folder: Path, said: str) -> Verdict:
    whole = folder.resolve()
    own_id, said_id = hub_id_of_cached(str(whole)), hub_id_of_cached(said)
    name = last_part(said)
    own_names = {last_part(str(place)) for place in (folder, whole)}
    if own_id != str(whole) and said_id == own_id:  # a snapshot of the Hub's, by its own id
        return "same"
    if _ANY_MODEL.fullmatch(name):
        return "unknown"
    if name in own_names:
        return "unknown" if _HUB_ID.fullmatch(said_id) else "same"
    return "unknown" if name in map(last_part, _origins(settings, folder)) else "other"


def _origins(settings: ModelSettings, folder: Path) -> list[str]:
    """Return what a folder's model may be a copy of, or was trained from: which of the two, its files don't say."""
    try:
        config: dict[str, Any] = read_config(folder)
    except (EvalkitError, OSError):
        config = {}
    bases = _card(folder).get("base_model")
    named = [settings.hub_id, config.get("_name_or_path"), *(bases if isinstance(bases, list) else [bases])]
    return [name for name in named if isinstance(name, str) and name]


def _card(folder: Path) -> dict[str, Any]:
    """Return what a model's card says at its top, as far as it can be read."""
    try:
        with (folder / "README.md").open(encoding="utf-8") as file:
            top = _CARD_TOP.match(file.read(_LONGEST_CARD))
        content = parse_yaml(top[1]) if top else None
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def meant(settings: ModelSettings) -> str:
    """Return what a message calls the model that is meant."""
    if settings.path:
        return Path(settings.path).expanduser().resolve().name or settings.path
    return settings.hub_id or settings.name


def cannot_be_known(settings: ModelSettings, place: str) -> str:
    """Return the finding on a server whose name for its model decides nothing."""
    return f"the server names {place}; whether that is {meant(settings)} can't be known"


def answered_findings(client: Client, settings: ModelSettings, name: str) -> tuple[str, ...]:
    """Return the finding on a server whose answers name another model than `name`, which was asked; empty where none does.

    A longer name of the same model, or a shorter one, is not another: a folder's place, a revision, an organisation, capitals. Nor
    is that of the model that is meant, where the server was asked for an alias of it.
    """
    meant_names = [one for one in (name, settings.hub_id, settings.path and Path(settings.path).name) if one]
    others = [said for said in sorted(client.named) if not any(_may_be_one(said, one) for one in meant_names)]
    if not others:
        return ()
    said = ", ".join(map(client.quote, others[:3])) + (", …" if len(others) > 3 else "")
    return (f"the server says that it answered with {said}, asked was {name!r}",)


def _may_be_one(said: str, wanted: str) -> bool:
    if _ANY_MODEL.fullmatch(last_part(said)):
        return True
    wholes, lasts = (said.casefold(), wanted.casefold()), (last_part(said).casefold(), last_part(wanted).casefold())
    return any(one in other or other in one for one, other in (wholes, lasts))


def listed_findings(client: Client, settings: ModelSettings, name: str, path: str) -> list[str]:
    """Return what a reader should know of the names in a server's list of models; `name` is the one that requests will say.

    Some servers answer under any name. Raises EvalkitError where the list names other models alone.
    """
    models = _listed(client, path)
    if not models:
        return [f"the server lists no models at {path}; that it runs {name} is known from the requests alone"]
    chosen = [model for model in models if model[-1] == name] or [
        model for model in models if last_part(model[-1]) == last_part(name)
    ]
    ids = ", ".join(model[-1] for model in models[:3]) + (", …" if len(models) > 3 else "")
    if client.settings.served_model is not None:
        return [] if chosen else [f"the server lists {ids}, and not {name}, under which it is asked"]
    said = chosen or models
    verdicts = [compare_names(settings, None, model) for model in said]
    if "same" in verdicts:
        return []
    place = next((model[0] for model, verdict in zip(said, verdicts, strict=True) if verdict == "unknown"), None)
    if place is not None:
        return [cannot_be_known(settings, place)]
    loaded = chosen[0][0] if chosen else ids
    raise client.refusal(
        path,
        f"runs {loaded}, not {meant(settings)}; if that is the same model by another name: "
        f"backend.served_model={said[0][-1]}",
    )


def _listed(client: Client, path: str) -> list[tuple[str, ...]] | None:
    """Return for each model of the list what was loaded, where that is said, and its id; None where there is no list."""
    tries = min(client.settings.retries, LISTING_TRIES)
    try:
        answer = Client(client.backend, client.settings.model_copy(update={"retries": tries}), client.key).get(path)
    except EvalkitError:  # what is wrong with the server itself its probe says
        return None
    entries = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(entries, list):
        return None
    models = [entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]
    return [tuple(name for name in (model.get("root"), model["id"]) if isinstance(name, str)) for model in models]
