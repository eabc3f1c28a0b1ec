"""An accelerator is compared with the CPU before anything is scored on it; here the CPU stands in for one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from agreement import E5, write_embedder
from made_tasks import make_task, scored
from model_folders import copied
from models.test_packed import attend_each_input
from numpy.typing import NDArray

from evalkit.backends import prepare_model, probes
from evalkit.backends import torch as torch_backend
from evalkit.backends.probes import TOLERANCES, VERDICTS, CpuOutputs, DeviceTrial, has_agreed, judge_device
from evalkit.configuration.files import read_option
from evalkit.errors import EvalkitError
from evalkit.models import bert
from evalkit.models.interfaces import RunnableModel, Runtime, Scorer
from evalkit.models.settings import model_settings
from evalkit.scoring.engine import score_task

Floats = NDArray[np.float32]
LOGITS = np.array([-3.0, 0.5, 6.0], np.float32)
VECTORS = np.array([[0.6, 0.8], [0.8, -0.6]], np.float32)


def trial_in(cache: Path, dtype: str = "fp32", kind: str = "cross-encoder", **way: Any) -> DeviceTrial:
    return DeviceTrial(model_settings({"name": "made", "kind": kind}), "wrong device", dtype, way, cache)


def judged(trial: DeviceTrial, run: Callable[[], Floats], expected: Floats = LOGITS, dtype: str = "fp32") -> None:
    judge_device(trial, CpuOutputs(expected, dtype, short=False), run)


def refusal(trial: DeviceTrial, run: Callable[[], Floats], expected: Floats = LOGITS, dtype: str = "fp32") -> str:
    with pytest.raises(EvalkitError) as caught:
        judged(trial, run, expected, dtype)
    assert "\n" not in str(caught.value)
    assert not has_agreed(trial)
    return str(caught.value)


def test_a_device_that_computes_something_else_is_refused_by_name(tmp_path: Path) -> None:
    assert refusal(trial_in(tmp_path), lambda: LOGITS + np.float32([0, 0, 0.01])) == (
        "made on wrong device in fp32 differs from the CPU by 1.0e-02 on a probe, and rounding explains 1.0e-03 at most; take "
        "device=cpu"
    )
    says = refusal(trial_in(tmp_path, "bf16"), lambda: LOGITS[::-1])
    assert "in bf16 differs from the CPU by 9.0e+00" in says
    assert says.endswith("; take dtype=fp32, or device=cpu")


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_rounding_is_no_fault(dtype: str, tmp_path: Path) -> None:
    close = np.float32(0.9 * TOLERANCES[dtype])
    judged(trial_in(tmp_path, dtype), lambda: LOGITS + close)
    assert "differs" in refusal(trial_in(tmp_path, dtype, other=1), lambda: LOGITS + close / np.float32(0.8))


def test_large_logits_round_more_coarsely_and_small_vectors_less(tmp_path: Path) -> None:
    judged(trial_in(tmp_path, "bf16", large=1), lambda: 4 * LOGITS + np.float32(0.7), 4 * LOGITS)
    assert "differs" in refusal(trial_in(tmp_path, "bf16"), lambda: LOGITS + np.float32(0.7))
    vectors = trial_in(tmp_path, "bf16", "embedder")
    assert "differs" in refusal(vectors, lambda: VECTORS[:, ::-1], VECTORS)
    assert "differs" in refusal(vectors, lambda: np.zeros_like(VECTORS), VECTORS)
    judged(vectors, lambda: VECTORS + np.float32(0.02), VECTORS)


def test_a_cpu_in_low_precision_rounds_too(tmp_path: Path) -> None:
    """A network whose weights in fp32 would not fit is compared with the CPU in its own precision."""
    judged(trial_in(tmp_path), lambda: LOGITS + np.float32(0.2), dtype="bf16")
    assert "differs" in refusal(trial_in(tmp_path, other=1), lambda: LOGITS + np.float32(0.2), dtype="fp16")


@pytest.mark.parametrize("found", [np.float32([-3, np.nan, 6]), np.float32([-3, 0.5, np.inf]), LOGITS[:2]])
def test_what_is_no_number_is_refused(found: Floats, tmp_path: Path) -> None:
    assert "gives what is no finite number, where the CPU gives one; take device=cpu" in refusal(
        trial_in(tmp_path), lambda: found
    )


def test_a_device_that_fails_is_refused(tmp_path: Path) -> None:
    def fail() -> Floats:
        raise NotImplementedError("'aten::_foo' is not\nimplemented for this device")

    says = refusal(trial_in(tmp_path), fail)
    assert (
        says
        == "made on wrong device in fp32 can't be run: 'aten::_foo' is not implemented for this device; take device=cpu"
    )


def test_weights_that_are_damaged_are_no_fault_of_the_device(tmp_path: Path) -> None:
    broken = np.full(3, np.nan, np.float32)
    assert "made gives no finite numbers on the CPU in fp32 either" in refusal(
        trial_in(tmp_path), lambda: broken, broken
    )


def test_a_verdict_is_of_these_circumstances(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = trial_in(tmp_path, identity="a")
    judged(trial, lambda: LOGITS)
    assert has_agreed(trial)
    assert not has_agreed(trial_in(tmp_path, identity="b"))
    assert not has_agreed(DeviceTrial(trial.settings, "another device", trial.dtype, trial.way, tmp_path))
    for name, other in (("package_versions", lambda _: {"torch": "0"}), ("processor_name", lambda: "another")):
        with monkeypatch.context() as patch:
            patch.setattr(probes, name, other)
            assert not has_agreed(trial)
    for damaged in ("", "[]", json.dumps({trial.key: "agrees"}), json.dumps({trial.key: [1, 2]})):
        (tmp_path / VERDICTS).write_text(damaged)
        assert not has_agreed(trial)


def test_a_verdict_that_cannot_be_remembered_costs_a_probe(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    trial = trial_in(tmp_path / "file")
    judged(trial, lambda: LOGITS)
    assert not has_agreed(trial)


class Trials:
    """The CPU as an accelerator: how often the network was compared with it, and what it gives in place of the right outputs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
        self.done = 0
        self.change: Callable[[Floats], Floats] = lambda outputs: outputs
        self.cache = cache
        right, cpu_outputs = torch_backend.device_forward, torch_backend._cpu_outputs

        def forward(*arguments: Any, **options: Any) -> Any:
            run = right(*arguments, **options)
            return lambda arrays: self.change(run(arrays))

        def counted(*arguments: Any) -> Any:
            self.done += 1
            return cpu_outputs(*arguments)

        monkeypatch.setattr(torch_backend, "is_accelerator", lambda _: True)
        monkeypatch.setattr(torch_backend, "device_forward", forward)
        monkeypatch.setattr(torch_backend, "_cpu_outputs", counted)

    def model(self, folder: Path, dtype: str = "fp32", **fields: Any) -> RunnableModel:
        settings = model_settings({"name": "made"} | fields | {"path": str(folder)})
        return prepare_model("torch", settings, Runtime(device="cpu", dtype=dtype, threads=2, cache_dir=self.cache))

    def opened(self, folder: Path, dtype: str = "fp32", **fields: Any) -> Scorer:
        return self.model(folder, dtype, **fields).scorer


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Trials:
    return Trials(monkeypatch, tmp_path / "cache")


