"""The two layouts of a reranking dataset, C-MTEB's rows and mteb 2's parts: told apart and read, checked, turned into requests."""

from __future__ import annotations

from evalkit.records import Request
from evalkit.tasks.findings import FindingLog
from evalkit.tasks.first_stage import FirstStageRun
from evalkit.tasks.layouts.cmteb import requests_from_rows
from evalkit.tasks.layouts.mteb import requests_from_parts, rerank_rows
from evalkit.tasks.layouts.reading import RawDataset


def requests_of(raw: RawDataset, log: FindingLog, first_stage: FirstStageRun | None) -> tuple[Request, ...]:
    """Return the requests of a dataset in its layout; a first stage's candidates take the place of their own.

    What is odd goes to `log`. Raises EvalkitError for whatever breaks the layout.
    """
    if raw.layout == "cmteb":
        requests = requests_from_rows(raw.parts["rows"], raw.split, log)
        log.raise_errors()
        requests = requests if first_stage is None else rerank_rows(requests, first_stage, log)
    else:
        requests = requests_from_parts(raw.parts, log, first_stage)
    log.raise_errors()
    return requests
