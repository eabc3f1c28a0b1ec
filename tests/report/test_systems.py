from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from command import run_here
from test_results import LOCAL, RESULT

import evalkit
from evalkit.compare.systems import System, system_labels, systems_of
from evalkit.results.folders import experiment_slug, result_folder
from evalkit.results.reading import read_results
from evalkit.results.writing import write_result

BASE = System("BAAI/bge", "bge", "2cfc18c9415c912f9d8155881c133215df768a70", "torch", "fp32", "")


def labels(*systems: System) -> list[str]:
    return list(system_labels(systems).values())


def test_a_system_has_its_models_name_where_that_is_enough() -> None:
    assert labels(BASE, replace(BASE, hub_id="local/mine", name="mine", dtype="bf16")) == ["bge", "mine"]


def test_namesakes_have_what_tells_them_apart_and_no_more() -> None:
    half = replace(BASE, dtype="bf16", experiment="dtype-bf16")
    assert labels(BASE, half) == ["bge (fp32)", "bge (bf16)"]
    assert labels(BASE, replace(BASE, experiment="limit-5")) == ["bge", "bge (limit-5)"]
    assert labels(BASE, half, replace(half, backend="onnx")) == [
        "bge (torch, fp32)",
        "bge (torch, bf16)",
        "bge (onnx, bf16)",
    ]
    assert labels(BASE, replace(BASE, revision="v2")) == ["bge (2cfc18c9415c)", "bge (v2)"]
    assert labels(BASE, replace(BASE, hub_id="other/bge")) == ["BAAI/bge", "other/bge"]
    assert labels(replace(BASE, place="a"), replace(BASE, place="b")) == ["bge (a)", "bge (b)"]


def test_a_system_is_read_off_a_result(tmp_path: Path) -> None:
    write_result(RESULT, result_folder(tmp_path, RESULT.model, ""))
    half = replace(RESULT, backend={"name": "onnx", "dtype": "bf16"}, deviations={"dtype": "bf16"})
    write_result(half, result_folder(tmp_path, RESULT.model, half.experiment))
    write_result(replace(RESULT, model=LOCAL, backend={}), result_folder(tmp_path, LOCAL, ""))
    found = systems_of(read_results([tmp_path]))
    assert [(system.hub_id, system.backend, system.dtype, system.experiment, system.place) for system in found] == [
        ("BAAI/bge-reranker-base", "torch", "fp32", "", ""),
        ("BAAI/bge-reranker-base", "onnx", "bf16", "dtype-bf16", ""),
        ("local/my-model", "", "", "", ""),
    ]


def test_where_files_lie_tells_apart_only_what_nothing_else_does(tmp_path: Path) -> None:
    for folder in ("before", "after"):
        write_result(RESULT, result_folder(tmp_path / folder, RESULT.model, ""))
        seeded = replace(RESULT, model=LOCAL, deviations={"seed": folder})
        write_result(seeded, result_folder(tmp_path / folder, LOCAL, seeded.experiment))
    found = systems_of(read_results([tmp_path / "before", tmp_path / "after"]))
    assert [bool(system.place) for system in found] == [True, False, True, False]
    copy = tmp_path / "before" / "copy.json"
    copy.write_bytes(read_results([tmp_path / "before"])[0].path.read_bytes())
    first, second = systems_of(read_results([copy, *tmp_path.glob("after/BAAI*")]))
    assert (first.place, Path(second.place).is_dir()) == (str(copy), True)


def trial(experiment: str = "", **settings: object) -> System:
    """A system with these settings; of an experiment of its own, as `experiment_slug` would name it."""
    return replace(BASE, experiment=experiment or experiment_slug(settings), settings=settings)


def test_settings_that_differ_are_said_and_no_others() -> None:
    assert labels(BASE, trial(max_length=64)) == ["bge", "bge (max_length=64)"]
    assert labels(trial(max_length=64, limit=5), trial(max_length=128, limit=5)) == [
        "bge (max_length=64)",
        "bge (max_length=128)",
    ]
    assert labels(trial(normalize=True), trial(normalize=False), trial(pooling="cls")) == [
        "bge (normalize=true)",
        "bge (normalize=false)",
        "bge (pooling=cls)",
    ]
    # null is a setting, too
    assert labels(trial(top_k=None, a=1), trial(a=1)) == ["bge (top_k=null)", "bge"]


def test_a_label_is_short_whatever_the_settings_are() -> None:
    prompt = "Instruct: given a web search query, retrieve relevant passages that answer the query"
    many = trial(
        query_prompt=prompt, document_prompt="", max_length=64, pooling="mean", path="/a/very/long/path/to/mine"
    )
    found = labels(BASE, many)
    assert found == ["bge", "bge (document_prompt=, max_length=64, path=mine, 2 more settings)"]
    assert labels(BASE, trial(query_prompt=prompt)) == ["bge", "bge (query_prompt=Instruct: given a web s…)"]
    assert labels(trial(recipe="sparse", a=1, b=2, c=3), BASE)[0] == "bge (recipe=sparse, a=1, b=2, 1 more setting)"
    assert not any(re.search("[0-9a-f]{10}", label) for label in found)


def test_labels_differ_where_shortened_values_do_not() -> None:
    one, other = trial(path="/a/model"), trial(path="/b/model")
    first, second = labels(one, other)
    assert first != second
    assert first.startswith("bge (path=model) [path-a-model")
    longer = [trial(query_prompt="the same beginning of a long prompt" + end) for end in "ab"]
    assert len(set(labels(*longer))) == 2


def test_what_a_backend_or_precision_says_is_said_once() -> None:
    bf16 = replace(trial(dtype="bf16"), dtype="bf16")
    onnx = replace(trial(backend="onnx"), backend="onnx")
    assert labels(BASE, bf16) == ["bge (fp32)", "bge (bf16)"]
    assert labels(BASE, onnx) == ["bge (torch)", "bge (onnx)"]


def test_a_hash_is_said_where_nothing_else_tells() -> None:
    weights = ["a" * 64, "b" * 64]
    assert labels(*(replace(BASE, revision=one) for one in weights)) == [f"bge ({one[:12]})" for one in weights]
    other = replace(trial(max_length=64), revision="b" * 64)
    assert labels(BASE, other) == ["bge", "bge (max_length=64)"]


def test_older_results_have_their_folder_s_name() -> None:
    assert labels(BASE, replace(BASE, experiment="max_length-64")) == ["bge", "bge (max_length-64)"]


def test_rows_of_a_sweep_say_what_differs(tmp_path: Path) -> None:
    done = run_here("-m", "task=demo-zh", "model=random", "seed=1,2,3", f"results_dir={tmp_path}")
    names = [f"random (seed={seed})" for seed in (1, 2, 3)]
    assert [" ".join(row[:2]) for row in done.rows] == names
    assert all(f"\n{name} on demo-zh: " in done.stdout for name in names)
    for command in ("report", "compare"):
        shown = run_here(command, str(tmp_path)).stdout
        assert all(name in shown for name in names)
    page = run_here("report", str(tmp_path), "--format", "html").stdout
    assert all(f"<bdi>{name}</bdi>" in page for name in names)
    assert set(evalkit.leaderboard(tmp_path)["system"]) == set(names)
