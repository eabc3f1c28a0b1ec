"""Where results lie: the folder of a model's results, and the results in a folder."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from evalkit.errors import EvalkitError
from evalkit.output.files import UNFINISHED_FOLDERS, finish_replacing
from evalkit.output.text import homeless
from evalkit.records import ModelIdentity

MODEL_FILE = "model_meta.json"
EXPERIMENTS = "experiments"
NO_REVISION = "no_revision_available"

_PLAIN_NAME = re.compile(r"[a-z][a-z0-9_.]*")
_PLAIN_VALUE = re.compile(r"[a-z0-9.+]*[a-z0-9+]")
# Windows takes these for devices, whatever follows a point
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_TAKEN = MODEL_FILE.removesuffix(".json")  # a task of that name would replace what describes the model
_LONGEST_NAME = 160  # bytes; file systems hold 255, and suffixes follow
_LONGEST_VALUE = 32
_LONGEST_SLUG = 120


def result_folder(results_dir: Path, identity: ModelIdentity, experiment: str = "") -> Path:
    """Name the folder of a model's results: `<org>__<model>/<revision>/`.

    Where settings deviate from the model's and the task's own it is `experiments/<experiment>/` below that, so that a smoke
    run never replaces a real one. `experiment` is the result's, or what `experiment_slug` makes of such settings.
    """
    model = _model_folder(identity.hub_id)
    folder = results_dir / model / file_name(identity.revision or NO_REVISION)
    return folder / EXPERIMENTS / experiment if experiment else folder


def _model_folder(hub_id: str) -> str:
    """Name a model's folder as mteb does, `<org>__<model>`; behind what several ids would be named, a hash tells them apart."""
    organisation, *rest = hub_id.split("/")
    # the first two underscores are where the slash was: so no other name may have some there
    is_plain = (len(rest) == 1 and "__" not in f"{organisation}_") or (not rest and "__" not in hub_id)
    name = hub_id.replace("/", "__")
    return file_name(name) if is_plain else f"{file_name(name)}_{hashlib.sha256(hub_id.encode()).hexdigest()[:10]}"


def experiment_of(path: Path) -> str:
    """Name the experiment that a result's file lies in the folder of; empty where it is a model's own result."""
    return path.parent.name if path.parent.parent.name == EXPERIMENTS else ""


def revision_folder(path: Path) -> Path:
    """Return the folder of a revision, which a result's file lies in or below."""
    return path.parent.parent.parent if experiment_of(path) else path.parent


def experiment_slug(deviations: Mapping[str, object]) -> str:
    """Name a folder after settings: `dtype-bf16_limit-5`, with a hash where the words alone could mean other settings.

    Empty where there are none. Neither their order nor that of a mapping among them counts.
    """
    settings = homeless({name: deviations[name] for name in sorted(deviations)})
    texts = {name: value if isinstance(value, str) else _canonical(value) for name, value in settings.items()}
    readable = "_".join(f"{_words(name)}-{_words(text)[:_LONGEST_VALUE]}" for name, text in texts.items())
    if len(readable) <= _LONGEST_SLUG and all(_speaks_for_itself(name, settings[name], texts[name]) for name in texts):
        return readable
    digest = hashlib.sha256(_canonical(settings).encode()).hexdigest()[:10]
    return f"{readable[:_LONGEST_SLUG]}_{digest}"


def file_name(name: str) -> str:
    """Replace what some file system can't hold in a name, or would take for another place. Several names may become one."""
    safe = re.sub(r'[<>:"/\\|?*\x00-\x1f\x7f-\x9f\s]', "_", name).rstrip(".") or "_"
    if len(safe.encode(errors="surrogatepass")) > _LONGEST_NAME:
        safe = f"{safe[: _LONGEST_NAME // 4]}_{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:10]}"
    return f"_{safe}" if _DEVICE.fullmatch(safe) or safe.casefold() == _TAKEN else safe


def find_results(paths: Iterable[Path]) -> list[Path]:
    """List the JSON files of results among files and folders, searched to any depth; each once, sorted within a folder.

    In a folder a result is a JSON file beside a `model_meta.json`; links to folders are followed. What a killed run had made of a
    result is put in place first. Raises EvalkitError for a path that does not exist and for a folder without results.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            found.update(dict.fromkeys(_results_below(path)))
        elif path.is_file():
            found[path] = None
        else:
            raise EvalkitError(f"{path} does not exist; give result files or folders")
    return list(found)


def finish_result(folder: Path) -> None:
    """Put in place what a killed run had made of a result in this folder. Raises EvalkitError where that can't be done."""
    try:
        finish_replacing(folder)
    except OSError as error:
        raise EvalkitError(
            f"a run that wrote a result to {folder} was killed, and the rest can't be put in place ({error.strerror or error}); "
            "make that folder writable, or run the evaluation again"
        ) from error


def _results_below(folder: Path) -> list[Path]:
    found = []
    for below in _folders_below(folder):
        finish_result(below)
        if (below / MODEL_FILE).is_file():
            found += [path for path in below.glob("*.json") if path.name != MODEL_FILE]
    if not found:
        raise EvalkitError(f"no results in {folder}: no JSON file lies beside a {MODEL_FILE}; give a results folder")
    return sorted(found)


def _folders_below(folder: Path) -> Iterator[Path]:
    """Walk a folder and those below it, each once: a link to one that is there besides is left out, as is one that leads back."""
    links, seen = [folder], set()
    while links:
        # those behind links come last, so that what lies there itself keeps its own name
        for place, names, _ in os.walk(links.pop(0)):
            here = Path(place)
            if here.resolve() in seen:
                names.clear()
                continue
            seen.add(here.resolve())
            links += [here / name for name in sorted(names) if (here / name).is_symlink()]
            names[:] = [name for name in names if name not in UNFINISHED_FOLDERS]
            yield here


def _canonical(value: object) -> str:
    return json.dumps(value, default=str, sort_keys=True)


def _words(text: str) -> str:
    return re.sub(r"[^a-z0-9_.+]+", "-", text.lower()).strip("-.") or "-"


def _speaks_for_itself(name: str, value: object, text: str) -> bool:
    """Tell whether `name-text` can be told apart within a slug and stands for no other value, on any file system."""
    if not (_PLAIN_NAME.fullmatch(name) and _PLAIN_VALUE.fullmatch(text) and len(text) <= _LONGEST_VALUE):
        return False
    return not isinstance(value, str) or (text[0].isalpha() and text not in ("true", "false", "null"))
