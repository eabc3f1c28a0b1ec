"""Tokenizers, loaded by transformers and held to the model's own tokenizer.json.

transformers 5 builds some tokenizers anew from their class and `tokenizer_config.json`, and transformers 4 changes a few that it
has read; neither says so. Where a folder has a tokenizer.json, that file leads here: what a tokenizer makes of probes is compared
with what the file alone gives, and where they differ the file's own backend takes the place of the one that was built.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, normalizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from evalkit.errors import EvalkitError
from evalkit.models.consent import guarded_by
from evalkit.models.findings import report_once
from evalkit.models.identity import PROBES
from evalkit.models.networks import quiet_transformers, reporting_load_errors
from evalkit.models.settings import ModelSettings
from evalkit.models.weights import read_config

FILE = "tokenizer.json"
# classes that put a template in place of tokenizer.json's, with their defaults of add_bos_token and add_eos_token
TEMPLATE_CLASSES = {
    "LlamaTokenizer": (True, False),
    "CodeLlamaTokenizer": (True, False),
    "CohereTokenizer": (True, False),
    "GemmaTokenizer": (True, False),
    "GPTNeoXTokenizer": (False, False),
}
TEMPLATE_SETTINGS = ("add_bos_token", "add_eos_token")
# what else in tokenizer_config.json has transformers build another tokenizer than tokenizer.json's
TOKEN_SETTINGS = (*TEMPLATE_SETTINGS, "add_prefix_space", "do_lower_case", "strip_accents", "tokenize_chinese_chars")
SHOWN = 8  # ids of an example

Encoded = tuple[tuple[int, ...], tuple[int, ...]]
"""The ids of one probe, and its segment ids."""


@dataclass(frozen=True, slots=True)
class LoadedTokenizer:
    """A transformers tokenizer, and what a reader of its scores should know of how it was made."""

    tokenizer: Any
    findings: tuple[str, ...] = ()


def load_tokenizer(settings: ModelSettings, folder: Path) -> Any:
    """Return the model's own tokenizer; `read_tokenizer` says besides what had to be changed."""
    return read_tokenizer(settings, folder).tokenizer


def read_tokenizer(settings: ModelSettings, folder: Path) -> LoadedTokenizer:
    """Return the model's own tokenizer, which makes tokenizer.json's tokens where there is such a file.

    Raises EvalkitError where its files are damaged, missing (transformers may then make one up that knows no words), or can't be
    followed.
    """
    read_config(folder)  # which says what is wrong with a folder that is no model at all
    loaded = _SPARE.pop(_place(settings, folder), None) or _load(settings, folder)
    tokenizer = loaded.tokenizer
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        what = "has no tokenizer (tokenizer.json or a vocabulary)"
        if (folder / "tokenizer.json").is_file():
            what = f"has a tokenizer.json that knows no words, {len(tokenizer):,} special tokens alone"
        raise EvalkitError(f"{folder} {what}: copy it from the model's origin")
    if tokenizer.pad_token_id is None:
        raise EvalkitError(
            f"{folder}: the tokenizer has no padding token; name one as pad_token in tokenizer_config.json"
        )
    if settings.lower_case:
        _read_small(tokenizer, folder)
    report_once(settings.name, loaded.findings)
    return loaded


def read_probe_ids(settings: ModelSettings, folder: Path) -> list[list[int]]:
    """Return what the model's own tokenizer makes of the probes (see `probe_ids`), its letters as the files have them.

    The tokenizer is kept for the one who reads it next from these very files, since reading it takes seconds. Raises EvalkitError
    as `read_tokenizer`.
    """
    as_filed = settings.model_copy(update={"lower_case": False})
    place = _place(as_filed, folder)
    loaded = read_tokenizer(as_filed, folder)
    ids = probe_ids(loaded.tokenizer)
    _SPARE.clear()
    _SPARE[place] = loaded
    return ids


_SPARE: dict[object, LoadedTokenizer] = {}  # at most one; whoever takes it has it alone, since a tokenizer has a state


def _place(settings: ModelSettings, folder: Path) -> tuple[object, ...]:
    return settings.trust_remote_code, *read_from(folder)


def read_from(folder: Path) -> tuple[object, ...]:
    """Return what tells whether the files of a folder are those that something was read from. Raises OSError."""
    return folder, *sorted((path.name, _state(path)) for path in folder.iterdir() if path.is_file())


def _load(settings: ModelSettings, folder: Path) -> LoadedTokenizer:
    with (
        guarded_by(settings, folder),
        quiet_transformers(),
        reporting_load_errors(f"{folder}: the tokenizer can't be loaded"),
    ):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=settings.trust_remote_code)
    return _as_the_file_says(tokenizer, folder)


