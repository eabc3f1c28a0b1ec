from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from test_results import LOCAL, RESULT

from evalkit.compare.systems import System, system_labels, systems_of
from evalkit.results.folders import result_folder
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
