"""Whether a model's weights are its own: its known scores, what loading says, and whether a scoring head was ever trained."""

from __future__ import annotations

from pathlib import Path

from evalkit.doctor.records import Evidence, Opinion
from evalkit.evaluation.evaluate import Model
from evalkit.evaluation.goldens import describe
from evalkit.models.interfaces import PairStream, TextStream
from evalkit.models.settings import ModelSettings
from evalkit.models.weights import SAFE_WEIGHTS

HEADS = ("classifier.", "score.")


def head_is_new(settings: ModelSettings) -> bool | None:
    """Return whether every bias of the scoring head is exactly zero: so a library creates it, and no training leaves it.

    None where that can't be seen: no cross-encoder in a folder, no safetensors, or a head without biases.
    """
    if settings.kind != "cross-encoder" or not settings.path:
        return None
    from safetensors import SafetensorError, safe_open

    biases = []
    try:
        for path in sorted(Path(settings.path).expanduser().glob(SAFE_WEIGHTS)):
            with safe_open(path, framework="numpy") as tensors:
                names = [name for name in tensors.keys() if name.startswith(HEADS) and name.endswith(".bias")]  # noqa: SIM118
                biases += [tensors.get_tensor(name) for name in names]
    except (OSError, SafetensorError, TypeError):  # loading them says what is wrong; numpy has no bf16
        return None
    return all(not bias.any() for bias in biases) if biases else None


def unseen_weights(model: Model) -> str:
    """Say who holds the weights, where neither evalkit loads them nor a library from files that evalkit has looked at."""
    if isinstance(model.runnable.scorer, PairStream | TextStream):
        return "a server holds them, and does not say whether they are whole"
    if model.find_object is not None or model.settings.object:
        return "the object was made elsewhere"
    if model.runnable.description.get("name") == "mteb":
        return "mteb's own loader reads them, and does not say whether they are whole"
    return ""


def judge_golden(evidence: Evidence) -> Opinion:
    """Judge whether known weights give their known scores."""
    if not evidence.golden:
        unscored = evidence.broken or evidence.not_finite
        return Opinion("skipped", "not compared" if unscored else "no golden scores are known of this model")
    missed = [check for check in evidence.golden if not check.matches]
    if missed:
        return Opinion(
            "fault",
            f"the weights are not those of {missed[0].model}, or are read otherwise: {describe(missed[0])}",
            "look first at model.revision, model.path, damaged files in the Hub cache, and overrides of the recipe",
        )
    return Opinion("ok", describe(evidence.golden[-1]))


def judge_certificate(evidence: Evidence) -> Opinion:
    """Judge whether weights, tokenizer and recipe are those of the model's certificate."""
    compared = evidence.certificate
    if compared is None:
        unscored = evidence.broken or evidence.not_finite
        return Opinion("skipped", "not compared" if unscored else "no certificate")
    if compared.differences:
        return Opinion(
            "fault",
            "; ".join(compared.differences),
            "look first at model.path, model.revision, and the versions of transformers and tokenizers",
        )
    said = "; ".join([*compared.same, *(f"not compared: {one}" for one in compared.skipped)])
    return Opinion("ok" if compared.same else "skipped", said)


def judge_weights(evidence: Evidence) -> Opinion:
    """Judge whether the weights are whole, of the kind that the recipe says, and their head trained."""
    if evidence.broken is not None:
        return Opinion("fault", evidence.broken, "choose the model kind that the weights have, or whole weights")
    if evidence.server is not None or evidence.unfit is not None:
        return Opinion("skipped", "a server has them: not seen from here")
    if evidence.settings.kind in ("lexical", "baseline", "run"):
        return Opinion("skipped", "there are no weights")
    if evidence.unseen:
        return Opinion("skipped", f"not seen: {evidence.unseen}")
    if evidence.head_is_new:
        return Opinion(
            "warning",
            "the scoring head is there, but all of its biases are exactly zero, as in a head that was never trained",
            "make sure that the checkpoint was saved after training",
        )
    head = "with its scoring head" if evidence.settings.kind == "cross-encoder" else evidence.settings.kind
    return Opinion("ok", f"loaded whole, {head}")
