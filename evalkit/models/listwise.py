"""jina-reranker-v3's recipe: a query and all its candidates in one prompt, compared by what the network has read of each.

Every document ends with one token and the query with another; behind a projector the cosine of the two is the score. A list of
more documents than are read at once, or than the context holds, is read in blocks, whose query vectors are averaged, each weighted
by its block's best score. Source: `rerank` and `format_docs_prompts_func` in modeling.py of jinaai/jina-reranker-v3, none of which
is run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evalkit.errors import EvalkitError, WrongWeightsError
from evalkit.models.findings import report_once
from evalkit.models.folders.kinds import JINA_LISTS
from evalkit.models.folders.recipes import LIST_RECIPE
from evalkit.models.inputs import refuse_unknown_tokens
from evalkit.models.interfaces import OutOfMemoryError, ScoredList
from evalkit.models.language_models import RankingNetwork, load_ranking_network
from evalkit.models.local import is_out_of_memory
from evalkit.models.networks import load_config, positions_of, report_stored_type
from evalkit.models.settings import ModelSettings
from evalkit.models.tokenizers import read_tokenizer
from evalkit.models.weights import read_config

DOCUMENT_END, QUERY_END = "<|embed_token|>", "<|rerank_token|>"
HEAD = (
    "<|im_start|>system\n"
    "You are a search relevance expert who can determine a ranking of the passages based on how relevant they are to the query. "
    "If the query is a question, how relevant a passage is depends on how well it answers the question. "
    "If not, try to analyze the intent of the query and assess how well each passage satisfies the intent. "
    "If an instruction is provided, you should follow the instruction when determining the ranking."
    "<|im_end|>\n<|im_start|>user\n"
)
TAIL = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
Vectors = NDArray[np.float32]
Forward = Callable[[NDArray[np.int64], NDArray[np.int64]], Vectors]
"""Give the projected vectors at some positions of one input's tokens, shape (positions, dimensions)."""


def list_prompt(query: str, documents: Sequence[str]) -> str:
    """Return the prompt of one block. The two tokens that vectors are read at are taken out of the texts."""
    query, *documents = map(_without_marks, (query, *documents))
    passages = (f'<passage id="{number}">\n{text}{DOCUMENT_END}\n</passage>\n' for number, text in enumerate(documents))
    return (
        f"{HEAD}I will provide you with {len(documents)} passages, each indicated by a numerical identifier. "
        f"Rank the passages based on their relevance to query: {query}\n"
        f"{''.join(passages)}<query>\n{query}{QUERY_END}\n</query>{TAIL}"
    )


def _without_marks(text: str) -> str:
    """Take the two tokens out, and those that taking others out has made."""
    while QUERY_END in text or DOCUMENT_END in text:
        text = text.replace(QUERY_END, "").replace(DOCUMENT_END, "")
    return text


def block_ends(lengths: Sequence[int], query_length: int, most: int, longest: int, context: int) -> list[int]:
    """Return where blocks of consecutive documents end, whose `lengths` are in tokens.

    A block is full with `most` documents, or when what is left of the `context` might not hold one more of the `longest`.
    """
    ends, start, room = [], 0, context - 2 * query_length
    for number, length in enumerate(lengths, 1):
        room -= length
        if number - start >= most or room <= longest:
            ends.append(number)
            start, room = number, context - 2 * query_length
    return ends if start == len(lengths) else [*ends, len(lengths)]


def combine_blocks(blocks: Sequence[tuple[Vectors, Vectors]]) -> NDArray[np.float32]:
    """Return the scores of a list's documents, float32, from the (document vectors, query vector) of each of its blocks."""
    weights = [((1 + cosines(documents, query)) / 2).max() for documents, query in blocks]
    query = np.average([query.astype(np.float64) for _, query in blocks], axis=0, weights=weights)
    return cosines(np.concatenate([documents for documents, _ in blocks]), query).astype(np.float32)


