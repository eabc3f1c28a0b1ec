"""What an extension costs: each is made in a copy of the package, the touched files are counted, and the product shows it.

A trial edits as a contributor would, and then asks the commands: what is new must appear in all of them without another edit.
"""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from command import Outcome
from task_files import write_jsonl

ROOT = Path(__file__).parent.parent

# takes steps one after another, in a process that imports the copy: a list is a command, a text an expression
ASK = """
import dataclasses, json, sys
import evalkit
from command import run_here
take = lambda step: eval(step) if isinstance(step, str) else dataclasses.astuple(run_here(*step))
print(json.dumps([take(step) for step in json.loads(sys.argv[1])]))
"""


@dataclass(frozen=True)
class Copy:
    """A copy of the package and its configuration in `place`, which trials edit, and an empty folder `work` to run it in."""

    place: Path
    work: Path

    def add(self, name: str, text: str) -> None:
        """Write a new file."""
        path = self.place / name
        assert not path.exists()
        path.write_text(text, encoding="utf-8")

    def insert(self, folder: str, after: str, text: str) -> None:
        """Insert lines behind a line, in the one file below a folder that has it."""
        (path,) = (path for path in (self.place / folder).rglob("*.py") if f"\n{after}\n" in path.read_text("utf-8"))
        content = path.read_text(encoding="utf-8")
        assert content.count(f"\n{after}\n") == 1
        path.write_text(content.replace(f"\n{after}\n", f"\n{after}\n{text}"), encoding="utf-8")

    @property
    def touched(self) -> list[str]:
        """The files that differ from the checkout's, or are not there."""
        names = (path.relative_to(self.place) for path in self.place.rglob("*") if path.is_file())
        return sorted(
            str(name)
            for name in names
            if name.suffix != ".pyc"
            and not ((ROOT / name).is_file() and filecmp.cmp(ROOT / name, self.place / name, shallow=False))
        )

    def ask(self, *steps: Sequence[str] | str) -> list[Any]:
        """Run commands of the copy, whose outcomes are returned, or evaluate expressions with `evalkit`, in their order."""
        done = subprocess.run(
            [sys.executable, "-c", ASK, json.dumps(steps)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(self.place), str(ROOT / "tests")])},
            cwd=self.work,
            capture_output=True,
            encoding="utf-8",
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        answers = json.loads(done.stdout.splitlines()[-1])
        return [
            answer if isinstance(step, str) else Outcome(*answer) for step, answer in zip(steps, answers, strict=True)
        ]

    def results(self) -> list[dict[str, Any]]:
        """The results that commands wrote, by the names of their files."""
        files = sorted((self.work / "results").rglob("*.json"))
        return [json.loads(path.read_text(encoding="utf-8")) for path in files if path.name != "model_meta.json"]


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    for name in ("evalkit", "configs"):
        shutil.copytree(ROOT / name, tmp_path / "copy" / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "work").mkdir()
    copy = Copy(tmp_path / "copy", tmp_path / "work")
    assert copy.touched == []
    return copy


def unwrapped(text: str) -> str:
    """Join the lines of a help page, which is broken at spaces and hyphens."""
    return " ".join(text.split()).replace("- ", "-")


def assert_shown(copy: Copy, steps: Sequence[Sequence[str] | str], title: str, *options: str) -> list[Any]:
    """Take steps that make results of two models, then ask for every report and comparison: each has to show the title."""
    formats = ("markdown", "csv", "json", "latex")
    reports = [
        ("report", "results", *options),
        *(("report", "results", *options, "--format", name) for name in formats),
    ]
    others = [("compare", "results", *options), ("compare", "results", *options, "--json")]
    answers = copy.ask(*steps, *reports, *others, ("report", "results", *options, "-o", "page.html"))
    taken, shown = answers[: len(steps)], answers[len(steps) : -1]
    for outcome in shown:
        assert outcome.code == 0, outcome.stderr
        assert title in outcome.stdout or title.lower().replace("@", "_at_") in outcome.stdout
    page = (copy.work / "page.html").read_text(encoding="utf-8")
    assert title in page
    return taken


def assert_audited(copy: Copy, metric: str) -> None:
    """Falsify a metric of a stored result: the audit, which finds nothing before, has to find that."""
    path = min((copy.work / "results").rglob("Evalkit*.json"))
    result = json.loads(path.read_text(encoding="utf-8"))
    (scores,) = result["scores"]["test"]
    scores[metric] += 0.0123
    false = copy.work / "false"
    shutil.copytree(copy.work / "results", false)
    (false / path.relative_to(copy.work / "results")).write_text(json.dumps(result), encoding="utf-8")
    honest, found = copy.ask(("audit", "results"), ("audit", "false"))
    assert honest.code == 0, honest.stdout
    assert found.code == 1
    assert metric in found.stdout


