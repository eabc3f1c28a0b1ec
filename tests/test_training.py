"""Whether a model was trained on a task's data: as mteb's registry says, evalkit's own file, and a folder's card."""

from __future__ import annotations

import csv
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from command import run_here
from made_results import change_json, noisy_scores, ranking_task, write_scores
from made_tasks import make_task
from task_files import write_jsonl

import evalkit
from evalkit import wrap
from evalkit.configuration.files import option_names, parse_yaml
from evalkit.errors import EvalkitError
from evalkit.evaluation.evaluate import evaluate, load_model
from evalkit.records import FirstStage, ModelIdentity, Task, TrainingMark
from evalkit.results import training
from evalkit.results.reading import read_result
from evalkit.results.training import Card, mark_training, read_card, training_line, training_phrase
from evalkit.results.writing import result_json, write_result
from evalkit.tasks.settings import read_settings

FOUR = ("T2Reranking", "MMarcoReranking", "CMedQAv1-reranking", "CMedQAv2-reranking")
WORDS = {True: "not trained", False: "trained", None: "not stated"}
# models whose registered datasets have names that mteb's tasks do not have, and that are nonetheless these tasks' data
OTHER_NAMES = {"T2Ranking", "mmarco-chinese", "MMarco", "MMARCO", "CMedQAv2", "cMedQAv2", "cMedQA-V2.0"}


@pytest.fixture(scope="module")
def registry() -> dict[str, Any]:
    return pytest.importorskip("mteb.models.model_implementations").MODEL_REGISTRY


def verdict(mark: TrainingMark | None) -> str | None:
    return None if mark is None else mark.verdict


def task_of(name: str = "T2Reranking", /, **changes: Any) -> Task:
    """The bare shape of one of evalkit's tasks: what decides whether its data are the benchmark's."""
    settings = read_settings(name)
    made = make_task((["q"], [("yes", 1), ("no", 0)]), name=settings.name)
    said = settings.model_dump(mode="json")
    return replace(made, **{"mteb_name": settings.mteb_name, "layout": "cmteb", "settings": said} | changes)


def mark(
    hub_id: str, task: Task | None = None, card: Card | None = None, kind: str = "embedder"
) -> TrainingMark | None:
    task = task or task_of()
    return mark_training(ModelIdentity(hub_id.rpartition("/")[2], hub_id, "", kind), task, task.settings, card)


def training_of_model(hub_id: str, task: str) -> TrainingMark | None:
    return training.training_of_model(hub_id, "embedder", task)


def card_of(folder: Path, text: str | bytes) -> Card:
    folder.mkdir(exist_ok=True)
    (folder / "README.md").write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_card(folder)


# --- the registry


def test_marks_are_those_of_mtebs_registry(registry: dict[str, Any]) -> None:
    known = training._snapshot()["models"]
    both = sorted(registry.keys() & known.keys())
    assert len(both) > 900
    other = set()
    for name in both:
        seen = registry[name].get_training_datasets()
        for task in FOUR:
            found = training_of_model(name, task)
            assert found is not None
            expected = WORDS[None if seen is None else task not in seen]
            if found.verdict != expected:
                assert (expected, found.verdict) == ("not trained", "trained")
                assert set(found.datasets) <= OTHER_NAMES
                other.update(found.datasets)
    assert other == OTHER_NAMES


def test_marks_on_other_tasks_are_mtebs_too(registry: dict[str, Any]) -> None:
    names = ("BAAI/bge-m3", "Qwen/Qwen3-Reranker-0.6B", "intfloat/multilingual-e5-small", "dragonkue/BGE-m3-ko")
    aliased = {other for task in training._known()["datasets"].values() for other in training._kin(task)}
    for name in names:
        seen = registry[name].get_training_datasets()
        for task in sorted(training._snapshot()["tasks"].keys() - aliased):
            assert verdict(training_of_model(name, task)) == WORDS[task not in seen], (name, task)


