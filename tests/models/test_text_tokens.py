"""Texts' token ids against transformers' own call, cut and whole."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recipe_models import WORDS, learnt_texts
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from evalkit.models.settings import model_settings
from evalkit.models.text_tokens import SafeCuts, TextTokenizer
from evalkit.models.tokenization import InputBuilder

PIECES = [
    *("感冒", "发烧怎么办", "的", "，", "。", "～", "“", "龘靐", "、", "How many", " doctors", "don't", "'", "a", "A"),
    *(
        "  ",
        " ",
        "\n",
        "\r\n",
        "\t",
        "2024",
        "1",
        ".",
        "e\u0301",
        "\u0301",
        "\u200b",
        "\u200d",
        "Ⅷ",
        "Ａ",
        "ß",
        "가",
        "각\u11a8",
    ),
    *("</s>", "<mask>", "[SEP]", "词典", "new word", "🍎", "👍🏽", "\u0600", "#\u20e3", "_", "``", "▁", "<", ">"),
]
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), min_size=1, max_size=30).map("".join)
LLAMA_3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
GPT_2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def of_folder(name: str) -> Callable[[pytest.FixtureRequest], Tokenizer]:
    return lambda request: Tokenizer.from_file(str(request.getfixturevalue(name) / "tokenizer.json"))


def learnt(model: Any, trainer: Any, **parts: Any) -> Tokenizer:
    tokenizer = Tokenizer(model)
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    tokenizer.train_from_iterator(learnt_texts(), trainer)
    return tokenizer


def byte_level(pattern: str | None, behavior: str = "isolated", invert: bool = False) -> Tokenizer:
    splits: list[Any] = [] if pattern is None else [pre_tokenizers.Split(Regex(pattern), behavior, invert)]
    last = pre_tokenizers.ByteLevel(add_prefix_space=pattern is None, use_regex=pattern is None)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=3_000, initial_alphabet=alphabet, show_progress=False)
    return learnt(models.BPE(), trainer, pre_tokenizer=pre_tokenizers.Sequence([*splits, last]))


def unigram(normalizer: Any, splits: Any) -> Tokenizer:
    trainer = trainers.UnigramTrainer(
        vocab_size=3_000, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False
    )
    parts = {"normalizer": normalizer, "pre_tokenizer": splits, "decoder": decoders.Metaspace()}
    return learnt(models.Unigram(), trainer, **{name: part for name, part in parts.items() if part is not None})


def wordpiece(normalizer: Any) -> Tokenizer:
    trainer = trainers.WordPieceTrainer(vocab_size=3_000, special_tokens=["[UNK]"], show_progress=False)
    splits = pre_tokenizers.BertPreTokenizer()
    return learnt(models.WordPiece(unk_token="[UNK]"), trainer, normalizer=normalizer, pre_tokenizer=splits)


def with_added(tokenizer: Tokenizer) -> Tokenizer:
    """The same with tokens that are found before and after normalisation, take white space, or stand as words alone."""
    tokenizer.add_tokens([
        AddedToken("词典", normalized=False), AddedToken("New Word", normalized=True), AddedToken("感冒发", normalized=True),
        AddedToken("doctors", single_word=True), AddedToken("办", single_word=True, normalized=False),
        AddedToken("<mask>", lstrip=True, rstrip=True, normalized=False),
    ])  # fmt: skip
    return tokenizer


SPACES = normalizers.Replace(Regex(" {2,}"), " ")
CUT: dict[str, Callable[[pytest.FixtureRequest], Tokenizer]] = {
    "BERT": of_folder("tiny_bert_reranker"),
    "BERT, cased": lambda _: wordpiece(normalizers.BertNormalizer(lowercase=False)),
    "BERT, ideographs joined": lambda _: wordpiece(normalizers.BertNormalizer(handle_chinese_chars=False)),
    "BERT, more tokens": lambda request: with_added(of_folder("tiny_bert_reranker")(request)),
    "XLM-R": of_folder("tiny_reranker"),
    "XLM-R, more tokens": lambda request: with_added(of_folder("tiny_reranker")(request)),
    "Unigram, NFC": lambda _: unigram(
        normalizers.Sequence([normalizers.NFC(), SPACES, normalizers.Strip(left=False)]), pre_tokenizers.Metaspace()
    ),
    "Unigram, lower case, unsplit": lambda _: unigram(
        normalizers.Sequence([normalizers.Lowercase(), normalizers.NFKD(), normalizers.StripAccents()]), None
    ),
    "Qwen": of_folder("tiny_qwen"),
    "Gemma, as made here": of_folder("tiny_gemma"),
    "bytes, Llama 3": lambda _: byte_level(LLAMA_3),
    "bytes, inverted": lambda _: byte_level(WORDS, "removed", invert=True),
    "bytes, GPT-2": lambda _: byte_level(GPT_2),
    "bytes, built in": lambda _: byte_level(None),
    "bytes, more tokens": lambda _: with_added(byte_level(None)),
}
# looks for an end of a sentence; joins what Replace makes; draws; a step that nothing here knows
WHOLE: dict[str, Callable[[], Tokenizer]] = {
    "another pattern": lambda: byte_level(r"\p{L}+[。，]?|\s+"),
    "merging": lambda: byte_level(WORDS, "merged_with_next"),
    "replacing two": lambda: wordpiece(normalizers.Replace("感，", "x")),
    "script by script": lambda: unigram(None, pre_tokenizers.UnicodeScripts()),
    "spaces are letters": lambda: unigram(normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), None),
    "drawing": lambda: learnt(
        models.BPE(dropout=0.1),
        trainers.BpeTrainer(vocab_size=500, show_progress=False),
        pre_tokenizer=pre_tokenizers.WhitespaceSplit(),
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=CUT)
def backend(request: pytest.FixtureRequest) -> Tokenizer:
    return CUT[request.param](request)


@cache
def cuts(backend: Tokenizer) -> SafeCuts:
    return SafeCuts.of(backend)


def ids(backend: Tokenizer, text: str) -> list[int]:
    found: list[int] = backend.encode(text, add_special_tokens=False).ids
    return found


@given(text=TEXTS)
@settings(max_examples=60, deadline=None)
def test_no_token_before_a_cut_changes(backend: Tokenizer, text: str) -> None:
    whole = ids(backend, text)
    for at in {cuts(backend).after(text, wanted) for wanted in range(2, len(text))}:
        part = ids(backend, text[:at])
        assert part == whole[: len(part)], (text[:at], text[at:])


def test_all_pairs_of_characters_keep_their_tokens(backend: Tokenizer) -> None:
    """Every two of the characters at which cuts are looked for, between what stands often around them."""
    characters = "感冒的办龘 aAzs1_'.,!~<>[]，。、“（"
    for before, behind in product(characters, characters):
        text = f"吃a{before}{behind}药b. "
        at = cuts(backend).after(text, 3)
        if at == 3:
            part = ids(backend, text[:at])
            assert part == ids(backend, text)[: len(part)], text


def test_long_texts_are_cut_in_any_language(backend: Tokenizer) -> None:
    chinese = "".join(text for text in learnt_texts() if "感" in text or "的" in text)[:4_000]
    english = "How many doctors are there, and what do they do in a hospital? " * 60
    for text in (chinese, english):
        at = cuts(backend).after(text, 1_000)
        unsplit = " " not in backend.encode(english).tokens[0] and backend.pre_tokenizer is None and text == english
        assert unsplit or 1_000 <= at < 1_200


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("text", ["吃吃 qzx感冒发烧", "吃吃qzx，吃吃", "吃吃 qzx 吃吃"])
def test_a_token_that_must_stand_alone_may_depend_on_what_follows(
    tiny_bert_reranker: Path, normalized: bool, text: str
) -> None:
    backend = Tokenizer.from_file(str(tiny_bert_reranker / "tokenizer.json"))
    backend.add_tokens([AddedToken("qzx", single_word=True, normalized=normalized)])
    whole, found = ids(backend, text), SafeCuts.of(backend)
    for wanted in range(2, len(text)):
        part = ids(backend, text[: found.after(text, wanted)])
        assert part == whole[: len(part)]


@pytest.mark.parametrize("make", WHOLE.values(), ids=WHOLE)
def test_where_it_can_t_be_shown_nothing_is_cut(make: Callable[[], Tokenizer]) -> None:
    text = "感冒，怎么办。 What to do. " * 300
    found = SafeCuts.of(make())
    assert found.after(text, 100) == len(text)


@pytest.fixture(scope="module", params=["tiny_bert_reranker", "tiny_reranker", "tiny_qwen"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return AutoTokenizer.from_pretrained(request.getfixturevalue(request.param))


@given(texts=st.lists(TEXTS, max_size=5), longest=st.integers(4, 200), times=st.integers(1, 120), left=st.booleans())
@settings(max_examples=40, deadline=None)
def test_ids_are_transformers_own(tokenizer: Any, texts: list[str], longest: int, times: int, left: bool) -> None:
    texts = [text * (times if number % 2 else 1) for number, text in enumerate(texts)]
    found = TextTokenizer(tokenizer, longest, keep_left=left)(texts)
    expected = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else []
    assert [text.token_ids.tolist() for text in found] == [
        own[:longest] if left else own[-longest:] for own in expected
    ]
    assert [text.whole_length for text in found] == [len(own) for own in expected]
    for text, own in zip(found, expected, strict=True):
        assert text.token_ids.dtype == "int32"
        assert text.length == len(own) or longest < text.length <= len(own)


def test_a_text_as_long_as_t2_s_longest_is_not_tokenised_to_its_end(tokenizer: Any) -> None:
    text = ("".join(learnt_texts()) * 10)[:120_026]
    (found,) = TextTokenizer(tokenizer, 512)([text])
    assert found.count_whole is not None
    assert 512 < found.length < 1_024
    own = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    assert found.token_ids.tolist() == own[:512]
    assert found.whole_length == len(own)


@pytest.mark.parametrize("max_length", [20, 21])
@pytest.mark.parametrize(("query", "document"), [(3, 4), (4, 3), (4, 4)])
def test_of_two_texts_that_are_cut_the_longer_keeps_the_odd_token(
    tokenizer: Any, max_length: int, query: int, document: int
) -> None:
    if len(tokenizer("a", "b")["input_ids"]) == 2:
        pytest.skip("this one puts nothing around its texts")
    inputs = InputBuilder.create(tokenizer, model_settings({"name": "made", "max_length": max_length}), 512)
    texts = ["感冒了，怎么办？ " * 100 * query, "多喝水，多休息。 " * 100 * document]
    pieces = inputs.tokenize(texts[:1], "query")[0], inputs.tokenize(texts[1:], "document")[0]
    assert all(piece.count_whole is not None for piece in pieces)
    expected = tokenizer(*texts, truncation="longest_first", max_length=max_length)["input_ids"]
    assert inputs.encode_pair(*pieces).token_ids.tolist() == expected


class OwnCall(PreTrainedTokenizerFast):
    """A class that does something of its own with a batch."""

    def _encode_plus(self, *args: Any, **options: Any) -> Any:
        encoded = super()._encode_plus(*args, **options)
        encoded["input_ids"] = [[7, *row] for row in encoded["input_ids"]]
        return encoded


def test_a_class_with_a_call_of_its_own_is_called(tiny_bert_reranker: Path) -> None:
    own = OwnCall.from_pretrained(tiny_bert_reranker)
    text = "感冒，" * 400
    (found,) = TextTokenizer(own, 16)([text])
    assert found.token_ids.tolist() == own([text], add_special_tokens=False)["input_ids"][0][:16]
    assert found.token_ids[0] == 7
    assert found.count_whole is None


def test_what_an_earlier_call_has_set_does_not_count(tokenizer: Any) -> None:
    texts = ["感冒 了 </s> [SEP] <bos>" * 9, "a"]
    expected = tokenizer(texts, add_special_tokens=False)["input_ids"]
    tokenizer(texts, truncation=True, max_length=5, padding=True, split_special_tokens=True)
    found = TextTokenizer(tokenizer, 512)(texts)
    assert [text.token_ids.tolist() for text in found] == expected


THREADS = """
import os, sys
from pathlib import Path
from transformers import AutoTokenizer
from evalkit.models.text_tokens import TextTokenizer
tokenize = TextTokenizer(AutoTokenizer.from_pretrained(sys.argv[1]), 512)
before = len(os.listdir("/proc/self/task"))
tokenize([f"感冒 {number}" for number in range(500)])
print(len(os.listdir("/proc/self/task")) - before)
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux says which processors a process may use")
@pytest.mark.parametrize(
    ("processors", "environment", "threads"),
    [
        (None, {}, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0),
        (1, {}, 1),
        (None, {"RAYON_NUM_THREADS": "3"}, 3),
        (None, {"TOKENIZERS_PARALLELISM": "false"}, 0),
    ],
)
def test_threads_are_as_many_as_the_process_may_use(
    tiny_bert_reranker: Path, processors: int | None, environment: dict[str, str], threads: int
) -> None:
    allowed = sorted(os.sched_getaffinity(0))[:processors]
    others = {
        name: value for name, value in os.environ.items() if name not in ("RAYON_NUM_THREADS", "TOKENIZERS_PARALLELISM")
    }
    done = subprocess.run(
        [sys.executable, "-c", THREADS, str(tiny_bert_reranker)],
        preexec_fn=lambda: os.sched_setaffinity(0, allowed),
        env=others | environment,
        capture_output=True,
        text=True,
        check=True,
    )  # fmt: skip
    assert int(done.stdout) == threads
