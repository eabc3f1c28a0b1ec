"""What messages advise: overrides are such as evalkit reads, files named are like some that are there, installs work."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import run_here

from evalkit.backends import backends_for, how_to_install, read_backend
from evalkit.commands.run_settings import schema
from evalkit.configuration.files import option_names
from evalkit.configuration.hydra import Words, _checked
from evalkit.errors import EvalkitError
from evalkit.models.choosing import choose_model
from evalkit.models.settings import model_settings
from evalkit.models.weights import find_model

PACKAGE = Path(__file__).parent.parent / "evalkit"
SETTINGS = (
    "task|model|backend|runner|ray|limit|measures|device|dtype|seed|offline|texts|cache|cache_dir|results_dir|protocol"
    "|reproduce"
)
OVERRIDE = re.compile(rf"(?<![\w./=-])((?:{SETTINGS})(?:\.\w+)?)=(\S*)")
# what stands for what a user has: FOLDER, http://HOST:PORT, ORGANISATION/NAME, …
PLACEHOLDER = re.compile(r"[A-Z]{2,}|…|[{}%]|A,B")
# an argument in Python, and a word of another command
ELSEWHERE = {("ray", ""), ("model", "all")}
CLOSING = ".,;:)?"


def texts() -> Iterator[tuple[str, str]]:
    """All texts of the package but docstrings, with the place of each."""
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}", node.value


ADVISED = sorted(
    {(key, value.rstrip(CLOSING)) for _, text in texts() for key, value in OVERRIDE.findall(text)} - ELSEWHERE
)


def test_messages_advise_overrides() -> None:
    assert len(ADVISED) > 40
    assert ("model.trust_remote_code", "true") in ADVISED


@pytest.mark.parametrize(("key", "value"), ADVISED, ids=lambda part: part)
def test_an_advised_override_is_read(key: str, value: str) -> None:
    """By Hydra's grammar and by the names of settings and options; where a user's own value is due, some value is."""
    options = option_names(key) if key in ("task", "model", "backend", "protocol", "runner") else ()
    if not value or PLACEHOLDER.search(value) or value[0] in "'\"":
        value = options[0] if options else "value"
    if key == "model" and "/" in value:
        assert value == "./" or choose_model(value)
        return
    _checked(Words((f"{key}={value}",)), schema())


@pytest.mark.parametrize(
    "value",
    [
        "我的套件",
        "the suite’s",
        "émile",
        "a&b",
        "x;y",
        "n°1",
        "1–2",
        "<tag>",
        "#5",
        "é,ü",
        "'我的'",
        '"我的"',
        "'my suite'",
    ],
)
@pytest.mark.parametrize("group", ["task", "model", "backend", "protocol"])
def test_a_name_of_any_signs_is_looked_for(group: str, value: str) -> None:
    """With quotes of its own, as evalkit used to advise, and without."""
    done = run_here(f"{group}={value}", *(["model=random"] if group == "task" else ["task=demo-zh"]))
    assert done.code == 2
    assert done.stderr.startswith(f"evalkit: there is no {group} "), done.stderr


@pytest.mark.parametrize("words", [(), ("-m",)])
@pytest.mark.parametrize("name", ["我的套件", "the suite’s", "a&b", "my suite"])
@pytest.mark.parametrize("quote", ["", "'", '"'])
def test_an_option_of_any_name_runs(quote: str, name: str, words: tuple[str, ...], tmp_path: Path) -> None:
    """A task and a model of the user's own; and what is advised where the words can't be read."""
    for group, option in (("task", "demo-zh"), ("model", "random")):
        (tmp_path / "own" / group).mkdir(parents=True)
        source = PACKAGE.parent / "configs" / group / f"{option}.yaml"
        (tmp_path / "own" / group / f"{name}.yaml").write_text(source.read_text("utf-8"), encoding="utf-8")
    said = f"{quote}{name}{quote}"
    own = ("--config-dir", str(tmp_path / "own"), f"results_dir={tmp_path / 'results'}", "limit=2")
    done = run_here(*words, f"task={said}", f"model={said}", *own)
    assert done.code == 0, done.stderr


@pytest.mark.parametrize("value", ["[我的]", "我的(1)", "{我的: 1}"])
def test_the_advice_on_brackets_can_be_followed(value: str) -> None:
    done = run_here(f"task={value}", "model=random")
    assert done.code == 2
    advised = re.search(r"needs quotes of its own: \"task='…'\"", done.stderr)
    assert advised, done.stderr
    followed = run_here(f"task='{value}'", "model=random")
    assert followed.stderr.startswith(f"evalkit: there is no task {value!r}; "), followed.stderr


# files and folders


@pytest.mark.parametrize("said", ["./mdoel", "{above}/mdoel", "./mdoel/", "model.path"])
def test_a_missing_folder_is_told_with_names_like_it(
    said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    path = said.format(above=tmp_path)
    settings = {"path": "mdoel"} if said == "model.path" else choose_model(path).settings
    with pytest.raises(EvalkitError) as caught:
        find_model(model_settings({"name": "auto", **settings}), offline=True, cache_dir=None)
    like = str(settings["path"]).rstrip("/").replace("mdoel", "model")
    assert str(caught.value).endswith(f"there is no such folder; did you mean {like}?")


def test_missing_data_and_runs_are_told_with_names_like_them(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").touch()
    done = run_here("task=local", f"task.path={tmp_path / 'daat.jsonl'}", "model=random")
    assert done.stderr.endswith(f"check task.path; did you mean {tmp_path / 'data.jsonl'}?\n"), done.stderr
    (tmp_path / "first.run").touch()
    done = run_here("task=demo-zh", "model=run", f"model.path={tmp_path / 'frist.run'}")
    assert done.stderr.endswith(f"did you mean {tmp_path / 'first.run'}?\n"), done.stderr


def test_a_missing_folder_with_nothing_like_it() -> None:
    done = run_here("task=demo-zh", "model=/a/folder")
    assert done.stderr == "evalkit: model.path=/a/folder: there is no such folder\n"


def test_a_path_that_the_locale_cannot_decode_is_kept() -> None:
    settings = model_settings({"name": "auto", "path": "./\udce6x"})
    assert settings.model_dump(mode="json")["path"] == "./\udce6x"
    with pytest.raises(EvalkitError, match="there is no such folder"):
        find_model(settings, offline=True, cache_dir=None)


# installing


def test_hints_name_an_install_that_works_from_a_clone() -> None:
    extras = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    named = [name for _, text in texts() for name in re.findall(r"evalkit-reranking\[", text)]
    assert named == []
    backends = [read_backend(name) for name in option_names("backend")]
    for backend in (one for one in backends if one.package):
        assert f'pip install ".[{backend.name}]" in a clone of evalkit' in how_to_install(backend)
        assert backend.name in extras
    assert {"ray", "openvino", "onnx"} <= set(extras)
    assert backends_for(model_settings({"name": "x"}))