def test_the_snapshot_is_what_its_command_writes(registry: dict[str, Any]) -> None:
    import mteb

    from docs.make_training_data import FILE, snapshot, text

    stored = json.loads(FILE.read_text(encoding="utf-8"))
    if mteb.__version__ != stored["mteb"]:
        pytest.skip(f"another mteb, {mteb.__version__}, is installed")
    assert text(snapshot()) == FILE.read_text(encoding="utf-8")


def test_three_marks_are_told_apart() -> None:
    assert verdict(mark("BAAI/bge-m3")) == "trained"
    assert verdict(mark("intfloat/multilingual-e5-small")) == "not trained"
    content = training._snapshot()
    assert content["datasets"][content["models"]["mongodb/voyage-3"]] == []
    assert verdict(mark("mongodb/voyage-3")) == "not trained"  # an empty set says none
    assert content["models"]["nlpai-lab/KURE-v1"] is None
    assert verdict(mark("nlpai-lab/KURE-v1")) == "not stated"  # no set says nothing
    assert verdict(mark("someone/of-whom-nobody-knows")) == "not stated"
    sources = {mark(name).source for name in ("BAAI/bge-m3", "nlpai-lab/KURE-v1", "someone/of-whom-nobody-knows")}  # type: ignore[union-attr]
    assert len(sources) == 3


def test_a_model_that_its_registry_is_silent_about_names_its_trained_base() -> None:
    found = mark("nlpai-lab/KURE-v1")
    assert found is not None
    assert "does not say; it says that its base BAAI/bge-m3 was trained on it" in found.source


def test_bases_count_along_the_whole_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    models = {"a/a": 0, "a/b": 0, "a/c": 1, "a/none": None, "a/over": 0, "a/round": 0, "a/back": 0}
    bases = {
        "a/a": "a/b",
        "a/b": "old/c",
        "a/over": "a/none",
        "a/none": "a/c",
        "a/round": "a/back",
        "a/back": "a/round",
    }
    content = {**training._snapshot(), "models": models, "adapted_from": bases, "datasets": [["NQ"], ["T2Reranking"]]}
    monkeypatch.setattr(training, "_snapshot", lambda: {**content, "renamed": {"old/c": "a/c"}})
    assert verdict(training_of_model("a/a", "T2Reranking")) == "trained"
    assert verdict(training_of_model("a/over", "T2Reranking")) == "not trained"  # as in mteb, silence ends the chain
    assert verdict(training_of_model("a/round", "T2Reranking")) == "not trained"
    assert verdict(training_of_model("a/none", "T2Reranking")) == "not stated"


def test_a_task_on_the_same_data_counts() -> None:
    found = training_of_model("Qwen/Qwen3-Embedding-0.6B", "CmedqaRetrieval")
    assert found == TrainingMark("trained", ("CMedQAv2-reranking",), training._registry())


@pytest.mark.parametrize("name", ["baai/BGE-M3", "BAAI/BGE-m3", "BAAI/bge-m3"])
def test_letters_case_decides_nothing(name: str) -> None:
    assert verdict(mark(name)) == "trained"


def test_no_two_registered_models_differ_in_case_alone() -> None:
    assert len(training._model_names()) == len(training._snapshot()["models"])


def test_a_renamed_model_is_found() -> None:
    assert mark("voyageai/voyage-3") == mark("mongodb/voyage-3")
    assert "does not have" not in mark("voyageai/voyage-3").source  # type: ignore[union-attr]


# --- evalkit's own file


@pytest.mark.parametrize("name", ["BAAI/bge-reranker-base", "BAAI/bge-reranker-large", "baai/bge-reranker-large"])
def test_bge_rerankers(name: str) -> None:
    found = [training_of_model(name, task) for task in FOUR]
    assert [verdict(one) for one in found] == ["trained", "trained", "not trained", "trained"]
    assert all("FlagEmbedding" in one.source for one in found if one is not None)


