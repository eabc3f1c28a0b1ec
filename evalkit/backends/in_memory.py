"""Objects that the user has in memory: sentence-transformers' and transformers' models, and functions of pairs or of texts.

An object is run as it is, with its own prompts, lengths, device and precision, and is the same afterwards. What it is, is read
off it again at each evaluation.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from evalkit.backends.object_content import UnreadableError, content_hash, weights_hash
from evalkit.backends.probes import influence_of_neighbours
from evalkit.errors import EvalkitError
from evalkit.machine import installed_version
from evalkit.models.findings import report_once
from evalkit.models.interfaces import LocalNetwork, RunnableModel, Scorer
from evalkit.models.settings import POOLING_MODES, ModelSettings, Similarity, model_settings
from evalkit.records import IN_MEMORY, ModelIdentity, Role, Task

if TYPE_CHECKING:
    import torch

    from evalkit.models.tokenization import InputBuilder

ObjectKind = Literal["cross-encoder", "embedder"]
BATCH_SIZE = 32
OLDEST = 6  # version of sentence-transformers
PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
# how far padding may move an output, as a share of the largest: by rounding alone
PADDING_TOLERANCES = {"fp32": 1e-3}
LOOSE = 0.1
OF_FUNCTIONS = "fp32"  # what functions give is read as float32
COMPARED = 4  # texts of a task that a function gets together and alone
LIST_AWARE = 0.1
"""From which share of the largest number on an output moves by what stands beside its text, and not by padding."""


@dataclass(frozen=True, slots=True)
class ObjectOptions:
    """What the user says of an object, beyond what it is: None where nothing is said, as in `evalkit.wrap`."""

    kind: ObjectKind | None = None
    tokenizer: Any = None
    pooling: str | None = None
    similarity: Similarity | None = None
    max_length: int | None = None
    query_prompt: str | None = None
    document_prompt: str | None = None
    label: int | None = None

    @property
    def said(self) -> dict[str, Any]:
        """The options that are set, by name."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True)
class ObjectReading:
    """What was read off an object: fields of its ModelSettings, its precision, what a result says of it, and its scorer."""

    settings: Mapping[str, Any]
    dtype: str
    description: Mapping[str, object]
    open: Callable[[], Scorer]


@dataclass(frozen=True, slots=True)
class ObjectSort:
    """A sort of object that can be run: what messages call it, its kind of model, the options that it has, and its reader."""

    what: str
    kind: ObjectKind
    options: frozenset[str]
    read: Callable[[Any, ObjectOptions], ObjectReading]
    is_function: bool = False


@dataclass(frozen=True)
class ObjectInMemory:
    """An object with what the user says of it. `identity` is the user's word that scores under it are this object's.

    `revision` is the identity, or a mark that no other wrapped object has.
    """

    target: Any
    name: str
    identity: str | None
    revision: str
    options: ObjectOptions
    settings: ModelSettings
    dtype: str

    def find(self) -> RunnableModel:
        """Read the object as it is now. Its scores are stored only under an identity, never with those of other weights or code.

        Raises EvalkitError where its settings are no longer those that it was wrapped with.
        """
        reading = read_in_memory(self.target, self.options)
        if (_settings_of(self.name, reading), reading.dtype) != (self.settings, self.dtype):
            raise EvalkitError(f"{self.name} has other settings than when it was wrapped: wrap it again, then evaluate")
        digest, unreadable = ("", "") if self.identity is None else _content_of(self.target)
        identity = ModelIdentity(self.name, f"local/{self.name}", self.revision, self.settings.kind, digest)
        way = {
            "model": identity.hub_id,
            "identity": self.identity,
            "weights_hash": digest,
            **reading.settings,
            "backend": dict(reading.description),
        }
        if unreadable:
            unstored = partial(_open_unstored, self.name, unreadable, reading.open)
            found = RunnableModel(identity, reading.description, None, unstored)
        else:
            found = RunnableModel(identity, reading.description, None if self.identity is None else way, reading.open)
        if not _sort_of(self.target, self.options.kind).is_function:
            return found
        # only the task has texts that a function may be called with
        return replace(
            found, for_task=lambda task: replace(found, open=partial(_open_compared, self.name, task, found))
        )


