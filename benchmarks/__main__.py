"""`make bench`: evalkit beside the others, in one process, in turn; ratios with their spread, as table, JSON and plot."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

import numpy as np
import torch

from benchmarks import folders, gpu, refine, refined_queries, systems, texts, tokens, whole_runs
from benchmarks.limit import has_bf16, matmul_limits, network_flop
from benchmarks.profile import profile_openvino
from evalkit.machine import collect

HERE = Path(__file__).parent
RATIO_PARTS = ("cross_encoder", "gpu", "embedder", "tokens")
LAYERS, HIDDEN, INTERMEDIATE = 12, 768, 3_072  # bge-reranker-base
# title: evalkit's, the other's, and how many times as fast evalkit should be
CROSS_ENCODER_RATIOS: dict[str, tuple[str, str, float | None]] = {
    "fp32 / sentence-transformers fp32": ("evalkit fp32", "sentence-transformers fp32", 3.0),
    "fp32 / sentence-transformers fp32, batches of 8": (
        "evalkit fp32",
        "sentence-transformers fp32, batches of 8",
        None,
    ),
    "fp32 / FlagReranker fp32, whole call": ("evalkit fp32", "FlagReranker fp32", 7.0),
    "fp32 / FlagReranker fp32, without its probe": ("evalkit fp32", "FlagReranker fp32, without its probe", 3.5),
    "fp32 / FlagReranker fp32, batches of 8": ("evalkit fp32", "FlagReranker fp32, batches of 8", None),
    "fp32 / plain OpenVINO fp32": ("evalkit fp32", "plain OpenVINO fp32", 1.0),
    "bf16 / sentence-transformers fp32": ("evalkit bf16", "sentence-transformers fp32", 5.5),
    "bf16 / sentence-transformers bf16": ("evalkit bf16", "sentence-transformers bf16", 2.0),
    "int8 (openvino) / int8 (onnx)": ("evalkit int8 (openvino)", "evalkit int8 (onnx)", 1.2),
    "int8 (openvino) / fp32": ("evalkit int8 (openvino)", "evalkit fp32", None),
    "int8 (onnx) / fp32": ("evalkit int8 (onnx)", "evalkit fp32", None),
    "int8 (openvino) / sentence-transformers fp32": ("evalkit int8 (openvino)", "sentence-transformers fp32", None),
    "int8 (onnx) / sentence-transformers fp32": ("evalkit int8 (onnx)", "sentence-transformers fp32", None),
}
EMBEDDER_RATIOS: dict[str, tuple[str, str, float | None]] = {
    "embedder / mteb, no duplicates": ("evalkit, no duplicates", "mteb, no duplicates", 2.9),
    "embedder / mteb, no duplicates, batches of 8": ("evalkit, no duplicates", "mteb, batches of 8", None),
    "embedder / mteb, 38 % repeated": ("evalkit, 38 % repeated", "mteb, 38 % repeated", 4.5),
    "vectors / SentenceTransformer.encode": ("evalkit vectors", "sentence-transformers vectors", None),
}


def main() -> None:
    """Measure what is asked for (all, without a choice) and write results.json, results.png and the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help=f"of {', '.join(PARTS)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=160, help="of the cross-encoder on a processor")
    parser.add_argument("--without", nargs="*", default=[], help="leave out systems with such a word in their name")
    parser.add_argument("--out", type=Path, default=HERE, help="the folder of results.json, .md and .png")
    chosen = parser.parse_args()
    path = chosen.out / "results.json"
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    for part in chosen.parts or [part for part in PARTS if part != "gpu" or torch.cuda.is_available()]:
        found[part] = {"measured": datetime.now(UTC).isoformat(timespec="minutes"), **PARTS[part](chosen)}
        found["machine"] = collect()["hardware"] | {"packages": collect()["packages"]}
        path.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    table = render(found)
    (chosen.out / "results.md").write_text(table, "utf-8")
    print(table)
    plot(found, chosen.out / "results.png")