def test_own_entries_are_none_of_the_registrys() -> None:
    content = training._known()
    assert not {name.casefold() for name in content["models"]} & training._model_names().keys()
    tasks = training._snapshot()["tasks"].keys()
    assert {*content["tasks"].values(), *content["datasets"].values()} <= tasks
    assert not content["tasks"].keys() & tasks
    assert all(
        one["datasets"] and set(one["datasets"]) <= tasks and one["source"] for one in content["models"].values()
    )


def test_every_repository_of_our_tasks_is_known() -> None:
    for name in option_names("task"):
        settings = read_settings(name)
        if name.startswith("NanoCMTEB"):  # one repository of eight tasks that mteb does not know: they have no mark
            assert training._known_task(settings.mteb_name) is None
        elif settings.mteb_name and not settings.bundled:
            for place in filter(None, (settings.cmteb, settings.mteb)):
                kin = training._kin(training._known_task(settings.mteb_name) or "")
                assert training._tasks_named(place.repo) & kin, place.repo


def test_cross_language_tasks_are_on_the_data_of_t2reranking() -> None:
    for task in ("T2RerankingZh2En", "T2RerankingEn2Zh"):
        assert training_of_model("BAAI/bge-m3", task) == training_of_model("BAAI/bge-m3", "T2Reranking")


def test_weights_of_the_package_are_the_original_models() -> None:
    assert mark("local/multilingual-e5-small-q4") == mark("intfloat/multilingual-e5-small")


# --- a folder's card


@pytest.mark.parametrize(
    ("content", "expected", "source"),
    [
        ({"base_model": "BAAI/bge-m3"}, "trained", "made from BAAI/bge-m3"),
        ({"base_model": ["x/y", "BAAI/bge-reranker-base"]}, "trained", "made from BAAI/bge-reranker-base"),
        ({"base_model": "https://huggingface.co/BAAI/bge-m3"}, "trained", "made from BAAI/bge-m3"),
        ({"base_model": "baai/bge-m3", "datasets": ["me/mine"]}, "trained", "made from baai/bge-m3"),
        ({"datasets": ["C-MTEB/T2Reranking"]}, "trained", "its card"),
        ({"datasets": "mteb/T2Reranking"}, "trained", "its card"),
        ({"datasets": ["me/mine", "thuir/t2ranking"]}, "trained", "its card"),
        ({"datasets": ["https://huggingface.co/datasets/C-MTEB/T2Reranking"]}, "trained", "its card"),
        ({"datasets": ["C-MTEB/CMedQAv1-reranking"]}, "not trained", "its card"),
        ({"datasets": ["me/mine"], "base_model": "intfloat/multilingual-e5-small"}, "not trained", "its card"),
        ({"datasets": ["me/mine"], "base_model": "hfl/some-network"}, "not stated", "made from hfl/some-network"),
        ({"datasets": ["me/mine"], "base_model": "/home/me/base"}, "not stated", "made from /home/me/base"),
        ({"base_model": "intfloat/multilingual-e5-small"}, "not stated", "lists no datasets"),
        (
            {"base_model": "intfloat/multilingual-e5-small", "base_model_relation": "quantized"},
            "not trained",
            "its card",
        ),
        ({"base_model": "nlpai-lab/KURE-v1"}, "not stated", "its base BAAI/bge-m3 was trained on it"),
        ({"base_model": "dragonkue/BGE-m3-ko"}, "trained", "made from dragonkue/BGE-m3-ko"),
        ({"base_model": "x/\x1b[31m"}, "not stated", "made from x/\ufffd[31m"),
        ({"license": "mit"}, "not stated", "lists no datasets"),
        ({"datasets": [], "base_model": None}, "not stated", "lists no datasets"),
    ],
)
def test_cards(content: dict[str, Any], expected: str, source: str, tmp_path: Path) -> None:
    card = card_of(tmp_path, f"---\n{yaml.safe_dump(content)}---\n# A model\n")
    found = mark("local/mine", card=card)
    assert found is not None
    assert found.verdict == expected
    assert source in found.source


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("# A model\n", "no YAML at its top"),
        ("", "no YAML at its top"),
        ("---\ndatasets: [C-MTEB/T2Reranking\n---\n", "is broken"),
        ("---\ndatasets: {C-MTEB/T2Reranking: 1}\n---\n", "datasets of its README.md is no list of names"),
        ("---\ndatasets: [C-MTEB/T2Reranking, 3]\n---\n", "datasets of its README.md is no list of names"),
        ("---\nbase_model: {name: BAAI/bge-m3}\n---\n", "base_model of its README.md is no list of names"),
        ("---\n- BAAI/bge-m3\n---\n", "is no mapping"),
        (f"---\nbase_model: {'x' * 5000}\n---\n", "base_model of its README.md is no list of names"),
        ("---\nbase_model: BAAI/bge-m3\n", "no YAML at its top"),
        (b"---\nbase_model: \xff\n---\n", "is not UTF-8"),
        (f"---\nbase_model: {'[' * 500}\n---\n", "is broken"),
        ("---\na: &a [1, 1]\nb: !!python/object:os.system [x]\n---\n", "is broken"),
    ],
)
def test_broken_cards_say_nothing_and_why(text: str | bytes, problem: str, tmp_path: Path) -> None:
    found = mark("local/mine", card=card_of(tmp_path, text))
    assert found is not None
    assert found.verdict == "not stated"
    assert problem in found.source