def test_model_is_one_file(copy: Copy, tiny_bert_reranker: Path) -> None:
    copy.add(
        "configs/model/tiny-bert.yaml",
        f"defaults: [base, _self_]\nname: tiny-bert\nkind: cross-encoder\npath: {tiny_bert_reranker}\nmax_length: 64\n",
    )
    assert copy.touched == ["configs/model/tiny-bert.yaml"]
    run = ("model=tiny-bert", "task=demo-zh", "limit=2", "backend=torch", "cache=off", "offline=true")
    listed, as_json, helped, ran, reported, misspelt, max_length = copy.ask(
        ("list", "models"),
        ("list", "models", "--json"),
        ("run", "--help"),
        run,
        ("report", "results", "--json"),
        ("model=tiny-brt", "task=demo-zh"),
        "evalkit.load_model('tiny-bert').settings.max_length",
    )
    assert "tiny-bert " in listed.stdout
    (entry,) = (entry for entry in json.loads(as_json.stdout)["models"] if entry["name"] == "tiny-bert")
    assert {"torch", "onnx", "transformers"} < set(entry["backends"])
    assert ", tiny-bert, " in unwrapped(helped.stdout)
    assert (ran.code, ran.rows[0][0]) == (0, "tiny-bert")
    assert "tiny-bert" in reported.stdout
    assert "tiny-bert" in misspelt.stderr
    assert max_length == 64


def test_task_is_one_file(copy: Copy) -> None:
    rows = [
        {"query": "what is a fever", "positive": ["a fever is a high temperature"], "negative": ["an apple", "a bank"]},
        {"query": "where do pandas live", "positive": ["pandas live in China"], "negative": ["fever", "a cold winter"]},
    ]
    path = write_jsonl(copy.work / "made.jsonl", rows)
    copy.add(
        "configs/task/made.yaml",
        f'defaults: [base, _self_]\nname: made\ndescription: "Two made queries"\nlanguages: [eng-Latn]\npath: {path}\n',
    )
    assert copy.touched == ["configs/task/made.yaml"]
    listed, as_json, helped, ran, reported, compared, again, checked, misspelt, queries = copy.ask(
        ("list", "tasks"),
        ("list", "tasks", "--json"),
        ("run", "--help"),
        ("-m", "model=bm25,random", "task=made", "offline=true"),
        ("report", "results"),
        ("compare", "results"),
        ("-m", "model=bm25,random", "task=made", "offline=true", "results_dir=again"),
        ("check", "--baseline", "results", "--results", "again"),
        ("model=bm25", "task=maed"),
        "evalkit.load_task('made').statistics.queries",
    )
    assert "Two made queries" in listed.stdout
    assert "made" in [entry["name"] for entry in json.loads(as_json.stdout)["tasks"]]
    assert ", made," in unwrapped(helped.stdout)
    assert (ran.code, again.code) == (0, 0)
    assert {result["task_name"] for result in copy.results()} == {"made"}
    for outcome in (reported, compared, checked):
        assert outcome.code == 0
        assert "made" in outcome.stdout
    assert "did you mean made" in misspelt.stderr
    assert queries == 2


BACKEND = '''
"""Counts the words that a query and a document share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evalkit.models.interfaces import RunnableModel, Runtime
from evalkit.models.settings import ModelSettings
from evalkit.records import ModelIdentity


@dataclass(frozen=True)
class Shared:
    def score(self, pairs):
        return np.array([len(set(query) & set(document)) for query, document in pairs], np.float32)


def prepare(settings: ModelSettings, runtime: Runtime) -> RunnableModel:
    identity = ModelIdentity(settings.name, settings.hub_id or f"local/{settings.name}", "made", settings.kind)
    return RunnableModel(identity, {"name": "shared-words", "dtype": "fp32"}, None, Shared)
'''


def test_backend_is_a_module_and_a_file(copy: Copy) -> None:
    copy.add("evalkit/backends/shared_words.py", BACKEND)
    copy.add(
        "configs/backend/shared-words.yaml",
        "defaults: [base, _self_]\nname: shared-words\nkinds: [cross-encoder, lexical]\n",
    )
    assert copy.touched == ["configs/backend/shared-words.yaml", "evalkit/backends/shared_words.py"]
    run = ("task=demo-zh", "limit=4", "offline=true", "cache=off")
    listed, as_json, models, helped, ran, examined, beside, refused, backend = copy.ask(
        ("list", "backends"),
        ("list", "backends", "--json"),
        ("list", "models"),
        ("run", "--help"),
        ("model=bge-reranker-base", "backend=shared-words", *run),
        ("doctor", "model=bm25", "backend=shared-words", *run),
        ("parity", "model=bm25", "backends=lexical,shared-words", *run),
        ("model=oracle", "backend=shared-words", *run),
        "evalkit.load_model('bge-reranker-base', backend='shared-words').runnable.description['name']",
    )
    assert ["shared-words", "cross-encoder,", "lexical"] in [line.split()[:3] for line in listed.stdout.splitlines()]
    (entry,) = (entry for entry in json.loads(as_json.stdout)["backends"] if entry["name"] == "shared-words")
    assert entry["kinds"] == ["cross-encoder", "lexical"]
    assert "shared-words" in models.stdout.partition("all cross-encoder backends: ")[2].partition("\nall ")[0]
    assert ", shared-words," in unwrapped(helped.stdout)
    assert ran.code == 0, ran.stderr
    assert "shared-words" in json.dumps(copy.results())
    assert "40 of 40 pairs" in examined.stdout, examined.stderr
    assert "shared-words" in beside.stdout, beside.stderr
    assert "backend=shared-words can't run oracle, whose kind is baseline" in refused.stderr
    assert backend == "shared-words"