def keep_object(target: Any, name: str, identity: str | None, revision: str, options: ObjectOptions) -> ObjectInMemory:
    """Read an object for the first time. Raises EvalkitError, saying what is missing, where it can't be run as it is."""
    reading = read_in_memory(target, options)
    settings = _settings_of(name, reading)
    return ObjectInMemory(target, name, identity, revision, options, settings, reading.dtype)


def read_in_memory(target: Any, options: ObjectOptions) -> ObjectReading:
    """Read an object's settings off it, with what the user says of it.

    Raises EvalkitError for an object that can't be run, for what only the user can say and did not, and for options that have no
    effect on it.
    """
    sort = _sort_of(target, options.kind)
    if options.kind not in (None, sort.kind):
        raise EvalkitError(f"kind={options.kind!r}: {sort.what} is a model of kind {sort.kind!r}")
    for name in options.said:
        if name not in sort.options and name != "kind":
            takes = ", ".join(f"{option}=" for option in sorted(sort.options)) or "no such settings"
            raise EvalkitError(f"{name}= has no effect on {sort.what}, which takes {takes}")
    return sort.read(target, options)


def class_name(target: object) -> str:
    """Return the name of an object's class with its module; a function's own."""
    named = target if inspect.isroutine(target) else type(target)
    return f"{getattr(named, '__module__', None) or 'builtins'}.{named.__qualname__}"


def _content_of(target: Any) -> tuple[str, str]:
    """Return the hash of an object's weights, or of a function's code and what that reads; then what has no hash, if something."""
    if digest := weights_hash(target):
        return digest, ""
    try:
        return content_hash(target), ""
    except UnreadableError as error:
        return "", str(error)


def _open_unstored(name: str, unreadable: str, opened: Callable[[], Scorer]) -> Scorer:
    """Open a scorer whose scores are not stored, and say why."""
    report_once(
        name,
        [
            f"its scores are not stored, whatever its identity: nothing would say when what it uses changes ({unreadable})"
        ],
    )
    return opened()


def _open_compared(name: str, task: Task, found: RunnableModel) -> Scorer:
    """Open a function's scorer, and compare what it makes of the task's first texts together and alone.

    Raises EvalkitError where its output for a text depends on the others: evalkit calls it with texts of several queries, and with
    parts of a query's.
    """
    scorer = found.open()
    request = next((one for one in task.requests if len(one.candidates) > 1), None)
    if request is None:
        return scorer
    documents = list(dict.fromkeys(candidate.text for candidate in request.candidates))[:COMPARED]

    def call(texts: list[str]) -> NDArray[np.float32]:
        if isinstance(scorer, ObjectScorer):
            return scorer.score([(request.query.texts[0], text) for text in texts])
        return cast("ObjectEmbedder", scorer).embed(texts, "document")

    whole = call(documents)  # what goes wrong here would go wrong in the run
    try:
        moved, allowed = influence_of_neighbours(call, documents)
    except Exception as error:
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        report_once(
            name, [f"whether a text's output depends on those beside it is not known: it fails for one alone ({said})"]
        )
        return scorer
    repeated = float(np.abs(call(documents) - whole).max())
    largest = float(np.abs(whole).max())
    if repeated > allowed / 10:
        report_once(
            name, [f"the same call twice gives outputs {repeated:.2g} apart: a repeated run may give other figures"]
        )
    if moved > max(LIST_AWARE * largest, 3 * repeated):
        raise EvalkitError(
            f"{name} gives a text another output beside other texts than alone (by {moved:.3g}, where the largest is "
            f"{largest:.3g}). evalkit calls a function with texts of several queries at once, and with a part of a query's: let it "
            "score each text by itself. A model that ranks whole lists can run behind a server (backend.listwise=true)"
        )
    if moved > max(allowed, 3 * repeated):
        report_once(name, [f"outputs move by up to {moved:.2g} (of {largest:.2g}) by the texts beside: is it padding?"])
    return scorer


class ObjectScorer:
    """A PairScorer: a call of (query, document) pairs that gives a number for each. `what` names it in messages."""

    def __init__(self, call: Callable[[list[tuple[str, str]]], Any], what: str) -> None:
        self._call = call
        self._what = what

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        expected = f"a number for each pair, of shape ({len(pairs)},)"
        scores = _numbers(self._call(list(pairs)), self._what, f"{len(pairs)} pairs", expected)
        if scores.shape != (len(pairs),):
            raise _wrong_answer(self._what, f"{len(pairs)} pairs", f"numbers of shape {scores.shape}", expected)
        return scores


