"""Texts' token ids, as fast as the tokenizers library makes them, and no more of a long text's than a network can read.

The library's own call makes the ids, without offsets, masks and transformers' copies of them. A text that is longer than what
truncation keeps is tokenised up to a cut alone. A cut is made only where it provably changes no token before it: where
normalisation does not look across it, no added token lies across it, and either the pre-tokenizer splits there or (Unigram) no
piece of the vocabulary joins the two characters. Where that can't be shown of a tokenizer, texts are tokenised whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from tokenizers import models as backends
from transformers import PreTrainedTokenizerFast

from evalkit.models.interfaces import TokenizedText

# what turns a batch of texts into ids in transformers: a class with one of its own may do anything there
CALLS = ("__call__", "_encode_plus", "_batch_encode_plus", "_convert_encoding", "set_truncation_and_padding")
SAMPLE_TEXTS, SAMPLE_CHARACTERS = 8, 256  # of which it is learnt how many characters a token has
RESERVE = 1.15  # texts are uneven
LOOKED_AT = 4_096  # characters behind the place where a cut is wanted

# Characters that stand alone: beside each other each is a grapheme of its own, and no normalisation form joins two of them
IDEOGRAPHS = "\u4e00-\u9fa5"
LETTERS = f"{IDEOGRAPHS}A-Za-z"
PUNCTUATION = "!-/:-@\\[-`{-~、。《》「」，！？：；（）“”"
ALONE = f"[ -~{IDEOGRAPHS}、。《》「」，！？：；（）“”]"
NO_SPACE = f"(?! ){ALONE}"
# normalizers that work on a character, a grapheme or a normalisation form, or at a text's ends; Replace see below
LOCAL_NORMALIZERS = {
    *("NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled", "Lowercase", "StripAccents", "Strip", "BertNormalizer"),
}
SPLITTING_AT_SPACES = {"BertPreTokenizer", "WhitespaceSplit", "Whitespace"}
# what GPT-2, Llama 3, Qwen and their kin match one after the other: nothing of it goes on from a letter to something else
LETTER_MATCHES = {r" ?\p{L}+", r"[^\r\n\p{L}\p{N}]?\p{L}+"}
MATCHES = {
    *LETTER_MATCHES,
    *(r"\p{N}", r"\p{N}{1,3}", r" ?\p{N}+", r" ?[^\s\p{L}\p{N}]+", r" ?[^\s\p{L}\p{N}]+[\r\n]*"),
    *(r"\s*[\r\n]+", r"\s*[\r\n]", r"\s+(?!\S)", r"\s+", "'s", "'t", "'re", "'ve", "'m", "'ll", "'d"),
}
CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|"


class TextTokenizer:
    """Tokenises texts without special tokens, with a transformers tokenizer.

    Each text keeps its first `longest` ids, or its last ones where not `keep_left`. Of a text that is cut before it is tokenised,
    `length` is more than `longest`, and at most what the whole text has; `count_whole` gives that.
    """

    def __init__(self, tokenizer: Any, longest: int, *, keep_left: bool = True) -> None:
        self.tokenizer = tokenizer
        self.longest = longest
        self.keep_left = keep_left

    def __call__(self, texts: Sequence[str]) -> list[TokenizedText]:
        """Return each text's ids, in the order given."""
        if not texts:  # not every tokenizer takes an empty list
            return []
        ends = self._first_ends(texts)
        found: dict[int, TokenizedText] = {}
        pending = list(range(len(texts)))
        while pending:
            short = []
            for row, (ids, length) in zip(
                pending, self._encoded([texts[row][: ends[row]] for row in pending]), strict=True
            ):
                if ends[row] == len(texts[row]):
                    found[row] = TokenizedText(ids, length)
                elif length > self.longest:
                    found[row] = TokenizedText(ids, length, count_whole=partial(self._count, texts[row]))
                else:  # this text has more characters in a token than others
                    ends[row] = self._cuts.after(texts[row], self._wanted(ends[row] / max(length, 1)))
                    short.append(row)
            pending = short
        return [found[row] for row in range(len(texts))]

    def _first_ends(self, texts: Sequence[str]) -> list[int]:
        """Return how much of each text is tokenised at first: of a long one what should hold `longest` tokens."""
        ends = [len(text) for text in texts]
        long = [row for row, end in enumerate(ends) if end > self.longest + SAMPLE_CHARACTERS]
        if not long or not self.keep_left or not self._cuts.possible:
            return ends
        sample = [texts[row][:SAMPLE_CHARACTERS] for row in long[:: max(1, len(long) // SAMPLE_TEXTS)]]
        tokens = sum(length for _, length in self._encoded(sample))
        wanted = self._wanted(sum(map(len, sample)) / max(tokens, 1))
        for row in long:
            ends[row] = self._cuts.after(texts[row], wanted)
        return ends

    def _wanted(self, characters_per_token: float) -> int:
        return int((self.longest + 1) * characters_per_token * RESERVE) + 1

    def _encoded(self, texts: Sequence[str]) -> Iterator[tuple[Any, int]]:
        """Yield each text's kept ids, int32, and how many it has."""
        backend = self._backend
        if backend is not None:
            for encoding in backend.encode_batch_fast(texts, add_special_tokens=False):
                ids = encoding.ids
                yield self._kept(np.fromiter(ids, np.int32, len(ids))), len(ids)
            return
        encoded = self.tokenizer(
            list(texts),
            add_special_tokens=False,
            truncation=False,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )["input_ids"]
        for ids in encoded:
            yield self._kept(np.asarray(ids, np.int32)), len(ids)

    def _kept(self, ids: Any) -> Any:
        return ids[: self.longest] if self.keep_left else ids[max(len(ids) - self.longest, 0) :]

    def _count(self, text: str) -> int:
        ((_, length),) = self._encoded([text])
        return length

    @property
    def _backend(self) -> Tokenizer | None:
        """The library's tokenizer, set as transformers sets it for a call like ours; None where a class does more than call it."""
        backend = getattr(self.tokenizer, "_tokenizer", None)
        own = type(self.tokenizer)
        if not isinstance(backend, Tokenizer) or any(
            getattr(own, name, None) is not getattr(PreTrainedTokenizerFast, name, None) for name in CALLS
        ):
            return None
        if backend.truncation is not None:
            backend.no_truncation()
        if backend.padding is not None:
            backend.no_padding()
        if backend.encode_special_tokens != self.tokenizer.split_special_tokens:
            backend.encode_special_tokens = self.tokenizer.split_special_tokens
        return backend

    @cached_property
    def _cuts(self) -> SafeCuts:
        """Where texts may be cut, found out for the first long one."""
        backend = self._backend
        return SafeCuts.of(backend) if backend is not None else SafeCuts(None)


@dataclass(frozen=True)
class SafeCuts:
    """The places where a text may be cut so that the tokens before the cut stay the same.

    `places` matches between two characters, as its group `joined` where only the vocabulary can say that nothing joins them: they
    are none of `pairs`, and the first one is a piece by itself, one of `singles`. `crossing` are pairs of characters that some
    added token holds, `odd` characters at which an added token may be found or not by what is near.
    """

    places: re.Pattern[str] | None
    normalize: Callable[[str], str] = str
    pairs: frozenset[str] = frozenset()
    singles: frozenset[str] = frozenset()
    crossing: frozenset[str] = frozenset()
    odd: frozenset[str] = frozenset()

    @property
    def possible(self) -> bool:
        """Whether there can be any."""
        return self.places is not None

    @classmethod
    def of(cls, backend: Tokenizer) -> SafeCuts:
        """Read them off a tokenizer's parts; none where a part is not known to let its text be cut."""
        try:
            normalizers, splits = (_parts(part) for part in (backend.normalizer, backend.pre_tokenizer))
        except Exception:  # a part written in Python has no state to read
            return cls(None)
        if not all(map(_is_local, normalizers)) or _is_random(backend.model):
            return cls(None)
        normalize = backend.normalizer.normalize_str if backend.normalizer else str
        spaced = any(part["type"] == "BertNormalizer" and part["handle_chinese_chars"] for part in normalizers)
        places = _boundaries(splits, spaces_stay=normalize("a a") == "a a", spaced_ideographs=spaced)
        if places is None:
            return cls(None)
        pairs: frozenset[str] = frozenset()
        singles: frozenset[str] = frozenset()
        if isinstance(backend.model, backends.Unigram) and not any(
            part["type"] in ("ByteLevel", "Split") for part in splits
        ):
            places.append(f"(?P<joined>(?<={ALONE}[{IDEOGRAPHS}])(?=[{IDEOGRAPHS}]{ALONE}))")
            pieces = "\0\0".join(["", *backend.get_vocab(with_added_tokens=False), ""])
            pairs = frozenset(
                re.findall(f"(?=([{IDEOGRAPHS}]{{2}}))", pieces)
            )  # the look ahead finds those that overlap
            singles = frozenset(re.findall(f"\0([{IDEOGRAPHS}])\0", pieces))
        if not places:
            return cls(None)
        crossing, odd = _added(backend, normalize)
        return cls(re.compile("|".join(places)), normalize, pairs, singles, crossing, odd)

    def after(self, text: str, wanted: int) -> int:
        """Return the first place at or behind `wanted` where the text may be cut; its length where none is near."""
        if self.places is None or wanted >= len(text):
            return len(text)
        for place in self.places.finditer(text, wanted, min(wanted + LOOKED_AT, len(text))):
            at = place.start()
            before, behind = text[at - 1], text[at]
            if before in self.odd or behind in self.odd or before + behind in self.crossing:
                continue
            if place.lastgroup == "joined" and (before + behind in self.pairs or before not in self.singles):
                continue
            # what normalisation changes may be another kind of character for what comes behind it
            if all(char == " " or self.normalize(char).strip(" ") == char for char in (before, behind)):
                return at
        return len(text)


def _parts(part: Any) -> list[dict[str, Any]]:
    """Return the settings of a normalizer's or pre-tokenizer's steps, in order."""
    return [] if part is None else _flat(json.loads(part.__getstate__()))


def _flat(state: dict[str, Any]) -> list[dict[str, Any]]:
    steps = state.get("normalizers", state.get("pretokenizers"))
    return [state] if steps is None else [step for inner in steps for step in _flat(inner)]


def _is_local(normalizer: dict[str, Any]) -> bool:
    """Tell whether what a normalizer makes of a text is what it makes of two parts, cut between characters that stand alone."""
    if normalizer["type"] != "Replace":
        return normalizer["type"] in LOCAL_NORMALIZERS
    pattern = normalizer["pattern"]
    return len(pattern.get("String", "")) == 1 or pattern.get("Regex") == " {2,}"


def _is_random(model: Any) -> bool:
    """Tell whether a model draws among several ways to split a word."""
    return any(getattr(model, name, None) for name in ("dropout", "alpha", "nbest_size"))


def _boundaries(splits: Sequence[dict[str, Any]], *, spaces_stay: bool, spaced_ideographs: bool) -> list[str] | None:
    """Return where the pre-tokenizers split whatever stands around, as regular expressions; None where one of them is not known."""
    kinds = {part["type"] for part in splits}
    if not all(_is_known(part) for part in splits):
        return None
    found = []
    metaspace = any(part["type"] == "Metaspace" and part["split"] for part in splits)
    at_spaces = bool(kinds & SPLITTING_AT_SPACES)
    if spaces_stay and (at_spaces or metaspace):
        found.append(f"(?<={ALONE}{NO_SPACE})(?= {ALONE})")
    if spaced_ideographs and at_spaces:
        found.append(_around(IDEOGRAPHS))
    if "BertPreTokenizer" in kinds:
        found.append(_around(PUNCTUATION))
    if any(part["type"] == "Split" or (part["type"] == "ByteLevel" and part["use_regex"]) for part in splits):
        found.append(f"(?<={ALONE}[{LETTERS}])(?=[{PUNCTUATION}{' ' * spaces_stay}]{ALONE})")
    return found


def _around(characters: str) -> str:
    return f"(?<={ALONE}[{characters}])(?={NO_SPACE}{ALONE})|(?<={ALONE}{NO_SPACE})(?=[{characters}]{ALONE})"


def _is_known(split: dict[str, Any]) -> bool:
    """Tell whether a pre-tokenizer goes from left to right and looks at most one character ahead, behind white space."""
    if split["type"] != "Split":
        return split["type"] in {*SPLITTING_AT_SPACES, "Metaspace", "ByteLevel"}
    whole = (split["behavior"], split["invert"]) in (("Isolated", False), ("Removed", True))
    matches = set(split["pattern"].get("Regex", "").replace(CONTRACTIONS, "").split("|"))
    return whole and matches <= MATCHES and bool(matches & LETTER_MATCHES)


def _added(backend: Tokenizer, normalize: Callable[[str], str]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the pairs of characters that added tokens hold, and the characters beside which nothing is cut.

    Those are the ideographs of tokens that are looked for after normalisation, which may put spaces around them, and the last
    character of a token that must be a word by itself.
    """
    crossing: set[str] = set()
    odd: set[str] = set()
    for token in backend.get_added_tokens_decoder().values():
        forms = [token.content, normalize(token.content)] if token.normalized else [token.content]
        for text in forms:
            crossing.update(text[at : at + 2] for at in range(len(text) - 1))
            if token.single_word:
                odd.update(text.strip(" ")[-1:])
        if token.normalized:
            odd.update(re.findall(f"[{IDEOGRAPHS}]", "".join(forms)))
    return frozenset(crossing), frozenset(odd)
