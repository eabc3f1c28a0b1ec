"""What each of mteb's loaders heeds of what it is asked for, and so which models of mteb's registry run, and on what terms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from evalkit.errors import EvalkitError
from evalkit.models.settings import ModelSettings

Standing = Literal["verified", "unverified", "API", "refused"]
SWITCH = "model.unverified_loader=true"


@dataclass(frozen=True, slots=True)
class Heeded:
    """What a loader heeds: each is false where the loader decides it by itself.

    `revision` and `device` are those that it is given, `dtype` and `prompts` those that the registry names for the model;
    `consent` is to run a model's own code only where the registry says so, `path` to read the weights of a folder and to treat them
    as those of the model.
    """

    revision: bool = True
    device: bool = True
    dtype: bool = True
    prompts: bool = True
    consent: bool = True
    path: bool = True

    @property
    def ignored(self) -> tuple[str, ...]:
        """The names of what is not heeded."""
        return tuple(field.name for field in fields(self) if not getattr(self, field.name))

    @property
    def verified(self) -> bool:
        """Whether all is heeded that decides which scores belong to which model; a loader may know no folder."""
        return not set(self.ignored) - {"path"}


_ALL = Heeded()
_MONO = Heeded(revision=False, device=False, path=False)
# by module below mteb.models, and name; each was read in mteb 2.26, and its calls are watched in the tests
LOADERS: Mapping[str, Heeded] = {
    "sentence_transformer_wrapper.SentenceTransformerEncoderWrapper": _ALL,
    "sentence_transformer_wrapper.sentence_transformers_loader": _ALL,
    "sentence_transformer_wrapper.CrossEncoderWrapper": _ALL,
    "instruct_wrapper.InstructSentenceTransformerModel": _ALL,
    "bekko_models.BekkoEncoderWrapper": _ALL,
    "jasper_models.JasperModel": _ALL,
    "jina_models.JinaRerankerV3Wrapper": Heeded(dtype=False),  # nor, in the model's own code, the tokenizer's revision
    "jina_models.JinaV5TextWrapper": _ALL,
    "jina_models.JinaWrapper": _ALL,
    "kalm_models.KALMWrapper": _ALL,
    "nomic_models.NomicWrapper": Heeded(path=False),  # one model's vectors are made by its name
    "nvidia_models._nemotron_rerank_model": _ALL,
    "qwen3_models.q3e_instruct_loader": _ALL,
    "samilpwc_models.instruct_loader": _ALL,
    "uae_models.UAEWrapper": _ALL,
    "ultrabert_models.ultrabert_embed_loader": _ALL,
    "voyage_models.voyage_4_nano_loader": Heeded(path=False),  # another repository than the registry's
    "lighton_rerank_models.LightOnListwiseRerankerWrapper": Heeded(dtype=False),
    "listconranker.ListConRanker": Heeded(revision=False, device=False, consent=False),
    "model2vec_models.Model2VecModel": Heeded(revision=False, device=False),
    "qwen3_reranker.Qwen3RerankerWrapper": Heeded(revision=False),  # the tokenizer's
    "querit_models.QueritWrapper": Heeded(revision=False, device=False, consent=False),
    "rerankers_custom.BGEReranker": Heeded(revision=False, device=False, dtype=False),
    "rerankers_custom.JinaReranker": Heeded(revision=False, device=False, dtype=False, consent=False),
    "rerankers_monot5_based.FLANT5Reranker": _MONO,  # prompts and answers go by the model's name
    "rerankers_monot5_based.FollowIRReranker": _MONO,
    "rerankers_monot5_based.LlamaReranker": _MONO,
    "rerankers_monot5_based.MistralReranker": _MONO,
    "rerankers_monot5_based.MonoT5Reranker": _MONO,
}
# what a reader of the scores should know of the loaders that score all candidates of a query together
LISTWISE: Mapping[str, tuple[str, ...]] = {
    "jina_models.JinaRerankerV3Wrapper": (),
    "lighton_rerank_models.LightOnListwiseRerankerWrapper": (
        "it generates rankings, and where one is malformed mteb's loader keeps the order shown, without a word",
    ),
    "listconranker.ListConRanker": (),
}
REFUSED = {"random_baseline.NoRerankingBaseline": "scores a candidate by its place in the list, which evalkit shuffles"}


def loader_name(meta: Any) -> str:
    """Return the name of the loader of a model of mteb's registry: module below mteb.models, and class or function."""
    loader = getattr(meta.loader, "func", meta.loader)
    module = loader.__module__.removeprefix("mteb.models.").removeprefix("model_implementations.")
    return f"{module}.{loader.__qualname__}"


def standing(meta: Any) -> Standing:
    """Return on what terms a model of mteb's registry that evalkit could run by its kind is run.

    A loader that the table does not know is unverified. Who answers for weights that are not open is a service, whatever
    mteb calls it, unless a verified loader reads them from the Hub.
    """
    name = loader_name(meta)
    if name in REFUSED:
        return "refused"
    heeded = LOADERS.get(name)
    if "API" in meta.framework or (not meta.open_weights and not (heeded and heeded.verified)):
        return "API"
    return "verified" if heeded and heeded.verified else "unverified"


def refuse_by_standing(meta: Any, settings: ModelSettings) -> None:
    """Raise EvalkitError for a model that does not run, that runs with the user's word alone, or that needs consent."""
    name, loader, stands = settings.name, loader_name(meta), standing(meta)
    if stands == "refused":
        raise EvalkitError(f"{name}: mteb's loader {loader} {REFUSED[loader]}, so its figures would mean nothing")
    if stands != "verified" and not settings.unverified_loader:
        online = ", and no offline=true" if stands == "API" else ""
        raise EvalkitError(
            f"{name}: {what_is_open(meta)}; to run it all the same, without stored scores: {SWITCH}{online}"
        )
    heeded = LOADERS.get(loader)
    if settings.path and heeded and not heeded.path:
        raise EvalkitError(
            f"model.path={settings.path}: mteb's loader {loader} goes by the name {name}, and would run a folder otherwise or not "
            "at all; leave model.path out"
        )
    if not settings.trust_remote_code and _trusts(meta.loader_kwargs):
        raise EvalkitError(
            f"mteb runs {name} with code from the model's repository; if you trust its author: model.trust_remote_code=true"
        )


def what_is_open(meta: Any) -> str:
    """Return what is not known of a model whose loader is not verified."""
    loader = loader_name(meta)
    if standing(meta) == "API":
        return f"mteb's loader {loader} asks a service, which may answer with another model tomorrow"
    heeded = LOADERS.get(loader)
    if heeded is None:
        return f"mteb's loader {loader} is not verified: it may ignore {_joined(tuple(_named()))}"
    return f"mteb's loader {loader} ignores {_joined(heeded.ignored)}"


def _named() -> Iterator[str]:
    return (field.name for field in fields(Heeded))


def _joined(names: tuple[str, ...]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _trusts(given: Any) -> bool:
    """Whether arguments of a loader, or those that it hands on in them, allow a model's own code."""
    if not isinstance(given, Mapping):
        return False
    return any(bool(value) if key == "trust_remote_code" else _trusts(value) for key, value in given.items())