class ObjectEmbedder:
    """A TextEmbedder: a call of texts and their role that gives a vector for each text. `what` names it in messages."""

    def __init__(self, call: Callable[[list[str], Role], Any], what: str) -> None:
        self._call = call
        self._what = what
        self._dimensions: int | None = None

    def embed(self, texts: Sequence[str], role: Role) -> NDArray[np.float32]:
        given = f"{len(texts)} texts ({role})"
        wide = "dimensions" if self._dimensions is None else str(self._dimensions)
        expected = f"a vector for each text, of shape ({len(texts)}, {wide})"
        vectors = _numbers(self._call(list(texts), role), self._what, given, expected)
        found = vectors.shape
        if len(found) != 2 or found[0] != len(texts) or not found[1] or self._dimensions not in (None, found[1]):
            raise _wrong_answer(self._what, given, f"numbers of shape {found}", expected)
        self._dimensions = found[1]
        return vectors


def _settings_of(name: str, reading: ObjectReading) -> ModelSettings:
    """Return an object's settings, of which no field is set that its reading did not give."""
    return model_settings({"name": name, "backends": (IN_MEMORY,), **reading.settings})


def _numbers(values: Any, what: str, given: str, expected: str) -> NDArray[np.float32]:
    """Return what a call gave as float32. Raises EvalkitError where it holds anything but numbers."""
    try:
        array = np.asarray(_off_device(values))
    except (TypeError, ValueError):  # rows of different lengths, or something that has no array
        raise _wrong_answer(what, given, f"a {type(values).__name__} that is no table of numbers", expected) from None
    if array.dtype.kind not in "biuf":
        inside = {"U": "text", "S": "bytes", "c": "complex numbers"}.get(array.dtype.kind, "objects")
        raise _wrong_answer(what, given, f"a {type(values).__name__} of {inside}", expected)
    return array.astype(np.float32)


def _off_device(values: Any) -> Any:
    """Return torch's tensors, wherever they are, as arrays; everything else as it is."""
    if isinstance(values, list | tuple):
        return [_off_device(value) for value in values]
    torch = sys.modules.get("torch")
    is_tensor = torch is not None and isinstance(values, torch.Tensor)
    return values.detach().float().cpu().numpy() if is_tensor else values


def _wrong_answer(what: str, given: str, found: str, expected: str) -> EvalkitError:
    return EvalkitError(f"{what} was called with {given} and gave {found}; expected: {expected}")


def _sort_of(target: Any, kind: ObjectKind | None) -> ObjectSort:
    """Tell what an object is. Libraries that are not loaded made none of it."""
    if isinstance(target, str):
        raise EvalkitError(
            f"{target!r} is a name and no object: evalkit.evaluate({target!r}, task) runs a model by its name"
        )
    if inspect.isclass(target):
        raise EvalkitError(f"{target.__name__} is a class: give an object of it")
    library, transformers = sys.modules.get("sentence_transformers"), sys.modules.get("transformers")
    if library is not None and isinstance(target, library.CrossEncoder):
        return CROSS_ENCODER
    if library is not None and isinstance(target, library.SentenceTransformer):
        return SENTENCE_TRANSFORMER
    if transformers is not None and isinstance(target, transformers.PreTrainedModel):
        return _sort_of_network(target)
    torch = sys.modules.get("torch")
    if not callable(target) or (torch is not None and isinstance(target, torch.nn.Module)):
        raise EvalkitError(
            f"a {class_name(target)} can't be run as it is: wrap takes a CrossEncoder or SentenceTransformer, a transformers model "
            "with tokenizer=, or a function of pairs or of texts, which can call whatever you have"
        )
    if kind is None:
        raise EvalkitError(
            f"{_call_name(target)} is a function, and only you know of what: kind='cross-encoder' for f([(query, document), …]), "
            "which gives a score per pair; kind='embedder' for f([text, …]), or f(texts, role) where role is 'query' or "
            "'document', which gives a vector per text"
        )
    if kind not in get_args(ObjectKind):
        raise EvalkitError(f"kind={kind!r} is none of {', '.join(get_args(ObjectKind))}")
    return FUNCTION_OF_PAIRS if kind == "cross-encoder" else FUNCTION_OF_TEXTS