def cross_encoder(chosen: argparse.Namespace) -> dict[str, Any]:
    """bge-reranker-base's architecture at full size, real pairs of some 300 tokens."""
    folder = folders.full_reranker()
    documents = texts.passages(chosen.pairs, 600, seed=1, spread=0.35)
    pairs = [(document[:20], document[20:]) for document in documents]
    theirs, flag = systems.sentence_transformers_cross_encoder, systems.FlagRerankerCall
    loaders: dict[str, Callable[[], systems.PairScores]] = {
        "evalkit fp32": partial(systems.evalkit_cross_encoder, folder, "openvino", "fp32"),
        "evalkit int8 (openvino)": partial(systems.evalkit_cross_encoder, folder, "openvino", "int8"),
        "evalkit int8 (onnx)": partial(systems.evalkit_cross_encoder, folder, "onnx", "int8"),
        "sentence-transformers fp32": partial(theirs, folder, torch.float32),
        "sentence-transformers fp32, batches of 8": partial(theirs, folder, torch.float32, 8),
        "plain OpenVINO fp32": partial(systems.plain_openvino, folder),
        "FlagReranker fp32": partial(flag, folder),
        "FlagReranker fp32, batches of 8": partial(flag, folder, 8),
    }
    if has_bf16():
        loaders["evalkit bf16"] = partial(systems.evalkit_cross_encoder, folder, "openvino", "bf16")
        loaders["sentence-transformers bf16"] = partial(theirs, folder, torch.bfloat16)
    trimmed = [name for name in loaders if name.startswith("evalkit")]
    measured = measure_pairs(loaders, folder, pairs, chosen, matmul_limits, trimmed)
    return {
        **measured,
        "profile": profile_openvino(folder, pairs[:8]),
        "ratios": ratios(measured["seconds"], CROSS_ENCODER_RATIOS),
    }


def gpu_cross_encoder(chosen: argparse.Namespace) -> dict[str, Any]:
    """Measure the cross-encoder on an NVIDIA GPU, with T2Reranking's lengths (a mean of 841 characters, a long tail)."""
    folder = folders.full_reranker()
    documents = texts.passages(gpu.PAIRS, 841, seed=4)
    pairs = [(document[:20], document[20:]) for document in documents]
    measured = measure_pairs(gpu.systems_of_pairs(folder), folder, pairs, chosen, gpu.limits, gpu.TRIMMED)
    return {"gpu": torch.cuda.get_device_name(), **measured, "ratios": ratios(measured["seconds"], gpu.RATIOS)}


def measure_pairs(
    loaders: Mapping[str, Callable[[], systems.PairScores]],
    folder: Path,
    pairs: list[systems.Pair],
    chosen: argparse.Namespace,
    limits_of: Callable[[], dict[str, float]],
    trimmed: Collection[str],
) -> dict[str, Any]:
    """Load the systems, time them in turn, and set their rates beside the limit.

    The `trimmed` compute the last layer's first position alone.
    """
    systems_of_pairs = {
        name: load() for name, load in loaders.items() if not any(word in name for word in chosen.without)
    }
    for call in systems_of_pairs.values():
        call(pairs[:8])  # what is done once, is done now
    calls = {name: partial(call, pairs) for name, call in systems_of_pairs.items()}
    seconds, outputs = alternate(calls, chosen.rounds, once=["FlagReranker fp32"])
    for name, call in systems_of_pairs.items():
        if isinstance(call, systems.FlagRerankerCall) and "batches" not in name:
            probes = call.probe_seconds[-len(seconds[name]) :]
            without = [whole - probe for whole, probe in zip(seconds[name], probes, strict=True)]
            seconds[f"{name}, without its probe"] = without
    lengths, limits = lengths_of(folder, pairs), limits_of()
    rates = {
        name: network_flop(lengths, LAYERS, HIDDEN, INTERMEDIATE, first_token=name in trimmed)
        / statistics.median(seconds[name])
        / 1e9
        for name in seconds
    }
    expected = outputs["sentence-transformers fp32"]
    return {
        "pairs": len(pairs),
        "tokens_per_pair": float(lengths.mean()),
        "seconds": seconds,
        "gflops_on_non_padding_tokens": rates,
        "differences_from_torch_fp32": {name: float(np.abs(o - expected).max()) for name, o in outputs.items()},
        "limit_gflops": limits,
        "part_of_limit": {name: rate / limits[kind] for name, rate in rates.items() for kind in limits if kind in name},
    }


