"""Tokenizers as the models' authors ship them: one per family, learnt from the bundled tasks, with cased letters."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from real_models import write_json
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import evalkit

DEMO = Path(evalkit.__file__).parent / "tasks" / "demo"
LENGTH = 128  # what the tokenizers say is the most
VOCABULARY = {"wordpiece": 1_500, "bytes": 1_500, "words": 1_500, "unigram": 4_000}  # a unigram holds every character
# contractions, letters with one mark before them, digits one by one, marks with line breaks, white space: as Qwen splits
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Spelling:
    """A family's pieces, special tokens by role, how one text and two texts are framed, and the class that its authors name."""

    pieces: str
    special: dict[str, str]
    single: str
    pair: str
    class_name: str = "PreTrainedTokenizerFast"
    types: bool = False
    padding_side: str = "right"


BERT = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
ROBERTA = {
    "bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>", "cls": "<s>", "sep": "</s>", "mask": "<mask>"
}  # fmt: skip
DECODER = {"bos": "<bos>", "pad": "<pad>", "eos": "<eos>", "unk": "<unk>", "sep": "<sep>"}
T5 = {"pad": "<pad>", "eos": "</s>", "unk": "<unk>"}
SEGMENTS = ("[CLS]:0 $A:0 [SEP]:0", "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1")
ONE_SEGMENT = ("[CLS]:0 $A:0 [SEP]:0", "[CLS]:0 $A:0 [SEP]:0 $B:0 [SEP]:0")
TWO_ENDS = ("<s> $A </s>", "<s> $A </s> </s> $B </s>")
SEPARATED = ("$A <eos>", "$A <sep> $B <eos>")
SPELLINGS = {
    "bert": Spelling("wordpiece", BERT, *SEGMENTS, "BertTokenizer", types=True),
    "distilbert": Spelling("wordpiece", BERT, *ONE_SEGMENT, "DistilBertTokenizer"),
    "electra": Spelling("wordpiece", BERT, *SEGMENTS, "ElectraTokenizer", types=True),
    "mpnet": Spelling("wordpiece", ROBERTA | {"unk": "[UNK]"}, *TWO_ENDS, "MPNetTokenizer"),
    "roberta": Spelling("bytes", ROBERTA, *TWO_ENDS, "RobertaTokenizer"),
    "modernbert": Spelling("bytes", BERT, *ONE_SEGMENT),
    "xlm-r": Spelling("unigram", ROBERTA, *TWO_ENDS),
    "deberta-v2": Spelling("unigram", BERT, *SEGMENTS, types=True),
    "albert": Spelling("unigram", BERT, *SEGMENTS, types=True),
    "t5": Spelling("unigram", T5, "$A </s>", "$A </s> $B </s>"),
    "decoder": Spelling("words", DECODER, *SEPARATED),
    "decoder-left": Spelling("words", DECODER, *SEPARATED, padding_side="left"),
    # as most decoders of the Hub: nothing between two texts, nor behind one
    "decoder-bare": Spelling("words", DECODER, "$A", "$A $B"),
}


@cache
def _learnt(pieces: str, special: tuple[str, ...]) -> str:
    """A tokenizer without a frame, as JSON."""
    known = dict.fromkeys(special)
    if pieces == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        trainer: Any = trainers.WordPieceTrainer(
            vocab_size=VOCABULARY[pieces], special_tokens=[*known], show_progress=False
        )
    elif pieces in ("bytes", "words"):
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        if pieces == "words":
            tokenizer.normalizer = normalizers.NFC()
            tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
                pre_tokenizers.Split(Regex(WORDS), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ])  # fmt: skip
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=VOCABULARY[pieces], special_tokens=[*known], initial_alphabet=alphabet, show_progress=False
        )
    else:
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.normalizer = normalizers.NFKC()
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()
        ])  # fmt: skip
        tokenizer.decoder = decoders.Metaspace()
        unknown = next(token for token in known if "unk" in token.lower())
        trainer = trainers.UnigramTrainer(
            vocab_size=VOCABULARY[pieces], special_tokens=[*known], unk_token=unknown, show_progress=False
        )
    texts = []
    for path in sorted(DEMO.glob("*.jsonl")):
        for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            texts += [row["query"], *row["positive"], *row["negative"]]
    # `yes` and `no` are tokens of every language model that judges
    tokenizer.train_from_iterator(texts + ["yes", "no"] * 200, trainer)
    if pieces == "wordpiece":  # which numbers its characters in another order each time
        learnt = sorted(set(tokenizer.get_vocab()) - set(known))
        numbers = {token: number for number, token in enumerate([*known, *learnt])}
        tokenizer.model = models.WordPiece(numbers, unk_token="[UNK]")
    return str(tokenizer.to_str())


def write_spelling(folder: Path, family: str, **changes: Any) -> int:
    """Write the family's tokenizer and give the number of its tokens; `changes` are fields of tokenizer_config.json."""
    spelling = SPELLINGS[family]
    special = dict.fromkeys(spelling.special.values())
    tokenizer = Tokenizer.from_str(_learnt(spelling.pieces, tuple(special)))
    framing = [(token, tokenizer.token_to_id(token)) for token in special if token in spelling.single + spelling.pair]
    tokenizer.post_processor = processors.TemplateProcessing(spelling.single, spelling.pair, framing)
    if spelling.pieces in ("bytes", "words"):
        tokenizer.post_processor = processors.Sequence([
            processors.ByteLevel(trim_offsets=False), tokenizer.post_processor
        ])  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    inputs = ["input_ids", *(["token_type_ids"] if spelling.types else []), "attention_mask"]
    config = {"tokenizer_class": spelling.class_name, "model_max_length": LENGTH, "model_input_names": inputs}
    config |= {"padding_side": spelling.padding_side, "do_lower_case": False}
    config |= {f"{role}_token": token for role, token in spelling.special.items()}
    write_json(folder / "tokenizer_config.json", config | changes)
    return int(tokenizer.get_vocab_size())
