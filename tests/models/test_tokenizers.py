"""Tokenizers against the `tokenizers` library, which reads tokenizer.json without transformers; and the checks of inputs."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_folders import edit_json, edit_weights
from real_models import write_json, write_random
from recipe_models import write_language_tokenizer
from tokenizer_folders import read_by_class, write_qwen3_classifier
from tokenizers import AddedToken, Tokenizer, processors
from transformers import AutoTokenizer

from evalkit.errors import EvalkitError
from evalkit.models.inputs import embedding_rows, load_inputs
from evalkit.models.interfaces import LocalNetwork
from evalkit.models.local import TokenizedNetwork
from evalkit.models.recipes import load_recipe
from evalkit.models.settings import ModelSettings, model_settings
from evalkit.models.tokenizers import (
    follow_file,
    load_tokenizer,
    probe_ids,
    read_probe_ids,
    read_tokenizer,
    tokens_besides_file,
)

MADE = model_settings({"name": "made"})
PIECES = [
    *("How many doctors", "感冒 ", "Ａ１～！", " ", "  ", "\n", "UPPER", "É", "e\u0301", "ß"),
    *("😀", "2023", "don't", "\u3000", "</s>"),
]
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=12).map("".join)


def without_weights(folder: Path, into: Path) -> Path:
    return shutil.copytree(folder, into / "model", ignore=shutil.ignore_patterns("*.safetensors", "*.bin"))


def by_file(folder: Path, *texts: str, special: bool = True) -> list[int]:
    """What tokenizer.json gives by itself."""
    ids: list[int] = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(*texts, add_special_tokens=special).ids
    return ids


def ids(tokenizer: Any, *texts: str, special: bool = True) -> list[int]:
    found: list[list[int]] = tokenizer(*([text] for text in texts), add_special_tokens=special)["input_ids"]
    return found[0]


@pytest.fixture(scope="module")
def xlmr_by_class(tiny_reranker: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """XLM-R's tokenizer with a class and a setting of which transformers 5 builds another one."""
    folder = without_weights(tiny_reranker, tmp_path_factory.mktemp("models"))
    read_by_class(folder, "XLMRobertaTokenizer", add_prefix_space=False)
    return folder


