"""jina-reranker-v3's recipe on small random networks of its architecture, against its published steps written down again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import run_here
from made_tasks import make_task
from model_folders import copied, edit_json, edit_weights
from numpy.typing import NDArray
from real_models import shared_folder
from recipe_models import write_lists

import evalkit
from evalkit.errors import EvalkitError, WrongWeightsError
from evalkit.models.findings import collecting
from evalkit.models.listwise import ListRanker, block_ends, combine_blocks
from evalkit.records import Task

QUERY = "感冒了应该吃什么药？"
DOCUMENTS = [f"第{number}篇：多喝水，注意休息{'，按时吃药' * (number % 7)}。See a doctor." for number in range(30)]
TASK = make_task(
    *(([f"问题{q}"], [(f"答案{q}之{d}，" * (1 + d % 4), int(d < 2)) for d in range(9)]) for q in range(12))
)


@pytest.fixture
def folder(tiny_lists: Path) -> Path:
    return tiny_lists


@pytest.fixture(scope="module")
def sliding() -> Path:
    return shared_folder("sliding-lists", lambda place: write_lists(place, sliding=True))


class Published:
    """The steps of `rerank` in modeling.py, one after the other, with transformers' own classes."""

    def __init__(self, folder: Path) -> None:
        from safetensors.torch import load_file
        from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

        self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        weights = load_file(folder / "model.safetensors")
        self.network = Qwen3ForCausalLM(Qwen3Config.from_pretrained(folder)).eval()
        self.network.model.load_state_dict(
            {name.removeprefix("model."): value for name, value in weights.items() if name.startswith("model.")}
        )
        self.projector = [weights["projector.0.weight"], weights["projector.2.weight"]]

    def project(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.relu(hidden @ self.projector[0].T) @ self.projector[1].T

    def prompt(self, query: str, documents: list[str]) -> str:
        for token in ("<|rerank_token|>", "<|embed_token|>"):
            query = query.replace(token, "")
            documents = [document.replace(token, "") for document in documents]
        text = "<|im_start|>system\n"
        text += "You are a search relevance expert who can determine a ranking of the passages based on how relevant they are to "
        text += "the query. If the query is a question, how relevant a passage is depends on how well it answers the question. "
        text += "If not, try to analyze the intent of the query and assess how well each passage satisfies the intent. "
        text += "If an instruction is provided, you should follow the instruction when determining the ranking."
        text += "<|im_end|>\n<|im_start|>user\n"
        text += f"I will provide you with {len(documents)} passages, each indicated by a numerical identifier. "
        text += f"Rank the passages based on their relevance to query: {query}\n"
        text += "\n".join(
            f'<passage id="{i}">\n{document}<|embed_token|>\n</passage>' for i, document in enumerate(documents)
        )
        text += f"\n<query>\n{query}<|rerank_token|>\n</query>"
        return text + "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"

    @torch.no_grad()
    def block(self, query: str, documents: list[str]) -> tuple[Any, Any, float]:
        ids = self.tokenizer([self.prompt(query, documents)], return_tensors="pt")["input_ids"]
        hidden = self.network(ids, output_hidden_states=True, use_cache=False).hidden_states[-1][0]
        ends, end = (self.tokenizer.convert_tokens_to_ids(one) for one in ("<|embed_token|>", "<|rerank_token|>"))
        vectors, vector = self.project(hidden[ids[0] == ends]), self.project(hidden[ids[0] == end])
        scores = torch.nn.functional.cosine_similarity(vectors, vector.expand_as(vectors), dim=-1)
        return vectors.numpy(), vector.numpy()[0], float(((1 + scores) / 2).max())

    def rerank(self, query: str, documents: list[str], document: int, query_tokens: int, most: int) -> NDArray[Any]:
        def cut(text: str, longest: int) -> tuple[str, int]:
            ids = self.tokenizer(text, truncation=True, max_length=longest)["input_ids"]
            return (self.tokenizer.decode(ids) if len(ids) >= longest else text), len(ids)

        query, query_length = cut(query, query_tokens)
        context = self.tokenizer.model_max_length
        room, waiting, blocks = context - 2 * query_length, [], []
        for text, length in (cut(one, document) for one in documents):
            waiting.append(text)
            room -= length
            if len(waiting) >= most or room <= document:
                blocks.append(self.block(query, waiting))
                waiting, room = [], context - 2 * query_length
        if waiting:
            blocks.append(self.block(query, waiting))
        vectors = np.concatenate([vectors for vectors, _, _ in blocks])
        vector = np.average([vector for _, vector, _ in blocks], axis=0, weights=[weight for _, _, weight in blocks])
        return vectors @ vector / (np.linalg.norm(vectors, axis=1) * np.linalg.norm(vector))


def ranker(folder: Path, **recipe: Any) -> ListRanker:
    scorer = evalkit.load_model(str(folder), backend="torch", threads=1, **recipe).runnable.scorer
    assert isinstance(scorer, ListRanker)
    return scorer


@pytest.mark.parametrize("which", ["folder", "sliding"])
@pytest.mark.parametrize(
    ("document", "query", "most"),
    [(2_048, 512, 125), (2_048, 512, 8), (12, 512, 125), (2_048, 5, 7), (11, 6, 1)],
    ids=["whole", "blocks", "documents cut", "query cut", "one by one"],
)
def test_it_scores_as_its_published_steps_do(
    which: str, document: int, query: int, most: int, request: pytest.FixtureRequest
) -> None:
    place: Path = request.getfixturevalue(which)
    expected = Published(place).rerank(QUERY, DOCUMENTS, document, query, most)
    scored = ranker(place, max_length=document, max_query_length=query, block_size=most).score_list(QUERY, DOCUMENTS)
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(scored.scores, expected, atol=2e-6)
    assert scored.truncated == [document < 20 for _ in DOCUMENTS]


def test_a_list_that_does_not_fit_is_read_in_blocks(tmp_path: Path) -> None:
    write_lists(tmp_path / "short", context=900)
    expected = Published(tmp_path / "short").rerank(QUERY, DOCUMENTS, 100, 512, 125)
    whole = ranker(tmp_path / "short", max_length=100)
    np.testing.assert_allclose(whole.score_list(QUERY, DOCUMENTS).scores, expected, atol=2e-6)
    lengths = [len(whole.tokenizer(text)["input_ids"]) for text in DOCUMENTS]
    assert len(block_ends(lengths, 20, 125, 100, 900)) > 1


def test_sliding_attention_is_heeded(folder: Path, sliding: Path) -> None:
    plain, local = (ranker(one).score_list(QUERY, DOCUMENTS).scores for one in (folder, sliding))
    assert np.abs(plain - local).max() > 1e-3


def test_blocks_end_where_they_are_full() -> None:
    assert block_ends([5] * 7, 1, 3, 10, 1_000) == [3, 6, 7]
    assert block_ends([5] * 6, 1, 3, 10, 1_000) == [3, 6]
    assert block_ends([5] * 6, 10, 100, 10, 40) == [2, 4, 6]  # 20 are left for documents, and ten are kept free
    assert block_ends([5] * 3, 100, 100, 10, 40) == [1, 2, 3]
    assert block_ends([5], 1, 125, 10, 10**30) == [1]


def test_blocks_are_weighted_by_their_best_score() -> None:
    first = np.float32([[1, 0], [0, 1]]), np.float32([1, 0])
    second = np.float32([[0, 1]]), np.float32([0, 2])
    third = np.float32([[-1, 0]]), np.float32([1, 0])  # cosine -1: no weight at all
    found = combine_blocks([first, second, third])
    query = np.array([1.0, 2.0]) / 2
    np.testing.assert_allclose(found[:2], query / np.linalg.norm(query), atol=1e-7)
    assert found[3] == pytest.approx(-query[0] / np.linalg.norm(query))


def test_marks_within_texts_move_no_score(folder: Path) -> None:
    model = ranker(folder)
    plain = model.score_list(QUERY, DOCUMENTS[:5]).scores
    marked = model.score_list(
        f"<|rerank_token|>{QUERY}", [f"<|embed_token|>{text}<|rerank_token|>" for text in DOCUMENTS[:5]]
    )
    np.testing.assert_allclose(marked.scores, plain, atol=1e-6)


@pytest.mark.parametrize(
    "marks",
    [
        "<|embed<|embed_token|>_token|>",
        "<|rerank<|embed_token|>_token|>",
        "<|embed<|rerank<|embed_token|>_token|>_token|>",
    ],
)
def test_marks_that_taking_others_out_makes_are_taken_out_too(folder: Path, marks: str) -> None:
    model = ranker(folder)
    plain = model.score_list(QUERY, DOCUMENTS[:3]).scores
    marked = model.score_list(f"{QUERY}{marks}", [text + marks for text in DOCUMENTS[:3]]).scores
    np.testing.assert_allclose(marked, plain, atol=1e-6)


def test_no_block_is_longer_than_the_network_has_positions_for(folder: Path, tmp_path: Path) -> None:
    short = copied(folder, tmp_path)
    edit_json(short / "config.json", lambda config: config.update(max_position_embeddings=600))
    edit_json(short / "tokenizer_config.json", lambda config: config.update(model_max_length=10**30))
    assert ranker(short, max_length=100).context == 600


def test_a_context_that_holds_no_two_documents_is_refused(folder: Path, tmp_path: Path) -> None:
    short = copied(folder, tmp_path)
    edit_json(short / "config.json", lambda config: config.update(max_position_embeddings=600))
    recipes: list[dict[str, Any]] = [{}, {"max_length": 600}, {"max_length": 500}]
    for recipe in recipes:
        with pytest.raises(EvalkitError, match=r"reads 600 tokens, .* each document would be read without the others"):
            ranker(short, **recipe)
    with collecting() as found:  # its own code reads them too
        ranker(short, max_length=100, max_query_length=500).score_list(QUERY * 100, DOCUMENTS)
    assert [text for text in found if "more than the 600 tokens that config.json names" in text]


def test_order_and_company_move_scores(folder: Path) -> None:
    model = ranker(folder)
    whole = model.score_list(QUERY, DOCUMENTS[:8]).scores
    turned = model.score_list(QUERY, DOCUMENTS[7::-1]).scores[::-1]
    part = model.score_list(QUERY, DOCUMENTS[:4]).scores
    assert np.abs(whole - turned).max() > 1e-3
    assert np.abs(whole[1:4] - part[1:4]).max() > 1e-4


def result_of(folder: Path, task: Task = TASK, cache_dir: Path | None = None, **recipe: Any) -> Any:
    model = evalkit.load_model(str(folder), backend="torch", threads=1, cache_dir=cache_dir, **recipe)
    return evalkit.evaluate(model, task, cache="off" if cache_dir is None else "on")


def test_the_folder_says_that_it_is_listwise_and_its_code_does_not_run(folder: Path, tmp_path: Path) -> None:
    result = result_of(folder)
    assert result.model.kind == "listwise"
    assert {name: result.recipe[name].value for name in ("max_length", "max_query_length", "block_size")} == {
        "max_length": 2_048, "max_query_length": 512, "block_size": 125
    }  # fmt: skip
    assert result.recipe["order_seed"].value == 42
    assert (
        "it comes with Python code of its own, which is never run: evalkit follows its published recipe"
        in result.findings
    )
    assert any("shown in one shuffled order (model.order_seed=42)" in one for one in result.findings)
    assert result_of(folder, trust_remote_code=True).candidates["score"].equals(result.candidates["score"])


@pytest.mark.parametrize("permutations", [1, 3])
def test_the_store_gives_the_bytes_of_an_undisturbed_run(folder: Path, tmp_path: Path, permutations: int) -> None:
    whole = result_of(folder, permutations=permutations)
    part = make_task(
        *(((request.query.texts), [(c.text, c.gain) for c in request.candidates]) for request in TASK.requests[3:7])
    )
    result_of(folder, part, tmp_path, permutations=2)
    again = result_of(folder, TASK, tmp_path, permutations=permutations)
    stored = result_of(folder, TASK, tmp_path, permutations=permutations)
    assert again.timing.items_from_store == 4 * 9 * min(permutations, 2)
    assert stored.timing.items_from_store == stored.usage.items
    for one in (again, stored):
        assert one.candidates["score"].to_numpy().tobytes() == whole.candidates["score"].to_numpy().tobytes()
        assert one.candidates["tokens"].equals(whole.candidates["tokens"])


def test_two_seeds_differ_and_one_repeats(folder: Path) -> None:
    first, again, other = (result_of(folder, order_seed=seed) for seed in (42, 42, 1))
    assert first.candidates["score"].equals(again.candidates["score"])
    assert not first.candidates["score"].equals(other.candidates["score"])
    assert (first.experiment, other.experiment) != (None, None)
    assert other.deviations["order_seed"] == 1


def test_low_precision_is_compared_on_whole_lists(folder: Path) -> None:
    model = evalkit.load_model(str(folder), backend="torch", dtype="bf16", threads=1)
    result = evalkit.evaluate(model, TASK, cache="off")
    assert result.precision is not None
    assert 0 < result.precision.largest_difference < 0.1


def test_what_is_cut_is_counted(folder: Path) -> None:
    result = result_of(folder, max_length=6)
    assert result.candidates["truncated"].any()
    assert result.candidates["tokens"].max() == 7
    assert result.queries["truncated_pairs"].sum() == result.candidates["truncated"].sum()


def test_it_is_never_run_as_pairs_or_vectors(folder: Path) -> None:
    for name, said in (("local-cross-encoder", "ranks whole lists"), ("local-embedder", "ranks whole lists")):
        done = run_here("task=demo", f"model={name}", f"model.path={folder}")
        assert (done.code, said in done.stderr) == (2, True), done.stderr
    for backend in ("onnx", "openvino", "sentence-transformers", "flagembedding", "transformers"):
        done = run_here("task=demo", f"model={folder}", f"backend={backend}")
        assert done.code == 2
        assert "whose kind is listwise" in done.stderr


def test_it_has_no_certificate_of_pairs(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = run_here("certify", "model=jina-reranker-v3", f"model.path={folder}")
    assert "it ranks whole lists, and a certificate holds scores of single pairs" in " ".join(done.stdout.split())


def test_other_architectures_and_broken_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    other = copied(folder, tmp_path / "other")
    edit_json(other / "config.json", lambda content: content.update(architectures=["ListRanker"]))
    with pytest.raises(
        WrongWeightsError, match=r"is a ListRanker: of listwise models evalkit itself runs JinaForRanking"
    ):
        _ = evalkit.load_model("jina-reranker-v3", path=str(other), backend="torch").runnable.scorer
    lacking = copied(folder, tmp_path / "lacking")
    edit_weights(lacking, lambda tensors: {name: one for name, one in tensors.items() if name != "projector.2.weight"})
    with pytest.raises(WrongWeightsError, match=r"projector\.2\.weight"):
        ranker(lacking)
    untold = copied(folder, tmp_path / "untold")
    text = (untold / "tokenizer.json").read_text(encoding="utf-8").replace("<|embed_token|>", "<|other_token|>")
    (untold / "tokenizer.json").write_text(text, encoding="utf-8")
    with pytest.raises(EvalkitError, match=r"the tokenizer has no token <\|embed_token\|>"):
        ranker(untold)
