"""ONNX Runtime on the CPU: an ONNX file of the model's own, or one exported once into the cache; fp32 or int8.

A cross-encoder's folder may hold `onnx/model.onnx`, which is then what runs, or another file that `model.onnx_file` names.
int8 means weights rounded to 8 bits and activations rounded as they come (dynamic quantisation), in the exported file.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from joblib import cpu_count
from numpy.typing import NDArray

from evalkit.backends.conversions import conversion_folder, keep_conversion
from evalkit.errors import EvalkitError
from evalkit.machine import installed_version
from evalkit.models.identity import hash_files
from evalkit.models.interfaces import LocalNetwork, RunnableModel, Runtime
from evalkit.models.parts import network_output
from evalkit.models.settings import ModelSettings
from evalkit.models.weights import ModelFiles, find_model, opening, refuse_changed_files, way_of_scoring

if TYPE_CHECKING:
    import torch

    from evalkit.backends.checked_conversion import Run
    from evalkit.models.tokenization import InputBuilder

OWN_FILE = Path("onnx", "model.onnx")
EXPORTED = "model.onnx"
BATCH_TOKENS = 1_024
OPSET = 17


def prepare(settings: ModelSettings, runtime: Runtime) -> RunnableModel:
    """Find the model's files, and its own ONNX file if it has one."""
    if runtime.device not in (None, "cpu"):
        raise EvalkitError(f"device={runtime.device}: backend onnx runs on the CPU; backend=torch runs elsewhere")
    if settings.onnx_file:
        _refuse_changed(settings, runtime)
    may_have_own = settings.kind == "cross-encoder" and not settings.onnx_file
    also = (f"{OWN_FILE}*",) if may_have_own else ()
    files = find_model(settings, offline=runtime.offline, cache_dir=runtime.cache_dir, also=also)
    own = own_file(settings, files, runtime)
    description: dict[str, object] = {
        "name": "onnx",
        "device": "cpu",
        "dtype": "the file's" if settings.onnx_file else runtime.dtype,
        "version": installed_version("onnxruntime"),
        "file": hash_files(files.folder, [own], files.contents) if own else "exported",
    }
    return RunnableModel(
        identity=files.identity,
        description=description,
        way=way_of_scoring(settings, files, description),
        open=opening(files, lambda: open_network(settings, files, runtime)),
    )