def test_a_missing_card_and_a_folder_in_its_place(tmp_path: Path) -> None:
    assert "has no README.md" in read_card(tmp_path).problem
    (tmp_path / "README.md").mkdir()
    assert "has no README.md" in read_card(tmp_path).problem
    (tmp_path / "README.md").rmdir()
    os.mkfifo(tmp_path / "README.md")  # to read it would wait for whoever writes
    assert "has no README.md" in read_card(tmp_path).problem


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r"])
def test_cards_of_any_line_break_and_with_a_byte_order_mark(line_break: str, tmp_path: Path) -> None:
    text = line_break.join(["\ufeff---", "base_model: BAAI/bge-m3", "---", "# A model"])
    assert card_of(tmp_path, text).base_models == ("BAAI/bge-m3",)


def test_a_cards_text_need_be_no_utf8_and_may_be_long(tmp_path: Path) -> None:
    card = card_of(tmp_path, b"---\nbase_model: BAAI/bge-m3\n---\n\xff" + b"\xe5\xa5\xbd" * 500_000)
    assert card == Card(base_models=("BAAI/bge-m3",))


def test_a_folder_is_known_by_its_card_and_not_by_its_name() -> None:
    assert verdict(mark("local/bge-m3", card=Card())) == "not stated"
    assert verdict(mark("local/multilingual-e5-small-q4", card=Card(problem="no card"))) == "not stated"
    assert verdict(mark("BAAI/bge-m3", card=Card(datasets=("me/mine",)))) == "not trained"


# --- the data


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "trained"),
        ({"limit": 5}, "trained"),
        ({"differences": ("queries 3 instead of 5,908",)}, None),
        ({"settings": read_settings("T2Reranking").model_dump(mode="json") | {"path": "mine.jsonl"}}, "trained"),
        (
            {"settings": read_settings("T2Reranking").model_dump(mode="json") | {"path": "mine.jsonl"}, "limit": 5},
            "not stated",
        ),
        (
            {
                "settings": read_settings("T2Reranking").model_dump(mode="json")
                | {"cmteb": {"repo": "me/mine", "revision": None}},
                "limit": 5,
            },
            "not stated",
        ),
        ({"settings": read_settings("local").model_dump(mode="json") | {"name": "T2Reranking", "path": "x"}}, None),
        ({"settings": {}}, None),
        ({"settings": {"registry": "mteb", "path": None, "mteb_name": ""}}, "trained"),
        ({"settings": {"registry": "mteb", "path": "mine.jsonl", "mteb_name": ""}}, None),
        (
            {
                "differences": ("the candidates of bm25",),
                "first_stage": FirstStage("bm25", "bm25.trec", "0" * 64, 100),
            },
            "trained",
        ),
    ],
)
def test_only_the_benchmarks_own_data_are_marked(changes: dict[str, Any], expected: str | None) -> None:
    assert verdict(mark("BAAI/bge-m3", task_of(**changes))) == expected


