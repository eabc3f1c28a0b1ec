"""A run's settings: who said each, a folder of the user's own in every group, and what a result records of them."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import run_here

import evalkit
from evalkit.commands import run_settings as run_settings_module
from evalkit.commands import settings_arguments
from evalkit.commands.run_settings import run_settings, schema
from evalkit.commands.settings_arguments import grouped_settings as settings_arguments_groups
from evalkit.configuration.files import config_folders, read_option
from evalkit.configuration.hydra import Composed, Words, compose_each
from evalkit.errors import EvalkitError
from evalkit.evaluation.runs import RunSettings, model_of, tasks_of

OWN = {
    "task/mine.yaml": "defaults: [demo-zh2en, _self_]\nname: mine\n",
    "task/both.yaml": "defaults: [base, _self_]\nname: both\nsuite: [mine, demo-en2zh]\n",
    "model/my-words.yaml": "defaults: [bm25, _self_]\nname: my-words\n",
    "model/my-reranker.yaml": "defaults: [bge-reranker-base, _self_]\nname: my-reranker\nmax_length: 128\n",
    "backend/gpu-box.yaml": "defaults: [vllm, _self_]\nurl: http://127.0.0.1:9\nserved_model: mine\n",
    "protocol/ours.yaml": "name: mteb-v2\ndescription: the newer one\n",
    "experiment/quick.yaml": "# @package _global_\ndefaults:\n  - override /model: my-words\nlimit: 3\ntask: {split: test}\n",
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def own(here: Path) -> Path:
    for name, text in OWN.items():
        path = here / "own" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return here / "own"


def composed(*overrides: str, folder: Path | None = None, multirun: bool = False) -> list[Composed]:
    found: list[Composed] = []
    compose_each(Words(overrides, config_folders(folder), multirun), schema(), found.append)
    return found


def settled(*overrides: str, folder: Path | None = None) -> RunSettings:
    (one,) = composed(*overrides, folder=folder)
    return run_settings(one)


def test_each_setting_knows_who_said_it(own: Path) -> None:
    settings = settled("experiment=quick", "task=mine", "model.path=null", "seed=42", folder=own)
    said = settings.origins
    assert {
        name: said[name] for name in ("seed", "model.path", "limit", "task.split", "model.kind", "task.bundled")
    } == {
        "seed": "user",  # though it is the default
        "model.path": "user",
        "limit": "file",  # the experiment's
        "task.split": "file",
        "model.kind": "file",  # bm25's, which my-words is merged over
        "task.bundled": "file",
    }
    assert {name: said[name] for name in ("dtype", "model.pooling", "task.source", "runner.threads")} == {
        "dtype": "default",
        "model.pooling": "default",
        "task.source": "default",
        "runner.threads": "file",
    }
    groups = {group: said[group] for group in ("task", "model", "backend", "experiment")}
    assert groups == {"task": "user", "model": "file", "backend": "default", "experiment": "user"}
    assert settings.limit == 3
    assert set(said.values()) == {"user", "file", "default"}


def test_a_user_s_mapping_is_the_user_s_in_each_part() -> None:
    said = settled("task=CMedQAv1", "task.cmteb={repo: me/mine, revision: abc}").origins
    assert said["task.cmteb.repo"] == said["task.cmteb.revision"] == "user"
    assert said["task.mteb.repo"] == "file"


def test_each_run_of_a_sweep_has_its_own() -> None:
    first, second = composed("model=bm25,constant", "limit=2", multirun=True)
    assert [one.values["model"]["name"] for one in (first, second)] == ["bm25", "constant"]
    assert first.origins["model"] == second.origins["limit"] == "user"


def test_words_stay_out_of_the_program_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["evalkit", "as", "typed"])
    assert settled("model=bm25", "limit=2").limit == 2
    assert sys.argv == ["evalkit", "as", "typed"]


def test_settings_are_composed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import hydra
    from hydra._internal.config_loader_impl import ConfigLoaderImpl

    whole = ConfigLoaderImpl._load_configuration_impl
    modes = []

    def counted(self: Any, *arguments: Any, **named: Any) -> Any:
        modes.append(named["run_mode"].name)
        return whole(self, *arguments, **named)

    monkeypatch.setattr(ConfigLoaderImpl, "_load_configuration_impl", counted)
    monkeypatch.delattr(hydra, "compose")
    assert settled("model=bm25", "limit=2").task_deviations == {"limit": 2}
    assert modes.count("RUN") == 1  # beside Hydra's own look at hydra.mode


def test_a_model_is_made_again_only_for_other_settings() -> None:
    one, same, other = (settled("model=bge-m3", "offline=true", *words) for words in ((), (), ("model.max_length=9",)))
    assert model_of(one) is model_of(same)
    assert model_of(other) is not model_of(one)
    assert model_of(other).settings.max_length == 9


@pytest.mark.parametrize(
    ("what", "name"), [("models", "my-words"), ("tasks", "mine"), ("backends", "gpu-box"), ("protocols", "ours")]
)
def test_a_folder_of_one_s_own_is_listed(what: str, name: str, own: Path) -> None:
    names = [
        entry["name"] for entry in json.loads(run_here("list", what, "--config-dir", "own", "--json").stdout)[what]
    ]
    assert name in names
    assert f"\n{name} " in run_here("--config-dir", "own", "list", what).stdout
    assert name not in run_here("list", what).stdout


def test_a_task_of_one_s_own_is_listed_with_its_place(own: Path) -> None:
    (own / "task" / "here.yaml").write_text("defaults: [base, _self_]\nname: here\npath: data/here.jsonl\n")
    (row,) = [
        line for line in run_here("list", "tasks", "--config-dir", "own").stdout.splitlines() if line[:5] == "here "
    ]
    assert row.split() == ["here", "data/here.jsonl"]


def test_a_run_takes_every_group_from_it(own: Path, here: Path) -> None:
    done = run_here("--config-dir", "own", "experiment=quick", "task=both", "protocol=ours", "offline=true", "--json")
    assert done.code == 0, done.stderr
    first, second = json.loads(done.stdout)["results"]
    assert [result["evalkit"]["task"]["name"] for result in (first, second)] == ["mine", "demo-en2zh"]
    assert first["evalkit"]["model"]["name"] == "my-words"
    assert first["evalkit"]["protocol"] == "mteb-v2"
    assert first["evalkit"]["task"]["limit"] == 3


def test_doctor_takes_it_too(own: Path) -> None:
    done = run_here("doctor", "--config-dir", "own", "model=my-words", "task=mine", "offline=true", "--json")
    (report,) = json.loads(done.stdout)
    assert (report["model"], report["task"]) == ("my-words", "mine")


def test_parity_takes_it_too(own: Path, tiny_reranker: Path) -> None:
    """The two are asked for what they are; nobody answers for the second."""
    chosen = ("task=mine", "model=my-reranker", f"model.path={tiny_reranker}", "offline=true")
    done = run_here("parity", "--config-dir", "own", *chosen, "backends=torch,gpu-box", "gpu-box.retries=0")
    assert done.code == 2
    assert "http://127.0.0.1:9" in done.stderr
    done = run_here("parity", *chosen[1:], "backends=torch,gpu-box")
    assert "there is no" in done.stderr


def test_python_takes_it_too(own: Path) -> None:
    model = evalkit.load_model("my-words", config_dir=own)
    task = evalkit.load_task("mine", config_dir=str(own), limit=2)
    assert (model.settings.name, model.settings.kind, task.name) == ("my-words", "lexical", "mine")
    server = evalkit.load_model("my-reranker", backend="gpu-box", server={"retries": 1}, config_dir=own)
    assert (server.backend, server.settings.max_length) == ("vllm", 128)
    assert server.runtime.server == evalkit.ServerSettings(
        url="http://127.0.0.1:9", served_model="mine", retries=1, key_variable="VLLM_API_KEY"
    )
    assert server.deviations == {"backend": "vllm", "served_model": "mine", "url": "http://127.0.0.1:9"}
    for wrong in ("my-words", "mine"):
        with pytest.raises(EvalkitError, match="there is no"):
            evalkit.load_model(wrong)
        with pytest.raises(EvalkitError, match="there is no"):
            evalkit.load_task(wrong)


@pytest.mark.parametrize("group", ["task", "model", "backend", "protocol", "experiment"])
@pytest.mark.parametrize("name", ["base", None])
def test_no_file_of_one_s_own_is_left_unread(group: str, name: str | None, own: Path) -> None:
    """evalkit's folder comes first: a file named as one of its options would never be read."""
    shipped = {
        "task": "demo",
        "model": "bm25",
        "backend": "torch",
        "protocol": "mteb-v2",
        "experiment": "reproduce-model-card",
    }
    (own / group / f"{name or shipped[group]}.yaml").write_text("name: x\n")
    message = f"{group}={name or shipped[group]} is an option of evalkit's, which comes first; rename the file"
    for words in (("list",), ("model=bm25",), ("doctor", "model=bm25"), ("parity", "model=bm25")):
        done = run_here(*words, "--config-dir", "own")
        assert (done.code, done.stdout) == (2, "")
        assert message in done.stderr
    with pytest.raises(EvalkitError, match="rename the file"):
        evalkit.load_model("bm25", config_dir=own)