def open_network(settings: ModelSettings, files: ModelFiles, runtime: Runtime) -> LocalNetwork:
    """Open the ONNX file, with one session thread per running batch."""
    from evalkit.models.inputs import load_inputs
    from evalkit.models.local import TokenizedNetwork
    from evalkit.models.networks import refuse_wrong_kind
    from evalkit.models.tails import behind, load_tail
    from evalkit.models.weights import read_config

    refuse_wrong_kind(settings, read_config(files.folder))
    inputs = load_inputs(settings, files.folder)
    own = own_file(settings, files, runtime)
    path = own or exported_file(settings, files, runtime, inputs)
    session = _session(path)
    names = {node.name for node in session.get_inputs()}
    unknown = sorted(names - inputs.example().keys())
    if unknown:
        raise EvalkitError(
            f"{path} wants the input {unknown[0]}, which {settings.name} does not have; try backend=torch"
        )

    def forward(arrays: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        fed: dict[str, Any] = {name: array for name, array in arrays.items() if name in names}
        output: NDArray[np.float32] = session.run(None, fed)[0]
        return output[:, settings.label or 0] if own and output.ndim == 2 else output

    whole = behind(forward, load_tail(settings, files.folder))
    return TokenizedNetwork(inputs, whole, BATCH_TOKENS, parallel=runtime.threads or cpu_count())


def _session(path: Path) -> Any:
    """Open an ONNX file in one thread. Raises EvalkitError where it can't be read."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has a dozen kinds for a file that it can't read
        raise EvalkitError(
            f"{path} can't be loaded: {str(error).splitlines()[0]}; delete it, or backend=torch"
        ) from error


def own_file(settings: ModelSettings, files: ModelFiles, runtime: Runtime) -> Path | None:
    """Return the model's own ONNX file that is to run, if any: the one that is named, or a cross-encoder's usual one in fp32."""
    if settings.onnx_file:
        return files.folder / settings.onnx_file
    usual = files.folder / OWN_FILE
    plain = settings.kind == "cross-encoder" and not settings.modules
    return usual if plain and runtime.dtype == "fp32" and usual.is_file() else None


def _refuse_changed(settings: ModelSettings, runtime: Runtime) -> None:
    """Refuse what an ONNX file can't do: it runs as it is, and gives a cross-encoder's logits."""
    if runtime.dtype != "fp32":
        raise EvalkitError(f"dtype={runtime.dtype}: {settings.onnx_file} is run as it is; leave dtype out")
    if settings.kind != "cross-encoder":
        raise EvalkitError(
            f"model.onnx_file={settings.onnx_file}: only a cross-encoder's is known to hold all that makes a score, and "
            f"{settings.name} is a {settings.kind}; leave it out, and backend=onnx exports one"
        )


def exported_file(settings: ModelSettings, files: ModelFiles, runtime: Runtime, inputs: InputBuilder) -> Path:
    """Return the model as an ONNX file in the cache, exported there if it is not yet; pooling and normalisation are inside.

    Raises EvalkitError where the cache can't be written.
    """
    folder = conversion_folder("onnx", settings, files, runtime, runtime.dtype)
    if not folder.is_dir():

        def write(empty: Path) -> None:
            if runtime.dtype == "int8":
                exported = empty / "fp32"
                exported.mkdir()
                _export(settings, files, inputs, exported)
                _quantize(exported, empty)
                shutil.rmtree(exported)
            else:
                _export(settings, files, inputs, empty)
            refuse_changed_files(files)  # it is kept under the name of what was there before

        try:
            keep_conversion(folder, write)
        except OSError as error:
            raise EvalkitError(
                f"the exported ONNX file can't be kept in {folder.parent}: {error.strerror or error}; choose another "
                "cache_dir=FOLDER, or backend=torch"
            ) from error
    return folder / EXPORTED


def _export(settings: ModelSettings, files: ModelFiles, inputs: InputBuilder, folder: Path) -> None:
    from evalkit.backends.checked_conversion import convert_checked

    path = folder / EXPORTED

    def convert(network: torch.nn.Module, example: dict[str, torch.Tensor]) -> Any:
        import torch

        torch.onnx.export(
            network,
            (),
            str(path),
            kwargs=dict(example),
            input_names=list(example),
            output_names=["output"],
            dynamic_axes={name: {0: "inputs", 1: "tokens"} for name in example} | {"output": _dynamic(settings)},
            opset_version=OPSET,
            dynamo=False,
        )
        return _session(path)

    def run_with(session: Any) -> Run:
        names = {node.name for node in session.get_inputs()}
        return lambda arrays: session.run(None, {name: array for name, array in arrays.items() if name in names})[0]

    convert_checked("onnx", settings, files.folder, inputs, convert, run_with)


def _dynamic(settings: ModelSettings) -> dict[int, str]:
    """Return which axes of the graph's output differ by batch."""
    tokens = {"token_embeddings": {1: "tokens"}, "all_layer_embeddings": {2: "tokens"}}
    plain = settings.kind == "cross-encoder" and not settings.modules
    return {0: "inputs"} | ({} if plain else tokens.get(network_output(settings), {}))


def _quantize(exported: Path, folder: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.disable(logging.WARNING)  # advice on how to prepare the file, to the root logger
    try:
        quantize_dynamic(
            exported / EXPORTED,
            folder / EXPORTED,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["MatMul", "Gemm"],
        )
    finally:
        logging.disable(logging.NOTSET)