AUDIT_RULE = '''
"""Figures that are too round."""

from __future__ import annotations

from collections.abc import Iterator

from evalkit.audit.figures import AuditedFigures, AuditFinding


def round_figures(evidence: AuditedFigures) -> Iterator[AuditFinding]:
    """Find figures without decimals."""
    for figure in evidence.figures:
        if figure.decimals == 0:
            what = f"{figure.task} {figure.metric} is round"
            yield AuditFinding("error", "round figures", what, figure.file, figure.place, "seldom round", figure.printed)
'''


def test_audit_rule_is_a_function_and_an_entry(copy: Copy) -> None:
    copy.add("evalkit/audit/rules/round.py", AUDIT_RULE)
    copy.insert(
        "evalkit/audit",
        "from evalkit.audit.rules.copies import repeated_figures",
        "from evalkit.audit.rules.round import round_figures\n",
    )
    copy.insert("evalkit/audit", "RULES: tuple[Rule, ...] = (", "    round_figures,\n")
    assert copy.touched == ["evalkit/audit/rules/__init__.py", "evalkit/audit/rules/round.py"]
    table = copy.work / "table.md"
    table.write_text("| model | T2Reranking |\n|---|---|\n| made | 66.25 |\n| round | 66 |\n", encoding="utf-8")
    shown, as_json = copy.ask(("audit", str(table)), ("audit", str(table), "--json"))
    assert (shown.code, as_json.code) == (1, 1)
    assert "T2Reranking map is round" in shown.stdout
    assert "seldom round" in shown.stdout
    ((found,),) = (
        [finding for finding in file["findings"] if finding["rule"] == "round figures"]
        for file in json.loads(as_json.stdout)["files"]
    )
    assert (found["severity"], found["evidence"]) == ("error", "66")


DOCTOR_CHECK = '''

def judge_sign(evidence: Evidence) -> Opinion:
    """Judge whether there is a score below zero."""
    lowest = evidence.found.scores.min()
    return Opinion("warning", f"the lowest score is {lowest:.2f}", "look why") if lowest < 0 else Opinion("ok", "none")
'''


def test_doctor_check_is_a_function_and_an_entry(copy: Copy) -> None:
    copy.insert("evalkit/doctor", 'Needs = Literal["nothing", "finite scores", "scores that differ"]', DOCTOR_CHECK)
    copy.insert("evalkit/doctor", "CHECKS = (", '    Check("sign", "a score below zero surprises", judge_sign),\n')
    assert copy.touched == ["evalkit/doctor/checks.py"]
    examine = ("doctor", "model=reversed", "task=demo-zh", "limit=4", "offline=true")
    shown, as_json, fine = copy.ask(examine, (*examine, "--json"), ("doctor", "model=bm25", *examine[2:]))
    assert "the lowest score is -1.00" in shown.stdout
    assert "a score below zero surprises" in shown.stdout
    assert "the lowest score is -1.00" in as_json.stdout
    assert ["ok", "sign", "none"] in [line.split() for line in fine.stdout.splitlines()]


METRIC = '''

def rank_biased_precision(ranking: Ranking, cutoff: int) -> Floats:
    """Relevance discounted by 0.8 per rank (Moffat and Zobel 2008)."""
    return ranking.per_query(retrieved_relevance(ranking, cutoff) * 0.2 * 0.8 ** (ranking.ranks - 1))
'''