def test_a_folder_that_is_none(here: Path) -> None:
    for words in (("list",), ("model=bm25",), ("doctor", "model=bm25"), ("parity", "model=bm25")):
        done = run_here("--config-dir", "nowhere", *words)
        assert (done.code, done.stdout) == (2, "")
        assert "--config-dir nowhere: the folder was not found" in done.stderr
    with pytest.raises(EvalkitError, match="not found"):
        evalkit.load_task("demo-zh", config_dir="nowhere")


def test_files_are_merged_as_hydra_merges_them(own: Path) -> None:
    texts = {
        "deep.yaml": "defaults: [CMedQAv1, _self_]\nname: deep\ncmteb: {revision: abc}\n",
        "under.yaml": "defaults: [_self_, CMedQAv1]\nname: under\n",
        "above.yaml": "defaults: [/task/deep@_here_]\nname: above\n",
    }
    for name, text in texts.items():
        (own / "task" / name).write_text(text)
    for name in ("deep", "under", "above", "mine", "both"):
        (one,) = composed(f"task={name}", folder=own)
        assert one.values["task"] == one.own["task"], name
        assert read_option("task", name, (own,)).items() <= one.values["task"].items()
    assert composed("task=deep", folder=own)[0].values["task"]["cmteb"] == {
        "repo": "C-MTEB/CMedQAv1-reranking",
        "revision": "abc",
    }
    (own / "model" / "weighted.yaml").write_text("defaults: [bge-m3, _self_]\nname: weighted\nweights: [1e-1, 1, 1]\n")
    assert settled("model=weighted", folder=own).model_deviations == {}


