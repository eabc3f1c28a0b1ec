"""How words become a command: its name first, options before or behind it, `--json` with or without a file, help."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from command import run_here

import evalkit
from evalkit.commands.arguments import Command, arranged, json_target
from evalkit.commands.main import RUN, app
from evalkit.compare.slices import SLICES
from evalkit.configuration.files import default_options, option_names
from evalkit.errors import EvalkitError
from evalkit.output.json import STDOUT
from evalkit.report.formats import FORMATS

ROOT = typer.main.get_command(app)
COMMANDS = ("run", "doctor", "parity", "certify", "list", "check", "compare", "audit", "report", "cache", "help")
WITH_JSON = (
    *(("run",), ("doctor",), ("parity",), ("list",), ("compare",), ("audit",), ("report",)),
    ("cache", "info"),
)
QUICK = ("task=demo-zh2en", "limit=2", "offline=true")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results") / "results"
    for model in ("random", "constant"):
        evalkit.save_result(evalkit.evaluate(evalkit.load_model(model), evalkit.load_task("demo-zh2en")), folder)
    return folder


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("", "run"),
        ("--help", "--help"),
        ("--version", "--version"),
        ("limit=2", "run limit=2"),
        ("-m limit=2", "run -m limit=2"),
        ("run limit=2 list", "run limit=2 list"),
        ("limit=2 list", "run limit=2 list"),
        ("lst", "run lst"),
        ("--config-dir DIR list models", "list --config-dir DIR models"),
        ("--config-dir list list models", "list --config-dir list models"),
        ("--config-dir=list models", "run --config-dir=list models"),
        ("list --config-dir DIR models", "list --config-dir DIR models"),
        ("--json list", "list --json=-"),
        ("--json out.json list", "list --json=out.json"),
        ("--json - list", "list --json=-"),
        ("list --json", "list --json=-"),
        ("list --json models", "list --json=- models"),
        ("compare --json results", "compare --json=- results"),
        ("compare --json out.json results", "compare --json=out.json results"),
        ("compare --json=out results", "compare --json=out results"),
        ("compare results --json --alpha=0.1", "compare results --json=- --alpha=0.1"),
        ("--json task.path=a.json", "run --json=- task.path=a.json"),
        ("--alpha 0.1 report DIR", "report --alpha 0.1 DIR"),
        ("--format csv report DIR", "report --format csv DIR"),
        ("--json cache info", "cache info --json=-"),
        ("cache --cache-dir info info", "cache info --cache-dir info"),
        ("--cache-dir DIR cache --json info", "cache info --cache-dir DIR --json=-"),
        ("--help list", "list --help"),
        ("report -- --json", "report -- --json"),
    ],
)
def test_the_command_comes_first(typed: str, words: str) -> None:
    assert arranged(typed.split(), ROOT, RUN) == words.split()


def test_options_before_the_command_do_what_they_do_behind_it(here: Path) -> None:
    (here / "own" / "protocol").mkdir(parents=True)
    (here / "own" / "protocol" / "ours.yaml").write_text("name: mteb-v2\ndescription: our own\n")
    outputs = {
        run_here(*words).stdout
        for words in (
            ("--config-dir", "own", "list", "protocols"),
            ("list", "--config-dir", "own", "protocols"),
            ("list", "protocols", "--config-dir=own"),
        )
    }
    assert len(outputs) == 1
    assert "our own" in outputs.pop()
    before, behind = run_here("--json", "cache", "info"), run_here("cache", "info", "--json")
    assert (
        set(json.loads(before.stdout)) == set(json.loads(behind.stdout)) == {"folder", "store", "ways", "conversions"}
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_in_two_ways(name: str) -> None:
    one, other = run_here("help", name), run_here(name, "--help")
    assert (one.code, one.stderr) == (0, "")
    assert one.stdout == other.stdout
    assert one.stdout.startswith(f"Usage: evalkit {name}")


def test_help_of_all_commands_and_of_those_within_one() -> None:
    assert run_here("help") == run_here("--help")
    assert run_here("help", "cache", "info") == run_here("cache", "info", "--help")
    top = run_here("help").stdout
    assert set(COMMANDS) == set(ROOT.commands)
    assert all(f"\n  {name} " in top for name in COMMANDS)
    for wrong, hint in ((("help", "reprot"), "did you mean report"), (("help", "cache", "inf"), "did you mean info")):
        done = run_here(*wrong)
        assert (done.code, done.stdout) == (2, "")
        assert hint in done.stderr


def test_help_is_made_of_the_registries() -> None:
    """What is added to one appears without another edit."""

    def shown(name: str) -> str:
        return " ".join(run_here("help", name).stdout.replace("-\n", "-").split())

    assert all(name in shown("report") for name in (*FORMATS, *SLICES))
    assert all(name in shown("compare") for name in SLICES)
    assert all(name in shown("list") for name in ("models", "tasks", "backends", "protocols"))
    whole = run_here("help", "run").stdout.replace(" ", "").replace("\n", "")
    for group in default_options():
        assert all(name.replace(" ", "") in whole for name in option_names(group)), group
    for command in ("run", "doctor", "parity"):
        text = run_here("help", command).stdout
        for setting in ("limit: null", "model.pooling: mean", "backend.concurrency: 8", "ray.address: local"):
            assert setting in text
    assert all(isinstance(command, Command) for name, command in ROOT.commands.items() if name != "cache")


@pytest.mark.parametrize("name", WITH_JSON, ids=" ".join)
def test_help_says_what_follows_json(name: tuple[str, ...]) -> None:
    text = " ".join(run_here("help", *name).stdout.split())
    assert "--json [FILE]" in text
    assert "a word that ends in .json, or --json=FILE" in text


def arguments_of(name: tuple[str, ...], results: Path) -> tuple[str, ...]:
    """A quick call of each command that has JSON to give."""
    return {
        ("run",): (*QUICK, "model=constant"),
        ("doctor",): (*QUICK, "model=constant"),
        ("list",): ("protocols",),
        ("compare",): (str(results),),
        ("audit",): (str(results),),
        ("report",): (str(results),),
        ("cache", "info"): ("--cache-dir", "store"),
    }[name]


@pytest.mark.parametrize("name", [name for name in WITH_JSON if name != ("parity",)], ids=" ".join)
def test_json_alone_or_in_a_file_beside_the_rest(name: tuple[str, ...], results: Path, here: Path) -> None:
    words = (*name, *arguments_of(name, results))
    plain = run_here(*words)
    alone = [run_here(*words, *flag) for flag in (("--json",), ("--json", "-"), ("--json=-",))]
    contents = [json.loads(done.stdout) for done in alone]
    files = [("--json", "out.json"), ("--json=out.json",), ("--json=out",)]  # the second replaces the first's
    beside = [run_here(*words, *flag) for flag in files]
    for done in (plain, *alone, *beside):
        assert done.code == plain.code, done.stderr
    assert len({type(content) for content in contents}) == 1
    for path in ("out.json", "out"):
        written = json.loads((here / path).read_text("utf-8"))
        assert set(written[0] if isinstance(written, list) else written) == set(
            contents[0][0] if isinstance(contents[0], list) else contents[0]
        )
    for done in beside:  # what it says of times differs
        assert done.stdout.splitlines()[0] == plain.stdout.splitlines()[0]
        assert len(done.stdout.splitlines()) == len(plain.stdout.splitlines())
    assert plain.stdout != alone[0].stdout


def test_what_json_takes_for_its_file_is_never_another_s(results: Path, here: Path) -> None:
    """A folder of results is read, a file that `--json` did not write is not replaced."""
    for command in ("compare", "report", "audit"):
        done = run_here(command, "--json", str(results))
        assert done.code in (0, 1), done.stderr
        assert json.loads(done.stdout)
    (path,) = results.rglob("local__constant/**/EvalkitDemoZh2En.json")
    (here / "card.json").write_text('{"task_name": "mine"}')
    (here / "notes.json").write_text("no JSON at all")
    for taken in (path, here / "card.json", here / "notes.json"):
        before = taken.read_bytes()
        for command in ("compare", "report", "audit"):
            done = run_here(command, "--json", str(taken), str(results))
            assert (done.code, done.stdout) == (2, "")
            assert f"--json {taken} would replace" in done.stderr
            assert taken.read_bytes() == before


def test_where_json_may_go(here: Path) -> None:
    assert json_target(None, "results") is None
    assert json_target(STDOUT, "results") == STDOUT
    (here / "empty.json").touch()
    (here / "list.json").write_text('[{"checks": []}]')
    assert json_target(Path("empty.json"), "results") == Path("empty.json")
    assert json_target(Path("list.json"), "checks") == Path("list.json")
    for path in ("list.json", "nowhere/out.json"):
        with pytest.raises(EvalkitError, match=path):
            json_target(Path(path), "results")


def test_parity_checks_its_file_before_it_runs_anything(here: Path) -> None:
    (here / "mine.json").write_text("{}")
    for flag, told in (("--json=mine.json", "would replace"), ("--json=no/where.json", "there is no folder no")):
        done = run_here("parity", *QUICK, "model=multilingual-e5-small", "backends=torch,mteb", flag)
        assert (done.code, done.stdout) == (2, "")
        assert told in done.stderr


def test_a_report_beside_its_json(results: Path, here: Path) -> None:
    done = run_here("report", str(results), "--format", "markdown", "--json", "out.json")
    assert done.stdout == run_here("report", str(results), "--format", "markdown").stdout
    assert (here / "out.json").read_text("utf-8") == run_here("report", str(results), "--format", "json").stdout
    done = run_here("report", str(results), "--format", "mteb", "-o", "out", "--json=o.json")
    assert done.code == 0, done.stderr
    assert (here / "o.json").read_text("utf-8") == (here / "out.json").read_text("utf-8")
    assert list((here / "out").rglob("*.json"))
    done = run_here("report", str(results), "--published", "--json=p.json")
    assert (done.code, done.stdout) == (2, "")
    assert "--json" in done.stderr


def test_commands_without_json_refuse_it() -> None:
    done = run_here("cache", "--json")
    assert done.code == 2
    assert "No such option" in done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--cfg", "job", "-m", "model=bm25,constant"), "--multirun and --cfg"),
        (("--resolve", "model=bm25"), "--cfg"),
        (("parity", "-m", "model=bm25,constant"), "leave out -m"),
        (("doctor", "--cfg", "job"), "--cfg"),
        (("doctor", "lst"), "no command 'lst'"),
    ],
)
def test_flags_that_do_not_go_together(words: tuple[str, ...], told: str) -> None:
    done = run_here(*words)
    assert (done.code, done.stdout) == (2, "")
    assert told in done.stderr
