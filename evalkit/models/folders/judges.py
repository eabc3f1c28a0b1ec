"""Language models that sentence-transformers saved as cross-encoders: the logits of words (LogitScore) behind a chat template.

The template is rendered once around two marks; what it puts before, between and behind them is the recipe's prompts. It runs in
Jinja's sandbox, as in transformers. Source: sentence_transformers/base/modules/{transformer,modality}.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from evalkit.errors import EvalkitError
from evalkit.models.folders.files import MODULES, SETTINGS, FolderFiles, read_object

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TEMPLATE = "chat_template.jinja"
MARKS = (" \ue0f0\n", " \ue0f1\n")
"""Texts that no template holds; the white space around them shows where it is taken away."""
# what the encoder's settings file may say beside that which is read here
ENCODER_KNOWN = frozenset({"processing_kwargs", "module_output_name", "unpad_inputs", "backend"})
PROMPTS = ("system_prompt", "query_prompt", "separator", "document_prompt", "document_ending", "prompt", "bos")
"""The fields that stand for the template: whoever states one states all."""


@dataclass(frozen=True)
class Judge:
    """The recipe that a folder states, by field, and the file that says each."""

    fields: Mapping[str, tuple[Any, str]]


def is_judge(files: FolderFiles) -> bool:
    """Return whether a folder's modules score by the logits of words."""
    return any(module.name == "LogitScore" for module in files.modules or ())


def read_judge(files: FolderFiles) -> Judge:
    """Return what the folder states. Raises EvalkitError, by name, for what would be read or scored otherwise here."""
    from tokenizers import Tokenizer

    _refuse_other_modules(files)
    _refuse_other_reading(files)
    place = files.folder / "tokenizer.json"
    try:
        tokenizer: Tokenizer = Tokenizer.from_file(str(place))
    except Exception as error:  # the library raises Exception itself
        raise EvalkitError(
            f"{place} can't be read, which holds the words that {files.folder} scores by: {error}"
        ) from None
    words, said = _words(files, tokenizer)
    fields: dict[str, tuple[Any, str]] = dict(
        zip(("positive_word", "negative_word"), ((one, said) for one in words), strict=True)
    )
    text, origin = _template(files)
    special = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    for name, value in _split(files, _rendered(files, text, origin), special, origin).items():
        fields[name] = value, origin
    fields["bos"] = False, origin
    fields["truncation"] = "end", MODULES
    if files.encoder is not None and files.encoder.max_seq_length is not None:
        fields["max_length"] = files.encoder.max_seq_length, files.encoder_name
    return Judge(fields)


def _refuse_other_modules(files: FolderFiles) -> None:
    names = [module.name for module in files.modules or ()]
    types = [module.type for module in files.modules or ()]
    if names != ["Transformer", "LogitScore"] or not all(one.startswith("sentence_transformers.") for one in types):
        raise EvalkitError(
            f"{files.folder / MODULES} names {', '.join(types)}; of the models that score by the logits of words (LogitScore) "
            "evalkit runs sentence-transformers' Transformer and LogitScore alone"
        )
    if files.network != files.folder:
        raise EvalkitError(
            f"{files.folder / MODULES}: a language model with LogitScore lies in the folder itself, and this does not"
        )


def _refuse_other_reading(files: FolderFiles) -> None:
    """Refuse a network that is called otherwise, or texts that are read without a template."""
    encoder = files.encoder
    path = files.folder / (files.encoder_name or "sentence_bert_config.json")
    if encoder is None or encoder.transformer_task != "text-generation":
        raise EvalkitError(
            f"{path} must say transformer_task=text-generation for LogitScore to find the logits of words"
        )
    message = (encoder.modality_config or {}).get("message")
    if not isinstance(message, dict):
        raise EvalkitError(
            f"{files.folder} scores by the logits of words (LogitScore), and its tokenizer has no chat template: "
            "sentence-transformers would put query and document together with no prompt; state the prompts: "
            "model=local-llm-reranker model.path=FOLDER model.prompt=…"
        )
    if message.get("method") != "forward" or message.get("method_output_name") != "logits":
        raise EvalkitError(f"{path}: message={message} reads other outputs of the network than its logits")
    odd = [name for name, value in (encoder.model_extra or {}).items() if value and name not in ENCODER_KNOWN]
    options = _options(files)
    odd += [f"processing_kwargs.{name}" for name, value in options.items() if value and name != "chat_template"]
    odd += [name for name in ("restore_suffix", "truncation", "max_length") if name in options.get("chat_template", {})]
    if encoder.do_lower_case or odd:
        raise EvalkitError(
            f"{path}: {odd[0] if odd else 'do_lower_case'} changes how texts are read in a way that evalkit does not"
        )


def _options(files: FolderFiles) -> dict[str, Any]:
    said = (files.encoder.model_extra or {}).get("processing_kwargs") if files.encoder else None
    return said if isinstance(said, dict) else {}