def _sort_of_network(network: Any) -> ObjectSort:
    """Tell a transformers model's sort by the names of its classes."""
    from transformers import PreTrainedModel

    names = [base.__name__ for base in type(network).__mro__ if base is not PreTrainedModel]
    if any(name.endswith("ForSequenceClassification") for name in names):
        return CLASSIFIER
    heads = [name for name in names if "For" in name or "WithLMHead" in name]
    whole_t5 = network.config.is_encoder_decoder and not any(name.endswith("EncoderModel") for name in names)
    if heads or whole_t5:
        why = "its head makes neither scores nor vectors" if heads else "only its encoder makes vectors of texts"
        raise EvalkitError(
            f"a {type(network).__name__} can't be run as it is: {why}. Give a …ForSequenceClassification, the encoder below "
            "(network.base_model or network.get_encoder()) with pooling=, or a function that calls it"
        )
    return ENCODER


def _read_cross_encoder(model: Any, options: ObjectOptions) -> ObjectReading:
    what = f"the CrossEncoder {type(model).__name__}"
    _refuse_older(what)
    parameters = inspect.signature(model.predict).parameters
    if "activation_fn" not in parameters and not any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        raise EvalkitError(
            f"{what}: its predict takes no activation_fn, so raw logits can't be had; let it take one, or wrap a function of pairs "
            "that calls it"
        )
    label = _label(what, model.num_labels, options.label)
    description = {**_library(model, "sentence-transformers"), **_modules(model), "labels": model.num_labels}
    if label is not None:
        description["label"] = label

    def predict(pairs: list[tuple[str, str]]) -> Any:
        from torch.nn import Identity

        from evalkit.backends.libraries import within_memory

        def call(size: int) -> Any:
            return model.predict(pairs, batch_size=size, show_progress_bar=False, activation_fn=Identity())

        with evaluation_mode(model):
            logits = within_memory(call, BATCH_SIZE)
        return logits if label is None else logits[:, label]

    settings = {"kind": "cross-encoder"}
    return ObjectReading(settings, _precision(model), description, lambda: ObjectScorer(predict, what))


def _read_sentence_transformer(model: Any, options: ObjectOptions) -> ObjectReading:
    what = f"the SentenceTransformer {type(model).__name__}"
    _refuse_older(what)
    similarity = _similarity(what, options.similarity or _own_similarity(model))
    description = {
        **_library(model, "sentence-transformers"),
        **_modules(model),
        "similarity": similarity,
        "truncate_dim": model.truncate_dim,
    }

    def encode(texts: list[str], role: Role) -> Any:
        from evalkit.backends.libraries import within_memory

        call = model.encode_query if role == "query" else model.encode_document
        with evaluation_mode(model):
            return within_memory(lambda size: call(texts, batch_size=size, show_progress_bar=False), BATCH_SIZE)

    settings = {"kind": "embedder", "similarity": similarity}
    return ObjectReading(settings, _precision(model), description, lambda: ObjectEmbedder(encode, what))