def embedder(chosen: argparse.Namespace) -> dict[str, Any]:
    """multilingual-e5-small, end to end: without duplicate texts, and with CMedQAv1's 38 % of repeated candidates."""
    folder = folders.e5_small()
    documents = texts.passages(620, 110, seed=2)
    queries = texts.passages(120, 55, seed=3)
    calls: dict[str, systems.Scores] = {}
    predictions = texts.WORK / "predictions"
    for name, repeated in (("no duplicates", 0.0), ("38 % repeated", 0.38)):
        task = systems.reranking_task(queries, documents, repeated)
        calls[f"evalkit, {name}"] = systems.evalkit_embedder(folder, task, "openvino")
        calls[f"mteb, {name}"] = systems.mteb_embedder(folder, task, predictions)
        if not repeated:
            calls["mteb, batches of 8"] = systems.mteb_embedder(folder, task, predictions, 8)
    calls["evalkit vectors"] = systems.evalkit_encode(folder, documents, "openvino")
    calls["sentence-transformers vectors"] = systems.encode_embedder(folder, documents)
    calls = {name: call for name, call in calls.items() if not any(word in name for word in chosen.without)}
    for call in calls.values():
        call()  # what is done once, is done now
    seconds, outputs = alternate(calls, chosen.rounds)
    lengths = token_lengths(folder, ["passage: " + document for document in documents])
    rate = network_flop(lengths, 12, 384, 1_536, first_token=False) / 1e9
    vectors = ("evalkit vectors", "sentence-transformers vectors")
    limit = matmul_limits()["fp32"]
    return {
        "documents": len(documents),
        "seconds": seconds,
        "limit_gflops": {"fp32": limit},
        "part_of_limit": {name: rate / statistics.median(seconds[name]) / limit for name in vectors},
        "differences": {
            "vectors": float(np.abs(outputs[vectors[0]] - outputs[vectors[1]]).max()),
            "scores": float(np.abs(outputs["evalkit, no duplicates"] - outputs["mteb, no duplicates"]).max()),
        },
        "ratios": ratios(seconds, EMBEDDER_RATIOS),
    }


def processes(_: argparse.Namespace) -> dict[str, Any]:
    """Whole processes: 97,422 pairs of T2-like text, and the commands that load no model."""
    return whole_runs.measure()


def tokenising(_: argparse.Namespace) -> dict[str, Any]:
    """T2-like texts to token ids."""
    return tokens.measure()


def refining(_: argparse.Namespace) -> dict[str, Any]:
    """Measure runs in low precision whose order is made fp32's."""
    return refine.measure()


def comparing_queries(_: argparse.Namespace) -> dict[str, Any]:
    """Each query of such runs beside the whole run in fp32."""
    return refined_queries.measure()


