"""Results as pandas tables, for those who go on in Python: what `evalkit report` and `evalkit compare` show."""

from __future__ import annotations

import io
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from evalkit.backends import AUTO
from evalkit.compare import comparison
from evalkit.compare.systems import system_labels
from evalkit.errors import EvalkitError
from evalkit.evaluation.evaluate import FULL_PRECISION
from evalkit.models.settings import read_model
from evalkit.records import Result
from evalkit.report import content
from evalkit.report.data import report_csv
from evalkit.results.folders import result_folder
from evalkit.results.reading import load_results as load_stored
from evalkit.results.writing import write_result

if TYPE_CHECKING:
    import pandas as pd

    from evalkit.results.reading import StoredResult

PLACES = ("path", "object")  # where a model is, which is no deviation
_INTERVALS = {"interval": ("low", "high"), "effect_interval": ("effect_low", "effect_high")}


def save_result(result: Result, results_dir: Path | str = "results", *, texts: bool = False) -> Path:
    """Write a result of `evaluate` below `results_dir`, where the command line would, and give the JSON's path.

    `texts` says whether texts that the result has are written too. Raises EvalkitError where the folder can't be written.
    """
    return write_result(result, result_folder(Path(results_dir), result.model, _deviations(result)), with_texts=texts)


def _deviations(result: Result) -> dict[str, object]:
    """The settings that differ from the model's own: such a result must not stand for the model's."""
    config = result.config
    own = {"limit": None, "backend": AUTO, "dtype": FULL_PRECISION}
    said = {"limit": config["limit"], "backend": config["backend"], **config["runtime"]}
    if result.task.first_stage is not None:
        own |= {"candidates": None, "top_k": None}
        first = result.task.first_stage
        said |= {"candidates": f"{first.name}-{first.digest[:12]}", "top_k": first.top_k}
    model = config["model"]
    if not model["backends"]:  # else its backend completes its settings
        own |= read_model(model["name"]).model_dump(mode="json")
        said |= model
    return {key: said[key] for key, value in own.items() if key not in PLACES and said[key] != value}


def load_results(*paths: Path | str) -> list[StoredResult]:
    """Read results back from files, or from all files below folders.

    Each has `scores`, `intervals`, `queries` and `candidates` as a Result has. Raises EvalkitError, naming the file, where
    one can't be read.
    """
    for path in paths:
        if not isinstance(path, str | Path):
            raise EvalkitError(f"give paths of result files or folders, one by one; found a {type(path).__name__}")
    if not paths:
        raise EvalkitError("give result files or folders")
    return load_stored([Path(path) for path in paths])


def leaderboard(*paths: Path | str, metric: str | None = None, alpha: float = 0.05, seed: int = 42) -> pd.DataFrame:
    """Rank the systems of these results: a row per task (or average over the same tasks) and system, the best first.

    `value`, `low` and `high` (95 %) are fractions; `best_rank` to `worst_rank` are the ranks that no test at `alpha` rules out.
    `metric` is a name in `scores`; without it, the protocol's main score. Raises EvalkitError where results can't be compared.
    """
    import pandas as pd

    _check(alpha, seed)
    choices = content.ReportChoices(metric, alpha, seed, ())
    written = report_csv(content.Report(tuple(load_results(*paths)), choices))
    return pd.read_csv(io.StringIO(written)).drop(columns=["slice_by", "slice"])


def compare_results(*paths: Path | str, metric: str | None = None, alpha: float = 0.05, seed: int = 42) -> pd.DataFrame:
    """Compare systems on the same queries: a row per task and pair.

    `difference` (first - second, with `low` and `high`, 95 %) and `detectable` are fractions, `p_value` is of a paired
    randomisation test, `adjusted_p` after Holm's correction, `effect_size` Cohen's d of the differences. Raises EvalkitError
    where there is nothing to compare, or results are of different data.
    """
    import pandas as pd

    _check(alpha, seed)
    choices = comparison.CompareChoices(metric, alpha, seed, (), None)
    compared, _ = comparison.compare_results(load_results(*paths), choices)
    return pd.DataFrame([row for one in compared for row in _rows(one)])


def _check(alpha: float, seed: int) -> None:
    if not 0 < alpha <= 1:
        raise EvalkitError(f"alpha={alpha}: a probability above 0, and at most 1")
    if seed < 0:
        raise EvalkitError(f"seed={seed}: a whole number, 0 or more")


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
