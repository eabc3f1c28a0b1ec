"""Models' own files on real and made weights: that what they say reaches the network, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import run_here
from huggingface_hub import constants
from numpy.typing import NDArray
from real_models import write_json
from transformers import AutoModel, AutoTokenizer

import evalkit
from evalkit.configuration.files import read_option
from evalkit.errors import EvalkitError
from evalkit.models.interfaces import LocalNetwork
from evalkit.models.settings import model_settings
from evalkit.records import Role

QUERY, DOCUMENT = "感冒了应该吃什么药？", "普通感冒多休息、多喝水；发烧时可以服用对乙酰氨基酚。"
E5_PROMPTS = {
    None: ("query: ", "passage: "),
    "query-both-sides": ("query: ", "query: "),
    "no-prompts": ("", ""),
}
QWEN, END = "Qwen3-Embedding-0.6B", "<|endoftext|>"
NEEDING_CODE = ("gte-multilingual-reranker-base", "jina-reranker-v2-base-multilingual")


def network(name: str, folder: Path, **recipe: Any) -> LocalNetwork:
    """A model by its name, with the weights of a folder."""
    model = evalkit.load_model(name, backend="torch", device="cpu", path=folder, **recipe)
    scorer = model.runnable.scorer
    assert isinstance(scorer, LocalNetwork)
    return scorer


def embed(scorer: LocalNetwork, texts: list[str], role: Role) -> NDArray[np.float32]:
    """All texts in one padded batch."""
    return scorer.run([scorer.encode_text(text) for text in scorer.tokenize(texts, role)])


@pytest.mark.parametrize("variant", E5_PROMPTS)
def test_each_recipe_of_e5_puts_its_prompts_before_the_tokens(variant: str | None, e5_small: Path) -> None:
    scorer = network("multilingual-e5-small", e5_small, recipe=variant)
    tokenizer, model = AutoTokenizer.from_pretrained(e5_small), AutoModel.from_pretrained(e5_small).eval()
    roles: dict[Role, str] = {"query": QUERY, "document": DOCUMENT}
    for (role, text), prompt in zip(roles.items(), E5_PROMPTS[variant], strict=True):
        (found,) = scorer.tokenize([text], role)
        tokens = tokenizer(prompt + text, return_tensors="pt")
        assert scorer.encode_text(found).token_ids.tolist() == tokens["input_ids"][0].tolist()
        with torch.inference_mode():
            vector = model(**tokens).last_hidden_state[0].mean(0)
        np.testing.assert_allclose(embed(scorer, [text], role)[0], (vector / vector.norm()).numpy(), atol=1e-5)


def test_each_recipe_of_e5_runs_by_its_name_and_has_a_place_of_its_own(
    e5_small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["task=demo-zh2en", "model=multilingual-e5-small", f"model.path={e5_small}", "backend=torch"]
    maps = {}
    for variant in E5_PROMPTS:
        done = run_here(*arguments, *([] if variant is None else [f"model.recipe={variant}"]))
        assert done.code == 0, done.stderr
        maps[variant] = done.rows[0][2]
    assert len(set(maps.values())) == 3, maps
    assert len({path.parent for path in tmp_path.rglob("*Zh2En.json")}) == 3


def write_tiny_qwen3(folder: Path) -> None:
    """Qwen3's architecture, 2 layers and 64 wide, and a tokenizer of bytes that ends each text as Qwen3-Embedding's does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import Qwen3Config, Qwen3ForCausalLM

    vocabulary = {piece: number for number, piece in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END])
    end = (END, tokenizer.token_to_id(END))
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(f"$A {END}", f"$A {END} $B {END}", [end]),
    ])  # fmt: skip
    config = Qwen3Config(
        vocab_size=len(vocabulary) + 1, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=32768,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Qwen3ForCausalLM(config).eval()
        for parameter in model.parameters():
            if parameter.ndim == 2:
                torch.nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": END, "eos_token": END, "padding_side": "left"}
    limits = {"model_max_length": 131072, "model_input_names": ["input_ids", "attention_mask"]}
    write_json(folder / "tokenizer_config.json", names | limits)


@pytest.fixture(scope="module")
def tiny_qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-qwen3"
    write_tiny_qwen3(folder)
    return folder


@pytest.mark.parametrize("max_length", [8192, 100])
def test_qwen3_embedding_is_read_as_its_card_reads_it(tiny_qwen3: Path, max_length: int) -> None:
    """The card pads on the left and takes the last token, which the tokenizer has put there, also after a cut."""
    texts = [QUERY, DOCUMENT, DOCUMENT * 40]
    scorer = network(QWEN, tiny_qwen3, max_length=max_length)
    tokenizer, model = AutoTokenizer.from_pretrained(tiny_qwen3), AutoModel.from_pretrained(tiny_qwen3).eval()
    prompts: dict[Role, str] = {"query": str(read_option("model", QWEN)["query_prompt"]), "document": ""}
    for role, prompt in prompts.items():
        batch = tokenizer(
            [prompt + text for text in texts], padding=True, truncation=True, max_length=max_length, return_tensors="pt"
        )
        assert (batch["input_ids"][:, -1] == tokenizer.convert_tokens_to_ids(END)).all()
        with torch.inference_mode():
            expected = torch.nn.functional.normalize(model(**batch).last_hidden_state[:, -1], dim=-1).numpy()
        ours = [scorer.encode_text(text).token_ids.tolist() for text in scorer.tokenize(texts, role)]
        kept = batch["attention_mask"].bool()
        assert ours == [ids[mask].tolist() for ids, mask in zip(batch["input_ids"], kept, strict=True)]
        np.testing.assert_allclose(embed(scorer, texts, role), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NEEDING_CODE)
def test_code_that_comes_with_weights_is_refused_before_anything_is_fetched(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    says = f"^{name} needs Python code that comes with its weights, .*: model.trust_remote_code=true$"
    with pytest.raises(EvalkitError, match=says):
        _ = evalkit.load_model(name, backend="torch", offline=True).runnable
    with pytest.raises(EvalkitError, match="is not in the Hub cache"):
        _ = evalkit.load_model(name, backend="torch", offline=True, trust_remote_code=True).runnable
    assert not model_settings(read_option("model", name)).trust_remote_code


def test_code_that_comes_with_weights_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = run_here("task=demo-zh2en", "limit=1", f"model={NEEDING_CODE[0]}", "offline=true")
    assert (done.code, done.stdout) == (2, "")
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("evalkit: ")]
    assert line.endswith("if you trust its author: model.trust_remote_code=true")
