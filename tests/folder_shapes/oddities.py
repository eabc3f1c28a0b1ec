"""Folders that are not what they look like, or not all there: pickles, shards, adapters, code, other kinds of models."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from model_folders import Tensors, edit_json, edit_weights, pickle_weights
from real_models import write_json
from safetensors.torch import load_file, save_file

from folder_shapes.layouts import Part, dense, write_classifier, write_embedder, write_modules, write_with_library
from folder_shapes.networks import HIDDEN, build_network, write_network
from folder_shapes.spelling import write_spelling

Write = Callable[[Path], Any]
CODE = '''"""What the authors lay beside the weights."""

import torch
from transformers import {native}Config, {native}Model, {native}ForSequenceClassification


class NewConfig({native}Config):
    model_type = "{kind}"


class NewModel({native}Model):
    config_class = NewConfig

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.last_hidden_state = torch.relu(output.last_hidden_state)
        return output


class NewForSequenceClassification({native}ForSequenceClassification):
    config_class = NewConfig

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = output.logits * 2 + 1
        return output
'''


def edited(write: Write, file: str, **changes: Any) -> Write:
    """The folder with these fields of a JSON file changed; None takes a field away."""

    def change(content: dict[str, Any]) -> None:
        content.update(changes)
        for name in [name for name, value in changes.items() if value is None]:
            del content[name]

    def write_edited(folder: Path) -> None:
        write(folder)
        edit_json(folder / file, change)

    return write_edited


def renamed(write: Write, names: Mapping[int, str]) -> Write:
    """The folder with these rows of modules.json under other names."""

    def write_renamed(folder: Path) -> None:
        write(folder)
        rows = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        for place, name in names.items():
            rows[place]["name"] = name
        write_json(folder / "modules.json", rows)

    return write_renamed


def with_settings_elsewhere(write: Write) -> Write:
    """The folder with an empty sentence_bert_config.json, and a length in the file of the next name."""

    def write_elsewhere(folder: Path) -> None:
        write(folder)
        write_json(folder / "sentence_bert_config.json", {})
        write_json(folder / "sentence_roberta_config.json", {"max_seq_length": 16})

    return write_elsewhere


def without(write: Write, *files: str) -> Write:
    def write_less(folder: Path) -> None:
        write(folder)
        for file in files:
            (folder / file).unlink()

    return write_less


def with_tensors(write: Write, change: Callable[[Tensors], Tensors]) -> Write:
    def write_changed(folder: Path) -> None:
        write(folder)
        edit_weights(folder, change)

    return write_changed


def pickled(write: Write) -> Write:
    def write_pickle(folder: Path) -> None:
        write(folder)
        pickle_weights(folder)

    return write_pickle


def in_bf16(write: Write) -> Write:
    def halve(tensors: Tensors) -> Tensors:
        return {name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()}

    return edited(with_tensors(write, halve), "config.json", dtype="bfloat16")


def sharded(write: Write) -> Write:
    def write_shards(folder: Path) -> None:
        write(folder)
        path = folder / "model.safetensors"
        tensors = sorted(load_file(path).items())
        path.unlink()
        halves = {"model-00001-of-00002.safetensors": tensors[::2], "model-00002-of-00002.safetensors": tensors[1::2]}
        for file, half in halves.items():
            save_file(dict(half), folder / file, metadata={"format": "pt"})
        places = {name: file for file, half in halves.items() for name, _ in half}
        size = sum(tensor.nbytes for _, tensor in tensors)
        write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": places})

    return write_shards


def write_adapter(folder: Path) -> None:
    """A LoRA adapter of the attention's two first matrices."""
    targets = [f"base_model.model.encoder.layer.{layer}.attention.self.query" for layer in (0, 1)]
    tensors = {f"{target}.lora_A.weight": torch.full((4, HIDDEN), 0.1) for target in targets}
    tensors |= {f"{target}.lora_B.weight": torch.full((HIDDEN, 4), 0.1) for target in targets}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "FEATURE_EXTRACTION",
        "base_model_name_or_path": "google-bert/bert-base-cased",
    }
    write_json(folder / "adapter_config.json", config | {"r": 4, "lora_alpha": 8, "target_modules": ["query"]})
    write_spelling(folder, "bert")


