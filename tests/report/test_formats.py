"""The table of report formats: an entry is all that a new one takes, and each keeps what is not its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import run_here

from evalkit.errors import EvalkitError
from evalkit.report.command import print_report
from evalkit.report.content import Report, ReportChoices
from evalkit.report.formats import (
    FORMATS,
    Format,
    begins_with,
    find_format,
    folder_names_help,
    format_names_help,
    format_table,
)
from evalkit.results.reading import read_results

CHOICES = ReportChoices(metric=None, alpha=0.05, seed=42, slices=())
PRECIOUS = "Precious notes\n"


@pytest.fixture
def one_model(demo_results: Path) -> Path:
    return demo_results / "local__random"


def list_systems(report: Report) -> str:
    return "SYSTEMS\n" + "".join(f"{label}\n" for label in report.labels.values())


def write(chosen: Format, output: Path, results: Path) -> None:
    print_report([results], CHOICES, chosen.name, output)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_entry_is_all_that_a_format_takes(one_model: Path, tmp_path: Path) -> None:
    """It is in the help, found by its name, named in an error, written, and guarded."""
    new = Format("systems", "the systems' names", begins_with("SYSTEMS\n"), text=list_systems)
    formats = format_table((*FORMATS.values(), new))
    assert "systems (the systems' names)" in format_names_help(formats)
    assert find_format("systems", formats) is new
    with pytest.raises(EvalkitError, match="there is no format 'sytems'; did you mean systems"):
        find_format("sytems", formats)
    file = tmp_path / "file"
    for _ in range(2):
        print_report([one_model], CHOICES, "systems", file, formats=formats)
    assert file.read_text(encoding="utf-8") == "SYSTEMS\nrandom\n"
    file.write_text(PRECIOUS)
    with pytest.raises(EvalkitError, match="file exists and holds no report as systems"):
        print_report([one_model], CHOICES, "systems", file, formats=formats)
    assert file.read_text() == PRECIOUS


def test_help_names_each_format() -> None:
    shown = " ".join(run_here("report", "--help").stdout.replace("│", " ").split())
    for one in FORMATS.values():
        assert f"{one.name} ({one.help})" in shown
    assert f"({folder_names_help()}: into this folder)" in shown


@pytest.mark.parametrize("name", [name for name, one in FORMATS.items() if one.text is not None])
def test_no_format_replaces_a_file_that_is_not_its_own(name: str, one_model: Path, tmp_path: Path) -> None:
    chosen, file = FORMATS[name], tmp_path / "precious.txt"
    file.touch()
    for _ in range(2):  # an empty one is replaced, and its own
        write(chosen, file, one_model)
        assert chosen.recognises(file.read_bytes())
    file.write_text(PRECIOUS)
    with pytest.raises(EvalkitError, match=f"precious.txt exists and holds no report as {name}"):
        write(chosen, file, one_model)
    assert file.read_text() == PRECIOUS


@pytest.mark.parametrize("name", [name for name, one in FORMATS.items() if one.files is not None])
def test_no_format_replaces_files_of_a_folder_that_are_not_its_own(name: str, one_model: Path, tmp_path: Path) -> None:
    chosen = FORMATS[name]
    for _ in range(2):
        write(chosen, tmp_path, one_model)
    made = contents(tmp_path)
    assert made
    for path in made:
        path.write_text(PRECIOUS)
        with pytest.raises(EvalkitError, match=f"exists and holds no report as {name}"):
            write(chosen, tmp_path, one_model)
        assert contents(tmp_path) == {**made, path: PRECIOUS.encode()}
        path.write_bytes(made[path])


@pytest.mark.parametrize("chosen", FORMATS.values(), ids=list(FORMATS))
def test_no_format_takes_another_ones_file_for_its_own(chosen: Format, one_model: Path) -> None:
    report = Report(tuple(read_results([one_model])), CHOICES)
    for other in FORMATS.values():
        if other.text is not None:
            written = other.text(report).encode()
            assert chosen.recognises(written) == (other is chosen), other.name
