"""Task YAML files: the same through Hydra and through the plain reader; mistakes are one line."""

from __future__ import annotations

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from evalkit.configuration.files import configs_dir
from evalkit.errors import EvalkitError
from evalkit.tasks.loading import read_task
from evalkit.tasks.settings import TaskSettings, read_settings, suite_settings, task_names

NAMES = [
    *("T2Reranking", "T2RerankingZh2En", "T2RerankingEn2Zh", "MMarcoReranking", "MMarco"),
    *("CMedQAv1", "CMedQAv2", "CMedQAv1-reranking", "CMedQAv2-reranking"),
    *("C-MTEB", "C-MTEB-6", "local", "demo", "demo-zh", "demo-zh2en", "demo-en2zh"),
]


def test_names():
    assert set(NAMES) <= set(task_names())


@pytest.mark.parametrize("name", NAMES)
def test_hydra_and_the_plain_reader_agree(name, tmp_path):
    ConfigStore.instance().store(group="task", name="base", node=TaskSettings.defaults())
    (tmp_path / "config.yaml").write_text(
        f"defaults:\n- _self_\n- task: {name}\nhydra:\n  searchpath: [{configs_dir()}]\n"
    )
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        composed = compose("config", overrides=[f"hydra.searchpath=[{configs_dir()}]"])
    mapping = OmegaConf.to_container(composed.task, resolve=True)
    assert set(mapping) == set(TaskSettings.model_fields)
    assert TaskSettings.from_mapping(mapping) == read_settings(name)


@pytest.mark.parametrize(
    ("alias", "name"),
    [("MMarco", "MMarcoReranking"), ("CMedQAv1-reranking", "CMedQAv1"), ("CMedQAv2-reranking", "CMedQAv2")],
)
def test_aliases(alias, name):
    assert read_settings(alias) == read_settings(name)


def test_pinned_tasks_have_commits_and_languages():
    for name in ("T2Reranking", "MMarcoReranking", "CMedQAv1", "CMedQAv2"):
        settings = read_settings(name)
        assert settings.languages == ("cmn-Hans",)
        for location in (settings.cmteb, settings.mteb):
            assert len(location.revision) == 40


def test_suites_name_tasks_and_hand_on_their_source():
    suite = read_settings("C-MTEB").model_copy(update={"source": "mteb"})
    assert [task.name for task in suite_settings(suite)] == ["T2Reranking", "MMarcoReranking", "CMedQAv1", "CMedQAv2"]
    assert {task.source for task in suite_settings(suite)} == {"mteb"}
    assert len(suite_settings(read_settings("C-MTEB-6"))) == 6
    assert suite_settings(read_settings("local")) == (read_settings("local"),)
    with pytest.raises(EvalkitError, match="is a suite"):
        read_task(suite)


def test_a_folder_of_ones_own(tmp_path):
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "mine.yaml").write_text("defaults: [base, _self_]\nname: mine\npath: x.jsonl\n")
    (tmp_path / "task" / "list.yaml").write_text("- a\n")
    (tmp_path / "task" / "bad.yaml").write_text("a: b: c\n")
    assert read_settings("mine", [tmp_path]).path == "x.jsonl"
    for name, message in {"list": "mapping", "bad": "not YAML", "mime": "mine"}.items():
        with pytest.raises(EvalkitError, match=message):
            read_settings(name, [tmp_path])


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "x", "spilt": "dev"}, "spilt"),
        ({"name": "x", "source": "hub"}, "source"),
        ({"name": "x", "languages": "cmn"}, "languages"),
        ({"name": "x", "cmteb": {"revision": "r"}}, "cmteb.repo"),
    ],
)
def test_wrong_fields(mapping, message):
    with pytest.raises(EvalkitError, match=message) as error:
        TaskSettings.from_mapping(mapping)
    assert "\n" not in str(error.value)


def test_unknown_task_names_the_nearest():
    with pytest.raises(EvalkitError, match="T2Reranking"):
        read_settings("T2Rerankin")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (TaskSettings(name="local"), "task.path=PATH"),
        (read_settings("T2RerankingZh2En").model_copy(update={"source": "mteb"}), "task.source=cmteb"),
    ],
)
def test_nothing_to_load(settings, message):
    with pytest.raises(EvalkitError, match=message):
        read_task(settings)


def test_a_suite_refuses_what_only_a_task_has():
    suite = read_settings("demo").model_copy(update={"path": "mine.jsonl"})
    with pytest.raises(EvalkitError, match=r"task\.path says nothing to demo.*task=local"):
        suite_settings(suite)


def test_a_suite_of_ones_own_tasks(tmp_path):
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "mine.yaml").write_text(
        "defaults: [base, _self_]\nname: mine\npath: mine.jsonl\n", encoding="utf-8"
    )
    suite = TaskSettings(name="both", suite=("mine", "demo-zh"))
    assert [task.path or task.bundled for task in suite_settings(suite, [tmp_path])] == ["mine.jsonl", "zh.jsonl"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("name: mine\ndefaults: [mine]\n", "there is no task 'mine'"),
        ("name: mine\ndefaults: [other]\n", "there is no task 'mine'"),
        ("name: mine\ndefaults: [../task/other]\n", "there is no task"),
        ("name: mine\ndefaults: [1.5]\n", "there is no task '1.5'"),
        ("name: mine\ndefaults: null\n", "defaults must be a list"),
        ("name: 2020-13-45\n", "is not YAML"),
        ("x: " + "[" * 300, "is not YAML"),
    ],
)
def test_files_that_are_wrong(content, told, tmp_path):
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "mine.yaml").write_text(content)
    (tmp_path / "task" / "other.yaml").write_text("defaults: [mine]\n")
    with pytest.raises(EvalkitError, match=told):
        read_settings("mine", [tmp_path])
