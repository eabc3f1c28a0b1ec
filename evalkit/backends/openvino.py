"""OpenVINO on the CPU: the transformers network, converted in this process and kept in the cache, in fp32, bf16 or int8.

One stream per thread: each thread runs batches of its own, which wastes less than sharing each batch's layers among threads.
int8 means weights and the inputs of matrix products rounded to 8 bits, by NNCF, with ranges that it found once for each of them on
the texts in `calibration/` (static quantisation); all else is computed in fp32, also where the processor has bf16.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import queue
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from joblib import cpu_count
from numpy.typing import NDArray

from evalkit.backends.conversions import conversion_folder, keep_conversion
from evalkit.errors import EvalkitError, install_command
from evalkit.interruption import check
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
PRECISIONS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
# few enough that a batch's activations stay in a core's cache; low precision shrinks them, and its units want more at a time
# (benchmarks/README.md)
BATCH_TOKENS = {"fp32": 512, "bf16": 1_024, "int8": 1_024}
CONVERTED = "model.xml"
CALIBRATION_TEXTS = Path(__file__).with_name("calibration") / "texts.jsonl"
CALIBRATION_STEPS = ((0, 1), (7, 3))
"""The pairs that int8 is calibrated on: each query with so many passages in a row, which begin so many rows below its own."""
CHECKED = 4  # of the inputs that a network was calibrated on, every so manieth is compared with fp32
Arrays = Mapping[str, NDArray[np.int64]]
logger = logging.getLogger("evalkit")

# evalkit reports to nobody; and OpenVINO's telemetry forks while other threads compute, which can hang the process for good.
# NNCF reports through the same package
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
        **(_quantizer() if runtime.dtype == "int8" else {}),
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
            "dtype=bf16: this processor has no bf16 arithmetic, and OpenVINO would compute in fp32; dtype=fp32, or dtype=int8"
        )


def _quantizer() -> dict[str, str]:
    """Return what decides an int8 network beside the model: NNCF's version, and a hash of the pairs of texts for its calibration.

    Raises EvalkitError where NNCF is not installed.
    """
    if importlib.util.find_spec("nncf") is None:
        raise EvalkitError(
            f"dtype=int8 on backend=openvino needs an extra: {install_command('int8')}; backend=onnx has int8 without it"
        )
    pairs = json.dumps(calibration_pairs(), ensure_ascii=False)
    return {"quantizer": f"nncf {installed_version('nncf')}", "calibration": hashlib.sha256(pairs.encode()).hexdigest()}


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
    network = quantized_network if runtime.dtype == "int8" else converted_network
    compiled = openvino.Core().compile_model(
        network(settings, files, runtime, inputs),
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
    folder = conversion_folder("openvino", settings, files, runtime)
    return _kept(folder, files, lambda: _convert(settings, files, inputs))


def quantized_network(settings: ModelSettings, files: ModelFiles, runtime: Runtime, inputs: InputBuilder) -> Any:
    """Return the network in int8: out of the cache, or made of the one in fp32 and put there.

    What it is calibrated on are the recipe's own inputs: other prompts, lengths or tokens make another network.
    """
    calibration = calibration_inputs(settings, inputs)
    return _kept(
        quantized_folder(settings, files, runtime, calibration),
        files,
        lambda: _quantize(settings, converted_network(settings, files, runtime, inputs), calibration),
    )


def quantized_folder(
    settings: ModelSettings, files: ModelFiles, runtime: Runtime, calibration: Sequence[Arrays]
) -> Path:
    """Return where the int8 network lies, or will, that is calibrated on these inputs."""
    digest = hashlib.sha256()
    for arrays in calibration:
        for name, array in sorted(arrays.items()):
            digest.update(f"{name} {array.shape} {array.dtype}".encode() + array.tobytes())
    made_of = [_quantizer()["quantizer"], digest.hexdigest()]
    return conversion_folder("openvino", settings, files, runtime, "int8", made_of)


def _kept(folder: Path, files: ModelFiles, make: Callable[[], Any]) -> Any:
    """Return the network of this folder of the cache, made and put there if it is not."""
    import openvino

    if not folder.is_dir():
        made = make()
        refuse_changed_files(files)  # it is kept under the name of what was there before
        try:
            keep_conversion(folder, lambda empty: openvino.save_model(made, empty / CONVERTED, compress_to_fp16=False))
        except (OSError, RuntimeError) as error:  # OpenVINO's own is a RuntimeError
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
            logger.warning("the converted network can't be kept in %s: %s", folder.parent, reason)
            return made
    try:
        return openvino.Core().read_model(folder / CONVERTED)
    except RuntimeError as error:
        raise EvalkitError(
            f"{folder / CONVERTED} can't be loaded: {str(error).splitlines()[0]}; delete its folder"
        ) from error


def _convert(settings: ModelSettings, files: ModelFiles, inputs: InputBuilder) -> Any:
    import openvino

    from evalkit.backends.checked_conversion import convert_checked

    return convert_checked(
        "openvino",
        settings,
        files.folder,
        inputs,
        lambda network, example: openvino.convert_model(_traced(network, example), example_input=example),
        _run_in_fp32,
    )


def _traced(network: torch.nn.Module, example: dict[str, torch.Tensor]) -> TorchScriptPythonDecoder:
    """Trace a network for OpenVINO, once: torch would trace it again to compare the two, and the conversion is compared anyway."""
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    return TorchScriptPythonDecoder(network, example_input=example, trace_kwargs={"check_trace": False})


def _run_in_fp32(network: Any) -> Run:
    """Return a function that runs OpenVINO's network, in fp32 where it is not quantised."""
    import openvino

    compiled = openvino.Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": PRECISIONS["fp32"]})
    return lambda arrays: np.array(compiled(dict(arrays))[0])


