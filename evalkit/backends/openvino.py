"""OpenVINO on the CPU: the transformers network, converted in this process and kept in the cache, in fp32 or bf16.

One stream per thread: each thread runs batches of its own, which wastes less than sharing each batch's layers among threads.
"""

from __future__ import annotations

import logging
import queue
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from joblib import cpu_count
from numpy.typing import NDArray

from evalkit.backends.conversions import conversion_folder, keep_conversion
from evalkit.errors import EvalkitError
from evalkit.machine import installed_version
from evalkit.models.interfaces import LocalNetwork, RunnableModel, Runtime
from evalkit.models.settings import ModelSettings
from evalkit.models.weights import ModelFiles, find_model, opening, refuse_changed_files, way_of_scoring

if TYPE_CHECKING:
    import torch
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    from evalkit.backends.checked_conversion import Run
    from evalkit.models.tokenization import InputBuilder

# OpenVINO computes in bf16 by itself where the processor has it: say f32 where f32 is meant
PRECISIONS = {"fp32": "f32", "bf16": "bf16"}
# few enough that a batch's activations stay in a core's cache; bf16 halves them, and its matrix units want more at a time
# (benchmarks/README.md)
BATCH_TOKENS = {"fp32": 512, "bf16": 1_024}
CONVERTED = "model.xml"
logger = logging.getLogger("evalkit")

# evalkit reports to nobody; and OpenVINO's telemetry forks while other threads compute, which can hang the process for good
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


def prepare(settings: ModelSettings, runtime: Runtime) -> RunnableModel:
    """Find the model's files; they are loaded, and converted if they are not yet, when the scorer is first used."""
    if runtime.device not in (None, "cpu"):
        raise EvalkitError(f"device={runtime.device}: backend openvino runs on the CPU; backend=torch runs elsewhere")
    _refuse_pretended(runtime.dtype)
    files = find_model(settings, offline=runtime.offline, cache_dir=runtime.cache_dir)
    description = {
        "name": "openvino",
        "device": "cpu",
        "dtype": runtime.dtype,
        "version": installed_version("openvino"),
    }
    return RunnableModel(
        identity=files.identity,
        description=description,
        way=way_of_scoring(settings, files, description),
        open=opening(files, lambda: open_network(settings, files, runtime)),
    )


def _refuse_pretended(dtype: str) -> None:
    """Refuse bf16 on a processor without it, where OpenVINO takes the wish and computes in fp32."""
    if dtype != "bf16":
        return
    import openvino

    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise EvalkitError(
            "dtype=bf16: this processor has no bf16 arithmetic, and OpenVINO would compute in fp32; dtype=fp32, or dtype=int8 with "
            "backend=onnx"
        )


def open_network(settings: ModelSettings, files: ModelFiles, runtime: Runtime) -> LocalNetwork:
    """Compile the converted network, with as many streams as threads."""
    import openvino

    from evalkit.models.inputs import load_inputs
    from evalkit.models.local import TokenizedNetwork
    from evalkit.models.networks import refuse_wrong_kind
    from evalkit.models.tails import behind, load_tail
    from evalkit.models.weights import read_config

    refuse_wrong_kind(settings, read_config(files.folder))
    inputs = load_inputs(settings, files.folder)
    threads = runtime.threads or cpu_count()
    compiled = openvino.Core().compile_model(
        converted_network(settings, files, runtime, inputs),
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": PRECISIONS[runtime.dtype],
            "PERFORMANCE_HINT": "THROUGHPUT",
            "NUM_STREAMS": str(threads),
            "INFERENCE_NUM_THREADS": str(threads),
        },
    )
    # OpenVINO's bindings look up numpy's types at the first use; two threads that do so at once can wait for each other for ever
    _ = openvino.Tensor(np.zeros(1, np.float32)).data
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for _ in range(threads):
        requests.put(compiled.create_infer_request())

    def forward(arrays: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        request = requests.get()
        try:
            output: NDArray[np.float32] = np.array(request.infer(dict(arrays))[0])
        finally:
            requests.put(request)
        return output

    whole = behind(forward, load_tail(settings, files.folder))
    return TokenizedNetwork(inputs, whole, BATCH_TOKENS[runtime.dtype], parallel=threads)


def converted_network(settings: ModelSettings, files: ModelFiles, runtime: Runtime, inputs: InputBuilder) -> Any:
    """Return the network in OpenVINO's form: out of the cache, or converted and put there."""
    import openvino

    folder = conversion_folder("openvino", settings, files, runtime)
    if not folder.is_dir():
        converted = _convert(settings, files, inputs)
        refuse_changed_files(files)  # it is kept under the name of what was there before
        try:
            keep_conversion(
                folder, lambda empty: openvino.save_model(converted, empty / CONVERTED, compress_to_fp16=False)
            )
        except (OSError, RuntimeError) as error:  # OpenVINO's own is a RuntimeError
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
            logger.warning("the converted network can't be kept in %s: %s", folder.parent, reason)
            return converted
    try:
        return openvino.Core().read_model(folder / CONVERTED)
    except RuntimeError as error:
        raise EvalkitError(
            f"{folder / CONVERTED} can't be loaded: {str(error).splitlines()[0]}; delete its folder"
        ) from error


def _convert(settings: ModelSettings, files: ModelFiles, inputs: InputBuilder) -> Any:
    import openvino

    from evalkit.backends.checked_conversion import convert_checked

    def run_with(converted: Any) -> Run:
        compiled = openvino.Core().compile_model(converted, "CPU", {"INFERENCE_PRECISION_HINT": PRECISIONS["fp32"]})
        return lambda arrays: np.array(compiled(dict(arrays))[0])

    return convert_checked(
        "openvino",
        settings,
        files.folder,
        inputs,
        lambda network, example: openvino.convert_model(_traced(network, example), example_input=example),
        run_with,
    )


def _traced(network: torch.nn.Module, example: dict[str, torch.Tensor]) -> TorchScriptPythonDecoder:
    """Trace a network for OpenVINO, once: torch would trace it again to compare the two, and the conversion is compared anyway."""
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    return TorchScriptPythonDecoder(network, example_input=example, trace_kwargs={"check_trace": False})