@pytest.fixture(scope="module")
def bert_by_class(tiny_bert_reranker: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer.json that writes small letters, with settings that say otherwise."""
    folder = without_weights(tiny_bert_reranker, tmp_path_factory.mktemp("models"))
    read_by_class(folder, "BertTokenizer", do_lower_case=False)
    return folder


@pytest.fixture(scope="module", params=["xlmr_by_class", "bert_by_class"])
def by_class(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue(request.param)
    return folder


@pytest.fixture(scope="module")
def led(by_class: Path) -> tuple[Any, Tokenizer]:
    return load_tokenizer(MADE, by_class), Tokenizer.from_file(str(by_class / "tokenizer.json"))


@given(first=TEXTS, second=TEXTS, special=st.booleans())
@settings(max_examples=100, deadline=None)
def test_tokens_are_those_of_tokenizer_json(led: tuple[Any, Tokenizer], first: str, second: str, special: bool) -> None:
    tokenizer, file = led
    for texts in ((first,), (first, second)):
        encoding = file.encode(*texts, add_special_tokens=special)
        assert ids(tokenizer, *texts, special=special) == encoding.ids
        types = tokenizer(*([text] for text in texts), add_special_tokens=special, return_token_type_ids=True)
        assert types["token_type_ids"][0] == encoding.type_ids


def test_tokens_that_transformers_would_make_otherwise_are_reported_once(
    xlmr_by_class: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = "How many doctors in 2023?"
    assert by_file(xlmr_by_class, text)[:4] == [0, 11249, 5941, 22072]
    theirs = ids(AutoTokenizer.from_pretrained(xlmr_by_class), text)
    made = model_settings({"name": "reported"})
    with caplog.at_level(logging.WARNING, logger="evalkit"):
        loaded = read_tokenizer(made, xlmr_by_class)
        assert read_tokenizer(made, xlmr_by_class).findings == loaded.findings
    assert ids(loaded.tokenizer, text) == by_file(xlmr_by_class, text)
    if theirs == by_file(xlmr_by_class, text):  # transformers 4 reads the file
        assert loaded.findings == ()
        return
    (finding,) = loaded.findings
    assert finding.startswith(
        "transformers' XLMRobertaTokenizer makes other tokens than tokenizer.json (tokenizer_config.json says add_prefix_space: "
        "false): of 'How many doctors in 2023?' ["
    )
    assert f"{str(theirs[:4])[:-1]}, " in finding
    assert "the file [0, 11249, 5941, 22072, " in finding
    assert [record.message for record in caplog.records] == [f"reported: {finding}"]


def test_settings_that_say_otherwise_than_tokenizer_json_are_reported(bert_by_class: Path) -> None:
    loaded = read_tokenizer(MADE, bert_by_class)
    assert ids(loaded.tokenizer, "UPPER") == by_file(bert_by_class, "upper")
    assert len(loaded.findings) == 1
    assert (
        "makes other tokens than tokenizer.json (tokenizer_config.json says do_lower_case: false)" in loaded.findings[0]
    )


def test_what_else_the_files_say_stays(bert_by_class: Path, tmp_path: Path) -> None:
    """Length, side, special tokens, and a token that tokenizer_config.json alone adds."""
    folder = without_weights(bert_by_class, tmp_path)
    said = {
        "model_max_length": 77,
        "truncation_side": "left",
        "pad_token": "[NONE]",
        "model_input_names": ["input_ids"],
    }
    edit_json(folder / "tokenizer_config.json", lambda config: config.update(said))
    expected = AutoTokenizer.from_pretrained(folder)
    tokenizer = load_tokenizer(MADE, folder)
    assert ids(tokenizer, "UPPER") == by_file(folder, "upper") != ids(expected, "UPPER")
    assert (tokenizer.model_max_length, tokenizer.truncation_side) == (77, "left")
    assert tokenizer.pad_token_id == expected.pad_token_id == len(expected) - 1
    assert tokenizer.cls_token_id == by_file(folder, "")[0]
    assert list(tokenizer(["a"])) == ["input_ids"]
    cut = tokenizer(["water " * 90, "a"], truncation=True, padding=True)["input_ids"]
    assert [len(row) for row in cut] == [77, 77]
    assert cut[1][-1] == tokenizer.pad_token_id


@pytest.mark.parametrize(
    "name", ["tiny_reranker", "tiny_bert_reranker", "e5_small", "tiny_gemma", "tiny_qwen", "tiny_m3"]
)
def test_a_tokenizer_that_makes_its_files_tokens_stays_as_it_is(name: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(name)
    assert read_tokenizer(MADE, folder).findings == ()


def test_a_folder_without_tokenizer_json_is_read_by_class(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    folder = without_weights(tiny_bert_reranker, tmp_path)
    vocabulary = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    (folder / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.__getitem__)), encoding="utf-8")
    (folder / "tokenizer.json").unlink()
    edit_json(folder / "tokenizer_config.json", lambda config: config.update(tokenizer_class="BertTokenizer"))
    loaded = read_tokenizer(MADE, folder)
    assert loaded.findings == ()
    assert ids(loaded.tokenizer, "How is WATER", "感冒") == by_file(tiny_bert_reranker, "How is WATER", "感冒")


def language_folder(folder: Path, change: Callable[[Tokenizer], object], bos: bool = True, **said: Any) -> Path:
    """A byte-level tokenizer, whose tokenizer.json and settings are changed."""
    write_language_tokenizer(folder, bos)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    change(tokenizer)
    tokenizer.save(str(folder / "tokenizer.json"))
    edit_json(folder / "tokenizer_config.json", lambda config: config.update(said))
    write_json(folder / "config.json", {"model_type": "gemma", "architectures": ["GemmaModel"]})
    return folder


def end_with(token: str) -> Callable[[Tokenizer], object]:
    def change(tokenizer: Tokenizer) -> None:
        tokenizer.post_processor = processors.TemplateProcessing(
            f"$A {token}", f"$A {token} $B {token}", [(token, tokenizer.token_to_id(token))]
        )

    return change


@pytest.mark.parametrize(
    ("said", "starts", "ends"),
    [
        ({"add_eos_token": True}, True, True),
        ({"add_bos_token": False, "add_eos_token": True}, False, True),
        ({}, False, False),
    ],
)
def test_an_end_that_tokenizer_config_asks_for_is_put_there(
    said: dict[str, bool], starts: bool, ends: bool, tmp_path: Path
) -> None:
    """Gemma's class has always put add_bos_token (true where it is not said) and add_eos_token into effect."""
    folder = language_folder(tmp_path / "model", lambda _: None, tokenizer_class="GemmaTokenizer", **said)
    loaded = read_tokenizer(MADE, folder)
    text = by_file(folder, "感冒 Hot")
    bos, eos = ([loaded.tokenizer.bos_token_id] * starts), ([loaded.tokenizer.eos_token_id] * ends)
    assert ids(loaded.tokenizer, "感冒 Hot") == [*bos, *text, *eos]
    assert ids(loaded.tokenizer, "感冒 Hot", "b") == [*bos, *text, *eos, *bos, *by_file(folder, "b"), *eos]
    followed = [finding for finding in loaded.findings if "is followed" in finding]
    assert bool(followed) is bool(said)
    assert all("add_eos_token=true (tokenizer_config.json)" in finding for finding in followed)


@pytest.mark.parametrize("class_name", ["Qwen2Tokenizer", "PreTrainedTokenizerFast"])
def test_an_end_that_tokenizer_json_puts_there_stays(class_name: str, tmp_path: Path) -> None:
    """As in Qwen3-Embedding, whose vector is its end token's, and whose tokenizer_config.json says add_bos_token: false."""
    folder = language_folder(tmp_path / "model", end_with("<eos>"), tokenizer_class=class_name, add_bos_token=False)
    tokenizer = load_tokenizer(MADE, folder)
    assert ids(tokenizer, "感冒 Hot")[-1] == tokenizer.eos_token_id
    assert ids(tokenizer, "感冒 Hot", "b") == by_file(folder, "感冒 Hot", "b")


class Spelling:
    """A tokenizer that has no backend of the library's: it makes a token of each letter."""

    model_input_names = ("input_ids",)
    added_tokens_decoder: Mapping[int, AddedToken] = MappingProxyType({})

    def __call__(self, first: list[str], second: list[str] | None = None, **_: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [[ord(letter) for letter in text] for text in first]}


def test_a_tokenizer_that_cannot_be_set_is_refused_where_it_differs(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    with pytest.raises(
        EvalkitError, match=r"tokenizer\.json can't be followed: Spelling makes \[72, 111, .* of 'How many"
    ):
        follow_file(Spelling(), tiny_bert_reranker)
    assert follow_file(Spelling(), tmp_path) == ()  # no file to follow
    finding = tokens_besides_file(Spelling(), tiny_bert_reranker)
    assert finding is not None
    assert "Spelling makes other tokens than tokenizer.json" in finding
    assert tokens_besides_file(AutoTokenizer.from_pretrained(tiny_bert_reranker), tiny_bert_reranker) is None


def test_a_tokenizer_that_was_probed_is_read_once_and_given_away_once(
    bert_by_class: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has findings as if it were read anew, serves another recipe too, and is another one where a file changed since."""
    folder = without_weights(bert_by_class, tmp_path)
    vocab = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    read: list[Path] = []
    real = AutoTokenizer.from_pretrained

    def counted(path: Path, **options: Any) -> Any:
        read.append(path)
        return real(path, **options)

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", counted)
    made = read_probe_ids(MADE.model_copy(update={"lower_case": True}), folder)
    small = read_tokenizer(MADE.model_copy(update={"lower_case": True}), folder)
    assert len(read) == 1
    assert ids(small.tokenizer, "UPPER") == by_file(folder, "upper")
    plain = read_tokenizer(MADE, folder)
    assert len(read) == 2
    assert plain.tokenizer is not small.tokenizer
    assert plain.findings == small.findings != ()
    assert probe_ids(plain.tokenizer) == made
    read_probe_ids(MADE, folder)
    edit_json(folder / "tokenizer.json", lambda file: file["model"]["vocab"].update(u=vocab["p"], p=vocab["u"]))
    changed = read_tokenizer(MADE, folder)
    assert len(read) == 4
    assert ids(changed.tokenizer, "upper") != ids(plain.tokenizer, "upper")


def test_small_letters_that_a_library_asked_for_stay(bert_by_class: Path, tmp_path: Path) -> None:
    folder = without_weights(bert_by_class, tmp_path)
    edit_json(folder / "tokenizer.json", lambda content: content["normalizer"].update(lowercase=False))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    follow_file(tokenizer, folder, lower_case=True)
    assert ids(tokenizer, "WATER Fever") == by_file(folder, "water fever") != by_file(folder, "WATER Fever")


def test_probes_tell_tokenizers_apart(tiny_bert_reranker: Path, bert_by_class: Path, tmp_path: Path) -> None:
    first = probe_ids(load_tokenizer(MADE, tiny_bert_reranker))
    assert first == probe_ids(load_tokenizer(MADE, bert_by_class))  # the file leads in both
    assert first != probe_ids(AutoTokenizer.from_pretrained(bert_by_class))
    folder = without_weights(tiny_bert_reranker, tmp_path)
    edit_json(folder / "tokenizer.json", lambda content: content["normalizer"].update(strip_accents=False))
    assert first != probe_ids(load_tokenizer(MADE, folder))
    edit_json(folder / "tokenizer.json", lambda content: content["normalizer"].update(strip_accents=None))
    assert first == probe_ids(load_tokenizer(MADE, folder))  # and a file that was changed is read again


def made(folder: Path, **fields: Any) -> ModelSettings:
    return model_settings({"name": "made", "path": str(folder)} | fields)


@pytest.fixture(scope="module")
def qwen3_classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "qwen3"
    write_qwen3_classifier(folder)
    return folder


@pytest.mark.parametrize("padding", [5, None])
def test_a_decoders_scores_do_not_depend_on_the_batch(
    padding: int | None, qwen3_classifier: Path, tmp_path: Path
) -> None:
    """It looks for the last token by config.pad_token_id, whatever the tokenizer pads with."""
    folder = shutil.copytree(qwen3_classifier, tmp_path / "model")
    edit_json(folder / "config.json", lambda config: config.update(pad_token_id=padding))
    inputs, network = load_recipe(made(folder, document_prompt="\n"), folder)

    def forward(arrays: Any) -> Any:
        with torch.inference_mode():
            return network(**{name: torch.from_numpy(array) for name, array in arrays.items()}).numpy()

    scorer: LocalNetwork = TokenizedNetwork(inputs, forward, 512)
    query, *documents = scorer.tokenize(["感冒了怎么办", "多喝水", "去看医生，" * 20, "a", "%"], "document")
    pairs = [scorer.encode_pair(query, document) for document in documents]
    together = scorer.run(pairs)
    np.testing.assert_allclose(together, [scorer.run([pair])[0] for pair in pairs], atol=1e-5)
    assert np.ptp(together) > 0.5
    said = "null" if padding is None else padding
    assert inputs.findings == (
        f"config.json says pad_token_id {said}, and the tokenizer pads with 2: the tokenizer's counts",
    )


def test_two_texts_with_nothing_between_them_are_refused(qwen3_classifier: Path) -> None:
    with pytest.raises(EvalkitError, match=r"nothing between the two texts of a pair.*model\.document_prompt"):
        load_inputs(made(qwen3_classifier), qwen3_classifier)
    assert load_inputs(made(qwen3_classifier, document_prompt="\n"), qwen3_classifier).findings == ()


def resized(folder: Path, into: Path, rows: int) -> Path:
    """A copy with another number of rows for tokens; config.json says nothing of it."""
    folder = shutil.copytree(folder, into / "model")
    name = "bert.embeddings.word_embeddings.weight"
    edit_weights(folder, lambda tensors: tensors | {name: tensors[name][:rows]})
    return folder


def test_tokens_without_a_row_are_refused(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    folder = without_weights(tiny_bert_reranker, tmp_path)
    rows = len(AutoTokenizer.from_pretrained(folder))
    assert embedding_rows(tiny_bert_reranker) == rows
    assert embedding_rows(folder) is None
    load_inputs(made(folder), folder)
    edit_json(folder / "config.json", lambda config: config.update(vocab_size=rows - 1))
    with pytest.raises(EvalkitError, match=rf"ids up to {rows - 1} .* has {rows - 1} rows for tokens"):
        load_inputs(made(folder), folder)


def test_the_weights_say_how_many_rows_there_are(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    rows = embedding_rows(tiny_bert_reranker)
    assert rows is not None
    folder = resized(tiny_bert_reranker, tmp_path, rows - 100)
    assert embedding_rows(folder) == rows - 100
    with pytest.raises(EvalkitError, match=rf"has {rows - 100} rows for tokens"):
        load_inputs(made(folder), folder)
    (folder / "model.safetensors").write_bytes(b"\xff" * 100)  # damaged: loading it will say so
    assert embedding_rows(folder) is None


def test_a_padding_token_without_a_row_is_refused_for_prompted_models_too(tiny_qwen: Path, tmp_path: Path) -> None:
    from evalkit.models.recipes import recipe_inputs

    folder = shutil.copytree(tiny_qwen, tmp_path / "model")
    prompted = {
        "kind": "llm-reranker",
        "truncation": "end",
        "positive_word": "yes",
        "separator": "\n",
        "max_length": 200,
    }
    recipe_inputs(made(folder, **prompted), folder)
    edit_json(folder / "tokenizer_config.json", lambda config: config.update(pad_token="[PAD]"))
    with pytest.raises(EvalkitError, match=r"\('\[PAD\]'\), and its network has \d+ rows for tokens"):
        recipe_inputs(made(folder, **prompted), folder)


def test_segments_that_the_network_does_not_know_are_refused(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    folder = without_weights(tiny_bert_reranker, tmp_path)
    edit_json(folder / "config.json", lambda config: config.update(type_vocab_size=1))
    with pytest.raises(EvalkitError, match="tells 2 segments apart, and its network knows 1"):
        load_inputs(made(folder), folder)
    load_inputs(made(folder, kind="embedder"), folder)  # one text is one segment


def test_a_network_without_segments_is_given_none(tmp_path: Path, tiny_bert_reranker: Path) -> None:
    """DistilBERT beside BERT's tokenizer, which names token_type_ids."""
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    folder = without_weights(tiny_bert_reranker, tmp_path)
    tokens = len(AutoTokenizer.from_pretrained(folder))
    config = DistilBertConfig(vocab_size=tokens, n_layers=1, dim=64, n_heads=4, hidden_dim=128, num_labels=1)
    write_random(DistilBertForSequenceClassification, config, folder, 0, "classifier.weight")
    inputs, network = load_recipe(made(folder), folder)
    tokenized = inputs.tokenize(["感冒", "water"], "document")
    batch = inputs.pad([inputs.encode_pair(tokenized[0], tokenized[1])])
    assert set(batch) == {"input_ids", "attention_mask"}
    assert torch.isfinite(network(**{name: torch.from_numpy(array) for name, array in batch.items()})).all()


def test_segments_that_the_tokenizer_does_not_tell_are_reported(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    folder = without_weights(tiny_bert_reranker, tmp_path)
    assert load_inputs(made(folder), folder).findings == ()

    def one_segment(content: dict[str, Any]) -> None:
        for part in content["post_processor"]["pair"]:
            next(iter(part.values()))["type_id"] = 0

    edit_json(folder / "tokenizer.json", one_segment)
    (finding,) = load_inputs(made(folder), folder).findings
    assert "tells 2 segments apart (type_vocab_size), and the tokenizer gives both texts of a pair segment 0" in finding
    edit_json(
        folder / "tokenizer_config.json", lambda said: said.update(model_input_names=["input_ids", "attention_mask"])
    )
    (finding,) = load_inputs(made(folder), folder).findings
    assert "gives no segment ids (model_input_names in tokenizer_config.json)" in finding
    assert load_inputs(made(folder, kind="embedder"), folder).findings == ()


def test_last_token_pooling_without_an_end_token_is_reported(tmp_path: Path) -> None:
    bare = language_folder(tmp_path / "bare", lambda _: None)
    ended = language_folder(tmp_path / "ended", end_with("<eos>"))
    recipe = {"kind": "embedder", "pooling": "last", "max_length": 16}
    (finding,) = load_inputs(made(bare, **recipe), bare).findings
    assert finding.startswith("the last token is pooled, and the tokenizer puts no token of its own behind a text")
    assert load_inputs(made(bare, **recipe | {"pooling": "mean"}), bare).findings == ()
    inputs = load_inputs(made(ended, **recipe), ended)
    assert inputs.findings == ()
    (cut,) = inputs.tokenize(["多喝水，" * 40], "document")
    assert inputs.encode_text(cut).token_ids[-1] == inputs.tokenizer.eos_token_id
    assert len(inputs.encode_text(cut).token_ids) == 16


def test_a_damaged_tokenizer_json_is_refused(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    folder = without_weights(tiny_bert_reranker, tmp_path)
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    del content["model"]["vocab"]
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(EvalkitError, match=r"model: the tokenizer can't be loaded"):
        read_tokenizer(MADE, folder)


def test_a_tokenizer_json_of_special_tokens_alone_is_refused(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_bert_reranker, tmp_path / "model")
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    special = {one["content"]: one["id"] for one in content["added_tokens"]}
    content["model"]["vocab"] = {text: place for place, text in enumerate(special)}
    for place, one in enumerate(content["added_tokens"]):
        one["id"] = place
    write_json(folder / "tokenizer.json", content)
    (folder / "vocab.txt").unlink(missing_ok=True)
    with pytest.raises(EvalkitError, match=r"tokenizer.json that knows no words, \d special tokens alone"):
        read_tokenizer(MADE, folder)