def write_adapter_beside_weights(folder: Path) -> None:
    write_embedder(folder)
    write_adapter(folder)


def write_gguf(folder: Path) -> None:
    """A file for llama.cpp, and the settings of sentence-transformers beside it."""
    write_embedder(folder)
    (folder / "model.safetensors").rename(folder / "model-f16.gguf")
    (folder / "model-f16.gguf").write_bytes(b"GGUF\x03\0\0\0" + bytes(64))


def with_code(write: Write, heads: Mapping[str, str], kind: str, native: str = "Bert") -> Write:
    """The folder with code of its own for these heads (`AutoModel`: `NewModel`), under the model type `kind`."""

    def write_code(folder: Path) -> None:
        write(folder)
        names = {auto: f"modeling_new.{name}" for auto, name in heads.items()}
        if kind != native.lower():
            names["AutoConfig"] = "modeling_new.NewConfig"
        (folder / "modeling_new.py").write_text(CODE.format(native=native, kind=kind), encoding="utf-8")
        edit_json(
            folder / "config.json",
            lambda config: config.update(model_type=kind, auto_map=names, architectures=list(heads.values())),
        )

    return write_code


def write_module_with_code(folder: Path) -> None:
    """The first module's class lies in the folder."""
    write_embedder(folder)
    code = "from sentence_transformers.models import Transformer as Read\n\n\nclass Transformer(Read):\n    pass\n"
    (folder / "modeling_reader.py").write_text(code, encoding="utf-8")
    path = folder / "modules.json"
    rows = json.loads(path.read_text(encoding="utf-8"))
    rows[0]["type"] = "modeling_reader.Transformer"
    write_json(path, rows)


def write_colbert(folder: Path) -> None:
    """Stanford's: the encoder with one matrix more, no modules.json, and no settings of its own."""
    write_network(folder, "bert")
    edit_weights(folder, with_projection)
    edit_json(folder / "config.json", lambda config: config.update(architectures=["HF_ColBERT"]))


def write_colbert_with_settings(folder: Path) -> None:
    """The same with settings that are none of the defaults."""
    write_colbert(folder)
    said = {
        "query_token_id": "[SEP]",
        "doc_token_id": "[MASK]",
        "query_maxlen": 24,
        "doc_maxlen": 60,
        "attend_to_mask_tokens": True,
        "mask_punctuation": False,
    }
    write_json(folder / "artifact.metadata", said)


def with_projection(tensors: Tensors) -> Tensors:
    return tensors | {"linear.weight": torch.randn(16, HIDDEN, generator=torch.Generator().manual_seed(5))}


def write_unused_weights(folder: Path) -> None:
    write_embedder(folder)
    edit_weights(folder, with_projection)


def write_pylate(folder: Path) -> None:
    """PyLate's: a projection of every token, and no pooling."""
    write_network(folder, "bert")
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 128, "do_lower_case": False})
    projection = dense(HIDDEN, 16, "Identity", bias=False)
    write_modules(folder, [Part("pylate.models.Dense.Dense", projection.config, projection.weights)])
    said = {"query_prefix": "[Q] ", "document_prefix": "[D] ", "similarity_fn_name": "MaxSim"}
    write_json(folder / "config_sentence_transformers.json", said)


def write_multi_vector(folder: Path) -> None:
    """The installed sentence-transformers' own ColBERT, of the encoder in the folder."""

    def build(place: Path) -> Any:
        from sentence_transformers import MultiVectorEncoder

        write_network(place, "bert")
        return MultiVectorEncoder(str(place), device="cpu", local_files_only=True)

    write_with_library(folder, build)


