"""Every command of README and the pages in docs/ is run, as its reader would run it, and ends as the page says."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest
from command import Outcome
from reader import Models, Reader, command_words, reading
from test_docs import LINES
from transformers import AutoModel, AutoTokenizer

# what a reader sees who has random weights and small copies of the tasks: the command works, and has something to say
FAULTS = {
    "doctor": "fault",
    "experiment=reproduce-model-card": "golden scores",
    "experiment=reproduce-qwen3-reranker": "look first at",
    "certify model=": "golden scores",
    "parity model=Qwen3": "DIFFERS",
    "task=T2Reranking model=bge-reranker-large reproduce=true": "verdict: 0 match",
    "audit": "error",
}
# what a page's reader has done before
TWO_RESULTS = [
    f"task=local task.path=data.jsonl model=./my-model results_dir={name}" for name in ("baseline", "candidate")
]
BEFORE = {
    "README.md": TWO_RESULTS,
    "docs/backends.md": ["task=local task.path=data.jsonl model=./my-model model.name=my-checkpoint"],
    "docs/commands.md": ["task=T2Reranking model=bge-reranker-base", "task=T2Reranking model=bm25", *TWO_RESULTS],
}
ELSEWHERE = {
    "hydra/launcher=submitit_slurm": "needs a cluster with Slurm",
    "model=text-embedding-3-small": "needs OpenAI's server",
}


@pytest.fixture
def reader(tiny_reranker: Path, tiny_bert_reranker: Path, tiny_qwen: Path, tmp_path: Path) -> Iterator[Reader]:
    embedder = tmp_path / "embedder"
    for part in (AutoModel, AutoTokenizer):
        part.from_pretrained(tiny_bert_reranker).save_pretrained(embedder)
    with reading(tmp_path, Models(tiny_reranker, embedder, tiny_qwen)) as found:
        yield found


PAGES = [(page, [line for _, line in lines]) for page, lines in groupby(LINES, key=lambda one: one[0])]
ENGLISH = [(page, lines) for page, lines in PAGES if "zh" not in page]  # the Chinese ones hold the same commands


@pytest.mark.parametrize(("page", "lines"), ENGLISH, ids=[page for page, _ in ENGLISH])
def test_a_page_s_commands_run(page: str, lines: list[str], reader: Reader) -> None:
    here = [line for line in lines if not any(part in line for part in ELSEWHERE)]
    before = BEFORE.get(page, [])
    outcomes = list(reader.run([command_words(line) for line in (*before, *here)]))[len(before) :]
    wrong = [
        f"{line}\n{_end(done)}" for line, done in zip(here, outcomes, strict=True) if not _as_it_should(line, done)
    ]
    assert not wrong, "\n\n".join(wrong)


def _as_it_should(line: str, done: Outcome) -> bool:
    if done.code == 0:
        return True
    said = next((said for start, said in FAULTS.items() if line.startswith(start)), None)
    return done.code == 1 and said is not None and said in done.stdout + done.stderr


def _end(done: Outcome) -> str:
    return f"  code {done.code}: " + " / ".join([*done.stdout.splitlines()[-4:], *done.stderr.splitlines()[-3:]])[-900:]