def _read_small(tokenizer: Any, folder: Path) -> None:
    """Have a tokenizer read texts in small letters, as sentence-transformers does: before its own normalisation.

    Raises EvalkitError where it has none that can be set.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise EvalkitError(
            f"{folder}: do_lower_case can't be followed: {type(tokenizer).__name__} is none of the tokenizers library; copy the "
            "model's tokenizer.json"
        )
    own = backend.normalizer
    steps: list[Any] = list(own) if isinstance(own, normalizers.Sequence) else [own]  # type: ignore[call-overload] # it can be iterated
    if not any(isinstance(step, normalizers.Lowercase) for step in steps):
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *([own] if own else [])])


def follow_file(tokenizer: Any, folder: Path, *, lower_case: bool = False) -> tuple[str, ...]:
    """Have a tokenizer that was loaded from a folder make tokenizer.json's tokens, in place; return what was changed, as text.

    `lower_case` says that a library has put small letters before the tokenizer's own normalisation, which stays. Raises
    EvalkitError where the tokenizer makes other tokens and can't be set.
    """
    compared = _compare(tokenizer, folder / FILE, lower_case=lower_case)
    if compared is None:
        return ()
    findings = compared.findings
    if compared.difference is not None:
        text, theirs, ours = compared.difference
        if hasattr(tokenizer, "_tokenizer"):
            compared.backend.encode_special_tokens = tokenizer.split_special_tokens
            tokenizer._tokenizer = compared.backend
        if _encoded(tokenizer, compared.with_types) != compared.expected:
            raise EvalkitError(
                f"{folder / FILE} can't be followed: {type(tokenizer).__name__} makes {theirs} of {text!r}, the file {ours}; "
                'say "tokenizer_class": "PreTrainedTokenizerFast" in tokenizer_config.json'
            )
        findings += (f"{_other_tokens(tokenizer, folder, compared.difference)}; the file's are used",)
    return findings


def tokens_besides_file(tokenizer: Any, folder: Path) -> str | None:
    """Return how a tokenizer that is not ours to set differs from tokenizer.json, as text; None where it does not."""
    compared = _compare(tokenizer, folder / FILE, lower_case=False)
    return _other_tokens(tokenizer, folder, compared.difference) if compared and compared.difference else None


def probe_ids(tokenizer: Any) -> list[list[int]]:
    """Return what a tokenizer makes of fixed texts and pairs, with and without special tokens: ids, then segment ids if any."""
    encoded = _encoded(tokenizer, "token_type_ids" in tokenizer.model_input_names)
    return [list(ids) for ids, _ in encoded] + [list(types) for _, types in encoded if types]


def largest_id(tokenizer: Any) -> int:
    """Return the largest token id that the tokenizer can make."""
    return int(max(tokenizer.get_vocab().values()))


def share_padding(network: torch.nn.Module, tokenizer: Any) -> None:
    """Give a loaded network the tokenizer's padding id, by which a decoder's classifier finds the last token of an input.

    The embeddings' own `padding_idx`, from which RoBERTa counts positions, stays what it was trained with.
    """
    for module in network.modules():
        config: Any = getattr(module, "config", None)
        if hasattr(config, "get_text_config"):
            config.pad_token_id = config.get_text_config().pad_token_id = tokenizer.pad_token_id


def _as_the_file_says(tokenizer: Any, folder: Path) -> LoadedTokenizer:
    """Return the tokenizer, or where it can't be set another one that transformers makes of tokenizer.json alone."""
    try:
        return LoadedTokenizer(tokenizer, follow_file(tokenizer, folder))
    except EvalkitError:
        if type(tokenizer) is PreTrainedTokenizerFast:
            raise
        with quiet_transformers(), reporting_load_errors(f"{folder}: the tokenizer can't be loaded"):
            plain = PreTrainedTokenizerFast.from_pretrained(folder)
        plain.model_input_names = tokenizer.model_input_names
        finding = f"{FILE} can't be read into transformers' {type(tokenizer).__name__}: it is used without that class"
        return LoadedTokenizer(plain, (finding, *follow_file(plain, folder)))


@dataclass(frozen=True, slots=True)
class _Comparison:
    """What the file gives, with what others add to it, as a backend and as ids of the probes; and the first probe that differs."""

    backend: Tokenizer
    expected: list[Encoded]
    with_types: bool
    findings: tuple[str, ...]
    difference: tuple[str, str, str] | None


def _compare(tokenizer: Any, path: Path, *, lower_case: bool) -> _Comparison | None:
    """Compare a tokenizer with its file; None where there is none, or the two are alike."""
    if not path.is_file():
        return None
    with_types = "token_type_ids" in tokenizer.model_input_names
    found = _encoded(tokenizer, with_types)
    if not lower_case and found == _file_encoded(path, with_types):
        return None
    settings = _template_settings(tokenizer, path.parent)
    backend = _file_backend(path, tokenizer, settings, lower_case=lower_case)
    expected = _backend_encoded(backend, with_types)
    findings = []
    if settings and expected != _backend_encoded(_file_backend(path, tokenizer, {}, lower_case=lower_case), with_types):
        said = ", ".join(f"{name}={str(value).lower()}" for name, value in settings.items())
        findings.append(f"{said} (tokenizer_config.json) is followed, and not {FILE}'s own template")
    difference = None if found == expected else _difference(found, expected)
    return _Comparison(backend, expected, with_types, tuple(findings), difference)


