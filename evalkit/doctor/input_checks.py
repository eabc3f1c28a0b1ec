"""Checks of what goes into the scores: weights, truncation, prompts."""

from __future__ import annotations

import numpy as np

from evalkit.doctor.figures import interval
from evalkit.doctor.prompts import are_missing
from evalkit.doctor.records import Cuts, Evidence, Opinion, Prompts, PromptTrial
from evalkit.evaluation.goldens import describe
from evalkit.models.settings import ModelSettings
from evalkit.output.numbers import percent, points, share

MOST_LOST = 0.5
"""Share of the relevant texts' tokens whose loss is a fault under any recipe."""
MOST_LOST_BY_CHOICE = 0.2
SHORT_LENGTH = 256
"""Below this many tokens a max_length is a choice to be blamed: models of these kinds read 512 and more."""
WORTH_TELLING = 0.02
SURE = 0.99  # level of the interval that a prompt's gain must exceed: several are tried
LEAST_GAIN = 0.005
CLOSE = 0.6
"""Models trained at a low temperature, as e5 is, put all texts so close together that no cosine is below this."""


def judge_golden(evidence: Evidence) -> Opinion:
    """Known weights must give known scores."""
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


def judge_weights(evidence: Evidence) -> Opinion:
    """The weights must be whole, of the kind that the recipe says, and a head trained."""
    if evidence.broken is not None:
        return Opinion("fault", evidence.broken, "choose the model kind that the weights have, or whole weights")
    if evidence.settings.kind in ("lexical", "baseline", "run"):
        return Opinion("skipped", "there are no weights")
    if evidence.head_is_new:
        return Opinion(
            "warning",
            "the scoring head is there, but all of its biases are exactly zero, as in a head that was never trained",
            "make sure that the checkpoint was saved after training",
        )
    head = "with its scoring head" if evidence.settings.kind == "cross-encoder" else evidence.settings.kind
    return Opinion("ok", f"loaded whole, {head}")


def judge_truncation(evidence: Evidence) -> Opinion:
    """Little of the relevant text may be cut."""
    cuts = evidence.found.cuts
    if cuts is None:
        return Opinion("skipped", "the scorer does not say what it cuts")
    positive = np.array(
        [candidate.gain > 0 for request in evidence.found.sample.task.requests for candidate in request.candidates]
    )
    settings = evidence.settings
    lost = float(cuts.lost[positive].mean())
    by_choice = settings.max_length is not None and settings.max_length < SHORT_LENGTH
    seen = _seen_cuts(cuts, positive, settings)
    if lost >= MOST_LOST or (by_choice and lost >= MOST_LOST_BY_CHOICE):
        return Opinion("fault", seen, "raise model.max_length to what the model can read (null: all that it can)")
    if lost >= WORTH_TELLING:
        return Opinion("warning", seen, "if the model can read more: raise model.max_length")
    return Opinion("ok", seen)


def judge_prompts(evidence: Evidence) -> Opinion:
    """A model that was trained with prompts needs them."""
    settings, wanted = evidence.settings, evidence.found.wanted_prompts
    if not wanted:
        return Opinion("skipped", "the model takes none, or its recipe was chosen by name")
    trials = {trial.prompts: trial for trial in evidence.found.prompt_trials}
    for prompts in wanted:
        if prompts.declared and are_missing(settings, prompts):
            seen = (
                f"{prompts.source} says {_quoted(prompts)}, the run has {_own(settings)}{_effect(trials.get(prompts))}"
            )
            return Opinion("fault", f"prompts are missing: {seen}", _set(prompts))
    by_gain = sorted(trials.values(), key=_gain, reverse=True)
    if by_gain and _helps(by_gain[0]):
        prompts = by_gain[0].prompts
        seen = f"those of {prompts.source} ({_quoted(prompts)}) raise MAP{_effect(by_gain[0])}"
        return Opinion("fault", f"prompts are missing: the run has {_own(settings)}, and {seen}", _set(prompts))
    lowest = float(evidence.found.scores.min())
    if by_gain and settings.similarity == "cosine" and lowest >= CLOSE:
        seen = f"no cosine lies below {lowest:.2f}, as with the e5 family, which was trained with 'query: ' and 'passage: '"
        return Opinion("warning", f"prompts may be missing: {seen}{_effect(by_gain[0])}", "look at the model's card")
    return _with_prompts(settings, wanted, by_gain)


def _with_prompts(settings: ModelSettings, wanted: tuple[Prompts, ...], trials: list[PromptTrial]) -> Opinion:
    declared = [prompts for prompts in wanted if prompts.declared]
    own = (settings.query_prompt, settings.document_prompt)
    if declared and own not in [(prompts.query, prompts.document) for prompts in declared]:
        seen = f"the run has {_own(settings)}, {declared[0].source} says {_quoted(declared[0])}"
        return Opinion("warning", f"other prompts than declared: {seen}", _set(declared[0]))
    tried = f"; tried: {', '.join(f'{trial.prompts.source}{_effect(trial)}' for trial in trials)}" if trials else ""
    return Opinion("ok", f"the run has {_own(settings)}{tried}")


def _seen_cuts(cuts: Cuts, positive: np.ndarray, settings: ModelSettings) -> str:
    unit = "documents" if settings.makes_vectors else "pairs"
    length = settings.max_length or "all that the model reads"
    return (
        f"max_length={length}: {share(float(cuts.truncated.mean()))} of the {unit} are cut, "
        f"{share(float(cuts.truncated[positive].mean()))} of the relevant ones, which lose "
        f"{share(float(cuts.lost[positive].mean()))} of their tokens on average"
    )


def _differences(trial: PromptTrial) -> np.ndarray:
    return trial.values - trial.values_without


def _gain(trial: PromptTrial) -> float:
    return float(_differences(trial).mean())


def _helps(trial: PromptTrial) -> bool:
    return _gain(trial) >= LEAST_GAIN and interval(_differences(trial), SURE)[0] > 0


def _effect(trial: PromptTrial | None) -> str:
    if trial is None:
        return ""
    low, high = interval(_differences(trial))
    return (
        f" ({points(_gain(trial))} points on {len(trial.values)} queries, 95 %: {points(low)} to {points(high)}; "
        f"{percent(float(trial.values_without.mean()))} without)"
    )


def _own(settings: ModelSettings) -> str:
    if not settings.query_prompt and not settings.document_prompt:
        return "none"
    return f"{settings.query_prompt!r} and {settings.document_prompt!r}"


def _quoted(prompts: Prompts) -> str:
    return f"{prompts.query!r} before queries and {prompts.document!r} before documents"


def _set(prompts: Prompts) -> str:
    return f"model.query_prompt='{prompts.query}' model.document_prompt='{prompts.document}'"
