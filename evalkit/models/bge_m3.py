"""bge-m3's scores of a pair: dense, sparse (words that both texts have), colbert (token by token), or all of them fused.

Source: the paper (Chen et al. 2024, arXiv 2402.03216), and FlagEmbedding's `BGEM3FlagModel.compute_score`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize

from evalkit.errors import EvalkitError, WrongWeightsError
from evalkit.models.batches import pad_batch
from evalkit.models.interfaces import Encoding, TokenizedText
from evalkit.models.networks import load_network
from evalkit.models.settings import ModelSettings
from evalkit.models.tokenization import InputBuilder
from evalkit.models.weights import M3_HEADS
from evalkit.records import Role

REMEMBERED_TOKENS = 32_768  # of the latest queries, so that their vectors take some 130 MB at most


@dataclass(frozen=True)
class TextPairInputs:
    """Inputs that hold a query's own input and then a document's, told apart by their type ids: 0 and 1."""

    texts: InputBuilder

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of both texts."""
        return self.texts.tokenizer

    @property
    def findings(self) -> tuple[str, ...]:
        """What a reader of the scores should know of the tokenizer."""
        return self.texts.findings

    @property
    def max_length(self) -> int:
        """The most tokens of either text."""
        return self.texts.max_length

    def tokenize(self, texts: Sequence[str], role: Role) -> list[TokenizedText]:
        """Return the token ids of each text behind its role's prompt, without special tokens."""
        return self.texts.tokenize(texts, role)

    def encode_pair(self, query: TokenizedText, document: TokenizedText) -> Encoding:
        """Return both texts, each cut to length and with its special tokens."""
        both = [self.texts.encode_text(text) for text in (query, document)]
        return Encoding(
            np.concatenate([encoding.token_ids for encoding in both]),
            np.repeat(np.array([0, 1], np.int32), [len(encoding.token_ids) for encoding in both]),
            any(encoding.truncated for encoding in both),
        )

    def pad(self, batch: Sequence[Encoding]) -> dict[str, NDArray[np.int64]]:
        """Return the arrays of a batch."""
        return pad_batch(batch, self.tokenizer.pad_token_id)


class TextVectors(NamedTuple):
    """What bge-m3 makes of one text of n tokens.

    `dense` has length one. `words` are its distinct tokens without special ones, and `weights` what each counts. `tokens`
    has a row of length one for each token but the first, shape (n - 1, dimensions).
    """

    dense: torch.Tensor
    words: torch.Tensor
    weights: torch.Tensor
    tokens: torch.Tensor