def test_a_task_that_mteb_does_not_have_is_not_marked() -> None:
    assert mark("BAAI/bge-m3", task_of("demo-zh")) is None


def test_own_data_are_marked_where_the_card_names_them() -> None:
    settings = {"cmteb": {"repo": "me/Mine", "revision": None}}
    own = task_of("local", name="support", mteb_name="support", settings=settings)
    assert mark("local/x", own, Card(datasets=("ME/mine",))) == TrainingMark("trained", ("ME/mine",), "its card")
    assert mark("local/x", own, Card(datasets=("Support",))) == TrainingMark("trained", ("Support",), "its card")
    assert mark("local/x", own, Card(datasets=("C-MTEB/T2Reranking",), base_models=("BAAI/bge-m3",))) is None


def test_models_that_nothing_was_trained_for() -> None:
    assert verdict(mark("local/bm25", kind="lexical")) == "not trained"
    assert verdict(mark("local/oracle", kind="baseline")) == "not trained"
    assert mark("local/oracle", task_of("demo-zh"), kind="baseline") is None


# --- in words


def test_averages_count_their_tasks() -> None:
    marks = {task: training_of_model("BAAI/bge-reranker-base", task) for task in FOUR}
    assert training_phrase(tuple(marks.values())) == "3 of 4 tasks marked as trained on"
    line = training_line(marks)
    assert (
        "trained on the data of T2Reranking, MMarcoReranking, CMedQAv2-reranking, not trained on the data of CMed"
        in line
    )
    assert line.endswith("; 3 of 4 tasks marked as trained on")
    unknown = training_of_model("x/y", "T2Reranking")
    assert training_phrase((unknown, marks["T2Reranking"], None)) == "1 of 3 tasks marked as trained on, 1 not stated"
    phrases = {training_phrase((one,)) for one in (marks["T2Reranking"], marks["CMedQAv1-reranking"], unknown, None)}
    assert len(phrases) == 4
    assert training_phrase((None, None)) == training_line({"own": None, "data": None}) == ""


# --- a result


def test_a_result_holds_what_was_known_and_reads_it_back(tmp_path: Path) -> None:
    result = evaluate(load_model("bm25"), task_of("CMedQAv1"), cache="off")
    assert result.training == TrainingMark("not trained", (), "nothing of it is trained")
    known = replace(
        result,
        model=replace(result.model, hub_id="BAAI/bge-m3"),  # of which today's answer is another one
        training=TrainingMark("not trained", ("T2Ranking",), "someone"),
    )
    read = read_result(write_result(known, tmp_path))
    assert read.training == known.training
    assert training.training_of(read) == known.training


def test_an_older_result_of_a_hub_model_is_looked_up(tmp_path: Path) -> None:
    result = evaluate(load_model("bm25"), task_of("T2Reranking"), cache="off")
    older = replace(result, training=None)
    assert "training" not in result_json(older)["evalkit"]
    of_hub = replace(older, model=replace(older.model, hub_id="BAAI/bge-m3", kind="bge-m3"))
    read = read_result(write_result(of_hub, tmp_path))
    assert read.training is None
    assert verdict(training.training_of(read)) == "trained"
    assert training.training_of(older) is None  # a name of its own says nothing
    assert training.training_of(replace(of_hub, config={})) is None


def test_the_file_is_plain_yaml() -> None:
    text = (Path(training.__file__).parent / "data/training.yaml").read_text(encoding="utf-8")
    assert parse_yaml(text).keys() == {"models", "weights_of", "tasks", "datasets"}