def write_multi_vector_with_settings(folder: Path) -> None:
    """The same with prompts, lengths, a longer expansion, a mask for both roles and the mean."""
    write_multi_vector(folder)
    edit_json(
        folder / "sentence_bert_config.json",
        lambda said: said.update(
            document_length=50, query_length=40, query_expansion={"strategy": "min", "length": 20, "attend": True}
        ),
    )
    edit_json(
        folder / "2_MultiVectorMask" / "config.json",
        lambda said: said.update(skiplist_words=["[CLS]", "?"], skiplist_tasks=["query", "document"]),
    )
    edit_json(
        folder / "config_sentence_transformers.json",
        lambda said: said.update(
            prompts={"query": "query: ", "document": "passage: "}, similarity_fn_name="meanmaxsim"
        ),
    )


def write_multi_vector_with_other_prompts(folder: Path) -> None:
    """A prompt for documents under a name that sentence-transformers never asks for."""
    write_multi_vector(folder)
    said = {"model_type": "MultiVectorEncoder", "prompts": {"query": "query: ", "passage": "passage: "}}
    write_json(folder / "config_sentence_transformers.json", said)


def write_pylate_v3(folder: Path) -> None:
    """PyLate's third version: it says what it is, its lengths, and that queries are not filled."""
    write_pylate(folder)
    edit_json(
        folder / "config_sentence_transformers.json",
        lambda said: said.update(
            model_type="ColBERT", query_length=24, document_length=48, do_query_expansion=False, skiplist_words=["?", "-"],
            prompts={"query": "[Q] search: "},
        ),
    )  # fmt: skip


def write_splade(folder: Path) -> None:
    def build(place: Path) -> Any:
        from sentence_transformers import SparseEncoder

        write_network(place, "bert", "ForMaskedLM")
        return SparseEncoder(str(place), device="cpu", local_files_only=True)

    write_with_library(folder, build)