class M3Network(torch.nn.Module):
    """Scores pairs, shape (inputs,), out of the vectors of their texts.

    The documents of a batch run together, each query alone, so that its vectors are the same whatever stands beside it; they
    are remembered for its other documents.
    """

    def __init__(
        self,
        encoder: torch.nn.Module,
        heads: dict[str, torch.nn.Linear],
        settings: ModelSettings,
        tokenizer: Any,
        remembered_tokens: int = REMEMBERED_TOKENS,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.colbert, self.sparse = heads["colbert_linear.pt"], heads["sparse_linear.pt"]
        self.score = settings.score
        self.weights = settings.weights
        self.pad_id: int = tokenizer.pad_token_id
        special = {tokenizer.cls_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id, self.pad_id} - {None}
        self.register_buffer("special_tokens", torch.tensor(sorted(special)), persistent=False)
        self.remembered_tokens = remembered_tokens
        self._queries: dict[tuple[int, ...], TextVectors] = {}

    def _apply(self, *arguments: Any, **options: Any) -> Any:
        """Forget the queries' vectors where weights move to another device or precision."""
        self._queries.clear()
        return super()._apply(*arguments, **options)  # type: ignore[no-untyped-call]

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> torch.Tensor:
        documents = (token_type_ids == 1).sum(1).tolist()
        ends = attention_mask.sum(1).tolist()
        pairs = [
            (ids[: end - length], ids[end - length : end])
            for ids, end, length in zip(input_ids, ends, documents, strict=True)
        ]
        vectors = self.embed([document for _, document in pairs])
        scores = [self.match(self._query(query), document) for (query, _), document in zip(pairs, vectors, strict=True)]
        return torch.stack(scores)

    def embed(self, texts: Sequence[torch.Tensor]) -> list[TextVectors]:
        """Return the vectors of texts, given by their token ids, in one padded batch."""
        ids = torch.nn.utils.rnn.pad_sequence(list(texts), batch_first=True, padding_value=self.pad_id)
        lengths = torch.tensor([len(text) for text in texts], device=ids.device)
        mask = (torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]).long()
        hidden = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        dense = normalize(hidden[:, 0].float(), dim=-1)
        weights = torch.relu(self.sparse(hidden)).float().squeeze(-1)
        tokens = normalize(self.colbert(hidden[:, 1:]).float(), dim=-1)
        return [
            TextVectors(dense[row], *self._heaviest(text, weights[row, : len(text)]), tokens[row, : len(text) - 1])
            for row, text in enumerate(texts)
        ]

    def match(self, query: TextVectors, document: TextVectors) -> torch.Tensor:
        """Return the score of a pair."""
        if self.score == "sparse":
            return sparse_score(query, document)
        if self.score == "colbert":
            return colbert_score(query, document)
        scores = (query.dense @ document.dense, sparse_score(query, document), colbert_score(query, document))
        weighted = [weight * score for weight, score in zip(self.weights, scores, strict=True)]
        return torch.stack(weighted).sum() / sum(self.weights)

    def _heaviest(self, ids: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return each distinct token but the special ones, with its highest weight."""
        words, places = torch.unique(ids, return_inverse=True)
        highest = torch.zeros(len(words), device=ids.device).scatter_reduce(0, places, weights, "amax")
        kept = ~torch.isin(words, self.get_buffer("special_tokens"))
        return words[kept], highest[kept]

    def _query(self, ids: torch.Tensor) -> TextVectors:
        key = tuple(ids.tolist())
        if key not in self._queries:
            self._queries[key] = self.embed([ids])[0]
            while sum(map(len, self._queries)) > self.remembered_tokens and len(self._queries) > 1:
                del self._queries[next(iter(self._queries))]
        return self._queries[key]


def sparse_score(query: TextVectors, document: TextVectors) -> torch.Tensor:
    """Return the sum over the tokens that both texts have of the product of their weights."""
    same = (query.words[:, None] == document.words[None, :]).float()
    return query.weights @ same @ document.weights


def colbert_score(query: TextVectors, document: TextVectors) -> torch.Tensor:
    """Return the mean over the query's tokens of the highest similarity to any of the document's."""
    return (query.tokens @ document.tokens.T).amax(1).mean()


def load_m3(settings: ModelSettings, encoder: ModelSettings, folder: Path, tokenizer: Any) -> M3Network:
    """Load the encoder and both heads in their own precision.

    Raises EvalkitError where a head is missing, is not of the encoder's size, or is a pickle that the user does not allow,
    and where no score has a weight.
    """
    if settings.score == "fused" and not sum(settings.weights):
        raise EvalkitError("model.weights are all 0: at least one of dense, sparse and colbert must count")
    heads = {name: _read_head(settings, folder, name) for name in M3_HEADS}
    network: Any = load_network(encoder, folder)
    size = network.encoder.config.hidden_size
    linears = {name: _linear(folder / name, head, size) for name, head in heads.items()}
    return M3Network(network.encoder, linears, settings, tokenizer).eval()


def _read_head(settings: ModelSettings, folder: Path, name: str) -> dict[str, torch.Tensor]:
    path = folder / name
    if not path.is_file():
        raise WrongWeightsError(
            f"{folder} has no {name}, the head of the score={settings.score}: copy it from the model's origin, or take score=dense"
        )
    if not settings.allow_pickle:
        raise EvalkitError(
            f"{path} is a pickle, which can run code when loaded; if you trust its author: model.allow_pickle=true (or score=dense)"
        )
    try:
        head = torch.load(path, map_location="cpu", weights_only=True)
        return {"weight": head["weight"], "bias": head["bias"]}
    except Exception as error:  # torch raises a dozen kinds for what is no file of its own
        raise EvalkitError(f"{path} can't be loaded: {(str(error).splitlines() or ['damaged'])[0]}") from error


def _linear(path: Path, head: dict[str, torch.Tensor], size: int) -> torch.nn.Linear:
    outputs, inputs = head["weight"].shape
    if inputs != size or (path.name == "sparse_linear.pt" and outputs != 1):
        raise WrongWeightsError(
            f"{path} is a head of {inputs} inputs and {outputs} outputs, for vectors of {size} dimensions"
        )
    linear = torch.nn.Linear(inputs, outputs)
    linear.load_state_dict(head)
    return linear