@pytest.mark.parametrize(
    "broken",
    [
        {"verdict": "perhaps", "datasets": [], "source": "me"},
        {"verdict": "trained", "datasets": "T2Reranking", "source": "me"},
        {"verdict": "trained", "datasets": []},
        "trained",
    ],
)
def test_a_broken_mark_in_a_file_is_named(broken: object, tmp_path: Path) -> None:
    path = write_scores(tmp_path, ranking_task(3), noisy_scores(ranking_task(3)))
    change_json(path, lambda content: content["evalkit"].update(training=broken))
    with pytest.raises(EvalkitError, match=r"evalkit\.training"):
        read_result(path)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_reranker: Path) -> Path:
    """A folder with own data, `data.jsonl`, and a model, `mine`, whose card names them and its base."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_reranker, tmp_path / "mine")
    card_of(tmp_path / "mine", "---\nbase_model: BAAI/bge-m3\ndatasets: [me/else, data]\n---\n")
    write_jsonl(tmp_path / "data.jsonl", [{"query": "好", "positive": ["好的"], "negative": ["不", "没有"]}] * 3)
    return tmp_path


def test_a_run_reads_the_folders_card_and_shows_what_it_says(here: Path) -> None:
    done = run_here("task.path=data.jsonl", "task=local", "model=./mine", "backend=torch", "cache=off", "offline=true")
    assert done.code == 0, done.stderr
    assert "mine: trained on the data of data (its card)\n" in done.stdout
    (path,) = (here / "results").rglob("data.json")
    assert json.loads(path.read_text(encoding="utf-8"))["evalkit"]["training"] == {
        "verdict": "trained",
        "datasets": ["data"],
        "source": "its card",
    }


@pytest.mark.parametrize(("task", "expected"), [("T2Reranking", None), ("T2RerankingEn2Zh", None)])
def test_other_data_under_a_benchmarks_name_are_not_marked_as_it(task: str, expected: str | None, here: Path) -> None:
    words = (f"task={task}", "task.path=data.jsonl", "model=./mine", "backend=torch", "cache=off", "offline=true")
    done = run_here(*words)
    assert done.code == 0, done.stderr
    (path,) = (here / "results").rglob(f"{task}_(other_data).json")
    stored = json.loads(path.read_text(encoding="utf-8"))["evalkit"].get("training")
    assert (stored and stored["verdict"]) == expected
    assert "mine: trained on" not in done.stdout


def test_a_broken_card_stops_no_run(here: Path) -> None:
    card_of(here / "mine", "---\nbase_model: [\n---\n")
    result = evaluate(load_model("./mine", backend="torch"), task_of(), cache="off")
    assert result.training is not None
    assert result.training.verdict == "not stated"
    assert "is broken" in result.training.source


def test_a_folder_under_a_named_model_is_known_by_its_card(here: Path) -> None:
    model = load_model("bge-reranker-base", path="mine", backend="torch")
    assert verdict(evaluate(model, task_of("CMedQAv1"), cache="off").training) == "trained"  # of its base, bge-m3
    card_of(here / "mine", "---\nlicense: mit\n---\n")
    assert verdict(evaluate(model, task_of("T2Reranking"), cache="off").training) == "not stated"


def test_objects_in_memory_and_scores_from_a_file_say_nothing(tmp_path: Path) -> None:
    def bge_m3(pairs: list[tuple[str, str]]) -> list[float]:
        return [float(len(document)) for _, document in pairs]

    wrapped = wrap(bge_m3, kind="cross-encoder", name="multilingual-e5-small-q4")
    assert verdict(evaluate(wrapped, task_of(), cache="off").training) == "not stated"
    file = tmp_path / "multilingual-e5-small-q4.json"
    file.write_text(json.dumps({"q0": {"d0-0": 1.0, "d0-1": 0.5}}), encoding="utf-8")
    task = task_of()
    (request,) = task.requests
    scores = {request.query.query_id: {one.doc_id: float(one.gain) for one in request.candidates}}
    file.write_text(json.dumps(scores), encoding="utf-8")
    assert verdict(evaluate(load_model("run", path=file), task, cache="off").training) == "not stated"


def test_a_list_of_models_says_it(here: Path) -> None:
    def marks(word: str) -> list[str]:
        done = run_here("list", "models", word, "--json")
        assert done.code == 0, done.stderr
        return [one["verdict"] for one in json.loads(done.stdout)["training"].values()]

    assert marks("bge-reranker-base") == ["trained", "trained", "not trained", "trained"]
    assert marks("./mine") == ["trained"] * 4
    assert marks("bm25") == ["not trained"] * 4
    assert marks("multilingual-e5-small-q4") == marks("multilingual-e5-small")
    assert "3 of 4 tasks marked as trained on\n" in run_here("list", "models", "bge-reranker-base").stdout


# --- a report

MARKS = {"one": ("trained", "trained"), "two": ("trained", "not trained"), "three": ("not stated", "not stated")}


@pytest.fixture
def reported(tmp_path: Path) -> Path:
    """Results of three systems with other marks, and of one without, on two tasks."""
    for place, name in enumerate(("first", "second")):
        task = ranking_task(20, name)
        for seed, model in enumerate((*MARKS, "four")):
            path = write_scores(tmp_path / "results", task, noisy_scores(task, seed), model)
            if model in MARKS:
                said = {"verdict": MARKS[model][place], "datasets": [], "source": "someone"}
                change_json(path, lambda content, said=said: content["evalkit"].update(training=said))
            else:
                change_json(path, lambda content: content["evalkit"].pop("training", None))
    return tmp_path / "results"


def shown(folder: Path, form: str, *words: str) -> str:
    done = run_here("report", str(folder), "--format", form, *words)
    assert done.code == 0, done.stderr
    return done.stdout


def test_every_board_says_it(reported: Path) -> None:
    markdown = shown(reported, "markdown").split("### ")
    (average,) = [part for part in markdown if part.startswith("average of 2")]
    (first,) = [part for part in markdown if part.startswith("first")]
    (second,) = [part for part in markdown if part.startswith("second")]
    assert "* 2 of 2 tasks marked as trained on: one\n" in average
    assert "* 1 of 2 tasks marked as trained on: two\n" in average
    assert "* 0 of 2 tasks marked as trained on, 2 not stated: three\n" in average
    assert sorted(line for line in first.splitlines() if "train" in line) in (
        ["* trained on this task: one, two", "* training not stated: three"],
        ["* trained on this task: two, one", "* training not stated: three"],
    )
    assert "* not trained on this task: two\n" in second
    assert "four" not in "".join(line for line in markdown if "train" in line and "|" not in line)
    assert "1 of 2 tasks marked as trained on: two" in shown(reported, "latex")


def test_tables_for_machines_say_it(reported: Path) -> None:
    rows = list(csv.DictReader(shown(reported, "csv").splitlines()))
    found = {(row["tasks"], row["system"]): row["training"] for row in rows}
    assert found["first+second", "two"] == "1 of 2 tasks marked as trained on"
    assert found["second", "two"] == "not trained on this task"
    assert found["second", "four"] == found["first+second", "four"] == ""
    boards = json.loads(shown(reported, "json"))["boards"]
    marks = {
        (*board["tasks"], one["system"]["name"]): [mark and mark["verdict"] for mark in one["training"]]
        for board in boards
        for one in board["standings"]
    }
    assert marks["first", "second", "two"] == ["trained", "not trained"]
    assert marks["first", "four"] == [None]
    frame = evalkit.leaderboard(reported)
    assert frame["training"].fillna("").tolist() == [row["training"] for row in rows]


def test_the_page_says_it(reported: Path) -> None:
    page = shown(reported, "html")
    assert "<small>1 of 2 tasks marked as trained on</small>" in page
    assert "<small>training not stated</small>" in page


def test_exports_say_it_where_they_have_room(reported: Path) -> None:
    from huggingface_hub import parse_eval_result_entries

    (one,) = (path for path in reported.glob("*one"))
    notes = [entry.notes for entry in parse_eval_result_entries(yaml.safe_load(shown(one, "eval-results")))]
    assert len(notes) == 2
    assert all("trained on this task" in str(note) for note in notes)
    (model,) = yaml.safe_load(shown(one, "model-index"))["model-index"]
    assert [result["dataset"]["args"]["training"] for result in model["results"]] == ["trained on this task"] * 2