def _read_classifier(network: Any, options: ObjectOptions) -> ObjectReading:
    what = f"the network {type(network).__name__}"
    label = _label(what, network.config.num_labels, options.label) or 0
    settings = {"kind": "cross-encoder", **_texts(options)}
    described = {"labels": network.config.num_labels, "label": label}

    def logits(tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        scores: torch.Tensor = network(**tensors).logits[:, label]
        return scores

    return _read_network(network, options, settings, described, logits)


def _read_encoder(network: Any, options: ObjectOptions) -> ObjectReading:
    what = f"the network {type(network).__name__}"
    pooling = options.pooling
    if pooling is None:
        raise EvalkitError(
            f"{what} gives a vector per token; pooling= says how one is made of them: {', '.join(POOLING_MODES)}"
        )
    similarity = _similarity(what, options.similarity)
    settings = {"kind": "embedder", "pooling": pooling, "similarity": similarity, **_texts(options)}
    modes = model_settings({"name": type(network).__name__, **settings}).pooling_modes

    def vectors(tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        from evalkit.models.pooling import pool

        return pool(network(**tensors).last_hidden_state.float(), tensors["attention_mask"], None, modes)

    return _read_network(network, options, settings, {"pooling": pooling, "similarity": similarity}, vectors)


def _read_network(
    network: Any,
    options: ObjectOptions,
    settings: Mapping[str, Any],
    described: Mapping[str, object],
    output: Callable[[Mapping[str, torch.Tensor]], torch.Tensor],
) -> ObjectReading:
    """Read what a transformers model of any kind has; `output` gives scores or vectors of a batch."""
    what = f"the network {type(network).__name__}"
    tokenizer = options.tokenizer
    if tokenizer is None:
        raise EvalkitError(f"{what} reads tokens: give its tokenizer=, as AutoTokenizer.from_pretrained loads it")
    if tokenizer.pad_token_id is None:
        raise EvalkitError(f"{what}: the tokenizer has no padding token; set tokenizer.pad_token")
    made = model_settings({"name": type(network).__name__, **settings})

    def open_network() -> LocalNetwork:
        import torch

        from evalkit.backends.torch import BATCH_TOKENS
        from evalkit.models.inputs import checked_inputs
        from evalkit.models.local import TokenizedNetwork
        from evalkit.models.networks import positions_of

        def forward(arrays: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
            tensors = {name: torch.from_numpy(array).to(network.device) for name, array in arrays.items()}
            # inference_mode would leave tensors in the network's caches that can't be trained with
            with evaluation_mode(network), torch.no_grad():
                found: NDArray[np.float32] = output(tensors).float().cpu().numpy()
            return found

        # a copy, since a call may leave its truncation and padding in a tokenizer
        inputs = checked_inputs(
            deepcopy(tokenizer),
            made,
            network.config,
            longest=positions_of(network.config),
            rows=len(network.get_input_embeddings().weight),
        )
        _refuse_padding_that_counts(network, forward, inputs, what)
        return TokenizedNetwork(inputs, forward, BATCH_TOKENS.get(network.device.type, BATCH_TOKENS["cpu"]))

    description = {
        **_library(network, "transformers"),
        "tokenizer": class_name(tokenizer),
        **{
            name: value for name, value in settings.items() if name in ("max_length", "query_prompt", "document_prompt")
        },
        **described,
    }
    return ObjectReading(settings, _precision(network), description, open_network)


def _refuse_padding_that_counts(
    network: Any,
    forward: Callable[[Mapping[str, NDArray[np.int64]]], NDArray[np.float32]],
    inputs: InputBuilder,
    what: str,
) -> None:
    """Raise EvalkitError where a text's output is another one in a batch: decoders look for their last token by a padding id."""
    padded = {name: tensor.numpy() for name, tensor in inputs.example().items()}
    length = int(padded["attention_mask"][1].sum())
    alone = forward({name: array[1:, :length] for name, array in padded.items()})
    try:
        difference = np.abs(forward(padded)[1:] - alone).max()
    except ValueError:  # without a padding id transformers takes no batch at all
        difference = np.inf
    tolerance = PADDING_TOLERANCES.get(_precision(network), LOOSE) * max(1.0, float(np.abs(alone).max()))
    if np.isfinite(alone).all() and not difference <= tolerance:
        ids = f"network.config.pad_token_id is {network.config.pad_token_id}, the tokenizer's {inputs.tokenizer.pad_token_id}"
        raise EvalkitError(
            f"{what} gives a text another output in a batch than alone ({ids}): set both to one padding token"
        )


def _read_function_of_pairs(call: Any, _: ObjectOptions) -> ObjectReading:
    what = _call_name(call)
    settings = {"kind": "cross-encoder"}
    return ObjectReading(settings, OF_FUNCTIONS, _described(call), lambda: ObjectScorer(call, what))


def _read_function_of_texts(call: Any, options: ObjectOptions) -> ObjectReading:
    what = _call_name(call)
    settings = {"kind": "embedder", "similarity": _similarity(what, options.similarity)}
    try:
        takes_role = "role" in inspect.signature(call).parameters
    except ValueError:  # some that are written in C do not say what they take
        takes_role = False

    def embed(texts: list[str], role: Role) -> Any:
        return call(texts, role=role) if takes_role else call(texts)

    description = _described(call) | {"takes_role": takes_role, "similarity": settings["similarity"]}
    return ObjectReading(settings, OF_FUNCTIONS, description, lambda: ObjectEmbedder(embed, what))


_TEXTS = ("max_length", "query_prompt", "document_prompt")
CROSS_ENCODER = ObjectSort("a CrossEncoder", "cross-encoder", frozenset({"label"}), _read_cross_encoder)
SENTENCE_TRANSFORMER = ObjectSort(
    "a SentenceTransformer", "embedder", frozenset({"similarity"}), _read_sentence_transformer
)
CLASSIFIER = ObjectSort(
    "a transformers classifier", "cross-encoder", frozenset({"tokenizer", "label", *_TEXTS}), _read_classifier
)
ENCODER = ObjectSort(
    "a transformers encoder", "embedder", frozenset({"tokenizer", "pooling", "similarity", *_TEXTS}), _read_encoder
)
FUNCTION_OF_PAIRS = ObjectSort(
    "a function of pairs", "cross-encoder", frozenset(), _read_function_of_pairs, is_function=True
)
FUNCTION_OF_TEXTS = ObjectSort(
    "a function of texts", "embedder", frozenset({"similarity"}), _read_function_of_texts, is_function=True
)


@contextmanager
def evaluation_mode(model: Any) -> Iterator[None]:
    """Run a torch module without dropout, and give each of its parts its own mode back."""
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def _texts(options: ObjectOptions) -> dict[str, Any]:
    return {name: value for name, value in options.said.items() if name in _TEXTS}


def _label(what: str, labels: int, label: int | None) -> int | None:
    """Return the label whose logit is the score; None where there is one label alone."""
    if label is None and labels != 1:
        raise EvalkitError(f"{what} has {labels} labels: label=I says which one's logit is the score, from 0 on")
    if label is not None and not (isinstance(label, int) and 0 <= label < labels):
        raise EvalkitError(f"label={label!r}: {what} has {labels} label{'s' if labels > 1 else ''}, numbered from 0 on")
    return label if labels != 1 else None


def _similarity(what: str, similarity: str | None) -> str:
    known = get_args(Similarity)  # what is added there is taken here too
    if similarity is None:
        raise EvalkitError(f"{what} gives vectors: similarity= says how two are compared: {', '.join(known)}")
    if similarity not in known:
        raise EvalkitError(
            f"{what} compares vectors by {similarity}, and evalkit by {', '.join(known)}; similarity= says which"
        )
    return similarity


def _refuse_older(what: str) -> None:
    """Raise EvalkitError where sentence-transformers is older than its classes as they are read here."""
    version = installed_version("sentence-transformers")
    if int(version.partition(".")[0]) < OLDEST:
        raise EvalkitError(
            f"{what} is of sentence-transformers {version}, and evalkit reads those of {OLDEST} on: wrap a function of pairs or of "
            f'texts that calls it, or pip install "sentence-transformers>={OLDEST}"'
        )


def _own_similarity(model: Any) -> str:
    """Return a SentenceTransformer's similarity; the object, in which reading it sets a default, stays as it was."""
    before = dict(vars(model))
    similarity = str(model.similarity_fn_name)
    for name in vars(model).keys() - before.keys():
        del vars(model)[name]
    vars(model).update(before)
    return similarity


def _modules(model: Any) -> dict[str, object]:
    """Return what decides the scores of a model of sentence-transformers, as far as it can be read off."""
    return {
        "modules": [type(part).__name__ for part in model],
        "max_seq_length": model.max_seq_length,
        "prompts": dict(model.prompts),
        "default_prompt_name": model.default_prompt_name,
    }


def _library(model: Any, package: str) -> dict[str, object]:
    from evalkit.backends.torch import device_name

    return {
        **_described(model),
        "library": package,
        "version": installed_version(package),
        "device": device_name(model.device),
        "dtype": _precision(model),
    }


def _described(target: Any) -> dict[str, object]:
    return {"name": IN_MEMORY, "class": class_name(target)}


def _precision(model: Any) -> str:
    name = str(model.dtype).removeprefix("torch.")
    return PRECISIONS.get(name, name)


def _call_name(target: Any) -> str:
    return getattr(target, "__name__", None) or type(target).__name__
