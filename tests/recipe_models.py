"""Small models with random weights of the kinds that one network's recipe makes a reranker of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from model_folders import edit_json
from real_models import read_packed_e5, write_json, write_random, write_xlmr_tokenizer

import evalkit
from evalkit.models.settings import read_model

DEMO = Path(evalkit.__file__).parent / "tasks" / "demo"

CHAT = ("<|im_start|>", "<|im_end|>")
LIST_TOKENS = ("<|embed_token|>", "<|rerank_token|>")
SPECIALS = {"bos": "<bos>", "eos": "<eos>", "unk": "<unk>", "pad": "<pad>"}
# letters with one mark before them, digits one by one, marks with the line breaks behind them, white space: as Qwen splits
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def write_language_tokenizer(folder: Path, bos: bool, padding_side: str = "left") -> int:
    """A byte-level BPE with Qwen's splitting, learnt from the bundled tasks; gives the number of its tokens."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(WORDS), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    ])  # fmt: skip
    tokenizer.decoder = decoders.ByteLevel()
    special = {role: token for role, token in SPECIALS.items() if bos or role != "bos"}
    trainer = trainers.BpeTrainer(
        vocab_size=2_000,
        special_tokens=[*special.values(), *CHAT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(learnt_texts(), trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 10**30, "padding_side": padding_side}
    config |= {"model_input_names": ["input_ids", "attention_mask"]}
    write_json(folder / "tokenizer_config.json", config | {f"{role}_token": token for role, token in special.items()})
    return int(tokenizer.get_vocab_size())


def learnt_texts() -> Iterator[str]:
    """The bundled tasks' texts; and the prompts often, so that their words are tokens and marks join with line breaks."""
    for path in sorted(DEMO.glob("*.jsonl")):
        for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            yield from [row["query"] + "\n", *row["positive"], *row["negative"]]
    gemma, qwen = read_model("bge-reranker-v2-gemma"), read_model("Qwen3-Reranker-0.6B")
    yield from ["Yes", "No", "yes", "no", "what? \n(x)\n"] * 50
    yield from [gemma.prompt, qwen.system_prompt, qwen.query_prompt, qwen.prompt] * 50


SIZES: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "max_position_embeddings": 4_096, "pad_token_id": 3, "eos_token_id": 1,
}  # fmt: skip


def write_gemma(folder: Path, padding_side: str = "left") -> None:
    """bge-reranker-v2-gemma's architecture."""
    from transformers import GemmaConfig, GemmaForCausalLM

    tokens = write_language_tokenizer(folder, bos=True, padding_side=padding_side)
    config = GemmaConfig(vocab_size=tokens, num_hidden_layers=2, bos_token_id=0, **SIZES)
    write_random(GemmaForCausalLM, config, folder, 0, "model.embed_tokens.weight")


def write_qwen(folder: Path) -> None:
    """Qwen3-Reranker's architecture; its tokenizer has no token for the beginning."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokens = write_language_tokenizer(folder, bos=False)
    sizes = SIZES | {"eos_token_id": 0, "pad_token_id": 2, "max_position_embeddings": 10_000}
    config = Qwen3Config(vocab_size=tokens, num_hidden_layers=2, tie_word_embeddings=True, bos_token_id=None, **sizes)
    write_random(Qwen3ForCausalLM, config, folder, 0, "model.embed_tokens.weight")


def write_lists(folder: Path, *, sliding: bool = False, context: int = 10_000) -> None:
    """jina-reranker-v3's architecture, `sliding` v3.5's: Qwen3 and a projector, whose weights are wide enough to rank by."""
    from transformers import AddedToken, AutoTokenizer, Qwen3Config

    from evalkit.models.language_models import RankingLayers

    write_language_tokenizer(folder, bos=False)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([AddedToken(token, special=True) for token in LIST_TOKENS])
    tokenizer.model_max_length = context
    tokenizer.save_pretrained(folder)
    sizes = SIZES | {"eos_token_id": 0, "pad_token_id": 2, "max_position_embeddings": 10_000}
    local: dict[str, Any] = (
        {"use_sliding_window": True, "sliding_window": 48, "max_window_layers": 1} if sliding else {}
    )
    config = Qwen3Config(vocab_size=len(tokenizer), num_hidden_layers=2, bos_token_id=None, **sizes, **local)
    write_random(RankingLayers, config, folder, 0, "model.embed_tokens.weight")
    edit_json(
        folder / "config.json",
        lambda content: content.update(
            architectures=["JinaForRanking"], auto_map={"AutoModel": "modeling.JinaForRanking"}
        ),
    )
    (folder / "modeling.py").write_text("raise RuntimeError('the code of a model ran')\n", encoding="utf-8")


def write_qwen2(folder: Path) -> None:
    """mxbai-rerank-v2's architecture; its tokenizer has no token for the beginning."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokens = write_language_tokenizer(folder, bos=False)
    sizes = SIZES | {"eos_token_id": 0, "pad_token_id": 2, "max_position_embeddings": 10_000}
    config = Qwen2Config(vocab_size=tokens, num_hidden_layers=2, tie_word_embeddings=True, bos_token_id=None, **sizes)
    write_random(Qwen2ForCausalLM, config, folder, 0, "model.embed_tokens.weight")


def write_m3(folder: Path) -> None:
    """bge-m3: XLM-R's encoder, and the two heads as pickles beside it."""
    from transformers import XLMRobertaConfig, XLMRobertaModel

    packed = read_packed_e5()
    config = XLMRobertaConfig(
        vocab_size=250_002, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128,
        max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5,
    )  # fmt: skip
    write_random(XLMRobertaModel, config, folder, 0, "embeddings.word_embeddings.weight")
    write_xlmr_tokenizer(folder, packed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for name, outputs in (("colbert", 64), ("sparse", 1)):
            torch.save(torch.nn.Linear(64, outputs).state_dict(), folder / f"{name}_linear.pt")