def cosines(documents: NDArray[np.floating], query: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the cosine of each row of `documents` with the query, in float64."""
    rows, one = documents.astype(np.float64), query.astype(np.float64)
    products: NDArray[np.float64] = rows @ one / (np.linalg.norm(rows, axis=1) * np.linalg.norm(one))
    return products


@dataclass(frozen=True)
class ListRanker:
    """A ListScorer: the recipe around a network's `forward`. `context` is how many tokens the model reads."""

    tokenizer: Any
    forward: Forward
    max_length: int
    max_query_length: int
    block_size: int
    context: int

    def score_list(self, query: str, documents: Sequence[str]) -> ScoredList:
        texts, lengths, truncated = self._cut(documents, self.max_length)
        (query,), (query_length,), _ = self._cut([query], self.max_query_length)
        start, blocks = 0, []
        for end in block_ends(lengths, query_length, self.block_size, self.max_length, self.context):
            blocks.append(self._read(query, texts[start:end]))
            start = end
        # a document's closing token is read too
        return ScoredList(combine_blocks(blocks), [length + 1 for length in lengths], truncated)

    def _cut(self, texts: Sequence[str], longest: int) -> tuple[list[str], list[int], list[bool]]:
        """Return the texts cut to so many tokens, how many each has left, and which were cut."""
        found = self.tokenizer(list(texts), truncation=True, max_length=longest, verbose=False)["input_ids"]
        kept, truncated = list(texts), [False] * len(texts)
        for number, ids in enumerate(found):
            if len(ids) >= longest:
                kept[number] = self.tokenizer.decode(ids)
                truncated[number] = len(self.tokenizer(texts[number], verbose=False)["input_ids"]) > longest
        return kept, [len(ids) for ids in found], truncated

    def _read(self, query: str, documents: Sequence[str]) -> tuple[Vectors, Vectors]:
        """Return the vectors of a block's documents, and its query's."""
        ids = np.array(self.tokenizer(list_prompt(query, documents), verbose=False)["input_ids"], np.int64)
        if len(ids) > self.context:  # the model's own code leaves room for the documents alone, and reads on
            said = (
                f"blocks of documents have, with query and prompt, more than the {self.context:,} tokens that config.json names: "
                "the model's own code reads them too; model.block_size=N puts fewer together"
            )
            report_once(Path(str(self.tokenizer.name_or_path)).name, [said])
        ends = [np.flatnonzero(ids == self.tokenizer.convert_tokens_to_ids(one)) for one in (DOCUMENT_END, QUERY_END)]
        if [len(places) for places in ends] != [len(documents), 1]:
            raise EvalkitError(
                f"the prompt of a list of {len(documents)} documents has {len(ends[0])} tokens {DOCUMENT_END} and {len(ends[1])} "
                f"{QUERY_END}: the tokenizer takes them apart, or makes them of other texts"
            )
        try:
            vectors = self.forward(ids, np.concatenate(ends))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemoryError(str(error)) from error
        return vectors[:-1], vectors[-1]


def load_ranker(settings: ModelSettings, folder: Path) -> tuple[RankingNetwork, Callable[[torch.device], ListRanker]]:
    """Load the network, in its own precision, and return with it what makes a scorer of it on the device that it is on.

    Raises EvalkitError, before weights load, for another architecture, for a tokenizer that lacks the two tokens, and where
    documents are cut at a length of which the context can't hold two.
    """
    settings = settings.model_copy(update={"trust_remote_code": False})  # its code is not needed, and does not run
    config: dict[str, Any] = read_config(folder)
    architectures = ", ".join(map(str, config.get("architectures") or []))
    if architectures != JINA_LISTS:
        raise WrongWeightsError(
            f"{settings.name} is a {architectures or 'model that names no architecture'}: of listwise models evalkit itself runs "
            f"{JINA_LISTS} (jina-reranker-v3); others run through mteb's registry (model=mteb model.name=…) or a server"
        )
    tokenizer = read_tokenizer(settings, folder).tokenizer
    for token in (DOCUMENT_END, QUERY_END):
        ids = tokenizer(token, add_special_tokens=False)["input_ids"]
        if len(ids) != 1 or tokenizer.convert_ids_to_tokens(ids[0]) != token:
            raise EvalkitError(f"{folder}: the tokenizer has no token {token}, at which vectors are read")
    report_stored_type(settings, folder)
    network_config = load_config(settings, folder)
    refuse_unknown_tokens(settings, folder, network_config, tokenizer)
    context = min(tokenizer.model_max_length, positions_of(network_config) or tokenizer.model_max_length)
    longest = settings.max_length or LIST_RECIPE["max_length"]
    around = len(tokenizer(list_prompt("", [""]), verbose=False)["input_ids"])
    if longest + around >= context:
        raise EvalkitError(
            f"model.max_length={longest}: {settings.name} reads {context:,} tokens, and the prompt around a list takes {around}, "
            f"so that each document would be read without the others; take a max_length far below {context - around:,}"
        )
    network = load_ranking_network(settings, folder)

    def ranker(device: torch.device) -> ListRanker:
        return ListRanker(
            tokenizer,
            _forward(network, device),
            longest,
            settings.max_query_length or LIST_RECIPE["max_query_length"],
            settings.block_size or LIST_RECIPE["block_size"],
            context,
        )

    return network, ranker


def _forward(network: RankingNetwork, device: torch.device) -> Forward:
    def forward(ids: NDArray[np.int64], positions: NDArray[np.int64]) -> Vectors:
        with torch.inference_mode():
            vectors: Vectors = (
                network(torch.from_numpy(ids)[None].to(device), torch.from_numpy(positions).to(device))
                .float()
                .cpu()
                .numpy()
            )
        return vectors

    return forward
