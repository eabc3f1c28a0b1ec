"""Results as pandas tables, for those who go on in Python: what `evalkit report` and `evalkit compare` show."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from evalkit.compare import comparison
from evalkit.compare.systems import system_labels
from evalkit.errors import EvalkitError
from evalkit.report import content
from evalkit.report.leaderboard import Board, Standing
from evalkit.results.folders import result_folder
from evalkit.results.reading import read_readable, read_results
from evalkit.results.result import Result, remark_lines
from evalkit.results.training import training_phrase
from evalkit.results.writing import write_result

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger("evalkit")
_INTERVALS = {"interval": ("low", "high"), "effect_interval": ("effect_low", "effect_high")}


def save_result(result: Result, results_dir: Path | str = "results", *, texts: bool = False) -> Path:
    """Write a result of `evaluate` below `results_dir`, where the command line would, and give the JSON's path.

    `texts` says whether texts that the result has are written too. Raises EvalkitError where the folder can't be written, and
    where another result lies there: on other data of the task's name, of another model, of other settings.
    """
    return write_result(result, result_folder(Path(results_dir), result.model, result.experiment), with_texts=texts)


def load_results(*paths: Path | str) -> list[Result]:
    """Read results back from files, or from all files below folders.

    Their tables are read when they are first needed. Raises EvalkitError, naming the file, where
    one can't be read.
    """
    return read_results(_checked(paths))


def leaderboard(*paths: Path | str, metric: str | None = None, alpha: float = 0.05, seed: int = 42) -> pd.DataFrame:
    """Rank the systems of these results: a row per task (or average over the same tasks) and system, the best first.

    `value`, `low` and `high` (95 %) are fractions; `best_rank` to `worst_rank` are the ranks that no test at `alpha` rules out.
    `training` says whether a model was trained on the task's data, as far as that is known, and on how many of an average's.
    `remarks` says, in lines, what else a reader should know of the figure.
    `metric` is a name in `scores`; without it, the protocol's main score. Results that can't be compared are left out, with a
    warning that names them. Raises EvalkitError where none is left.
    """
    import pandas as pd

    _check(alpha, seed)
    report = content.make_report(_checked(paths), content.ReportChoices(metric, alpha, seed, ()))
    _tell(report.left_out)
    rows = [_standing_row(report, board, standing) for board in report.main_boards for standing in board.standings]
    frame = pd.DataFrame(rows).replace("", None)
    return frame.astype({name: float for name in frame if frame[name].isna().all()})


def compare_results(*paths: Path | str, metric: str | None = None, alpha: float = 0.05, seed: int = 42) -> pd.DataFrame:
    """Compare systems on the same queries: a row per task and pair.

    `difference` (first - second, with `low` and `high`, an interval of 1 - `alpha`) and `detectable` are fractions, `p_value` is of
    a paired randomisation test, `adjusted_p` after Holm's correction, `effect_size` Cohen's d of the differences. Results that
    can't be compared are left out, with a warning that names them. Raises EvalkitError where there is nothing to compare.
    """
    import pandas as pd

    _check(alpha, seed)
    choices = comparison.CompareChoices(metric, alpha, seed, (), None)
    results, unread = read_readable(_checked(paths))
    compared, notes = comparison.compare_systems(results, choices, unread)
    _tell(notes)
    return pd.DataFrame([row for one in compared for row in _rows(one)])


def _checked(paths: Sequence[Path | str]) -> list[Path]:
    for path in paths:
        if not isinstance(path, str | Path):
            raise EvalkitError(f"give paths of result files or folders, one by one; found a {type(path).__name__}")
    if not paths:
        raise EvalkitError("give result files or folders")
    return [Path(path) for path in paths]


def _tell(notes: Sequence[str]) -> None:
    """Name what a table leaves out, which has no place for it."""
    for note in notes:
        logger.warning(note)


def _check(alpha: float, seed: int) -> None:
    if not 0 < alpha <= 1:
        raise EvalkitError(f"alpha={alpha}: a probability above 0, and at most 1")
    if seed < 0:
        raise EvalkitError(f"seed={seed}: a whole number, 0 or more")


def _standing_row(report: content.Report, board: Board, standing: Standing) -> dict[str, object]:
    about = {
        "tasks": "+".join(board.tasks),
        "limit": board.limit,
        "protocol": board.protocol,
        "metric": board.metric,
        "fingerprints": "+".join(board.fingerprints),
        "part": board.part,
        "n_queries": board.n_queries,
    }
    system = asdict(standing.system)
    del system["name"], system["settings"]
    return {
        **about,
        **dict(zip(("best_rank", "worst_rank"), standing.ranks, strict=True)),
        "system": report.labels[standing.system],
        **system,
        "value": standing.value,
        **dict(zip(("low", "high"), standing.interval, strict=True)),
        **dict(zip(("ties_low", "ties_high"), standing.ties or (None, None), strict=True)),
        **dict(zip(("noise_low", "noise_high"), standing.noise or (None, None), strict=True)),
        "training": training_phrase(standing.training),
        "remarks": "\n".join(remark_lines(report.results_of(board, standing.system))),
    }


def _rows(compared: comparison.TaskComparison) -> list[dict[str, object]]:
    shared = compared.shared
    labels = system_labels(shared.of.systems)
    rows = []
    for pair in compared.pairs:
        found = asdict(pair)
        names = {side: labels[shared.of.systems[found.pop(side)]] for side in ("first", "second")}
        means = dict(zip(("first_value", "second_value"), found.pop("means"), strict=True))
        ends = {
            end: value
            for interval, names_of_ends in _INTERVALS.items()
            for end, value in zip(names_of_ends, found.pop(interval), strict=True)
        }
        about = {"task": shared.of.task, "protocol": shared.of.protocol, "metric": shared.metric}
        rows.append({**about, **names, **means, **found, **ends})
    return rows