def alternate(
    calls: Mapping[str, systems.Scores], rounds: int, once: Collection[str] = ()
) -> tuple[dict[str, list[float]], dict[str, np.ndarray]]:
    """Call each system once per round, the order turned by one each time; `once` names slow ones, for the first round only."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    outputs: dict[str, np.ndarray] = {}
    names = list(calls)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            if number and name in once:
                continue
            started = time.perf_counter()
            outputs[name] = calls[name]()
            seconds[name].append(time.perf_counter() - started)
            print(f"round {number + 1}: {name}: {seconds[name][-1]:.2f} s", flush=True)
    return seconds, outputs


def ratios(seconds: Mapping[str, list[float]], wanted: Mapping[str, tuple[str, str, float | None]]) -> dict[str, Any]:
    """How many times as fast, round by round: median, least, most, and what is aimed at. Leaves out what did not run."""
    found = {}
    for title, (ours, theirs, target) in wanted.items():
        if not {ours, theirs} <= seconds.keys():
            continue
        values = [slow / fast for fast, slow in zip(seconds[ours], seconds[theirs], strict=False)]
        found[title] = {"median": statistics.median(values), "min": min(values), "max": max(values), "target": target}
    return found


def lengths_of(folder: Path, pairs: list[systems.Pair]) -> np.ndarray:
    """Tokens of each pair after truncation to 512."""
    return token_lengths(folder, [query for query, _ in pairs], [document for _, document in pairs])


def token_lengths(folder: Path, *columns: list[str]) -> np.ndarray:
    """Tokens of each text, or of each pair of two columns, after truncation to 512."""
    from transformers import AutoTokenizer

    encoded = AutoTokenizer.from_pretrained(folder)(*columns, truncation=True, max_length=512)["input_ids"]
    return np.array([len(ids) for ids in encoded])


def render(found: Mapping[str, Any]) -> str:
    """Return the Markdown tables of what was measured."""
    lines = [f"Processor: {found['machine']['processor']}, {found['machine']['cores']} cores.", ""]
    lines += ["| evalkit / other | times as fast (median) | least to most | at least |", "|---|---:|---:|---:|"]
    for part in RATIO_PARTS:
        for title, ratio in found.get(part, {}).get("ratios", {}).items():
            target = "" if ratio["target"] is None else f"{ratio['target']:.3g} ×"
            lines.append(f"| {title} | {ratio['median']:.2f} × | {ratio['min']:.2f} to {ratio['max']:.2f} | {target} |")
    for part in RATIO_PARTS:
        if "part_of_limit" in found.get(part, {}):
            lines += ["", *limit_lines(part, found[part])]
    if "cross_encoder" in found:
        shares = ", ".join(f"{kind} {share:.0%}" for kind, share in found["cross_encoder"]["profile"].items())
        lines += ["", f"Where evalkit's time goes (cross-encoder, fp32, OpenVINO's own counters): {shares}."]
        found_differences = found["cross_encoder"]["differences_from_torch_fp32"]
        lines += ["", "Largest difference of a score from torch fp32: " + differences(found_differences)]
    if "embedder" in found:
        lines += ["", "Largest difference from the other's output: " + differences(found["embedder"]["differences"])]
    if "refine" in found:
        lines += ["", "| refine=fp32 | measured | at most |", "|---|---:|---:|"]
        lines += [f"| {row['what']} | {row['measured']} | {row['target']} |" for row in found["refine"]["rows"]]
    if "refined_queries" in found:
        lines += ["", "| refine=fp32, each query's AP, RR and nDCG beside fp32's | measured | limit |", "|---|---|---|"]
        lines += [
            f"| {row['what']} | {row['measured']} | {row['target']} |" for row in found["refined_queries"]["rows"]
        ]
    if "processes" in found:
        lines += ["", "| whole process | measured | at most |", "|---|---:|---:|"]
        lines += [f"| {row['what']} | {row['measured']} | {row['target']} |" for row in found["processes"]["rows"]]
    return "\n".join(lines) + "\n"


def limit_lines(part: str, measured: Mapping[str, Any]) -> list[str]:
    """Return the machine's limit, and what part of it each system reached."""
    rates = ", ".join(f"{kind} {rate:,.0f} GFLOP/s" for kind, rate in measured["limit_gflops"].items())
    lines = [f"| {part.replace('_', '-')}; matrix product's best rate here: {rates} | part reached, without padding |"]
    lines.append("|---|---:|")
    return lines + [f"| {name} | {share:.0%} |" for name, share in measured["part_of_limit"].items()]


def differences(found: Mapping[str, float]) -> str:
    """Names with their numbers, in a line."""
    return ", ".join(f"{name} {value:.1e}" for name, value in found.items()) + "."


def plot(found: Mapping[str, Any], path: Path) -> None:
    """Bars of the ratios, with their spread and what is aimed at."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [(t, r) for part in RATIO_PARTS for t, r in found.get(part, {}).get("ratios", {}).items()]
    if not rows:
        return
    figure, axes = pyplot.subplots(figsize=(9, 0.5 * len(rows) + 1))
    places = range(len(rows))
    medians = [ratio["median"] for _, ratio in rows]
    spread = [[r["median"] - r["min"] for _, r in rows], [r["max"] - r["median"] for _, r in rows]]
    axes.barh(places, medians, xerr=spread, color="#4878a8", capsize=3)
    for place, (_, ratio) in enumerate(rows):
        if ratio["target"]:
            axes.plot([ratio["target"]] * 2, [place - 0.4, place + 0.4], color="black")
    axes.axvline(1, color="grey", linewidth=0.8)
    axes.set_yticks(places, [title for title, _ in rows])
    axes.invert_yaxis()
    axes.set_xlabel("times as fast as the other (bar: median of rounds; black line: at least)")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "cross_encoder": cross_encoder,
    "gpu": gpu_cross_encoder,
    "embedder": embedder,
    "processes": processes,
    "tokens": tokenising,
    "refine": refining,
    "refined_queries": comparing_queries,
}

if __name__ == "__main__":
    main()