def calibration_pairs() -> list[tuple[str, str]]:
    """Return the queries and documents that int8 is calibrated on: with their own passage, with others, and with long ones."""
    rows = [json.loads(line) for line in CALIBRATION_TEXTS.read_text(encoding="utf-8").splitlines()]
    return [
        (row["query"], " ".join(rows[(at + below + n) % len(rows)]["passage"] for n in range(passages)))
        for below, passages in CALIBRATION_STEPS
        for at, row in enumerate(rows)
    ]


def calibration_inputs(settings: ModelSettings, inputs: InputBuilder) -> list[Arrays]:
    """Return the network's inputs for the calibration's pairs, or for their texts in both roles: one at a time, without padding."""
    queries, documents = zip(*calibration_pairs(), strict=True)
    if settings.makes_vectors:
        texts = inputs.tokenize(list(dict.fromkeys(queries)), "query") + inputs.tokenize(documents, "document")
        encodings = [inputs.encode_text(text) for text in texts]
    else:
        pairs = zip(inputs.tokenize(queries, "query"), inputs.tokenize(documents, "document"), strict=True)
        encodings = [inputs.encode_pair(query, document) for query, document in pairs]
    return [inputs.pad([encoding]) for encoding in encodings]


def _quantize(settings: ModelSettings, full: Any, calibration: Sequence[Arrays]) -> Any:
    """Let NNCF quantise the network in fp32, and compare the two. Raises EvalkitError where that can't be, or goes wrong."""
    from evalkit.backends.checked_conversion import refuse_coarse

    logger.info("quantising %s to int8, on %d inputs: this is done once", settings.name, len(calibration))
    compared = calibration[::CHECKED]
    expected = _outputs(full, compared)
    try:
        with _silent_nncf() as nncf:
            from nncf.quantization.range_estimator import RangeEstimatorParametersSet

            # NNCF's own choices cut the few large numbers that a transformer depends on (the mean of the inputs' ranges), and
            # magnify what the calibration's texts happen not to use (SmoothQuant): benchmarks/README.md
            chosen = nncf.AdvancedQuantizationParameters(
                activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
                smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=-1, convolution=-1),
            )
            quantized = nncf.quantize(
                full,
                nncf.Dataset(calibration, dict),
                model_type=nncf.ModelType.TRANSFORMER,
                subset_size=len(calibration),
                advanced_parameters=chosen,
            )
        found = _outputs(quantized, compared)
    except Exception as error:  # NNCF may fail in any way at an architecture that it does not know
        check()  # an interruption says nothing of the network
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise EvalkitError(
            f"backend=openvino can't quantise {settings.name} to int8: {reason}; dtype=fp32, or backend=onnx"
        ) from error
    refuse_coarse("openvino", settings, expected, found)
    return quantized


def _outputs(network: Any, inputs: Sequence[Arrays]) -> list[NDArray[np.float32]]:
    run = _run_in_fp32(network)
    return [run(arrays) for arrays in inputs]


@contextmanager
def _silent_nncf() -> Iterator[Any]:
    """Import NNCF, and keep its remarks and progress off the standard output meanwhile, which is for results."""
    import rich

    logger_class, console = logging.getLoggerClass(), rich.get_console()
    quiet, console.quiet = console.quiet, True
    try:
        import nncf

        nncf_logger = logging.getLogger("nncf")
        for handler in list(nncf_logger.handlers):
            nncf_logger.removeHandler(handler)
        yield nncf
    finally:
        logging.setLoggerClass(logger_class)
        console.quiet = quiet