def test_metric_is_a_function_and_an_entry(copy: Copy) -> None:
    copy.insert("evalkit/metrics", "WHOLE_LIST = int(np.iinfo(np.int64).max)", METRIC)
    copy.insert(
        "evalkit/metrics",
        "METRICS = {\n    metric.name: metric\n    for metric in (",
        '        Metric("RBP", "rbp", "RBP", formulas.rank_biased_precision),\n',
    )
    assert copy.touched == ["evalkit/metrics/formulas.py", "evalkit/metrics/measures.py"]
    run = ("-m", "model=bm25,random", "task=demo-zh", "limit=8", "offline=true", "measures=[RBP@10,RBP(rel=1)]")
    in_python = (
        "evalkit.evaluate(evalkit.load_model('bm25'), evalkit.load_task('demo-zh', limit=8), measures='RBP@10')"
        ".scores['RBP@10']"
    )
    ran, _, value = assert_shown(copy, [run, (*run, "results_dir=again"), in_python], "RBP@10", "--metric", "RBP@10")
    assert "RBP@10" in ran.stdout
    (checked,) = copy.ask(("check", "--baseline", "results", "--results", "again"))
    assert [(row[3], row[4]) for row in checked.rows if "RBP" in row[3]] == 2 * [("RBP", "equal"), ("RBP@10", "equal")]
    (scores, other) = (result["scores"]["test"][0] for result in copy.results())
    assert 0 < scores["RBP@10"] < 1
    assert value in (scores["RBP@10"], other["RBP@10"])
    assert scores["RBP@10"] != other["RBP@10"]
    assert scores["RBP"] == pytest.approx(scores["RBP@10"])  # lists of ten
    assert_audited(copy, "RBP@10")


def test_protocol_is_an_entry_and_a_file(copy: Copy) -> None:
    copy.add("configs/protocol/ndcg-first.yaml", "name: ndcg-first\ndescription: nDCG@10, then MRR@10\n")
    copy.insert(
        "evalkit/metrics",
        "PROTOCOLS = {\n    protocol.name: protocol\n    for protocol in (",
        """        Protocol(
            name="ndcg-first",
            measures=(
                Measure("ndcg_at_10", METRICS["ndcg"], _MTEB_V2, 10),
                Measure("first_rr", METRICS["mrr"], TREC_EVAL),
            ),
            leading_names=("ndcg_at_10", "first_rr"),
        ),
""",
    )
    assert copy.touched == ["configs/protocol/ndcg-first.yaml", "evalkit/metrics/measures.py"]
    run = ("-m", "model=bm25,random", "task=demo-zh", "limit=8", "protocol=ndcg-first", "offline=true", "cache=off")
    ran, _, listed, helped = assert_shown(
        copy, [run, (*run, "results_dir=again"), ("list", "protocols"), ("run", "--help")], "nDCG@10"
    )
    assert ["model", "task", "nDCG@10", "MRR"] == ran.stdout.splitlines()[0].split()[:4]
    assert "nDCG@10, then MRR" in listed.stdout
    assert "cmteb-v1, mteb-retrieval, mteb-v2, ndcg-first " in unwrapped(helped.stdout)
    for result in copy.results():
        (scores,) = result["scores"]["test"]
        assert scores["main_score"] == scores["ndcg_at_10"]
    (checked,) = copy.ask(("check", "--baseline", "results", "--results", "again"))
    assert [(row[3], row[4]) for row in checked.rows] == 2 * [("ndcg_at_10", "equal"), ("first_rr", "equal")]
    assert_audited(copy, "first_rr")


REPORT_FORMAT = '''

def _winners(report: Report) -> str:
    """Name the best system of each leaderboard."""
    return "".join(f"winner: {board.standings[0].system.name}\\n" for board in report.boards)

'''


def test_report_format_is_a_function_and_an_entry(copy: Copy) -> None:
    copy.insert("evalkit/report", '_LATEX_BEGINNING = "% evalkit report"', REPORT_FORMAT)
    copy.insert(
        "evalkit/report",
        "FORMATS = format_table(\n    (",
        '        Format("winners", "the best alone", begins_with("winner: "), text=_winners),\n',
    )
    assert copy.touched == ["evalkit/report/formats.py"]
    (copy.work / "precious.txt").write_text("a diary", encoding="utf-8")
    (copy.work / "kept.txt").write_text("winner: someone\n", encoding="utf-8")
    report = ("report", "results", "--format", "winners")
    ran, helped, shown, written, refused, misspelt = copy.ask(
        ("-m", "task=demo-zh", "model=oracle,random", "offline=true"),
        ("report", "--help"),
        report,
        (*report, "-o", "kept.txt"),
        (*report, "-o", "precious.txt"),
        ("report", "results", "--format", "winner"),
    )
    assert ran.code == 0
    assert "winners (the best alone)" in unwrapped(helped.stdout)
    assert shown.stdout == "winner: oracle\n"
    assert written.code == 0, written.stderr
    assert (copy.work / "kept.txt").read_text(encoding="utf-8") == "winner: oracle\n"
    assert refused.code == 2
    assert "precious.txt exists and holds no report as winners" in refused.stderr
    assert (copy.work / "precious.txt").read_text(encoding="utf-8") == "a diary"
    assert "winners" in misspelt.stderr
