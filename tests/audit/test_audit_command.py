"""The command: what it prints, for people and machines, and its exit codes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from command import run_here, run_program
from made_cards import published_metrics, write_card


def test_exit_codes_of_clean_wrong_and_unreadable_files(tmp_path: Path) -> None:
    clean = write_card(tmp_path / "clean", published_metrics())
    wrong = write_card(tmp_path / "bge-reranker-large", published_metrics())
    broken = tmp_path / "broken.json"
    broken.write_text("{", encoding="utf-8")
    assert run_here("audit", str(clean)).code == 0
    assert run_here("audit", str(clean), str(wrong)).code == 1
    both = run_here("audit", str(broken), str(wrong), str(tmp_path / "none.md"))
    assert both.code == 2
    assert [line.split(" (")[0] for line in both.stderr.splitlines()] == [
        f"evalkit: {broken} is not valid JSON",
        f"evalkit: cannot read {tmp_path / 'none.md'}",
    ]
    assert "BAAI/bge-reranker-large has the figures of BAAI/bge-reranker-base" in both.stdout  # audited all the same
    assert run_here("audit").code == 2
    assert run_here("audit", str(tmp_path / "clean" / "..")).code == 2  # a folder without results


def test_findings_are_grouped_by_file_with_what_could_be_tested(tmp_path: Path) -> None:
    one = write_card(tmp_path / "one", {**published_metrics(), ("MMarcoReranking", "mrr"): 34.603})
    two = write_card(tmp_path / "two", published_metrics())
    done = run_here("audit", str(one), str(two))
    lines = done.stdout.splitlines()
    assert lines[0] == str(one)
    assert lines[1] == "  error   mrr of MMarcoReranking is not what was published for BAAI/bge-reranker-base [changed]"
    assert lines[2].startswith(
        "          model-index[0].results[2].metrics[1] (MMarcoReranking mrr): 34.603 here; the nearest"
    )
    assert lines[-7:] == [
        "  8 figures read",
        "  MRRs tested on their lattice, 1/(2520 × queries) at cutoff 10: 3, on it 3",
        "  MRRs that can't be tested: 1 (1: rounded too far)",
        str(two),
        "  8 figures read",
        "  MRRs tested on their lattice, 1/(2520 × queries) at cutoff 10: 4, on it 4",
        "2 files audited: 1 error, 0 warnings, 0 notes",
    ]


def test_machines_get_json(tmp_path: Path) -> None:
    wrong = write_card(tmp_path / "bge-reranker-large", published_metrics())
    none = tmp_path / "none.json"
    content = json.loads(run_here("audit", "--json", str(wrong), str(none)).stdout)
    assert content["findings"] == {"error": 1, "warning": 0, "note": 0}
    card, missing = content["files"]
    assert card["findings"][0]["rule"] == "copy"
    assert set(card["findings"][0]) == {"severity", "rule", "what", "file", "place", "why", "evidence"}
    assert card["tested"]["on_lattice"] == {"cmteb-v1": 4}
    assert missing["unreadable"].startswith("cannot read")
    assert missing["tested"] is None


def test_no_network_library_is_loaded(tmp_path: Path) -> None:
    path = write_card(tmp_path, published_metrics())
    code = (
        "import sys; from evalkit.commands.main import run_command_line; assert run_command_line(sys.argv[1:]) == 0; "
        "loaded = {'torch', 'transformers', 'mteb', 'hydra', 'datasets', 'pandas'} & set(sys.modules); assert not loaded, loaded"
    )
    done = run_program(tmp_path, "audit", str(path), program=(sys.executable, "-c", code))
    assert done.code == 0, done.stderr