def write_clip(folder: Path) -> None:
    """The settings of a model of pictures and texts; it is refused before its weights are looked for."""
    folder.mkdir(parents=True)
    rows = [{"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}]
    write_json(folder / "modules.json", rows)
    write_json(folder / "0_CLIPModel" / "config.json", {"model_type": "clip", "architectures": ["CLIPModel"]})


def with_modules(build: Callable[[Any], list[Any]]) -> Write:
    """A SentenceTransformer of the installed library: the modules that `build` makes of the network's own."""

    def write(folder: Path) -> None:
        def assemble(place: Path) -> Any:
            from sentence_transformers import SentenceTransformer
            from sentence_transformers.base.modules import Transformer

            write_network(place, "bert")
            modules = build(Transformer(str(place)))
            return SentenceTransformer(modules=modules, device="cpu")

        write_with_library(folder, assemble)

    return write


def cnn(transformer: Any) -> list[Any]:
    from sentence_transformers.sentence_transformer.modules import CNN, Pooling

    return [transformer, CNN(HIDDEN, 16, [1, 3]), Pooling(32)]


def lstm(transformer: Any) -> list[Any]:
    from sentence_transformers.sentence_transformer.modules import LSTM, Pooling

    return [transformer, LSTM(HIDDEN, 16), Pooling(32)]


def bag_of_words(_: Any) -> list[Any]:
    from sentence_transformers.base.modules import Dense
    from sentence_transformers.sentence_transformer.modules import BoW

    words = ["phone", "charge", "bank", "water", "panda", "text"]
    return [BoW(words), Dense(len(words), 16)]


def word_embeddings(_: Any) -> list[Any]:
    from sentence_transformers.sentence_transformer.modules import Pooling, WordEmbeddings
    from sentence_transformers.sentence_transformer.modules.tokenizer import WhitespaceTokenizer

    words = ["phone", "charge", "bank", "water", "panda", "text"]
    return [WordEmbeddings(WhitespaceTokenizer(words), torch.rand(len(words), HIDDEN).numpy()), Pooling(HIDDEN)]


def static(transformer: Any) -> list[Any]:
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    return [StaticEmbedding(transformer.tokenizer, embedding_dim=HIDDEN)]


def routed(transformer: Any) -> list[Any]:
    from sentence_transformers.base.modules import Dense, Router
    from sentence_transformers.sentence_transformer.modules import Pooling

    return [transformer, Pooling(HIDDEN), Router.for_query_document([Dense(HIDDEN, 16)], [Dense(HIDDEN, 16)])]


def write_asymmetric(folder: Path) -> None:
    """An older file's name of a router."""
    write_embedder(folder, after=(Part("Asym", {"types": {}, "structure": {}, "parameters": {}}),))


def write_decoder_weights(folder: Path) -> None:
    """The encoder and the decoder of a T5, of which an embedder runs half."""
    write_embedder(folder, "t5", head="ForConditionalGeneration")


def write_pretrained(folder: Path) -> None:
    """The encoder with the head of its pretraining and its pooler, as authors often leave them: `bert.` before each name."""
    write_embedder(folder)
    tokens = write_spelling(folder, "bert")
    build_network("bert", tokens, "ForPreTraining").save_pretrained(folder)


def write_saved_classifier(folder: Path, **settings: Any) -> None:
    """A classifier as the installed sentence-transformers saves it: with modules.json and settings."""

    def build(place: Path) -> Any:
        from sentence_transformers import CrossEncoder

        write_classifier(place, "bert")
        return CrossEncoder(str(place), device="cpu", local_files_only=True, **settings)

    write_with_library(folder, build)


def write_judge(folder: Path, *, false_token: bool = True, chat: bool = False) -> None:
    """A language model of which sentence-transformers reads the logits of `yes` and `no` at the last position."""

    def build(place: Path) -> Any:
        from sentence_transformers import CrossEncoder
        from sentence_transformers.base.modules import Transformer
        from sentence_transformers.cross_encoder.modules import LogitScore

        write_network(place, "qwen3", "ForCausalLM", "decoder-left")
        if chat:
            edit_json(place / "tokenizer_config.json", lambda config: config.update(chat_template=CHAT_TEMPLATE))
        transformer = Transformer(str(place), transformer_task="text-generation")
        yes, no = transformer.tokenizer.convert_tokens_to_ids(["yes", "no"])
        return CrossEncoder(modules=[transformer, LogitScore(yes, no if false_token else None)], device="cpu")

    write_with_library(folder, build)


CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<sep>' + message['role'] + '\\n' + message['content'] + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<sep>assistant\\n' }}{% endif %}"
)


def write_reranker_of_parts(folder: Path) -> None:
    """As the ettin rerankers: an encoder, pooling, and a head of three modules."""

    def build(place: Path) -> Any:
        from sentence_transformers import CrossEncoder
        from sentence_transformers.base.modules import Dense, Transformer
        from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling

        write_network(place, "modernbert")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            head = [
                Dense(HIDDEN, HIDDEN, bias=False, activation_function=torch.nn.GELU()),
                LayerNorm(HIDDEN),
                Dense(HIDDEN, 1, activation_function=torch.nn.Identity(), module_output_name="scores"),
            ]
        modules = [Transformer(str(place)), Pooling(HIDDEN, "cls"), *head]
        return CrossEncoder(modules=modules, device="cpu")

    write_with_library(folder, build)


def write_reranker_without_prompt(folder: Path) -> None:
    """A head of modules behind the mean of the tokens but the prompt's."""

    def build(place: Path) -> Any:
        from sentence_transformers import CrossEncoder
        from sentence_transformers.base.modules import Dense, Transformer
        from sentence_transformers.sentence_transformer.modules import Pooling

        write_network(place, "bert")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            head = Dense(HIDDEN, 1, activation_function=torch.nn.Identity(), module_output_name="scores")
        modules = [Transformer(str(place)), Pooling(HIDDEN, "mean", include_prompt=False), head]
        return CrossEncoder(modules=modules, device="cpu", prompts={"q": "query: "}, default_prompt_name="q")

    write_with_library(folder, build)