def _other_tokens(tokenizer: Any, folder: Path, difference: tuple[str, str, str]) -> str:
    text, theirs, ours = difference
    config = _tokenizer_config(folder)
    said = ", ".join(f"{name}: {json.dumps(config[name])}" for name in TOKEN_SETTINGS if name in config)
    why = f" (tokenizer_config.json says {said})" if said else ""
    return f"transformers' {type(tokenizer).__name__} makes other tokens than {FILE}{why}: of {text!r} {theirs}, the file {ours}"


def _template_settings(tokenizer: Any, folder: Path) -> dict[str, bool]:
    """Return add_bos_token and add_eos_token where tokenizer_config.json says one and the class has always put them into effect."""
    config = _tokenizer_config(folder)
    said = {name: config[name] for name in TEMPLATE_SETTINGS if isinstance(config.get(name), bool)}
    class_name = str(config.get("tokenizer_class") or type(tokenizer).__name__).removesuffix("Fast")
    defaults = TEMPLATE_CLASSES.get(class_name)
    return {**dict(zip(TEMPLATE_SETTINGS, defaults, strict=True)), **said} if said and defaults else {}


def _tokenizer_config(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # transformers has read it already, where it is there
        return {}
    return content if isinstance(content, dict) else {}


def _file_backend(path: Path, tokenizer: Any, settings: dict[str, bool], *, lower_case: bool) -> Tokenizer:
    """Return the file's tokenizer with the tokens that other files add, and a template by `settings` where it has any."""
    backend = _from_file(path)
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    for _, token in sorted(tokenizer.added_tokens_decoder.items()):
        if token.content not in known:
            (backend.add_special_tokens if token.special else backend.add_tokens)([token])
    if settings:
        bos = tokenizer.bos_token if settings["add_bos_token"] else None
        eos = tokenizer.eos_token if settings["add_eos_token"] else None
        parts = [
            [f"{bos}:{place}"] * bool(bos) + [f"${text}:{place}"] + [f"{eos}:{place}"] * bool(eos)
            for place, text in enumerate("AB")
        ]
        special = [(token, backend.token_to_id(token)) for token in dict.fromkeys((bos, eos)) if token]
        backend.post_processor = processors.TemplateProcessing(
            single=parts[0], pair=parts[0] + parts[1], special_tokens=special
        )
    if lower_case:
        own = [backend.normalizer] if backend.normalizer else []
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])
    return backend


def _from_file(path: Path) -> Tokenizer:
    try:
        backend = Tokenizer.from_file(str(path))
    except Exception as error:  # the library's only kind
        raise EvalkitError(f"{path} can't be read: {error}; copy it from the model's origin") from error
    backend.no_truncation()
    backend.no_padding()
    return backend


def _file_encoded(path: Path, with_types: bool) -> list[Encoded]:
    return _file_encoded_once(path, _state(path), with_types)


def _state(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


@lru_cache(maxsize=8)
def _file_encoded_once(path: Path, state: tuple[int, ...], with_types: bool) -> list[Encoded]:  # noqa: ARG001
    """Return what the file's tokenizer makes of the probes; reading a large vocabulary again would take half a second."""
    return _backend_encoded(_from_file(path), with_types)


def _backend_encoded(backend: Tokenizer, with_types: bool) -> list[Encoded]:
    return [
        (tuple(encoding.ids), tuple(encoding.type_ids) if with_types else ())
        for special in (True, False)
        for texts in (list(PROBES), list(zip(PROBES, reversed(PROBES), strict=True)))
        for encoding in backend.encode_batch(texts, add_special_tokens=special)
    ]


def _encoded(tokenizer: Any, with_types: bool) -> list[Encoded]:
    """Return the same of a transformers tokenizer, as it is called."""
    found: list[Encoded] = []
    for special in (True, False):
        for second in (None, list(reversed(PROBES))):
            encoded = tokenizer(
                list(PROBES),
                second,
                add_special_tokens=special,
                truncation=False,
                padding=False,
                return_token_type_ids=with_types,
                verbose=False,
            )
            types = encoded["token_type_ids"] if with_types else [()] * len(PROBES)
            found += [(tuple(ids), tuple(kinds)) for ids, kinds in zip(encoded["input_ids"], types, strict=True)]
    return found


def _difference(found: Sequence[Encoded], expected: Sequence[Encoded]) -> tuple[str, str, str]:
    """Return the first probe that differs, with either's ids (or segment ids, where those alone differ)."""
    place = next(at for at, (theirs, ours) in enumerate(zip(found, expected, strict=True)) if theirs != ours)
    row = place % len(PROBES)
    text = PROBES[row] if place // len(PROBES) % 2 == 0 else f"{PROBES[row]} | {PROBES[-1 - row]}"
    part = 0 if found[place][0] != expected[place][0] else 1
    theirs, ours = (_shown(side[place][part]) for side in (found, expected))
    return text, theirs, ours


def _shown(ids: Sequence[int]) -> str:
    return f"[{', '.join(map(str, ids[:SHOWN]))}{', …' if len(ids) > SHOWN else ''}]"