def test_servers_and_ray_are_typed() -> None:
    server = evalkit.ServerSettings(url="http://127.0.0.1:9", batch_size=16)
    model = evalkit.load_model("bge-reranker-base", backend="vllm", server=server)
    assert model == evalkit.load_model(
        "bge-reranker-base", backend="vllm", server={"url": "http://127.0.0.1:9", "batch_size": 16}
    )
    assert model.runtime.server is not None
    assert model.runtime.server.key_variable == "VLLM_API_KEY"  # the backend's own, which was not said otherwise
    ray = evalkit.RaySettings(actors=2)
    assert evalkit.load_model("bm25", ray=ray).ray == evalkit.load_model("bm25", ray={"actors": 2}).ray == ray
    for wrong, message in (
        (lambda: evalkit.ServerSettings(batch_size=0), r"backend\.batch_size=0"),
        (lambda: evalkit.ServerSettings(urls="x"), r"backend\.urls"),  # type: ignore[call-arg]
        (lambda: evalkit.RaySettings(actors=0), r"ray\.actors=0"),
        (lambda: evalkit.RaySettings(address="nowhere"), "HOST:PORT"),
        (lambda: evalkit.load_model("bm25", server=server), "says nothing to backend=auto"),
    ):
        with pytest.raises(EvalkitError, match=message):
            wrong()


