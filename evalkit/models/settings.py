"""What a model is: weights, and the recipe that turns texts into a network's input and its output into a score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    InstanceOf,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    field_validator,
)

from evalkit.configuration.files import read_option, settings_error
from evalkit.errors import EvalkitError, unknown_name

Kind = Literal[
    "auto",
    "cross-encoder",
    "llm-reranker",
    "layerwise-reranker",
    "listwise",
    "embedder",
    "multi-vector",
    "bge-m3",
    "lexical",
    "baseline",
    "run",
]
POOLING_MODES = ("cls", "mean", "max", "mean_sqrt_len", "weightedmean", "last")
_MODES_ELSEWHERE = {"lasttoken": "last", "mean_sqrt_len_tokens": "mean_sqrt_len"}  # sentence-transformers' names
Truncation = Literal["longest_first", "only_second", "end", "end_before_prompt", "texts_only_second", "document_first"]
PROMPTED_TRUNCATIONS = ("only_second", "end", "end_before_prompt", "texts_only_second", "document_first")
"""Those of rerankers that are language models, see models/prompted.py."""
Similarity = Literal["cosine", "dot", "euclidean", "manhattan"]
Interaction = Literal["maxsim", "meanmaxsim"]
Score = Literal["dense", "sparse", "colbert", "fused"]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ModelSettings(BaseModel):
    """The content of `configs/model/NAME.yaml`.

    `recipes` holds variants, by name, of the fields of this file; `recipe` says which one is in force. `backends` lists
    the only systems that can run the model, where not every backend of its kind can. `parameters` is in millions.
    The kind `auto` is found out from the model's files, as is every field of a recipe that nobody states.

    `pooling` is one of POOLING_MODES, or several joined by `+`, whose vectors are put end to end. `pool_prompt` says whether the
    prompt's tokens are pooled too, `lower_case` that texts are read in small letters, `dimensions` how many of a vector's numbers
    are kept. `similarity` compares two vectors; euclidean and manhattan are negative distances. `modules` are the parts behind the
    network in their order, each a name or `NAME:FOLDER`, where they are others than pooling and the similarity's normalisation.
    `label` is the one of a classifier's labels that is the score.

    A `listwise` model scores all candidates of a query together, shown in `permutations` shuffled orders of `order_seed`, whose
    scores are averaged. It reads `max_length` tokens of a document, `max_query_length` of the query, and at most `block_size`
    documents at once.

    Of a reranker that is a language model, `system_prompt` stands before the query, `separator` between the texts and `prompt`
    behind the document. `strip` takes white space off both ends of each text.

    A multi-vector model compares each token of a query with each of a document: `interaction` is the sum over the query's tokens
    of the highest similarity, or their mean. `query_expansion` is as sentence-transformers writes it: `strategy` (fixed or min),
    `length`, `attend`, `token`.

    `needs_remote_code` says that the model's architecture is Python code beside its weights, which runs only where
    `trust_remote_code` allows it. `unverified_loader` lets mteb's loaders run that are not known to heed revision, device, prompts
    and consent. `object` is where an object of the user's own is imported from: `MODULE:NAME`. `onnx_file` is
    an ONNX file in the model's repository or folder that is run as it is, in place of its other weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    name: str = ""
    kind: Kind = "cross-encoder"
    hub_id: str | None = None
    revision: str | None = None
    path: InstanceOf[str] | None = None  # bytes that the locale can't decode are no text to pydantic
    object: str | None = None
    onnx_file: str | None = None
    parameters: float | None = None
    backends: tuple[str, ...] = ()

    max_length: PositiveInt | None = None
    truncation: Truncation = "longest_first"
    query_prompt: str = ""
    document_prompt: str = ""
    pooling: str = "mean"
    pool_prompt: bool = True
    lower_case: bool = False
    similarity: Similarity = "cosine"
    dimensions: PositiveInt | None = None
    modules: tuple[str, ...] = ()
    label: NonNegativeInt | None = None
    # rerankers that are language models: what stands around their texts (see models/prompted.py)
    system_prompt: str = ""
    separator: str = ""
    prompt: str = ""
    strip: bool = False
    # what is tokenised with the document, behind it; whether inputs start with the tokenizer's BOS (None: FlagEmbedding's rule)
    document_ending: str = ""
    bos: bool | None = None
    # an llm-reranker's score: the logit of one word as the next token, less that of another, divided by the temperature
    positive_word: str = "Yes"
    negative_word: str | None = None
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    # a layerwise-reranker's: that of the head behind one layer; before some, so many tokens of the document become one
    cutoff_layers: tuple[PositiveInt, ...] = ()
    compress_ratio: PositiveInt = 1
    compress_layers: tuple[PositiveInt, ...] = ()
    # a multi-vector model: its longest texts in tokens, what fills a short query, which tokens of which role are no part of a score
    query_length: PositiveInt | None = None
    document_length: PositiveInt | None = None
    query_expansion: dict[str, Any] | None = None
    skiplist: tuple[str, ...] = ()
    skiplist_roles: tuple[Literal["query", "document"], ...] = ("document",)
    interaction: Interaction = "maxsim"
    # which of bge-m3's scores, and how much its dense, sparse and colbert scores count in the fused one
    score: Score = "fused"
    weights: tuple[Weight, Weight, Weight] = (1.0, 1.0, 1.0)
    # how a listwise model is shown a query's candidates, and how much of them it reads at once
    order_seed: NonNegativeInt = 42
    permutations: PositiveInt = 1
    max_query_length: PositiveInt | None = None
    block_size: PositiveInt | None = None
    recipe: str | None = None
    recipes: dict[str, dict[str, Any]] = {}

    needs_remote_code: bool = False
    trust_remote_code: bool = False
    allow_pickle: bool = False
    unverified_loader: bool = False

    @field_validator("pooling")
    @classmethod
    def _one_name_per_mode(cls, said: str) -> str:
        modes = [_MODES_ELSEWHERE.get(mode, mode) for mode in said.replace(" ", "").split("+")]
        unknown = [mode for mode in modes if mode not in POOLING_MODES]
        if unknown or len(set(modes)) < len(modes):
            raise ValueError(f"one of {', '.join(POOLING_MODES)}, or several different ones joined by +")
        return "+".join(modes)

    def __hash__(self) -> int:  # `recipes` has no hash
        return hash((self.name, self.kind, self.hub_id, self.revision, self.path, self.recipe))

    @property
    def pooling_modes(self) -> tuple[str, ...]:
        """The modes whose vectors are put end to end."""
        return tuple(self.pooling.split("+"))

    @property
    def makes_vectors(self) -> bool:
        """Whether the model makes a vector of each text, rather than scoring a query with a document."""
        return self.kind == "embedder" or (self.kind == "bge-m3" and self.score == "dense")


