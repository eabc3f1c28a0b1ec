"""Inputs of rerankers that are language models: a query and a document within a prompt, each text tokenised only once.

With truncation `only_second` (FlagEmbedding's rerankers) every part is tokenised on its own: the query keeps 3/4 of
max_length, and

    [bos] system_prompt query separator document separator prompt

has up to the document's end at most max_length tokens beside one separator's and the prompt's; the document gives way. With
`end` (Qwen3-Reranker) query, separator and document are one text, cut at its end, and the whole input

    [bos] system_prompt query separator document prompt

keeps to max_length. That text can be made of two pieces as long as the separator ends, and the document's prompt begins,
where the tokenizer never joins; it is compared with the tokenizer's own tokens on probes, and refused where they differ. Behind
the document's text may stand an ending that is tokenised with it, and is kept where the text is cut.

Two more differ in what counts towards max_length. `end_before_prompt` (Qwen3-Reranker's evaluation) cuts

    system_prompt query separator document

at its end to max_length, the document's ending first, and puts the prompt behind it: an input may have as many tokens more.
`texts_only_second` (mxbai-rerank-v2) is `only_second` where the two texts and the separator between them keep to max_length, and
what stands around them does not count.

With `document_first` (ctxl-rerank-v2) the document stands before the query, each with its ending tokenised with it:

    [bos] system_prompt document document_ending query separator prompt

The query keeps 3/4 of max_length, and the document gives way, so that the whole keeps to max_length and no ending is lost.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import EvalkitError
from evalkit.models.batches import pad_batch
from evalkit.models.interfaces import Encoding, TokenizedText
from evalkit.models.settings import PROMPTED_TRUNCATIONS, ModelSettings
from evalkit.models.text_tokens import TextTokenizer
from evalkit.models.tokenization import PROBE, choose_length
from evalkit.records import Role

QUERY, DOCUMENT, PROMPT = 0, 1, 2
"""The parts of an input, as its type_ids name them: all up to the document, the document, all behind it."""
JOINED = ("end", "end_before_prompt")
"""The truncations of query, separator and document as one text."""
DOCUMENT_FIRST = "document_first"
ALIGNMENT = 8  # tokens; FlagEmbedding pads to a multiple of it


@dataclass(frozen=True)
class PromptedInputs:
    """Builds the inputs of an llm-reranker or a layerwise-reranker with a Hugging Face tokenizer.

    `head`, `between` and `tail` are the token ids before the query, between the texts and behind the document, `ending` those of
    the document's ending alone. `around` are the texts of `head` and `tail` where these are all that stands there, as in a chat
    template. `findings` are what a reader of the scores should know of the tokenizer.
    """

    tokenizer: Any
    text_tokenizer: TextTokenizer
    settings: ModelSettings
    query_ending: str
    max_length: int
    head: tuple[int, ...]
    between: tuple[int, ...]
    tail: tuple[int, ...]
    ending: tuple[int, ...]
    around: tuple[str, str] | None
    prompt_tokens: int
    pad_left: bool
    findings: tuple[str, ...] = ()

    @classmethod
    def create(cls, tokenizer: Any, settings: ModelSettings, longest: int | None) -> PromptedInputs:
        """Tokenise the prompts, and compare the inputs built here with the tokenizer's own.

        `longest` is the most tokens that the network has positions for. Raises EvalkitError where the prompts leave the texts
        no room, or the recipe can't be built of pieces.
        """
        joined, document_first = settings.truncation in JOINED, settings.truncation == DOCUMENT_FIRST
        if settings.truncation == "longest_first" or tokenizer.truncation_side != "right":
            raise EvalkitError(
                f"{settings.name} is a {settings.kind}: its texts are cut on their right, by model.truncation="
                f"{', '.join(PROMPTED_TRUNCATIONS)}"
            )
        if settings.document_ending and not (joined or document_first):
            raise EvalkitError(
                f"model.document_ending says nothing with model.truncation={settings.truncation}: put it into model.separator"
            )
        bos = tokenizer.bos_token_id
        if settings.bos and bos is None:
            raise EvalkitError(f"model.bos=true: the tokenizer of {settings.name} has no token for the beginning")
        separator, prompt = (_ids(tokenizer, text) for text in (settings.separator, settings.prompt))
        max_length = choose_length(settings, longest, tokenizer.model_max_length)
        builder = cls(
            tokenizer=tokenizer,
            text_tokenizer=TextTokenizer(tokenizer, max_length),
            settings=settings,
            query_ending=settings.separator if joined or document_first else "",
            max_length=max_length,
            head=(*([bos] if _starts_with_bos(tokenizer, settings) else []), *_ids(tokenizer, settings.system_prompt)),
            between=() if joined or document_first else separator,
            tail=prompt if joined or document_first else (*separator, *prompt),
            ending=_ids(tokenizer, settings.document_ending),
            around=(settings.system_prompt, settings.prompt) if joined and settings.bos is False else None,
            prompt_tokens=len(prompt),
            pad_left=settings.kind == "llm-reranker",
        )
        builder._check_room(settings, longest)
        builder._check_probes()
        return builder

    def tokenize(self, texts: Sequence[str], role: Role) -> list[TokenizedText]:
        """Return the token ids of each text with its role's prompt (and the separator, where that is of the query's text)."""
        return self.text_tokenizer([self._prompted(text, role) for text in texts])

    def _prompted(self, text: str, role: Role) -> str:
        """Return a text within its role's prompt, as it is tokenised."""
        text = text.strip() if self.settings.strip else text
        if role == "query":
            return self.settings.query_prompt + text + self.query_ending
        return self.settings.document_prompt + text + self.settings.document_ending

    def encode_pair(self, query: TokenizedText, document: TokenizedText) -> Encoding:
        """Return a pair within its prompt, cut to length; its type ids tell QUERY, DOCUMENT and PROMPT apart."""
        lengths = self._lengths(query.length, document.length)
        if self.settings.truncation == DOCUMENT_FIRST:
            return self._document_first(query, document, lengths)
        texts = [text.token_ids[:length] for text, length in zip((query, document), lengths, strict=True)]
        cut = lengths != (query.length, document.length)
        kept = texts[1]
        if self.settings.truncation == "end_before_prompt":
            cut = cut and (lengths[0] < query.length or lengths[1] < document.length - len(self.ending))
        elif cut:
            kept = np.array([*kept, *self.ending])
        parts = [np.array([*self.head, *texts[0], *self.between]), kept, np.array(self.tail)]
        return Encoding(
            np.concatenate(parts).astype(np.int32),
            np.repeat(np.array([QUERY, DOCUMENT, PROMPT], np.int32), [len(part) for part in parts]),
            cut,
        )

    def _document_first(self, query: TokenizedText, document: TokenizedText, lengths: tuple[int, int]) -> Encoding:
        """Return a pair whose texts keep so many tokens before their endings, which a text that is cut gets back."""
        ending = _ids(self.tokenizer, self.query_ending)
        one, two = (
            text.token_ids if length == text.length else np.array([*text.token_ids[:length], *last])
            for text, length, last in zip((query, document), lengths, (ending, self.ending), strict=True)
        )
        parts = [np.array(self.head), two, one, np.array(self.tail)]
        return Encoding(
            np.concatenate(parts).astype(np.int32),
            np.repeat(np.array([QUERY, DOCUMENT, QUERY, PROMPT], np.int32), [len(part) for part in parts]),
            lengths != (query.length, document.length),
        )

    def pad(self, batch: Sequence[Encoding]) -> dict[str, NDArray[np.int64]]:
        """Return the arrays of a batch; where the network's answer is the next token, the inputs end together."""
        return pad_batch(batch, self.tokenizer.pad_token_id, left=self.pad_left, multiple=ALIGNMENT)

    def _lengths(self, query: int, document: int) -> tuple[int, int]:
        """Return how many tokens of a query and of a document, with its ending, are kept."""
        room, truncation = self.max_length - len(self.head), self.settings.truncation
        if truncation in JOINED:
            if truncation == "end":
                room -= len(self.tail)
                room -= len(self.ending) if query + document > room else 0
            return min(query, room), max(min(document, room - query), 0)
        if truncation == DOCUMENT_FIRST:
            room, last = room - len(self.tail), len(_ids(self.tokenizer, self.query_ending))
            most = min(self.max_length * 3, 4 * room) // 4
            query, kept = (query, query) if query <= most else (most - last, most)
            return query, document if document <= room - kept else max(room - kept - len(self.ending), 0)
        query = min(query, self.max_length * 3 // 4)
        if truncation == "texts_only_second":
            return query, min(document, self.max_length - len(self.between) - query)
        return query, min(document, self.max_length, room + self.prompt_tokens - query)

    def _check_room(self, settings: ModelSettings, longest: int | None) -> None:
        around = len(self.head) + len(self.between) + len(self.ending) + len(self.tail)
        if settings.truncation == DOCUMENT_FIRST:
            least, most = 4 * (around + len(_ids(self.tokenizer, self.query_ending)) + 16), self.max_length
        elif settings.truncation == "end":
            least, most = around + 16, self.max_length
        elif settings.truncation == "end_before_prompt":
            least, most = len(self.head) + 16, self.max_length + len(self.tail)
        elif settings.truncation == "texts_only_second":
            least, most = len(self.between) + 16, self.max_length + len(self.head) + len(self.tail)
        else:
            least, most = 16, self.max_length + self.prompt_tokens + len(self.between) + len(self.tail)
        if self.max_length < least:
            raise EvalkitError(
                f"model.max_length={self.max_length} is too short for {settings.name}, whose prompt takes {around} tokens; take "
                f"{least} or more"
            )
        if longest is not None and most > longest:
            raise EvalkitError(
                f"model.max_length={self.max_length} is too long for {settings.name}: with its prompt an input has up to {most} "
                f"tokens, and it can read {longest}"
            )

    def _check_probes(self) -> None:
        """Compare with the tokenizer itself, on texts that fit and on texts that must be cut."""
        short, long = ["", PROBE, " \n(x) \n"], "1) " + PROBE * (1 + self.max_length // 8)
        for query, document in [*itertools.product(short, repeat=2), (long, PROBE), (PROBE, long), (long, long)]:
            pieces = self.tokenize([query], "query")[0], self.tokenize([document], "document")[0]
            if self.encode_pair(*pieces).token_ids.tolist() != self._reference(query, document):
                raise EvalkitError(
                    f"the tokenizer {type(self.tokenizer).__name__} makes other tokens of {query[:12]!r} and {document[:12]!r} "
                    "within the prompt than of each alone; it can't be used with this recipe"
                )

    def _reference(self, query: str, document: str) -> list[int]:
        """Return the tokenizer's ids of a pair, without a thought for tokenising a text once."""

        def cut(text: str, most: int, **options: Any) -> list[int]:
            ids: list[int] = self.tokenizer(text, truncation=True, max_length=most, verbose=False, **options)[
                "input_ids"
            ]
            return ids

        first, second = self._prompted(query, "query"), self._prompted(document, "document")
        truncation, system_prompt = self.settings.truncation, self.settings.system_prompt
        if truncation == DOCUMENT_FIRST:
            return self._reference_of_document_first(first, second)
        if truncation == "end_before_prompt":
            bos = self.head[: len(self.head) - len(_ids(self.tokenizer, system_prompt))]
            before = cut(system_prompt + first + second, self.max_length - len(bos), add_special_tokens=False)
            return [*bos, *before, *self.tail]
        if self.around is not None:
            whole = _ids(self.tokenizer, self.around[0] + first + second + self.around[1])
            kept = [*self.ending, *self.tail]
            return [*whole] if len(whole) <= self.max_length else [*whole[: self.max_length - len(kept)], *kept]
        if truncation == "end":
            room = self.max_length - len(self.head) - len(self.tail)
            inner = cut(first + second, room + 1)
            if len(inner) > room:
                inner = [*inner[: room - len(self.ending)], *self.ending]
            return [*self.head, *inner, *self.tail]
        opening = [*self.head, *cut(first, self.max_length * 3 // 4, add_special_tokens=False)]
        rest = [*self.between, *cut(second, self.max_length, add_special_tokens=False)]
        counted = self.max_length + len(self.between) + self.prompt_tokens
        if truncation == "texts_only_second":
            counted = self.max_length + len(self.head)
        excess = len(opening) + len(rest) - counted
        return [*opening, *rest[: len(rest) - max(excess, 0)], *self.tail]

    def _reference_of_document_first(self, query: str, document: str) -> list[int]:
        """Return the ids of the whole text, or, where it is too long, of texts that are cut before their endings."""
        bos = self.head[: len(self.head) - len(_ids(self.tokenizer, self.settings.system_prompt))]
        whole = _ids(self.tokenizer, f"{self.settings.system_prompt}{document}{query}{self.settings.prompt}")
        if len(bos) + len(whole) <= self.max_length and len(_ids(self.tokenizer, query)) <= self.max_length * 3 // 4:
            return [*bos, *whole]
        asked, ending = _ids(self.tokenizer, query), _ids(self.tokenizer, self.query_ending)
        if len(asked) > self.max_length * 3 // 4:
            asked = (*asked[: self.max_length * 3 // 4 - len(ending)], *ending)
        room = self.max_length - len(self.head) - len(asked) - len(self.tail)
        read = _ids(self.tokenizer, document)
        if len(read) > room:
            read = (*read[: max(room - len(self.ending), 0)], *self.ending)
        return [*self.head, *read, *asked, *self.tail]


def _ids(tokenizer: Any, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]) if text else ()


def _starts_with_bos(tokenizer: Any, settings: ModelSettings) -> bool:
    """Tell whether inputs start with BOS: as the recipe says, else by FlagEmbedding's rule.

    By that layerwise ones do, others where it does not also pad.
    """
    bos = tokenizer.bos_token_id
    if settings.bos is not None:
        return settings.bos and bos is not None
    return bos is not None and (settings.kind == "layerwise-reranker" or bos != tokenizer.pad_token_id)