def test_a_result_records_its_settings_in_one_shape(here: Path) -> None:
    """The command line's and Python's are the same; neither holds where files lie, or what a backend could do."""
    done = run_here("model=bm25", "task=demo-zh2en", "limit=2", "seed=7", "results_dir=cli", "cache_dir=kept", "--json")
    (printed,) = json.loads(done.stdout)["results"]
    result = evalkit.evaluate(evalkit.load_model("bm25", seed=7), evalkit.load_task("demo-zh2en", limit=2), seed=7)
    saved = evalkit.save_result(result, "python")
    assert saved.relative_to("python") == Path(printed["file"]).relative_to("cli")
    assert saved.parent.name == "limit-2_seed-7"
    config = printed["evalkit"]["config"]
    assert config == json.loads(json.dumps(dict(result.config)))
    assert set(config) == {
        *("model", "task", "backend", "protocol", "measures", "runner"),
        *("limit", "device", "dtype", "seed", "reproduce"),
    }
    assert config["backend"] == {"name": "auto"}
    assert config["task"]["bundled"] == "zh2en.jsonl"
    assert "kept" not in json.dumps(config)


@pytest.mark.parametrize(
    ("words", "model", "task"),
    [
        ((), {}, {}),
        (("model=bge-reranker-base", "dtype=bf16"), {"name": "bge-reranker-base", "dtype": "bf16"}, {}),
        (("model=bge-m3", "model.recipe=fused"), {"name": "bge-m3", "recipe": "fused"}, {}),
        (
            ("model=bge-m3", "model.recipe=sparse", "model.max_length=99"),
            {"name": "bge-m3", "recipe": "sparse", "max_length": 99},
            {},
        ),
        (
            ("model=bge-m3", "model.weights=[1,0,0]", "model.score=fused"),
            {"name": "bge-m3", "weights": (1, 0, 0), "score": "fused"},
            {},
        ),
        (("backend=lexical",), {"backend": "lexical"}, {}),
        (("task.split=test", "limit=2"), {}, {"split": "test", "limit": 2}),
        (
            ("model=bge-reranker-base", "backend=vllm", "backend.url=http://h", "backend.max_characters=9"),
            {"name": "bge-reranker-base", "backend": "vllm", "server": {"url": "http://h", "max_characters": 9}},
            {},
        ),
        (
            ("model=text-embedding-3-small", "backend=openai", "backend.url=http://h"),
            {"name": "text-embedding-3-small", "backend": "openai", "server": {"url": "http://h"}},
            {},
        ),
    ],
)
def test_what_deviates_is_the_same_in_both(words: tuple[str, ...], model: dict[str, Any], task: dict[str, Any]) -> None:
    model = {"name": "bm25", **model}
    settings = settled(f"model={model['name']}", "task=demo-zh2en", *words)
    loaded = evalkit.load_task("demo-zh2en", **task)
    made = evalkit.load_model(model.pop("name"), **model)
    assert (made.deviations, loaded.deviations) == (settings.model_deviations, settings.task_deviations)


@pytest.mark.parametrize(
    ("word", "changed"),
    [
        ("task.cmteb=null", {"cmteb.repo": None, "cmteb.revision": None}),
        ("task.cmteb.revision=null", {"cmteb.revision": None}),
        ("~task.cmteb", {"cmteb.repo": None, "cmteb.revision": None}),
        ("task.cmteb={repo: me/mine}", {"cmteb.repo": "me/mine"}),
        ("task.languages=[]", {"languages": []}),
        ("~task.source", {}),  # which is the default, as the task's file leaves it
    ],
)
def test_what_is_emptied_deviates(word: str, changed: dict[str, Any]) -> None:
    assert settled("task=CMedQAv1", word).task_deviations == changed


