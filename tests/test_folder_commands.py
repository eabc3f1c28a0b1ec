"""A folder as the commands take it: one or several, by a name of its own, listed with its recipe, damaged in any way."""

from __future__ import annotations

import json
import logging
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import Outcome, run_here
from folder_shapes.layouts import LAYER_NORM, NORMALIZE, dense, write_classifier, write_embedder
from model_folders import edit_json
from task_files import ROWS, write_jsonl

import evalkit
from evalkit.models import findings
from evalkit.results.reading import read_result

PROMPTS = {"query": "query: ", "document": "passage: "}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an embedder of many files and a classifier. They are only read."""
    place = tmp_path_factory.mktemp("models")
    write_embedder(
        place / "embedder", after=[dense(), LAYER_NORM, NORMALIZE],
        settings={"prompts": PROMPTS, "default_prompt_name": "query", "similarity_fn_name": "dot", "truncate_dim": 16},
    )  # fmt: skip
    write_classifier(place / "classifier", "bert")
    return place


@pytest.fixture
def here(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with both models and data."""
    for folder in models.iterdir():
        shutil.copytree(folder, tmp_path / folder.name)
    write_jsonl(tmp_path / "data.jsonl", ROWS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> Outcome:
    return run_here("task=local", "task.path=data.jsonl", "offline=true", "cache_dir=kept", *words)


def refusal(done: Outcome) -> str:
    """The one line that a command ends with."""
    assert done.code == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "bug in evalkit" not in done.stderr
    (line,) = done.stderr.strip().splitlines()
    return line


def places(root: Path) -> list[str]:
    """The folders of results, without the revision."""
    return sorted(
        "/".join([path.relative_to(root).parts[0], *path.relative_to(root).parts[2:]])
        for path in root.rglob("data.json")
    )


# which models a run is of


def test_a_sweep_over_two_folders(here: Path) -> None:
    done = run("-m", "model=./embedder,./classifier", "backend=torch")
    assert done.code == 0, done.stderr
    assert places(here / "results") == [
        f"local__{name}/experiments/backend-torch/data.json" for name in ("classifier", "embedder")
    ]


@pytest.mark.parametrize("word", ["./embedder,bm25", "bm25,./embedder", "./embedder,some/model"])
def test_a_sweep_over_folders_and_names_is_refused(word: str, here: Path) -> None:
    says = refusal(run("-m", f"model={word}"))
    assert f"model={word}: a sweep goes over folders, over Hub ids or over names; run the others by themselves" in says


def test_a_bare_word_that_only_a_folder_has(here: Path) -> None:
    assert "there is no model 'embedder', but a folder of that name: model=./embedder" in refusal(run("model=embedder"))


def test_a_folder_that_is_not_there(here: Path) -> None:
    assert "model.path=./nowhere: there is no such folder" in refusal(run("model=./nowhere"))


@pytest.mark.parametrize("name", ["模型 (1)", "a,b", "x=y#z"])
def test_folders_of_any_name(name: str, here: Path) -> None:
    (here / "embedder").rename(here / name)
    done = run(f"model=./{name}", "backend=torch")
    assert done.code == 0, done.stderr
    assert len(places(here / "results")) == 1


def test_a_name_of_its_own(here: Path) -> None:
    """As docs/how-to/gate-a-training-run.md has it: system, place, table and export go by it; it is no experiment."""
    done = run("model=./embedder", "model.name=released", "results_dir=baseline")
    assert done.code == 0, done.stderr
    assert done.rows[0][0] == "released"
    assert places(here / "baseline") == ["local__released/data.json"]
    (path,) = (here / "baseline").rglob("data.json")
    result = read_result(path)
    assert (result.experiment, dict(result.deviations)) == ("", {})
    assert result.model.name == "released"
    exported = run_here("report", "baseline", "--format", "csv")
    assert "released" in exported.stdout
    assert "embedder" not in exported.stdout
    edit_json(here / "embedder" / "sentence_bert_config.json", lambda said: said.update(max_seq_length=20))
    assert run("model=auto", "model.path=embedder", "model.name=released", "results_dir=candidate").code == 0
    assert places(here / "candidate") == ["local__released/data.json"]
    compared = run_here("check", "--baseline", "baseline", "--results", "candidate", "--tolerance", "0.1")
    assert compared.code in (0, 1), compared.stderr
    assert "released" in compared.stdout


# a recipe, told and kept


def test_a_run_says_its_recipe_and_keeps_it(here: Path) -> None:
    done = run("model=./embedder", "backend=torch", "model.max_length=64")
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("embedder: embedder")]
    assert line == (
        "embedder: embedder (modules.json), pooling mean (1_Pooling/config.json), query_prompt 'query: ' "
        "(config_sentence_transformers.json), document_prompt 'passage: ' (config_sentence_transformers.json), max_length 64 "
        "(you), similarity dot (config_sentence_transformers.json), dimensions 16 (config_sentence_transformers.json), "
        "modules Pooling + Dense:2_Dense + LayerNorm:3_LayerNorm + Normalize (modules.json), fp32"
    )
    (path,) = (here / "results").rglob("data.json")
    kept = read_result(path)
    model = evalkit.load_model("./embedder", backend="torch", max_length=64, cache_dir="kept")
    made = evalkit.evaluate(model, evalkit.load_task(path="data.jsonl"))
    assert kept.recipe == made.recipe
    assert kept.findings == made.findings != ()
    assert (kept.recipe["max_length"].value, kept.recipe["max_length"].origin) == (64, "you")


