"""Network inputs, token for token as the tokenizer itself would make them, but with each text tokenised only once.

A tokenizer encodes the two texts of a pair on their own and only then cuts them and puts special tokens around them.
So the pieces can be kept apart and joined here, which saves tokenising a document again for each query. That the joined
input equals the tokenizer's own is not assumed: `InputBuilder.create` compares them on probes and refuses to go on where
they differ.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evalkit.errors import EvalkitError
from evalkit.models.batches import pad_batch
from evalkit.models.interfaces import Encoding, TokenizedText
from evalkit.models.settings import ModelSettings, Truncation
from evalkit.models.text_tokens import TextTokenizer
from evalkit.records import Role

LONGEST = 10_000_000  # tokenizers that know no limit say a number far beyond
PROBE = "阿尔茨海默病 is not 感冒，need 3 doctors！"


@dataclass(frozen=True, slots=True)
class Template:
    """The special tokens around one text (one gap fewer than two texts have), with the segment id of each part."""

    special: tuple[tuple[int, ...], ...]
    special_types: tuple[tuple[int, ...], ...]
    text_types: tuple[int, ...]

    @property
    def special_tokens(self) -> int:
        """How many tokens the template adds."""
        return sum(len(part) for part in self.special)

    def fill(self, texts: Sequence[NDArray[np.int32]], with_types: bool, truncated: bool) -> Encoding:
        """Put the special tokens around the texts."""
        parts: list[Any] = [self.special[0]]
        types: list[Any] = [self.special_types[0]]
        for text, kind, after, after_types in zip(
            texts, self.text_types, self.special[1:], self.special_types[1:], strict=True
        ):
            parts += [text, after]
            types += [np.full(len(text), kind), after_types]
        token_ids = np.concatenate([np.asarray(part, np.int32) for part in parts])
        type_ids = np.concatenate([np.asarray(part, np.int32) for part in types]) if with_types else None
        return Encoding(token_ids, type_ids, truncated)


@dataclass(frozen=True)
class InputBuilder:
    """Builds a recipe's network inputs with a Hugging Face tokenizer.

    `single` and `pair` are the tokenizer's templates; `pair` is None where it can't encode pairs. `unpooled` are the tokens of
    each role's prompt, with the special ones before it, where these are left out of a text's vector; None where they are not.
    `findings` are what a reader of the scores should know of the tokenizer.
    """

    tokenizer: Any
    text_tokenizer: TextTokenizer
    query_prompt: str
    document_prompt: str
    max_length: int
    truncation: Truncation
    single: Template
    pair: Template | None
    with_types: bool
    keep_left: bool
    unpooled: Mapping[Role, int] | None = None
    findings: tuple[str, ...] = ()

    @classmethod
    def create(cls, tokenizer: Any, settings: ModelSettings, longest: int | None) -> InputBuilder:
        """Read the tokenizer's templates off it, and compare the inputs built here with its own.

        `longest` is the most tokens that the network has positions for. Raises EvalkitError where max_length exceeds it
        or the tokenizer does something that a template can't say.
        """
        if settings.truncation not in ("longest_first", "only_second"):
            raise EvalkitError(
                f"model.truncation={settings.truncation}: a {settings.kind} takes longest_first or only_second"
            )
        max_length = choose_length(settings, longest, tokenizer.model_max_length)
        keep_left = tokenizer.truncation_side == "right"
        builder = cls(
            tokenizer=tokenizer,
            text_tokenizer=TextTokenizer(tokenizer, max_length, keep_left=keep_left),
            query_prompt=settings.query_prompt,
            document_prompt=settings.document_prompt,
            max_length=max_length,
            truncation=settings.truncation,
            single=_template(tokenizer, 1),
            pair=_template(tokenizer, 2) if settings.kind == "cross-encoder" else None,
            with_types="token_type_ids" in tokenizer.model_input_names,
            keep_left=keep_left,
            unpooled=None if settings.pool_prompt else _prompt_tokens(tokenizer, settings),
        )
        builder._check_room()
        builder._check_probes()
        return builder

    def tokenize(self, texts: Sequence[str], role: Role) -> list[TokenizedText]:
        """Return the token ids of each text behind its role's prompt, without special tokens."""
        prompt = self.query_prompt if role == "query" else self.document_prompt
        found = self.text_tokenizer([prompt + text for text in texts])
        unpooled = (self.unpooled or {}).get(role, 0)
        return [replace(text, unpooled=unpooled) for text in found] if unpooled else found

    def encode_text(self, text: TokenizedText) -> Encoding:
        """Return one text, cut to length, with its special tokens."""
        room = self.max_length - self.single.special_tokens
        filled = self.single.fill([self._cut(text.token_ids, room)], self.with_types, text.length > room)
        return replace(filled, unpooled=text.unpooled) if text.unpooled else filled

    def encode_pair(self, query: TokenizedText, document: TokenizedText) -> Encoding:
        """Return a pair, cut to length by the recipe's truncation, with its special tokens."""
        if self.pair is None:
            raise TypeError("this recipe does not encode pairs")
        room = self.max_length - self.pair.special_tokens
        if self.truncation == "longest_first":
            if (
                min(query.length, document.length) > self.max_length
            ):  # which one is longer decides who keeps an odd token
                lengths = longest_first(query.whole_length, document.whole_length, room)
            else:
                lengths = longest_first(query.length, document.length, room)
        else:
            lengths = only_second(query.length, document.length, room, self.max_length)
        texts = [self._cut(text.token_ids, length) for text, length in zip((query, document), lengths, strict=True)]
        filled = self.pair.fill(texts, self.with_types, lengths != (query.length, document.length))
        return replace(filled, unpooled=query.unpooled) if query.unpooled else filled

    def example(self, *texts: str) -> dict[str, torch.Tensor]:
        """Return a padded batch of inputs, by default two of different lengths, for what traces a network."""
        pieces = self.tokenize(texts or [PROBE, PROBE[:4]], "document")
        encodings = [self.encode_text(text) if self.pair is None else self.encode_pair(text, text) for text in pieces]
        return {name: torch.from_numpy(array) for name, array in self.pad(encodings).items()}

    def pad(self, batch: Sequence[Encoding]) -> dict[str, NDArray[np.int64]]:
        """Return the arrays of a batch; `pooled` among them where prompts are left out of vectors."""
        arrays = pad_batch(batch, self.tokenizer.pad_token_id)
        if self.unpooled is not None:
            arrays["pooled"] = arrays["attention_mask"].copy()
            for row, encoding in enumerate(batch):
                arrays["pooled"][row, : encoding.unpooled] = 0
        return arrays

    def _cut(self, token_ids: NDArray[np.int32], length: int) -> NDArray[np.int32]:
        return _cut(token_ids, length, self.keep_left)

    def _check_room(self) -> None:
        """Refuse a length that special tokens (only_second: with 3/4 for the query) use up."""
        room = self.max_length - (self.pair or self.single).special_tokens
        needed = self.max_length * 3 // 4 if self.pair and self.truncation == "only_second" else 2
        if room < needed:
            raise EvalkitError(
                f"model.max_length={self.max_length} is too short: {self.max_length - room} special tokens leave no room for the "
                "texts; take 16 or more"
            )

    def _check_probes(self) -> None:
        """Compare with the tokenizer itself, on texts that fit and on texts that must be cut."""
        texts = [PROBE[:4], PROBE, PROBE * (1 + self.max_length // 8)]
        queries, documents = self.tokenize(texts, "query"), self.tokenize(texts, "document")
        if self.pair is None:
            found = [self.encode_text(document) for document in documents]
            expected = self._reference([self.document_prompt + text for text in texts], None)
        else:
            whole = self.max_length * 3 // 4  # only_second also cuts longer queries, which no tokenizer does by itself
            chosen = [
                (q, d)
                for q, d in itertools.product(range(3), repeat=2)
                if self.truncation == "longest_first" or queries[q].length <= whole
            ]
            found = [self.encode_pair(queries[q], documents[d]) for q, d in chosen]
            expected = self._reference(
                [self.query_prompt + texts[q] for q, _ in chosen], [self.document_prompt + texts[d] for _, d in chosen]
            )
        for ours, theirs in zip(found, expected["input_ids"], strict=True):
            if ours.token_ids.tolist() != list(theirs):
                raise EvalkitError(
                    f"the tokenizer {type(self.tokenizer).__name__} builds inputs that differ from evalkit's "
                    f"({list(theirs)[:12]}… against {ours.token_ids.tolist()[:12]}…); it can't be used with this recipe"
                )

    def _reference(self, first: list[str], second: list[str] | None) -> Any:
        truncation = True if second is None else self.truncation
        if not first:  # behind a long prompt every query is too long for only_second
            return {"input_ids": []}
        return self.tokenizer(
            first, second, truncation=truncation, max_length=self.max_length, padding=False, verbose=False
        )


def _prompt_tokens(tokenizer: Any, settings: ModelSettings) -> dict[Role, int]:
    """Return the first tokens of an input that are its prompt's, counted as sentence-transformers does.

    The prompt is tokenised by itself, with special tokens; one at its end is not part of it.
    """
    counts: dict[Role, int] = {"query": 0, "document": 0}
    prompts: dict[Role, str] = {"query": settings.query_prompt, "document": settings.document_prompt}
    for role, prompt in prompts.items():
        if prompt:
            ids = tokenizer(prompt)["input_ids"]
            counts[role] = len(ids) - (ids[-1] in tokenizer.all_special_ids)
    return counts


def choose_length(settings: ModelSettings, longest: int | None, tokenizer_limit: int) -> int:
    """Return the most tokens of an input: the recipe's, else as many as the network and the tokenizer bear.

    A recipe's length goes before the tokenizer's, which is no table that could end, as in sentence-transformers. Raises
    EvalkitError where the recipe asks for more positions than the network has, and where nothing sets a bound.
    """
    if settings.max_length:
        if longest and longest < settings.max_length:
            raise EvalkitError(
                f"model.max_length={settings.max_length} is more than {settings.name} can read: at most {longest} tokens, where "
                f"its table of positions ends; model.max_length={longest}"
            )
        return settings.max_length
    max_length = min(limit for limit in (longest, tokenizer_limit) if limit)
    if max_length > LONGEST:
        raise EvalkitError(
            f"neither {settings.name} nor its tokenizer says how long a text it can read: set model.max_length"
        )
    return max_length


def _cut(token_ids: NDArray[np.int32], length: int, keep_left: bool) -> NDArray[np.int32]:
    return token_ids[:length] if keep_left else token_ids[max(len(token_ids) - length, 0) :]


def longest_first(query: int, document: int, room: int) -> tuple[int, int]:
    """Return the lengths after Hugging Face's `longest_first`: the longer text gives way until both are equally long.

    The tokenizers library gives an odd token left over to the text that was the longer one (the second, where equal).
    """
    if query + document <= room:
        return query, document
    shorter, longer = min(query, document), max(query, document)
    longer = max(shorter, room - shorter) if shorter <= room else shorter
    if shorter + longer > room:
        shorter = room // 2
        longer = shorter + room % 2
    return (longer, shorter) if query > document else (shorter, longer)


def only_second(query: int, document: int, room: int, max_length: int) -> tuple[int, int]:
    """Return the lengths as FlagEmbedding has cut them since 2024: the query to 3/4 of max_length, the document to what is left."""
    query = min(query, max_length * 3 // 4)
    return query, min(document, max(room - query, 0))


def _template(tokenizer: Any, texts: int) -> Template:
    """Find the special tokens that the tokenizer puts around `texts` texts."""
    words = ("hello", "world 2")[:texts]
    plain = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in words]
    encoded = tokenizer(*words, return_token_type_ids=True)
    token_ids, type_ids = list(encoded["input_ids"]), list(encoded["token_type_ids"])
    special, special_types, text_types = [], [], []
    start = 0
    for ids in plain:
        at = next((i for i in range(start, len(token_ids)) if token_ids[i : i + len(ids)] == ids), None)
        if at is None:
            raise EvalkitError(
                f"the tokenizer {type(tokenizer).__name__} changes a text's tokens when it adds special ones"
            )
        special.append(tuple(token_ids[start:at]))
        special_types.append(tuple(type_ids[start:at]))
        text_types.append(type_ids[at])
        start = at + len(ids)
    return Template(
        special=(*special, tuple(token_ids[start:])),
        special_types=(*special_types, tuple(type_ids[start:])),
        text_types=tuple(text_types),
    )
