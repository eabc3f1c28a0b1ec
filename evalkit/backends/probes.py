"""What networks are compared on before they are used: the probe texts, how far outputs may lie apart, where verdicts are kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evalkit.models.interfaces import Encoding, LocalNetwork, OutOfMemoryError, Scorer
from evalkit.models.settings import ModelSettings

VERDICTS = "verdicts.json"
"""The file of evalkit's cache that holds what comparisons have shown, by all that could change it."""
PACKAGES = ("openvino", "onnxruntime", "torch", "transformers", "numpy")
PROBE_TEXTS = (
    "感冒了应该吃什么药？",
    "How do I renew a passport that has expired?",
    "苹果公司于1976年成立，总部位于加利福尼亚州库比蒂诺。",
    "这种药一天三次，饭后服用；如果两天后仍然发烧，请及时就医。" * 4,
    "Boil the noodles for four minutes, drain them, and toss them with sesame oil and soy sauce. " * 8,
    "深度学习模型需要大量的数据和计算资源，训练一次往往要花上几天。" * 40,
)
SHORT_TEXTS = 4  # of them, and no more, where each costs much
TOLERANCES = {"fp32": 1e-3, "fp16": 0.05, "bf16": 0.25}
"""How far a logit may lie from the right one: by the rounding of some hundred operations one after the other, of logits up to 8.
int8 rounds so coarsely that no figure could be given; its runs are checked in fp32 alone."""
LARGEST_LOGIT = 8.0


def probe(scorer: Scorer, settings: ModelSettings, *, short: bool = False) -> NDArray[np.float32]:
    """Return logits or vectors of the probe texts, short and long, padded together.

    Pairs are of the first two texts with each. With `short`, pairs of the first one with the short ones, or the short ones alone.
    """
    if not isinstance(scorer, LocalNetwork):
        raise TypeError(f"{type(scorer).__name__} is not a local network")
    texts = PROBE_TEXTS[:SHORT_TEXTS] if short else PROBE_TEXTS
    documents = scorer.tokenize(texts, "document")
    if settings.makes_vectors:
        return _run(scorer, [scorer.encode_text(text) for text in documents])
    queries = scorer.tokenize(texts[: 1 if short else 2], "query")
    return _run(scorer, [scorer.encode_pair(query, document) for query in queries for document in documents])


def _run(network: LocalNetwork, batch: Sequence[Encoding]) -> NDArray[np.float32]:
    """Run a batch, in halves where it does not fit into memory. Raises OutOfMemoryError where one input alone does not."""
    try:
        return network.run(batch)
    except OutOfMemoryError:
        if len(batch) == 1:
            raise
    middle = len(batch) // 2
    return np.concatenate([_run(network, batch[:middle]), _run(network, batch[middle:])])
