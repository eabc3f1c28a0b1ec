"""What truncation takes away, counted by the model's own tokenizer, and how much of it is too much."""

from __future__ import annotations

import numpy as np

from evalkit.doctor.records import Cuts, Evidence, Opinion
from evalkit.evaluation.evaluate import Model
from evalkit.models.interfaces import Encoding, LocalNetwork, TokenizedText
from evalkit.models.settings import ModelSettings
from evalkit.output.numbers import share
from evalkit.records import Role, Task

NOTHING = TokenizedText(np.empty(0, np.int32), 0)
MOST_LOST = 0.5
"""Share of the relevant texts' tokens whose loss is a fault of whoever chose the length; a model that reads no more has none."""
MOST_LOST_IF_SHORT = 0.2
SHORT_LENGTH = 256
"""Below this many tokens a chosen max_length is blamed sooner: models of these kinds read 512 and more."""
WORTH_TELLING = 0.02
THE_USER = ("you", "your file")
"""How a recipe names the user, as one who states a field (see models/folders/resolving.py)."""


def chosen_length(model: Model) -> bool | None:
    """Return whether it is the user who says max_length, rather than the model's own files; None where that is not known."""
    return None if model.recipe is None else model.recipe.origins.get("max_length") in THE_USER


def measure_cuts(network: LocalNetwork, task: Task, *, pairs: bool) -> Cuts:
    """Return per candidate what its input loses: that of the pair with the query's first text, or of the document alone."""
    queries = _tokenized(network, [request.query.texts[0] for request in task.requests], "query")
    documents = _tokenized(
        network, [candidate.text for request in task.requests for candidate in request.candidates], "document"
    )
    special = len((network.encode_pair(NOTHING, NOTHING) if pairs else network.encode_text(NOTHING)).token_ids)
    lengths = {text: document.whole_length for text, document in documents.items()}
    truncated, lost = [], []
    for request in task.requests:
        query = queries[request.query.texts[0]]
        for candidate in request.candidates:
            document = documents[candidate.text]
            encoding = network.encode_pair(query, document) if pairs else network.encode_text(document)
            truncated.append(encoding.truncated)
            lost.append(_lost(encoding, special, lengths[candidate.text] + (query.whole_length if pairs else 0)))
    return Cuts(np.array(truncated), np.array(lost))


def _tokenized(network: LocalNetwork, texts: list[str], role: Role) -> dict[str, TokenizedText]:
    distinct = list(dict.fromkeys(texts))
    return dict(zip(distinct, network.tokenize(distinct, role), strict=True))


def _lost(encoding: Encoding, special: int, length: int) -> float:
    return 1 - (len(encoding.token_ids) - special) / length if encoding.truncated else 0.0


def judge_truncation(evidence: Evidence) -> Opinion:
    """Judge how much of the relevant texts is cut."""
    cuts = evidence.found.cuts
    if cuts is None:
        return Opinion("skipped", "the scorer does not say what it cuts")
    positive = np.array(
        [candidate.gain > 0 for request in evidence.found.sample.task.requests for candidate in request.candidates]
    )
    settings = evidence.settings
    lost = float(cuts.lost[positive].mean())
    chosen = settings.max_length is not None and evidence.chosen_length is not False
    short = settings.max_length is not None and settings.max_length < SHORT_LENGTH
    seen = _seen_cuts(cuts, positive, settings)
    if chosen and lost >= (MOST_LOST_IF_SHORT if short else MOST_LOST):
        return Opinion("fault", seen, "raise model.max_length to what the model can read (null: all that it can)")
    if lost >= WORTH_TELLING:
        advice = "if the model can read more: raise model.max_length; if not, a model that reads longer texts finds more in these"
        return Opinion("warning", seen, advice)
    return Opinion("ok", seen)


def _seen_cuts(cuts: Cuts, positive: np.ndarray, settings: ModelSettings) -> str:
    unit = "documents" if settings.makes_vectors else "pairs"
    length = settings.max_length or "all that the model reads"
    return (
        f"max_length={length}: {share(float(cuts.truncated.mean()))} of the {unit} are cut, "
        f"{share(float(cuts.truncated[positive].mean()))} of the relevant ones, which lose "
        f"{share(float(cuts.lost[positive].mean()))} of their tokens on average"
    )
