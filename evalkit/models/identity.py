"""What decides a model's scores: which files of its folder, whether its code may run, what its tokenizer makes of texts.

One hash over all of it, the identity, names a model: in results, in the store of scores, and in what is converted from it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from evalkit.cache import cache_folder, read_entries, store_entries
from evalkit.errors import EvalkitError
from evalkit.interruption import check
from evalkit.machine import package_versions
from evalkit.models.folders.files import network_folder, read_modules
from evalkit.models.settings import ModelSettings

# what is known not to decide a score, by names in small letters; whatever is not known counts
TEXTS_ABOUT = ("readme*", "license*", "licence*", "notice*", "copying*")
TEXT_SUFFIXES = ("", ".txt", ".rst", ".html")
WITHOUT_EFFECT = (
    *("*.md", "*.pdf", "*.png", "*.jpg", "*.jpeg", "*.gif", "*.svg", "*.webp"),
    *(".gitattributes", ".gitignore", ".ds_store", "*.log"),
    # what training needs to go on
    *("optimizer.pt", "optimizer.bin", "scheduler.pt", "rng_state*.pth", "scaler.pt", "latest", "zero_to_fp32.py"),
    *("trainer_state.json", "training_args.bin", "events.out.tfevents*"),
    # weights for systems that no backend is
    *("tf_model*.h5", "*.msgpack", "rust_model.ot", "*.mlmodel"),
)
FOLDERS_WITHOUT_EFFECT = (
    ".git",
    ".eval_results",
    "__pycache__",
    ".cache",
    "runs",
    "logs",
    "wandb",
    "multirun",
    "*.mlpackage",
)
NUMBERED_FOLDER = re.compile(r"(checkpoint-|global_step)\d+")
# lies beside results, mteb's and evalkit's
RESULTS_MARK, RESULT_SUFFIXES = "model_meta.json", (".json", ".parquet")
# sentence-transformers writes the course of its evaluations there
EVALUATIONS, EVALUATION_SUFFIX = "eval", ".csv"

# below this size a file is hashed each time, and may be a configuration
LARGE = 2**20
# a clock may count in seconds: what changed so lately can change again without a trace in its time
SETTLED_SECONDS = 5.0
HASHES = "file-hashes.json"
TOKENIZERS = "tokenizers.json"
NAMES = "models.json"

PROBES = (
    "How many doctors in 2023?",
    "感冒了应该吃什么药？",
    "Ｆｕｌｌ－ｗｉｄｔｈ，１２３：“引号”；～￥％（全角）！",
    "中文English混排123，a中1b。",
    " leading, trailing and  double   spaces ",
    "\u3000全角　空格\u00a0and\u200bothers\t",
    "two\nlines\r\n\r\nand more\n",
    "Crème brûlée, ÄÖÜ ñandú, Łódź, cafe\u0301, İstanbul ẞ",
    "UPPER lower MiXed iPhone15 don't we'll",
    "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
    "0 12 345 6789 3.14 1,000 ½ ²",
    "😀👍🏽 👨‍👩‍👧 ❤️",
    "繁體中文、日本語のテキスト 한국어 русский العربية",
    "龘靐𠮷",
    "a",
    "",
)
"""Texts that two tokenizers read differently: letters, digits, spaces, scripts, marks, line breaks, accents, emoji."""
DECIDES_IDS = ("transformers", "tokenizers", "sentencepiece", "tiktoken")


class FileState(NamedTuple):
    """A file as the disk has it: its device and inode, its size in bytes, and the times of its last change, in nanoseconds."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int


def deciding_files(folder: Path, named: Iterable[str] = (), cache_dir: Path | None = None) -> tuple[Path, ...]:
    """List the files below a folder that may decide a score: all but those whose names are known not to.

    Links are followed, except to a folder that holds the link. `named` are paths below the folder that settings or a
    configuration name: what lies there counts, whatever its name. evalkit's own cache and results there do not. Raises EvalkitError
    where something can't be read, and where the cache is the folder itself.
    """
    kept = cache_folder(cache_dir)
    always = {Path(path).parts for path in named}
    try:
        above = frozenset(_place(parent) for parent in (folder.resolve(), *folder.resolve().parents))
        if kept.is_dir():
            if _place(kept) == _place(folder):
                raise EvalkitError(
                    f"cache_dir={kept} is the model's own folder, where what evalkit keeps would count as part of the model; "
                    "choose another folder"
                )
            above |= {_place(kept)}
        found = list(_files_below(folder, (), above, always, ignored=False))
    except OSError as error:
        raise _unreadable(Path(error.filename or folder), error) from error
    return tuple(sorted(found, key=lambda path: path.relative_to(folder).as_posix()))


