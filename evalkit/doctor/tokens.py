"""What truncation takes away, counted by the model's own tokenizer."""

from __future__ import annotations

import numpy as np

from evalkit.doctor.records import Cuts
from evalkit.models.interfaces import Encoding, LocalNetwork, TokenizedText
from evalkit.records import Role, Task

NOTHING = TokenizedText(np.empty(0, np.int32), 0)


def measure_cuts(network: LocalNetwork, task: Task, *, pairs: bool) -> Cuts:
    """Per candidate, what its input loses: that of the pair with the query's first text, or of the document alone."""
    queries = _tokenized(network, [request.query.texts[0] for request in task.requests], "query")
    documents = _tokenized(
        network, [candidate.text for request in task.requests for candidate in request.candidates], "document"
    )
    special = len((network.encode_pair(NOTHING, NOTHING) if pairs else network.encode_text(NOTHING)).token_ids)
    truncated, lost = [], []
    for request in task.requests:
        query = queries[request.query.texts[0]]
        for candidate in request.candidates:
            document = documents[candidate.text]
            encoding = network.encode_pair(query, document) if pairs else network.encode_text(document)
            truncated.append(encoding.truncated)
            lost.append(_lost(encoding, special, document.length + (query.length if pairs else 0)))
    return Cuts(np.array(truncated), np.array(lost))


def _tokenized(network: LocalNetwork, texts: list[str], role: Role) -> dict[str, TokenizedText]:
    distinct = list(dict.fromkeys(texts))
    return dict(zip(distinct, network.tokenize(distinct, role), strict=True))


def _lost(encoding: Encoding, special: int, length: int) -> float:
    return 1 - (len(encoding.token_ids) - special) / length if encoding.truncated else 0.0