def test_a_model_s_length_that_is_deleted_deviates() -> None:
    assert settled("model=bge-reranker-base", "~model.max_length").model_deviations == {"max_length": None}


def test_model_and_task_carry_what_deviates(here: Path) -> None:
    """So that a result is the same whoever made it: the command line, or Python of the same two."""
    words = ("task=demo-zh2en", "model=bm25", "backend=lexical", "limit=2", "seed=7", "offline=true")
    settings = settled(*words, "reproduce=true")
    model, (task,) = model_of(settings), tasks_of(settings)
    assert (model.deviations, task.deviations) == ({"backend": "lexical", "seed": 7}, {"limit": 2})
    assert run_here(*words).code == 0
    (command,) = evalkit.load_results("results")
    python = evalkit.evaluate(model, task, seed=7)
    assert (command.config, command.deviations) == (python.config, python.deviations)
    assert command.deviations == {"backend": "lexical", "limit": 2, "seed": 7}


def test_a_model_with_other_deviations_is_another() -> None:
    """Though what they come to is the same: a result says what was asked for."""
    said = [settled("model=bge-m3", "model.recipe=sparse", *more) for more in ((), ("model.score=sparse",))]
    assert said[0].model == said[1].model
    assert [model_of(one).deviations for one in said] == [{"recipe": "sparse"}, {"recipe": "sparse", "score": "sparse"}]


@pytest.mark.parametrize("name", ["threads", "made_up"])
def test_help_and_overrides_know_the_same_settings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = {"runner": {name: None}}
    for module in (run_settings_module, settings_arguments):
        monkeypatch.setattr(module, "grouped_settings", lambda: {**settings_arguments_groups(), **groups})
    assert f"runner.{name}" in schema().keys
    assert f"  runner.{name}: null" in run_here("run", "--help").stdout


def test_a_result_with_a_configuration_of_one_s_own_is_saved(here: Path) -> None:
    """In the folder that its settings name, whatever is recorded of them."""
    task = evalkit.load_task("demo-zh2en", limit=2)
    model = evalkit.load_model("bm25")
    path = evalkit.save_result(evalkit.evaluate(model, task, config={"mine": 1}), "results")
    assert path.parts[-3:-1] == ("experiments", "limit-2")
    assert json.loads(path.read_text("utf-8"))["evalkit"]["config"] == {"mine": 1}
    named = replace(evalkit.evaluate(model, task, config={}), deviations={"trial": "b"})
    assert named.config == {}
    assert evalkit.save_result(named, "results").parts[-3:-1] == ("experiments", "trial-b")


def test_a_seed_of_the_bootstrap_alone_names_another_folder(here: Path) -> None:
    task = evalkit.load_task("demo-zh2en", limit=2)
    assert evalkit.evaluate(evalkit.load_model("bm25"), task, seed=7).deviations == {"limit": 2, "bootstrap_seed": 7}
    assert evalkit.evaluate(evalkit.load_model("bm25", seed=7), task, seed=7).deviations == {"limit": 2, "seed": 7}


@pytest.mark.parametrize("value", ["${data", '"${\\\\0mine"', "${../../etc", "${a:b"])
def test_an_unfinished_interpolation_names_its_file(value: str, tmp_path: Path) -> None:
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "mine.yaml").write_text(f"name: {value}\npath: data\n", encoding="utf-8")
    done = run_here("--config-dir", str(tmp_path), "task=mine", "model=constant")
    assert done.code == 2
    assert "a file that task=mine, model=constant reads" in done.stderr
    assert "interpolation" in done.stderr
    assert "Traceback" not in done.stderr