def test_a_network_that_is_wrong_there_never_scores(trials: Trials, tiny_bert_reranker: Path) -> None:
    trials.change = lambda outputs: outputs + np.float32(0.01)
    for count in (1, 2):  # a refusal is found anew
        with pytest.raises(EvalkitError, match=r"made on cpu in fp32 differs from the CPU by 1\.0e-02 on a probe"):
            trials.opened(tiny_bert_reranker)
        assert trials.done == count
    trials.change = lambda outputs: outputs
    trials.opened(tiny_bert_reranker)
    trials.opened(tiny_bert_reranker)
    assert trials.done == 3
    trials.opened(tiny_bert_reranker, "bf16")
    trials.opened(tiny_bert_reranker, max_length=64)
    assert trials.done == 5


def test_padding_that_is_attended_to_is_found(trials: Trials, e5_small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a device whose attention ignores its mask."""
    right = torch_backend.padded_forward

    def blind(network: torch.nn.Module, device: torch.device) -> Any:
        return lambda arrays: right(network, device)(
            dict(arrays) | {"attention_mask": np.ones_like(arrays["attention_mask"])}
        )

    monkeypatch.setattr(torch_backend, "device_forward", lambda network, device, packed: blind(network, device))
    with pytest.raises(EvalkitError, match="in bf16 differs from the CPU"):
        trials.opened(e5_small, "bf16", **E5)


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_scores_are_the_same_whether_compared_or_not(trials: Trials, dtype: str, tiny_reranker: Path) -> None:
    task = make_task((["感冒"], [("多喝水", 1), ("苹果", 0)]))
    found = [scored(trials.opened(tiny_reranker, dtype), task).scores for _ in range(2)]
    assert trials.done == 1
    np.testing.assert_array_equal(*found)


LANGUAGE_MODELS = ["bge-reranker-v2-gemma", "Qwen3-Reranker-0.6B"]


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_language_models_are_compared_on_short_texts(
    trials: Trials, name: str, tiny_gemma: Path, tiny_qwen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_backend, "LARGE_NETWORK", 1)
    shapes: list[tuple[int, ...]] = []
    trials.change = lambda outputs: (shapes.append(outputs.shape), outputs)[1]
    fields = read_option("model", name)
    trials.opened(tiny_gemma if "gemma" in name else tiny_qwen, **fields)
    assert shapes == [(4,)]
    trials.change = lambda outputs: outputs * np.float32(1.5)
    with pytest.raises(EvalkitError, match=f"{name} on cpu in fp32 differs from the CPU"):
        trials.opened(tiny_gemma if "gemma" in name else tiny_qwen, **fields | {"max_length": 300})


def test_weights_that_would_not_fit_in_fp32_stay_in_their_own_precision(
    trials: Trials, tiny_qwen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    half = copied(tiny_qwen, trials.cache.parent)
    AutoModelForCausalLM.from_pretrained(tiny_qwen).to(torch.bfloat16).save_pretrained(half)
    monkeypatch.setattr(torch_backend, "memory_bytes", lambda: 1000)
    said: list[CpuOutputs] = []
    judge = torch_backend.judge_device
    monkeypatch.setattr(
        torch_backend, "judge_device", lambda trial, expected, run: (said.append(expected), judge(trial, expected, run))
    )
    trials.opened(half, "bf16", **read_option("model", "Qwen3-Reranker-0.6B"))
    assert [one.dtype for one in said] == ["bf16"]


@pytest.mark.parametrize("score", ["dense", "fused"])
def test_bge_m3_keeps_no_query_of_the_comparison(trials: Trials, score: str, tiny_m3: Path) -> None:
    """Its vectors are the CPU's, of another precision, and lie on another device."""
    fields = read_option("model", "bge-m3") | {"score": score, "max_length": 64}
    task = make_task((["感冒了应该吃什么药？"], [("多喝水", 1), ("苹果", 0)]))  # one of the probes
    models = [trials.model(tiny_m3, "bf16", **fields) for _ in range(2)]
    settings = model_settings(fields | {"path": str(tiny_m3)})
    found = [score_task(model, settings, task).scores for model in models]
    assert trials.done == 1
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("wrong", [False, True])
def test_batches_without_padding_are_compared_as_they_run(
    trials: Trials, wrong: bool, tiny_bert_reranker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, asked: Any, offsets: Any, *_: int) -> Any:
        found = attend_each_input(query, key, value, asked, offsets)
        return found.flip(-1) if wrong else found

    monkeypatch.setattr(torch_backend, "_runs_packed", lambda *_: True)
    monkeypatch.setattr(bert, "attend", attend)
    if wrong:
        with pytest.raises(EvalkitError, match="differs from the CPU by"):
            trials.opened(tiny_bert_reranker)
    else:
        assert getattr(trials.opened(tiny_bert_reranker), "pads") is False  # noqa: B009
    assert trials.done == 1


def test_a_processor_is_not_compared_with_itself(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    settings = model_settings({"name": "made", "path": str(tiny_bert_reranker)})
    _ = prepare_model("torch", settings, Runtime(device="cpu", cache_dir=tmp_path)).scorer
    assert not (tmp_path / VERDICTS).exists()
    assert torch_backend.is_accelerator(torch.device("mps"))
    assert torch_backend.is_accelerator(torch.device("cuda"))


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_parts_behind_a_network_stay_in_fp32(trials: Trials, dtype: str, tiny_bert_reranker: Path) -> None:
    """A network gives its vectors in fp32, whatever it computes in."""
    modules = pytest.importorskip("sentence_transformers.models")
    folder = write_embedder(tiny_bert_reranker, trials.cache.parent / "model")
    (folder / "2_Dense").mkdir()
    modules.Dense(64, 32).save(str(folder / "2_Dense"))
    fields = {"kind": "embedder", "modules": ("Pooling", "Dense:2_Dense", "Normalize")}
    found = [probes.probe(trials.opened(folder, one, **fields), model_settings(fields)) for one in ("fp32", dtype)]
    assert found[0].shape == (6, 32)
    assert 0 < np.abs(found[1] - found[0]).max() < 0.02
