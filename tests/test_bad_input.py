"""What is wrong is told in one line, with exit code 2, and leaves no results behind."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from command import files_below, run_here, run_program
from safetensors.torch import load_file, save_file
from task_files import Rows, mteb_parts, write_csv, write_jsonl, write_parts

ROWS: Rows = [{"query": "问题", "positive": ["答案"], "negative": ["别的", "另外"]}]
CONSTANT = "model=constant"
DEMO = "task=demo-zh2en"
MINE = ("task=local", "task.path={here}/data")


@dataclass(frozen=True)
class Wrong:
    """Arguments, what the one line must hold, and what has to lie in the current folder for them."""

    arguments: tuple[str, ...]
    told: tuple[str, ...]
    prepare: Callable[[Path], object] | None = None

    def __str__(self) -> str:
        return " ".join(self.arguments)[:60] or "no argument"


def wrong(*arguments: str, told: tuple[str, ...], prepare: Callable[[Path], object] | None = None) -> Wrong:
    return Wrong(arguments, told, prepare)


def rows(*found: dict[str, object]) -> Callable[[Path], object]:
    return lambda folder: write_jsonl(folder / "data" / "test.jsonl", [*found])


def parts(change: Callable[[dict[str, Rows]], object]) -> Callable[[Path], object]:
    def write(folder: Path) -> object:
        made = mteb_parts(ROWS, split="test")
        change(made)
        return write_parts(folder / "data", made, "qrels/test.jsonl")

    return write


def text(name: str, content: str) -> Callable[[Path], object]:
    def write(folder: Path) -> object:
        (folder / name).parent.mkdir(exist_ok=True)
        return (folder / name).write_text(content, encoding="utf-8")

    return write


def run_of_rows(score: str) -> Callable[[Path], object]:
    """The rows, and a run for them that scores one candidate as told."""

    def write(folder: Path) -> object:
        rows(*ROWS)(folder)
        lines = [
            "test_query0 Q0 apositive_test_query0_00000 1 0.5 me",
            "test_query0 Q0 negative_test_query0_00000 2 0.4 me",
        ]
        lines += [f"test_query0 Q0 negative_test_query0_00001 3 {score} me"] if score else []
        return (folder / "made.run").write_text("\n".join(lines) + "\n")

    return write


def dropped(qrels: dict[str, Rows]) -> None:
    qrels["qrels"] = [row | {"score": 0} for row in qrels["qrels"]]


COMMANDS = [
    wrong("task=T2Rerankin", CONSTANT, told=("no task 'T2Rerankin'", "did you mean", "T2Reranking")),
    wrong("task=CMedQA", CONSTANT, told=("no task 'CMedQA'", "CMedQAv1")),
    wrong("model=bge-reranker-bass", told=("no model 'bge-reranker-bass'", "did you mean bge-reranker-base")),
    wrong("model=zzz", told=("no model 'zzz'", "known: ", "bm25")),
    wrong("backend=torhc", told=("no backend 'torhc'", "did you mean torch")),
    wrong("protocol=mteb-v3", told=("no protocol 'mteb-v3'", "mteb-v2")),
    wrong("runner=locla", told=("no runner 'locla'", "local")),
    wrong("experiment=zzz", told=("no experiment 'zzz'",)),
    wrong("task=null", told=("task", "need a name", "evalkit list")),
    wrong("limt=5", told=("no setting 'limt'", "did you mean limit")),
    wrong("model.poolin=mean", told=("no setting 'model.poolin'", "did you mean model.pooling")),
    wrong("+limt=5", told=("no setting 'limt'", "--help")),
    wrong("+model.poolin=mean", told=("no setting 'model.poolin'", "--help")),
    wrong("~model", told=("model is missing",)),
    wrong("lst", told=("no command 'lst'", "did you mean list")),
    wrong("run", "demo", told=("no command 'demo'",)),
    wrong("--frobnicate", told=("--frobnicate", "evalkit run --help")),
    wrong("--cfg", "nonsense", told=("nonsense", "job")),
    wrong("--cfg", "job", "--multirun", told=("--multirun", "--cfg")),
    wrong("--config-dir", "nowhere", told=("nowhere", "not found")),
    wrong("list", "modles", told=("no list 'modles'", "did you mean models")),
    wrong("list", "--frobnicate", told=("--frobnicate", "evalkit list --help")),
    wrong("list", "models", "tasks", told=("there is no model 'tasks'",)),
    wrong("task=[demo", told=("[demo",)),
    wrong("limit={", told=("{",)),
    wrong("=5", told=("need a name",)),
    wrong("task=../task/demo", told=("no task '../task/demo'",)),
    wrong("limit=" + "[" * 2000, told=("nested too deep",)),
    wrong("task=demo,local", told=("task=demo,local", "evalkit -m")),
]
SETTINGS = [
    wrong("limit=abc", told=("limit='abc'", "valid integer")),
    wrong("limit=0", told=("limit=0", "greater than or equal to 1")),
    wrong("limit=2.5", told=("limit=2.5", "valid integer")),
    wrong("limit=true", told=("limit=True", "valid integer")),
    wrong("limit=${nothing}", told=("nothing", "limit")),
    wrong("seed=x", told=("seed='x'", "valid integer")),
    wrong("seed=-1", told=("seed=-1", "greater than or equal to 0")),
    wrong("offline=maybe", told=("offline='maybe'", "boolean")),
    wrong("texts=1", told=("texts=1", "boolean")),
    wrong("dtype=fp8", told=("dtype=fp8", "fp32")),
    wrong("runner.threads=0", told=("runner.threads=0", "greater than or equal to 1")),
    wrong("runner.threads=many", told=("runner.threads='many'", "valid integer")),
    wrong("model.pooling=middle", told=("model.pooling='middle'", "cls, mean, max")),
    wrong("model.max_length=long", told=("model.max_length='long'", "valid integer")),
    wrong("model.query_prompt=null", told=("model.query_prompt", "valid string")),
    wrong("task.path=data", "model=random", told=("task.path", "suite", "task=local")),
    wrong("model=bm25", "model.path=x", told=("model.path", "bm25", "nothing to set")),
    wrong("model.query_prompt=x", told=("model.query_prompt", "multilingual-e5-small-q4", "model=./FOLDER")),
    wrong("model=bge-reranker-base", "model.pooling=cls", told=("model.pooling", "cross-encoder", "truncation")),
    wrong("model=bm25", "device=cuda", told=("device=cuda", "bm25")),
    wrong("model=random", "runner.threads=2", told=("runner.threads=2", "random")),
    wrong("model=bge-reranker-base", "model.recipe=secret", told=("recipe", "'secret'", "flagembedding")),
    wrong("model=bm25", "backend=torch", told=("backend=torch can't run bm25", "lexical")),
    wrong("task=T2Reranking", "task.source=hub", told=("task.source='hub'", "'cmteb' or 'mteb'")),
    wrong("task=T2RerankingZh2En", "task.source=mteb", told=("T2RerankingZh2En", "task.source=cmteb")),
    wrong("results_dir=null", told=("results_dir", "valid string")),
    wrong(
        "model=multilingual-e5-small-q4", "dtype=bf16", DEMO, told=("dtype=bf16", "multilingual-e5-small-q4", "fp32")
    ),
]
DATA = [
    wrong("task=local", told=("task=local", "task.path=PATH")),
    wrong("task=local", "task.path=", told=("task.path", "at least 1 character")),
    wrong("task=local", "task.path=不在 这里", told=("不在 这里", "no such file", "task.path")),
    wrong(*MINE, told=("data", "empty"), prepare=lambda folder: (folder / "data").mkdir()),
    wrong(*MINE, told=("data", "no data files", "notes.txt"), prepare=text("data/notes.txt", "not a dataset")),
    wrong(
        "task=local", "task.path=notes.txt", told=("notes.txt", "file type"), prepare=text("notes.txt", "not a dataset")
    ),
    wrong(*MINE, told=("test.jsonl", "row 1"), prepare=text("data/test.jsonl", '{"query": "a", "positive"')),
    wrong(*MINE, told=("test.parquet",), prepare=text("data/test.parquet", "PAR1 but no parquet")),
    wrong(*MINE, told=("no column negative", "query, positive"), prepare=rows({"query": "a", "positive": ["b"]})),
    wrong(
        *MINE,
        told=("test.jsonl, row 2, column positive", "a list of texts is due"),
        prepare=rows(*ROWS, {"query": "a", "positive": "not a list", "negative": ["c"]}),
    ),
    wrong(
        *MINE,
        told=("row 1, column query", "the number 5", "a text is due"),
        prepare=rows({"query": 5, "positive": ["b"], "negative": ["c"]}),
    ),
    wrong(*MINE, told=("there are no rows",), prepare=lambda folder: write_csv_header(folder / "data" / "test.csv")),
    wrong(
        *MINE,
        told=("data", "none of its 2 queries", "nothing can be scored"),
        prepare=rows(
            {"query": "a", "positive": ["b"], "negative": []}, {"query": "a", "positive": [], "negative": ["c"]}
        ),
    ),
    wrong(*MINE, told=("none of its 1 queries", "nothing can be scored"), prepare=parts(dropped)),
    wrong(
        *MINE,
        told=("qrels", "column corpus-id", "'gone' names no corpus"),
        prepare=parts(lambda made: made["qrels"].append({"query-id": "test_query0", "corpus-id": "gone", "score": 1})),
    ),
    wrong(
        *MINE,
        told=("data", "no corpus"),
        prepare=lambda folder: (parts(len)(folder), (folder / "data/corpus.jsonl").unlink()),
    ),
    wrong(
        *MINE,
        "task.split=dev",
        told=("no split 'dev'", "test, train", "task.split"),
        prepare=lambda folder: [write_jsonl(folder / "data" / f"{split}.jsonl", ROWS) for split in ("test", "train")],
    ),
    wrong("model=run", *MINE, told=("model.path=FILE",), prepare=rows(*ROWS)),
    wrong(
        "model=run",
        "model.path={here}/made.run",
        *MINE,
        told=("made.run", "'negative_test_query0_00001'", "no score"),
        prepare=run_of_rows(""),
    ),
    wrong(
        "model=run",
        "model.path={here}/made.run",
        *MINE,
        told=("made.run", "'negative_test_query0_00001'", "not a finite number"),
        prepare=run_of_rows("NaN"),
    ),
    wrong(
        "results_dir=a file", DEMO, told=("results_dir=a file", "another folder"), prepare=text("a file", "in the way")
    ),
]


def write_csv_header(path: Path) -> None:
    write_csv(path.parent.mkdir() or path, ROWS)
    path.write_text(path.read_text(encoding="utf-8").splitlines()[0] + "\n", encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder, in which no result may lie afterwards."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not [name for name in files_below(tmp_path) if name.startswith(("results", "multirun"))]


def assert_told(code: int, stdout: str, stderr: str, told: tuple[str, ...]) -> None:
    lines = stderr.splitlines()
    messages = [line for line in lines if line.startswith("evalkit: ")]
    assert code == 2, stderr
    assert messages == lines[-1:], stderr
    assert not stdout
    assert "Traceback" not in stderr
    assert "this is a bug" not in stderr
    missing = [part for part in told if part not in messages[0]]
    assert not missing, messages[0]


@pytest.mark.parametrize("case", [*COMMANDS, *SETTINGS, *DATA], ids=str)
def test_wrong_input(case: Wrong, folder: Path) -> None:
    if case.prepare:
        case.prepare(folder)
    named = any(argument.startswith("model") for argument in case.arguments) or case.arguments[0] in (
        "list",
        "run",
        "lst",
    )
    arguments = [argument.replace("{here}", str(folder)) for argument in case.arguments]
    done = run_here(*arguments, *(() if named else (CONSTANT,)))
    assert_told(done.code, done.stdout, done.stderr, case.told)


def linked(source: Path, folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).symlink_to(source / name)
    return folder


def without_head(source: Path, folder: Path) -> Path:
    linked(source, folder, "config.json", "tokenizer.json", "tokenizer_config.json")
    weights = load_file(source / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("classifier.")}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def with_pickle(source: Path, folder: Path) -> Path:
    linked(source, folder, "config.json")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    return folder


def as_embedder(source: Path, folder: Path) -> Path:
    linked(source, folder, "tokenizer.json", "tokenizer_config.json", "model.safetensors")
    config = json.loads((source / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["XLMRobertaModel"]}))
    return folder


WRONG_MODELS: dict[str, tuple[Callable[[Path, Path], object], tuple[str, ...]]] = {
    "not there": (lambda source, folder: None, ("model.path=", "no such folder")),
    "empty": (lambda source, folder: folder.mkdir(), ("no weights", "Hugging Face model")),
    "no weights": (lambda source, folder: linked(source, folder, "config.json", "tokenizer.json"), ("no weights",)),
    "pickle": (with_pickle, ("pytorch_model.bin", "model.allow_pickle=true")),
    "no config": (
        lambda source, folder: linked(source, folder, "model.safetensors", "tokenizer.json"),
        ("no config.json",),
    ),
    "no head": (without_head, ("scoring head", "missing")),
    "an embedder": (as_embedder, ("XLMRobertaModel", "no scoring head", "model=local-embedder")),
}


@pytest.mark.parametrize("name", WRONG_MODELS)
def test_wrong_model(name: str, folder: Path, tiny_reranker: Path) -> None:
    make, told = WRONG_MODELS[name]
    make(tiny_reranker, folder / "模型 dir")
    done = run_here(DEMO, "model=local-cross-encoder", "model.path=模型 dir")
    assert_told(done.code, done.stdout, done.stderr, told)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), ("model=local-cross-encoder", "model.path=FOLDER")),
        (("model.path={tiny}", "model.max_length=100000"), ("max_length", "100000", "512")),
        (("model.path={tiny}", "device=gpu"), ("device=gpu", "cpu, cuda")),
        (("model.path={tiny}", "device=cuda:99"), ("device=cuda:99", "this machine has cpu")),
        (
            ("model.path={tiny}", "model=local-embedder"),
            ("XLMRobertaForSequenceClassification", "model=local-cross-encoder"),
        ),
    ],
)
def test_wrong_model_settings(
    arguments: tuple[str, ...], told: tuple[str, ...], folder: Path, tiny_reranker: Path
) -> None:
    chosen = [] if any(argument.startswith("model=") for argument in arguments) else ["model=local-cross-encoder"]
    done = run_here(DEMO, *chosen, *(argument.format(tiny=tiny_reranker) for argument in arguments))
    assert_told(done.code, done.stdout, done.stderr, told)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ("task=T2Reranking", CONSTANT, "offline=true"),
            ("C-MTEB/T2Reranking@76631901", "Hub cache", "task.path=PATH"),
        ),
        (
            (DEMO, "model=bge-reranker-base", "offline=true"),
            ("BAAI/bge-reranker-base", "Hub cache", "model=./FOLDER"),
        ),
        (("task=locl", "model.path=no where"), ("no task 'locl'", "local")),
    ],
)
def test_wrong_input_of_the_program(arguments: tuple[str, ...], told: tuple[str, ...], folder: Path) -> None:
    """With an empty Hub cache, and a Hub that nobody answers for."""
    done = run_program(folder, *arguments, HF_HOME=str(folder / "hub"), HF_ENDPOINT="http://127.0.0.1:9")
    assert_told(done.code, done.stdout, done.stderr, told)


def test_a_sweep_goes_on_and_tells_of_its_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = run_here("-m", "model=run,bm25,constant", DEMO, "limit=2")
    assert done.code == 2
    assert [row[0] for row in done.rows] == ["bm25", "constant"]
    assert done.stderr.splitlines()[-1].startswith("evalkit: model=run needs model.path=FILE")


def test_a_suite_keeps_what_was_done_before_the_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run holds the first task's scores alone."""
    monkeypatch.chdir(tmp_path)
    assert run_here("model=bm25", DEMO, "results_dir=first").code == 0
    (table,) = Path("first").rglob("*.run.parquet")
    done = run_here("model=run", f"model.path={table}", "task.suite=[demo-zh2en,demo-en2zh]", "task.name=two")
    assert done.code == 2
    assert [row[1] for row in done.rows] == ["demo-zh2en"]
    assert "demo-en2zh" in done.stderr.splitlines()[-1]
    results = [name for name in files_below(tmp_path / "results") if not name.endswith("model_meta.json")]
    assert {Path(name).name.partition(".")[0] for name in results} == {"EvalkitDemoZh2En"}