def listed(folder: Path, *words: str) -> Any:
    done = run_here("list", "models", str(folder), "--json", *words)
    assert done.code == 0, done.stderr
    return json.loads(done.stdout)


def test_the_recipe_of_a_folder_is_listed(models: Path) -> None:
    recipe = listed(models / "embedder")["recipe"]
    assert {name: (one["value"], one["origin"]) for name, one in recipe.items()} == {
        "kind": ("embedder", "modules.json"),
        "pooling": ("mean", "1_Pooling/config.json"),
        "pool_prompt": (True, "1_Pooling/config.json"),
        "query_prompt": ("query: ", "config_sentence_transformers.json"),
        "document_prompt": ("passage: ", "config_sentence_transformers.json"),
        "max_length": (128, "sentence_bert_config.json"),
        "lower_case": (False, "default"),
        "similarity": ("dot", "config_sentence_transformers.json"),
        "dimensions": (16, "config_sentence_transformers.json"),
        "modules": (["Pooling", "Dense:2_Dense", "LayerNorm:3_LayerNorm", "Normalize"], "modules.json"),
    }
    table = run_here("list", "models", str(models / "embedder"))
    assert [row[0] for row in table.rows][: len(recipe)] == [*recipe]
    assert "default_prompt_name='query' reaches neither queries nor documents" in table.stdout


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_listing_a_folder_loads_no_networks(words: tuple[str, ...], models: Path) -> None:
    code = (
        "import sys\nfrom evalkit.commands.main import run_command_line\n"
        f"code = run_command_line({('list', 'models', str(models / 'embedder'), *words)!r})\n"
        "heavy = {'torch', 'transformers', 'mteb', 'sentence_transformers', 'hydra', 'datasets'} & set(sys.modules)\n"
        "sys.exit(code or ' '.join(sorted(heavy)) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "passage: " in done.stdout


def test_a_named_models_file_leads_and_a_difference_is_said_once(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    findings._warn.cache_clear()
    with caplog.at_level(logging.WARNING, "evalkit"):
        models = [evalkit.load_model("multilingual-e5-small", path="embedder", backend="torch") for _ in range(3)]
    assert models[0].settings.max_length == 512
    said = [message for message in caplog.messages if "own file leads" in message]
    assert said == [
        f"multilingual-e5-small: evalkit's own file leads where the model's folder says otherwise: {difference}"
        for difference in (
            "max_length: 512 here, 128 in sentence_bert_config.json",
            "similarity: 'cosine' here, 'dot' in config_sentence_transformers.json",
            "dimensions: None here, 16 in config_sentence_transformers.json",
            "modules: () here, ('Pooling', 'Dense:2_Dense', 'LayerNorm:3_LayerNorm', 'Normalize') in modules.json",
        )
    ]


# folders that are damaged

TEXT = {
    "modules.json": [
        ("{", "modules.json is not JSON: "),
        ("{}", "modules.json must hold a list of modules"),
        ("[]", "modules.json must hold a list of modules"),
        ("[3]", "modules.json: entry 0=3: "),
        ('[{"type": 3}]', "modules.json: entry 0.type=3: "),
        ('[{"type": "sentence_transformers.models.Transformer", "path": "../x"}]', "path='../x' leads out of the model's folder"),
        ('[{"type": "sentence_transformers.models.Transformer", "path": "/etc"}]', "path='/etc' leads out of the model's folder"),
        ('[{"type": "sentence_transformers.models.Transformer", "path": "0_X"}]', "names 0_X, and there is no such folder"),
        ('[{"type": "sentence_transformers.models.Hologram"}]', "names sentence_transformers.models.Hologram, which evalkit can't"),
        ('[{"type": "mine.Transformer"}]', "names mine.Transformer, a module of Python code of its own"),
        ("[" * 100_000, "modules.json is not JSON: "),
    ],
    "1_Pooling/config.json": [
        ('{"pooling_mode": []}', "pooling_mode=[] must name one mode, or several different ones"),
        ('{"pooling_mode": ["mean", "mean"]}', "pooling_mode=['mean', 'mean'] must name one mode, or several different ones"),
        ('{"pooling_mode": "middle"}', "pooling_mode='middle' is none of cls, mean"),
        ('{"include_prompt": "perhaps"}', "include_prompt='perhaps': "),
    ],
    "config.json": [
        ('{"architectures": true}', "config.json: architectures=True must be a list of names"),
        ('{"architectures": "BertModel"}', "config.json: architectures='BertModel' must be a list of names"),
        ("null []", "config.json is not JSON: "),
        ("[]", "config.json holds a list, not an object"),
    ],
    "sentence_bert_config.json": [('{"max_seq_length": -1}', "sentence_bert_config.json: max_seq_length=-1: ")],
    "config_sentence_transformers.json": [
        ('{"prompts": ["query"]}', "config_sentence_transformers.json: prompts=['query']: "),
        ('{"similarity_fn_name": "hamming"}', "similarity_fn_name='hamming' is none of cosine, dot, euclidean, manhattan"),
        ('{"truncate_dim": 0}', "config_sentence_transformers.json: truncate_dim=0: "),
    ],
}  # fmt: skip


@pytest.mark.parametrize(("name", "text", "says"), [(name, *case) for name, cases in TEXT.items() for case in cases])
def test_a_damaged_file_is_named(name: str, text: str, says: str, here: Path) -> None:
    (here / "embedder" / name).write_text(text, encoding="utf-8")
    assert says in refusal(run_here("list", "models", "./embedder"))


GARBLED = (None, b"", b"{", b"[]", b"{}", b"null", b'"x"', b"\xff\xfe", b"[[]]", b'{"a": NaN}')
VALUES = (
    *(None, 3, -1, 1e999, "", "x", "\x00", [], {}, [None], {"x": None}, True, "../..", "/etc", 10**30, "\ud800"),
    *(["a"], {"0": 3}, 0.5, "3"),
)


def damaged(content: Any, draw: random.Random) -> Any:
    """The content with a key less, or another value somewhere."""
    if not content or not isinstance(content, dict | list) or draw.random() < 0.1:
        return draw.choice(VALUES)
    copy: Any = content.copy()
    key = draw.choice(list(content) if isinstance(content, dict) else range(len(content)))
    if draw.random() < 0.2:
        del copy[key]
    else:
        copy[key] = damaged(copy[key], draw)
    return copy


def damages(folder: Path, draw: random.Random) -> Iterator[tuple[str, bytes | None]]:
    """Each of the folder's files of settings with each damage, one at a time; afterwards it is as it was."""
    for path in sorted(folder.rglob("*.json")):
        if path.name in ("tokenizer.json", "vocab.json"):
            continue
        whole = path.read_bytes()
        for content in (*GARBLED, *(json.dumps(damaged(json.loads(whole), draw)).encode() for _ in range(12))):
            path.unlink()
            if content is not None:
                path.write_bytes(content)
            yield str(path.relative_to(folder)), content
            path.unlink(missing_ok=True)
            path.write_bytes(whole)


@pytest.mark.parametrize("model", ["embedder", "classifier"])
def test_no_folder_ends_in_a_traceback(model: str, here: Path) -> None:
    for name, content in damages(here / model, random.Random(0)):
        done = run_here("list", "models", f"./{model}")
        if done.code != 0:
            assert refusal(done), (name, content)


def test_a_garbled_folder_is_refused_before_a_run(here: Path) -> None:
    """What `list` does not read, a run does: the tokenizer's files."""
    for name, text in (
        ("tokenizer.json", "{"),
        ("tokenizer.json", "{}"),
        ("tokenizer_config.json", "[]"),
        ("config.json", "{}"),
    ):
        shutil.rmtree(here / "kept", ignore_errors=True)
        whole = (here / "classifier" / name).read_text("utf-8")
        (here / "classifier" / name).write_text(text)
        done = run("model=local-cross-encoder", "model.path=classifier", "backend=torch")
        (here / "classifier" / name).write_text(whole)
        assert done.code == 2, (name, text, done.stderr)
        assert "bug in evalkit" not in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