def default_model() -> dict[str, Any]:
    """Every field with its default, as plain values: the base that a model's file is merged over."""
    return ModelSettings().model_dump(mode="json")


# what a model's file may say that a run then reads, by kind; the rest would be ignored
_FILES = {"name", "path", "hub_id", "revision", "trust_remote_code", "allow_pickle"}
_TEXTS = {"max_length", "query_prompt", "document_prompt", "recipe", "recipes"}
_PROMPTED = {"truncation", "system_prompt", "separator", "prompt"}
_JUDGE = _PROMPTED | {"positive_word", "negative_word", "temperature", "document_ending", "bos", "strip"}
_EMBEDDER = {"pooling", "pool_prompt", "lower_case", "similarity", "dimensions"}
# what a registry or a server may find to be listwise reads them too (see refuse_order)
_ORDER = {"order_seed", "permutations"}
_BLOCKS = {"max_query_length", "block_size"}
_MULTI_VECTOR = {"query_length", "document_length", "query_expansion", "skiplist", "skiplist_roles", "interaction"}
_READ: dict[str, set[str]] = {
    "auto": _FILES | _TEXTS | _EMBEDDER | _JUDGE | _ORDER | _BLOCKS | _MULTI_VECTOR | {"kind", "label"},
    "cross-encoder": _FILES | _TEXTS | _ORDER | {"truncation", "onnx_file", "lower_case", "label"},
    "listwise": _FILES | _ORDER | _BLOCKS | {"max_length", "recipe", "recipes"},
    "llm-reranker": _FILES | _TEXTS | _JUDGE,
    "layerwise-reranker": _FILES | _TEXTS | _PROMPTED | {"cutoff_layers", "compress_ratio", "compress_layers"},
    "embedder": _FILES | _TEXTS | _EMBEDDER,
    "multi-vector": _FILES | _TEXTS | _MULTI_VECTOR,
    "bge-m3": _FILES | _TEXTS | {"score", "weights"},
    "lexical": set(),
    "baseline": set(),
    "run": {"path"},
}
# the same for models that only the backends that they name can run
_READ_BY_NAMED = {
    "mteb": _ORDER | {"name", "path", "trust_remote_code", "allow_pickle", "unverified_loader"},
    "langchain": {"object"},
}


def model_settings(fields: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> ModelSettings:
    """Return a model's own fields, then those of the chosen recipe, then what the user says.

    Raises EvalkitError for an unknown field, a wrong type, a recipe that the model does not have, and an override that
    would be ignored.
    """
    chosen = dict(overrides or {})
    try:
        settings = ModelSettings(**{**fields, **chosen})
        refuse_ignored(settings, str(fields.get("kind", settings.kind)), set(chosen))
        if settings.recipe is None:
            return settings
        if settings.recipe not in settings.recipes:
            raise unknown_name(f"recipe of {settings.name}", settings.recipe, settings.recipes)
        return ModelSettings(**{**fields, **settings.recipes[settings.recipe], **chosen})
    except ValidationError as error:
        raise settings_error("model", error) from error


def refuse_ignored(settings: ModelSettings, kind: str, overridden: set[str]) -> None:
    """Raise EvalkitError for a setting that a model of that kind would ignore."""
    # a model that names its backends is fixed, or known to them
    by_backend: set[str] = set().union(*(_READ_BY_NAMED.get(name, set()) for name in settings.backends))
    read = by_backend if settings.backends else _READ[kind]
    ignored = sorted(overridden - read)
    if ignored:
        raise EvalkitError(
            f"model.{ignored[0]} says nothing to {settings.name} ({kind}), which "
            + (f"reads {', '.join(sorted(read))}" if read else "has nothing to set")
            + "; your own model: model=./FOLDER"
        )


def refuse_order(settings: ModelSettings) -> None:
    """Raise EvalkitError where an order of candidates is asked for, and the model scores each of them by itself."""
    for name in sorted(_ORDER):
        if settings.kind != "listwise" and getattr(settings, name) != ModelSettings.model_fields[name].default:
            raise EvalkitError(
                f"model.{name} has no effect on {settings.name} ({settings.kind}), which scores each document by itself, whatever "
                "the order; leave it out"
            )


def read_model(name: str, folders: Sequence[Path] = ()) -> ModelSettings:
    """Return the settings in `configs/model/NAME.yaml`, or in the user's own `folders`."""
    return model_settings(read_option("model", name, folders))
