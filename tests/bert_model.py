"""A BERT classifier with random weights, for a tokenizer with segment ids and an odd number of special tokens."""

from __future__ import annotations

from pathlib import Path

from real_models import write_random, write_tokenizer

BERT_SPECIALS = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
BERT_WORDS = ["the", "is", "what", "how", "doctor", "fever", "cold", "apple", "bank", "china", "panda", "water", "2024"]


def write_bert_reranker(
    folder: Path, layers: int = 2, hidden: int = 64, heads: int = 4, ff: int = 128, seed: int = 0
) -> None:
    """A BERT classifier: two segments, and 512 positions of which a pair's special tokens take three."""
    from transformers import BertConfig, BertForSequenceClassification

    vocabulary = bert_vocabulary()
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=ff,
        num_labels=1,
    )
    write_random(BertForSequenceClassification, config, folder, seed, "classifier.weight")
    write_bert_tokenizer(folder, vocabulary)


def bert_vocabulary() -> dict[str, int]:
    """Special tokens, printable ASCII, some words, common Chinese characters; letters and digits also as continuations."""
    ascii_characters = [chr(code) for code in range(33, 127)]
    letters = [character for character in ascii_characters if character.isalnum() and not character.isupper()]
    chinese = [chr(code) for code in range(0x4E00, 0x9FA6)]
    tokens = [*BERT_SPECIALS.values(), *ascii_characters, *letters, *(f"##{letter}" for letter in letters), *BERT_WORDS]
    return {token: number for number, token in enumerate(dict.fromkeys(tokens + chinese))}


def write_bert_tokenizer(folder: Path, vocabulary: dict[str, int]) -> None:
    """BERT's tokenizer: lower case, WordPiece, `[CLS] A [SEP] B [SEP]` with segments 0 and 1."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=BERT_SPECIALS["unk"]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    specials = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS]:0 $A:0 [SEP]:0", "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1", specials
    )
    write_tokenizer(folder, tokenizer, BERT_SPECIALS, with_types=True)