def _words(files: FolderFiles, tokenizer: Tokenizer) -> tuple[tuple[str, str | None], str]:
    """Return the positive and the negative word, and the file that says their tokens."""
    place = files.modules[-1].path if files.modules else ""
    origin = f"{place}/config.json"
    config = read_object(files.folder / place / "config.json") or {}
    output = (files.encoder.model_extra or {}).get("module_output_name") if files.encoder else None
    if config.get("module_input_name", "causal_logits") != (output or "causal_logits"):
        raise EvalkitError(
            f"{files.folder / origin}: LogitScore reads {config['module_input_name']!r}, which nothing gives it"
        )

    def word(name: str) -> str:
        token = config.get(name)
        if not isinstance(token, int) or tokenizer.id_to_token(token) is None:
            raise EvalkitError(f"{files.folder / origin}: {name}={token!r} is no token of tokenizer.json")
        text = tokenizer.decode([token], skip_special_tokens=False)
        if tokenizer.encode(text, add_special_tokens=False).ids[:1] != [token]:
            raise EvalkitError(
                f"{files.folder / origin}: {name}={token} is {tokenizer.id_to_token(token)!r}, which is no word by itself: as text "
                "it has other tokens"
            )
        return text

    negative = None if config.get("false_token_id") is None else word("false_token_id")
    return (word("true_token_id"), negative), origin


def _template(files: FolderFiles) -> tuple[str, str]:
    if TEMPLATE in files.names:
        return (files.network / TEMPLATE).read_text(encoding="utf-8"), TEMPLATE
    said = files.tokenizer.get("chat_template")
    if isinstance(said, list):
        said = next(
            (one.get("template") for one in said if isinstance(one, dict) and one.get("name") == "default"), None
        )
    if not isinstance(said, str) or not said:
        raise EvalkitError(f"{files.folder} has no chat template, neither {TEMPLATE} nor in tokenizer_config.json")
    return said, "tokenizer_config.json"


def _rendered(files: FolderFiles, template: str, origin: str) -> str:
    """Return what the template makes of two marks as query and document, with the folder's default prompt as system message."""
    import jinja2
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    message = (files.encoder.modality_config or {}).get("message", {}) if files.encoder else {}
    flat = message.get("format", "structured") == "flat"

    def said(role: str, text: str) -> dict[str, Any]:
        return {"role": role, "content": text if flat else [{"type": "text", "text": text}]}

    def fail(reason: str) -> NoReturn:
        raise jinja2.TemplateError(reason)

    settings = files.settings
    default = settings.prompts.get(settings.default_prompt_name or "") if settings is not None else None
    if settings is not None and settings.said and not settings.default_prompt_name:
        raise EvalkitError(
            f"{files.folder / SETTINGS} names prompts, and none of them as the default: state the prompts yourself"
        )
    system = [said("system", default)] if default else []
    tokens = {name: _content(value) for name, value in files.tokenizer.items() if name.endswith("_token") and value}
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.globals["raise_exception"] = fail  # no strftime_now: a prompt with today's date is another one tomorrow
    options = {"add_generation_prompt": False, **_options(files).get("chat_template", {})}
    try:
        return environment.from_string(template).render(
            messages=[*system, said("query", MARKS[0]), said("document", MARKS[1])], **{**tokens, **options}
        )
    except Exception as error:  # what a template of anyone's may do
        raise EvalkitError(
            f"{files.network / origin} can't be rendered around a query and a document: {' '.join(str(error).split())[:200]}"
        ) from error


def _content(value: Any) -> Any:
    return value.get("content") if isinstance(value, dict) else value


def _split(files: FolderFiles, text: str, special: Sequence[str], origin: str) -> dict[str, str]:
    """Return the prompts around the marks, cut where a tokenizer joins nothing: behind special tokens, or behind a word."""
    path: Path = files.network / origin
    bare = [mark.strip() for mark in MARKS]
    if any(text.count(mark) != 1 for mark in bare):
        raise EvalkitError(
            f"{path} does not hold query and document once each, as messages of the roles query and document"
        )
    if any(mark not in text for mark in MARKS):
        raise EvalkitError(f"{path} takes away white space around texts, which evalkit does not")
    if text.index(MARKS[0]) > text.index(MARKS[1]):
        raise EvalkitError(f"{path} puts the document before the query, which evalkit does not")
    before, rest = text.split(MARKS[0])
    between, behind = rest.split(MARKS[1])
    head = _last_special(before, special)
    word = _last_special(between, special)
    word = max([word, *(place + 1 for place, sign in enumerate(between) if sign.isalnum() and place >= word)])
    end = min([len(behind), *(place for one in special if (place := behind.find(one)) >= 0)])
    start = next((place for place, sign in enumerate(behind[:end]) if sign.isalnum()), end)
    if 0 < start < end and behind[start - 1] not in "\r\n":
        start -= 1  # a sign before a word may be part of its token
    return {
        "system_prompt": before[:head],
        "query_prompt": before[head:],
        "separator": between[:word],
        "document_prompt": between[word:],
        "document_ending": behind[:start],
        "prompt": behind[start:],
    }


def _last_special(text: str, special: Sequence[str]) -> int:
    """Return where the last special token of a text ends; 0 where it has none."""
    return max([0, *(place + len(one) for one in special if one and (place := text.rfind(one)) >= 0)])
