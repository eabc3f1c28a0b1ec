"""Systems that do to the card's own code what real ones get wrong, each as a model that parity can look at."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from doctor.made_models import GivenModel
from made_tasks import make_task
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

from evalkit.backends import prepare_model
from evalkit.evaluation.evaluate import Model
from evalkit.models.interfaces import Runtime, Scorer
from evalkit.models.settings import model_settings
from evalkit.parity.causes import find_cause, find_difference
from evalkit.parity.comparing import compare_scores
from evalkit.parity.records import Diagnosis
from evalkit.records import Role, Task
from evalkit.scoring.engine import score_task

TOLERANCE = 1e-4
# some texts are longer than the 128 tokens that are read of them; some begin and end with white space
TASK = make_task(
    (
        ["感冒了应该吃什么药？"],
        [("多喝水，多休息。\n" * 3, 1), ("  今天天气很好  ", 0), ("发烧超过三天要去看医生。" * 12, 1), ("苹果", 0)],
    ),
    (
        ["How do I RENEW a passport?", "护照怎么更新？"],
        [("Bring two photographs.", 1), (" \n Boil the noodles for four minutes. \n", 0), ("护照 " * 100, 0)],
    ),
    (["阿尔茨海默病的早期症状有哪些？" * 8], [("记忆力下降" * 20, 1), ("Bank of China", 0), ("panda", 0)]),
)


def write_encoder(classifier: Path, folder: Path) -> Path:
    """A classifier's encoder alone, as an embedder's folder."""
    AutoModel.from_pretrained(classifier).save_pretrained(folder)
    AutoTokenizer.from_pretrained(classifier).save_pretrained(folder)
    return folder


def card_model(folder: Any, **fields: Any) -> Model:
    settings = model_settings({"name": "made", "path": str(folder), "max_length": 128} | fields)
    return Model(settings, "transformers", Runtime(device="cpu"))


def diagnosed(card: Model, wrong: Scorer, task: Task = TASK, *, probabilities: bool = False) -> Diagnosis:
    """What parity finds of a system whose scorer is `wrong`."""
    backend = GivenModel(card.settings, "made", card.runtime, scorer=wrong)
    expected, found = (score_task(one.runnable, card.settings, task).scores for one in (card, backend))
    comparison = compare_scores(task, expected, found, TOLERANCE, probabilities=probabilities)
    assert not comparison.agrees
    return find_cause(find_difference(task, comparison, expected, found), card, backend)


@dataclass(frozen=True)
class Rewritten:
    """Either kind of scorer on texts that were put through a function first."""

    scorer: Any
    rewrite: Any

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        return self.scorer.score([(self.rewrite(query), self.rewrite(document)) for query, document in pairs])


@dataclass(frozen=True)
class PutThrough:
    """A PairScorer whose scores go through a function."""

    scorer: Any
    function: Any

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        return self.function(self.scorer.score(pairs).astype(np.float64)).astype(np.float32)


@dataclass(frozen=True)
class SortedAnswers:
    """A PairScorer that gives a batch's scores best first, as a server whose indices nobody reads."""

    scorer: Any

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        return np.sort(self.scorer.score(pairs))[::-1]


@dataclass(frozen=True)
class PaddingRead:
    """A PairScorer without the attention mask: in a batch the network reads the padding."""

    scorer: Any

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        tokenizer = self.scorer.tokenizer

        def without_mask(*texts: Any, **options: Any) -> Any:
            inputs = tokenizer(*texts, **options)
            inputs["attention_mask"][:] = 1
            return inputs

        return replace(self.scorer, tokenizer=without_mask).score(pairs)


@dataclass(frozen=True)
class Noisy:
    """A PairScorer with noise that belongs to each pair, which no change of the card's code gives."""

    scorer: Any
    size: float

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        digests = [hashlib.sha256("\0".join(pair).encode()).digest() for pair in pairs]
        noise = [np.random.default_rng(int.from_bytes(digest[:8], "big")).normal() for digest in digests]
        return (self.scorer.score(pairs) + self.size * np.array(noise)).astype(np.float32)


@dataclass(frozen=True)
class RoleBlind:
    """A TextEmbedder for which every text is of one role."""

    scorer: Any
    role: Role

    def embed(self, texts: Sequence[str], role: Role) -> NDArray[np.float32]:
        return self.scorer.embed(texts, self.role)


@dataclass(frozen=True)
class OnlyIds:
    """A PairScorer that gives the network nothing but token ids, made from the two texts by `join`, one pair at a time."""

    scorer: Any
    join: Any

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        with torch.inference_mode():
            scores = [
                self.scorer.network(torch.tensor([self.join(self.scorer.tokenizer, *pair)])).logits.item()
                for pair in pairs
            ]
        return np.array(scores, np.float32)


def through_torch(card: Model, dtype: str = "fp32", **fields: Any) -> Scorer:
    """evalkit's own torch backend, which shares no code with the card's, with other settings."""
    settings = card.settings.model_copy(update=fields)
    return prepare_model("torch", settings, Runtime(device="cpu", dtype=dtype)).scorer
