"""Where a converted cross-encoder's time goes, by kind of operation, by OpenVINO's own counters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import openvino

from evalkit.models.batches import pad_batch
from evalkit.models.bert import compute_first_token_alone
from evalkit.models.inputs import load_inputs
from evalkit.models.networks import load_network
from evalkit.models.settings import model_settings


def profile_openvino(folder: Path, pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Shares of the time in fp32, one pair a batch in one thread, as each of evalkit's streams runs; largest first."""
    settings = model_settings({"name": "profiled", "path": str(folder)})
    inputs = load_inputs(settings, folder)
    network = compute_first_token_alone(load_network(settings, folder))
    compiled = openvino.Core().compile_model(
        openvino.convert_model(network, example_input=inputs.example()),
        "CPU",
        {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "1", "NUM_STREAMS": "1", "PERF_COUNT": "YES"},
    )
    request = compiled.create_infer_request()
    microseconds: Counter[str] = Counter()
    for query, document in pairs:
        (left,), (right,) = inputs.tokenize([query], "query"), inputs.tokenize([document], "document")
        batch = pad_batch([inputs.encode_pair(left, right)], inputs.tokenizer.pad_token_id)
        for _ in range(2):  # the first time it compiles for the length
            request.infer(dict(batch))
        for operation in request.get_profiling_info():
            microseconds[operation.node_type] += operation.real_time.microseconds
    total = microseconds.total()
    return {kind: share / total for kind, share in microseconds.most_common(6)}