def _files_below(
    folder: Path,
    parts: tuple[str, ...],
    above: frozenset[tuple[int, int]],
    always: set[tuple[str, ...]],
    *,
    ignored: bool,
) -> Iterator[Path]:
    """Walk a folder, `parts` below the model's own; of an `ignored` one, only what is `always` to count."""
    results = bool(parts) and (folder / RESULTS_MARK).is_file()
    for path in folder.iterdir():
        here = (*parts, path.name)
        counts = any(here[: len(start)] == start for start in always)
        if path.is_dir():
            place = _place(path)
            without = not counts and (ignored or _is_known_folder(path.name))
            leads_on = any(start[: len(here)] == here for start in always)
            if place not in above and (leads_on or not without):
                yield from _files_below(path, here, above | {place}, always, ignored=without)
        elif path.is_file():
            without = ignored or _is_known_file(path) or (results and path.suffix in RESULT_SUFFIXES)
            if counts or not without:
                yield path


def _place(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _is_known_folder(name: str) -> bool:
    if NUMBERED_FOLDER.fullmatch(name):
        return True
    return any(fnmatchcase(name.lower(), one) for one in FOLDERS_WITHOUT_EFFECT)


def _is_known_file(path: Path) -> bool:
    name = path.name.lower()
    if any(fnmatchcase(name, pattern) for pattern in WITHOUT_EFFECT):
        return True
    if any(fnmatchcase(name, pattern) for pattern in TEXTS_ABOUT):
        return Path(name).suffix in TEXT_SUFFIXES
    return path.parent.name == EVALUATIONS and name.endswith(EVALUATION_SUFFIX)


def content_hashes(paths: Iterable[Path], cache_dir: Path | None) -> dict[Path, str]:
    """Return the sha256 of each file's content, as hex. Raises EvalkitError where one can't be read.

    A large file is read once: its hash is kept in the cache under its inode, size and times. It is not kept where the file
    changed a moment ago, since it could change again within its clock's grain. A cache that can't be written costs time alone.
    """
    kept = cache_folder(cache_dir) / HASHES
    known: dict[str, object] | None = None
    found: dict[Path, str] = {}
    fresh: dict[str, object] = {}
    for path in paths:
        try:
            with path.open("rb") as stream:
                status = os.fstat(stream.fileno())
                if status.st_size < LARGE:
                    found[path] = hashlib.file_digest(stream, "sha256").hexdigest()
                    continue
                known = read_entries(kept) if known is None else known
                key, state, now = f"{status.st_dev}:{status.st_ino}", _state(status), time.time_ns()
                if (digest := _remembered(known.get(key), state)) is None:
                    digest = hashlib.file_digest(stream, "sha256").hexdigest()
                    if _is_settled(status, now) and _state(os.fstat(stream.fileno())) == state:
                        fresh[key] = [*state, digest]
                found[path] = digest
        except OSError as error:
            raise _unreadable(path, error) from error
    if fresh:
        with suppress(OSError):
            store_entries(kept, fresh)
    return found


def file_states(paths: Iterable[Path]) -> dict[Path, FileState]:
    """Return what tells of each file whether it changed since: its place on the disk, size and times. Raises EvalkitError."""
    found = {}
    for path in paths:
        try:
            status = path.stat()
        except OSError as error:
            raise _unreadable(path, error) from error
        found[path] = FileState(status.st_dev, status.st_ino, *_state(status))
    return found


def first_changed(contents: Mapping[Path, str], states: Mapping[Path, FileState]) -> Path | None:
    """Return a file that is no longer what it was hashed as, or is gone; None where all are the same.

    `states` are those from before the files were hashed. A large file is read again only where its state is another one.
    """
    for path, digest in contents.items():
        try:
            if states[path].size >= LARGE and file_states([path])[path] == states[path]:
                continue
            with path.open("rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() != digest:
                    return path
        except (OSError, EvalkitError):
            return path
    return None


def _state(status: os.stat_result) -> list[int]:
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _is_settled(status: os.stat_result, now: int) -> bool:
    grain = SETTLED_SECONDS * 1e9
    return all(abs(now - changed) > grain for changed in (status.st_mtime_ns, status.st_ctime_ns))


def _remembered(entry: object, state: list[int]) -> str | None:
    match entry:
        case [*before, str(digest)] if before == state and re.fullmatch("[0-9a-f]{64}", digest):
            return digest
    return None


def _unreadable(path: Path, error: OSError) -> EvalkitError:
    return EvalkitError(f"{path} can't be read: {error.strerror or error}; it may decide the model's scores")


def hash_files(folder: Path, files: Iterable[Path], contents: Mapping[Path, str] | None = None) -> str:
    """Return the sha256 over the files' names (relative to the folder) and contents, as hex.

    `contents` are the hashes of contents that are known already.
    """
    known = contents or {}
    digest = hashlib.sha256()
    for path in files:
        content = known.get(path)
        if content is None:
            with path.open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(os.fsencode(path.relative_to(folder).as_posix()) + f"\0{content}\n".encode())
    return digest.hexdigest()


def named_paths(settings: ModelSettings, folder: Path) -> tuple[str, ...]:
    """List the paths below the folder that `model.onnx_file` and modules.json name, as `deciding_files` takes them.

    Beside an ONNX file in a folder of its own may lie its weights, so the whole folder counts. Raises EvalkitError where
    modules.json leads out of the model's folder.
    """
    named = []
    if settings.onnx_file:
        above = Path(settings.onnx_file).parent
        named.append(settings.onnx_file if above == Path() else str(above))
    for path in (module.path for module in read_modules(folder) or ()):
        if not path:
            continue
        if ".." in Path(path).parts or Path(path).is_absolute():
            raise EvalkitError(
                f"{folder / 'modules.json'} names {path}, which lies outside of the model's folder: copy it into the folder, and "
                "name it there"
            )
        named.append(path)
    return tuple(named)


def _read_json(path: Path) -> Any:
    """Return a small file's JSON; None where there is none: whoever reads it for its content says what is wrong."""
    try:
        return json.loads(path.read_bytes()) if path.stat().st_size < LARGE else None
    except (OSError, ValueError, RecursionError):
        return None


def names_code(files: Iterable[Path]) -> bool:
    """Tell whether a configuration among the files names Python code that comes with the model.

    transformers is told so by `auto_map`, sentence-transformers by a module's type that is none of its own.
    """
    for path in files:
        if path.suffix != ".json":
            continue
        content = _read_json(path)
        if path.name in ("modules.json", "router_config.json") and any(_foreign_types(content)):
            return True
        if _holds_key(content, "auto_map"):
            return True
    return False


def _foreign_types(content: Any) -> Iterator[str]:
    modules = content if isinstance(content, list) else [content]
    for module in modules:
        if isinstance(module, dict):
            types = [module.get("type"), *(module["types"].values() if isinstance(module.get("types"), dict) else ())]
            yield from (one for one in types if isinstance(one, str) and not one.startswith("sentence_transformers."))


def _holds_key(content: Any, key: str) -> bool:
    waiting = [content]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            if found.get(key):
                return True
            waiting += found.values()
        elif isinstance(found, list):
            waiting += found
    return False


def model_identity(
    settings: ModelSettings,
    folder: Path,
    contents: Mapping[Path, str],
    cache_dir: Path | None,
    facts: Mapping[str, object] | None = None,
) -> str:
    """Return the hash over all that decides a model's scores, as hex.

    That is the files of `contents` with their names, whether code that they name may run, the model's kind, the ONNX file that is
    run in place of other weights, what the tokenizer makes of probes, and `facts`: whatever else does, as JSON holds it.
    """
    files = hash_files(folder, contents, contents)
    trusted = settings.trust_remote_code if names_code(contents) else None
    decisive = {
        "files": files,
        "trusted": trusted,
        "kind": settings.kind,
        "onnx_file": settings.onnx_file,
        "tokenizer": _tokenizer_hash(settings, folder, files, trusted, cache_dir),
        "facts": dict(facts or {}),
    }
    return _hash_json(decisive)


def _hash_json(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _tokenizer_hash(
    settings: ModelSettings, folder: Path, files: str, trusted: bool | None, cache_dir: Path | None
) -> str | None:
    """Return a hash of the ids that the tokenizer gives for the probes; None where no tokenizer can be loaded.

    It is kept in the cache: whoever finds it there need not import transformers.
    """
    key = _hash_json([files, trusted, PROBES, package_versions(DECIDES_IDS)])
    kept = cache_folder(cache_dir) / TOKENIZERS
    match read_entries(kept).get(key):
        case str(known):
            return known
    if key not in _PROBED:
        _PROBED[key] = _probe(settings, network_folder(folder))
    found = _PROBED[key]
    if found is not None:
        with suppress(OSError):
            store_entries(kept, {key: found})
    return found


_PROBED: dict[str, str | None] = {}  # in this process, by the content of the files


def _probe(settings: ModelSettings, folder: Path) -> str | None:
    from evalkit.models.tokenizers import read_probe_ids

    try:
        # as the files have it: small letters are the recipe's, by which scores are kept besides
        return _hash_json(read_probe_ids(settings, folder))
    except Exception:  # whichever backend needs the tokenizer says what is wrong with it
        check()  # an interruption says nothing of the tokenizer
        return None


def remember_name(cache_dir: Path | None, identity: str, name: str) -> None:
    """Keep in the cache that a model of this name has this identity: scores and conversions are kept without a name.

    Raises OSError where the cache can't be written.
    """
    names = names_by_identity(cache_dir).get(identity, ())
    if name not in names:
        store_entries(cache_folder(cache_dir) / NAMES, {identity: [*names, name]})


def names_by_identity(cache_dir: Path | None) -> dict[str, tuple[str, ...]]:
    """Return the names under which each identity was met."""
    entries = read_entries(cache_folder(cache_dir) / NAMES)
    return {key: tuple(map(str, names)) for key, names in entries.items() if isinstance(names, list)}
