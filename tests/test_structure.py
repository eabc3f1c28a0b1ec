"""How the package is built keeps within limits; what measures it counts made packages rightly, and follows made values."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from structure.__main__ import collected, main
from structure.follow import Trail, forms, watch
from structure.imports import Structure, measure
from structure.walks import AVERAGE_PRECISION, SCORE, SCORED, SETTINGS, TEXT, Walk, walk

ROOT = Path(__file__).parent.parent

# at commit 116332d: 33, 8, 0, 83; lower them when the package gets simpler, and never raise one without a reason in its place
# (single: a command has a module of its own, which the command line alone imports; `certify` is one more, and so are what
# a wrapped function's content is, and how a delimited file's quotes are read, which are long and of their own)
LIMITS = {"flat": 14, "back": 0, "circles": 0, "single": 59}
# at commit 116332d: 5
FORMS_TO_MODEL = 4


@pytest.fixture(scope="module")
def structure() -> Structure:
    return measure(ROOT)


@pytest.fixture(scope="module")
def walks() -> Mapping[str, Walk]:
    return walk(ROOT)


def write_package(folder: Path, files: Mapping[str, str], name: str = "made") -> Path:
    """Write files of a package below a folder; an `__init__` that is not given is empty."""
    for file, content in files.items():
        path = folder / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        for parent in path.relative_to(folder).parents[:-1]:
            (folder / parent / "__init__.py").touch()
    return folder


@pytest.mark.parametrize("field", LIMITS)
def test_package_keeps_within_its_limits(structure: Structure, field: str) -> None:
    found = getattr(structure, field)
    assert len(found) <= LIMITS[field], found


def test_counts_of_a_made_package(tmp_path: Path) -> None:
    files = {
        "errors.py": "class Same: ...\n",
        "upper/one.py": "from made.errors import Same\nfrom made.upper import two\n",
        "upper/two.py": "import made.errors\nclass Same: ...\nclass Other: ...\n",
    }
    found = measure(write_package(tmp_path, files), "made")
    assert found.flat == ("errors",)
    assert found.rooms == ("made", "made.errors", "made.upper")
    assert found.arrows == (("made.upper", "made.errors"),)
    assert found.twice == ("Same",)
    assert (found.modules, found.lines) == (5, 6)
    assert found.counts() == {
        "modules": 5, "flat": 1, "rooms": 3, "arrows": 1, "back": 0, "circles": 0, "single": 1, "twice": 1, "lines": 6
    }  # fmt: skip


@pytest.mark.parametrize(
    "importing",
    [
        "from made.lower import name\n",
        "def late():\n    import made.lower\n",
        "from made import lower\n",
        "from .lower import name\n",
        "if TYPE_CHECKING:\n    from made.lower import name\n",
    ],
)
def test_module_with_a_single_importer_is_found(importing: str, tmp_path: Path) -> None:
    package = write_package(tmp_path, {"lower.py": "name = 1\n", "upper.py": importing})
    assert measure(package, "made").single == ("made.lower",)
    write_package(tmp_path, {"another.py": importing})
    assert measure(package, "made").single == ()


@pytest.mark.parametrize("importing", ["import made.a.one\n", "def late():\n    from made.a import one\n"])
def test_circle_of_rooms_is_found(importing: str, tmp_path: Path) -> None:
    files = {"a/one.py": "from made import b\n", "b.py": "import made.c\n", "c.py": "", "d.py": "import made.a.one\n"}
    package = write_package(tmp_path, files)
    assert measure(package, "made").circles == ()
    write_package(tmp_path, {"c.py": f"if TYPE_CHECKING:\n    {importing.splitlines()[-1].strip()}\n"})
    assert measure(package, "made").circles == ()  # types alone close no circle
    write_package(tmp_path, {"c.py": importing})
    assert measure(package, "made").circles == (("made.a", "made.b", "made.c"),)


def test_imports_that_run_back_up_are_found(tmp_path: Path) -> None:
    offered = "if TYPE_CHECKING:\n    from made.top import evaluate\n"
    files = {
        "__init__.py": "__version__ = 1\n" + offered,
        "__main__.py": "import made\nimport made.top\n",
        "top.py": "from made.middle import part\nfrom made import ground\n",
        "middle/part.py": "from made.ground import facts\nfrom made.middle import other\n",
        "middle/other.py": "from made import __version__\n",
        "ground.py": "",
        "command.py": "from made import __version__\nimport made.top\n",
    }
    package = write_package(tmp_path, files)
    assert measure(package, "made").back == (("made.middle.other", "made"),)
    write_package(tmp_path, {"ground.py": "import made\n"})
    assert measure(package, "made").back == (
        ("made.ground", "made"),
        ("made.middle.other", "made"),
        ("made.middle.part", "made.ground"),
        ("made.top", "made.ground"),
    )
    write_package(tmp_path, {"__init__.py": "__version__ = 1\n"})
    assert measure(package, "made").back == ()  # what offers nothing is above nothing


def test_folder_without_the_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="has no package evalkit"):
        measure(tmp_path)


def test_command_prints_two_checkouts_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = write_package(tmp_path / "before", {"one.py": "pass\n"}, "evalkit")
    after = write_package(tmp_path / "after", {"one.py": "pass\npass\n", "two.py": "pass\n" * 1000}, "evalkit")
    assert main([str(before), str(after), "--names"]) == 0
    table, _, names = capsys.readouterr().out.partition("\n\n")
    rows = {line[:-18].strip(): line.split()[-2:] for line in table.splitlines()}
    assert rows["modules"] == ["2", "3"]
    assert rows["lines of code"] == ["1", "1,002"]
    assert "    evalkit.two\n" in names


def test_collected_tests_are_counted(tmp_path: Path) -> None:
    (tmp_path / "test_made.py").write_text("def test_one(): ...\ndef test_two(): ...\n")
    assert collected(tmp_path) == 2


@dataclasses.dataclass(frozen=True)
class Record:
    inner: Any


@pytest.mark.parametrize(
    ("value", "wanted", "form"),
    [
        (491, 491, "bare value"),
        (["a", "model.max_length=491"], 491, "word"),
        ({"model": {"max_length": 491}}, 491, "dict"),
        (Record({"a": [491]}), 491, "list"),
        (Record(491), 491, "Record"),
        ('{"max_length": 491}', 491, "JSON text"),
        ("max_length-491", 491, "text"),
        (("walked document",), "walked document", "tuple"),
        (np.array([0.5, SCORE], np.float32), SCORE, "ndarray"),
        (pd.DataFrame({"name": ["a"], "map": [AVERAGE_PRECISION]}), AVERAGE_PRECISION, "DataFrame"),
        (pd.DataFrame({"text": ["walked document"]}), "walked document", "DataFrame"),
        ("MAP 30.95", AVERAGE_PRECISION, "text"),
        ('{"q": {"d": 0.7310585}}', SCORE, "JSON text"),
    ],
)
def test_form_of_a_value(value: Any, wanted: str | float, form: str) -> None:
    assert list(forms(value, wanted)) == [form]
    assert list(forms(value, "something else" if isinstance(wanted, str) else wanted * 2)) == []


@pytest.mark.parametrize("value", ["0.491", "4910 491a", True, 491.0, Record, None, np.array([491])])
def test_what_is_another_value_is_not_found(value: Any) -> None:
    assert list(forms(value, 491)) == []


def test_functions_that_hold_a_value_are_noted_once_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "made.py"
    path.write_text(
        "def first(words):\n    return second({'length': 491}, 1)\n"
        "def second(settings, other):\n    third(other)\n    return [str(x) for x in settings.values()]\n"
        "def third(other):\n    fourth(other)\n    return 491\n"
        "def fourth(other): ...\n"
    )
    scope: dict[str, Any] = {}
    exec(compile(path.read_text(), str(path), "exec"), scope)
    trail = Trail([491])
    sys.setprofile(watch(tmp_path, [trail]))
    try:
        scope["first"](["length=491"])
        scope["first"](["length=491"])
    finally:
        sys.setprofile(None)
    assert trail.content() == {
        "functions": [("made", "first"), ("made", "second"), ("made", "third")],
        "forms": ["word", "dict", "bare value", "text"],
        "carriers": {"list": (), "dict": ("word",), "int": ("word", "dict")},
    }


def test_settings_reach_the_model_in_few_forms(walks: Mapping[str, Walk]) -> None:
    assert 2 <= len(walks[SETTINGS].to_model) <= FORMS_TO_MODEL, walks[SETTINGS].to_model


@pytest.mark.parametrize(
    ("name", "rooms"),
    [
        (SETTINGS, ["commands", "models", "backends", "evaluation", "results"]),
        (TEXT, ["tasks", "scoring", "models"]),
        (SCORED, ["backends", "metrics", "evaluation", "results", "report"]),
    ],
)
def test_walks_go_from_end_to_end(walks: Mapping[str, Walk], name: str, rooms: list[str]) -> None:
    met = list(dict.fromkeys(module.partition(".")[0] for module in walks[name].modules))
    assert [room for room in met if room in rooms] == sorted(rooms, key=met.index)
    assert set(rooms) <= set(met)
