"""`evalkit certify`, and what comes of a model that is not the certified one: in a run, in doctor and in the list."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import Outcome, files_below, run_here, run_program
from model_folders import Tensors, copied, edit_json, edit_weights
from tokenizers import Tokenizer
from transformers import AutoModel, AutoModelForSequenceClassification

from evalkit.configuration.files import option_names
from evalkit.errors import EvalkitError
from evalkit.evaluation.certificates import read_certificate, verification
from evalkit.evaluation.goldens import GOLDEN_PAIRS, tolerance_for
from evalkit.models.identity import PROBES
from evalkit.models.settings import read_model
from evalkit.output.json import compact_json

HERE = ("backend=torch", "device=cpu")
QUICK = ("task=demo-zh2en", "limit=2", *HERE)
RERANKER, EMBEDDER, HUB = "bge-reranker-base", "multilingual-e5-small", "bge-reranker-large"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, tiny_reranker: Path, e5_small: Path) -> Path:
    """A configs folder with certificates of both stand-ins."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "model").mkdir()
    for name, path in ((RERANKER, tiny_reranker), (EMBEDDER, e5_small)):
        to = f"--json={folder / 'all.json'}"
        done = run_here(
            "certify", f"model={name}", f"model.path={path}", "device=cpu", "--folder", str(folder / "model"), to
        )
        assert done.code == 0, done.stderr
    return folder


def certificate_of(own: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((own / "model" / f"{name}.certificate.json").read_text(encoding="utf-8"))
    return content


def rewritten(own: Path, into: Path, name: str, change: Callable[[dict[str, Any]], object]) -> Path:
    """A configs folder with one changed certificate."""
    path = into / "changed" / "model" / f"{name}.certificate.json"
    path.parent.mkdir(parents=True)
    content = certificate_of(own, name)
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    return into / "changed"


def doctor(folder: Path, own: Path, *more: str, model: str = RERANKER) -> tuple[Outcome, str]:
    """Doctor's line on the certificate."""
    done = run_here("doctor", *QUICK, f"model={model}", f"model.path={folder}", "--config-dir", str(own), *more)
    return done, next(line for line in done.stdout.splitlines() if line[10:24].strip() == "certificate")


def run(folder: Path, own: Path, *more: str, model: str = RERANKER) -> Outcome:
    return run_here(*QUICK, f"model={model}", f"model.path={folder}", "--config-dir", str(own), *more)


def file_ids(path: Path) -> list[list[int]]:
    """What the tokenizers library makes of tokenizer.json, asked without evalkit."""
    tokenizer = Tokenizer.from_file(str(path))
    reverse = list(reversed(PROBES))
    found = []
    for special in (True, False):
        found += [tokenizer.encode(text, add_special_tokens=special).ids for text in PROBES]
        pairs = zip(PROBES, reverse, strict=True)
        found += [tokenizer.encode(one, other, add_special_tokens=special).ids for one, other in pairs]
    return found


@pytest.mark.parametrize("name", [RERANKER, EMBEDDER])
def test_token_ids_are_those_of_the_tokenizers_library(
    name: str, own: Path, tiny_reranker: Path, e5_small: Path
) -> None:
    folder = tiny_reranker if name == RERANKER else e5_small
    tokens = certificate_of(own, name)["tokenizer"]
    assert tokens["probes"] == list(PROBES)
    assert tokens["ids"] == file_ids(folder / "tokenizer.json")


def test_scores_and_inputs_of_a_cross_encoder_are_transformers_own(own: Path, tiny_reranker: Path) -> None:
    scores = certificate_of(own, RERANKER)["scores"]
    assert [tuple(pair) for pair in scores["pairs"]] == list(GOLDEN_PAIRS)
    tokenizer = Tokenizer.from_file(str(tiny_reranker / "tokenizer.json"))
    assert scores["inputs"] == [tokenizer.encode(*pair).ids for pair in GOLDEN_PAIRS]
    network = AutoModelForSequenceClassification.from_pretrained(tiny_reranker, dtype=torch.float32).eval()
    with torch.inference_mode():
        logits = [network(input_ids=torch.tensor([ids])).logits.item() for ids in scores["inputs"]]
    np.testing.assert_allclose(scores["values"], logits, atol=1e-5)
    assert np.ptp(scores["values"]) > 0.5  # other pairs, other scores


def test_scores_of_an_embedder_are_the_similarities_of_its_vectors(own: Path, e5_small: Path) -> None:
    scores = certificate_of(own, EMBEDDER)["scores"]
    tokenizer = Tokenizer.from_file(str(e5_small / "tokenizer.json"))
    texts = [text for query, document in GOLDEN_PAIRS for text in (f"query: {query}", f"passage: {document}")]
    assert scores["inputs"] == [tokenizer.encode(text).ids for text in texts]
    network = AutoModel.from_pretrained(e5_small, dtype=torch.float32).eval()
    with torch.inference_mode():
        means = [network(input_ids=torch.tensor([ids])).last_hidden_state[0].mean(0) for ids in scores["inputs"]]
    cosines = [
        torch.cosine_similarity(one, other, dim=0).item() for one, other in zip(means[::2], means[1::2], strict=True)
    ]
    np.testing.assert_allclose(scores["values"], cosines, atol=1e-5)


def test_a_certificate_says_of_what_it_is_and_who_made_it(own: Path, tiny_reranker: Path) -> None:
    content = certificate_of(own, RERANKER)
    assert (content["hub_id"], content["source"], content["differences"]) == ("BAAI/bge-reranker-base", "folder", [])
    assert content["recipe"]["max_length"] == {"value": 512, "origin": "model=bge-reranker-base"}
    assert content["recipe"]["truncation"]["value"] == "longest_first"
    made = content["made"]
    assert made["packages"]["torch"] == torch.__version__
    assert made["evalkit"]["version"]
    assert made["hardware"]["processor"]
    assert json.loads((own / "all.json").read_text(encoding="utf-8"))["certificates"][0]["model"] == EMBEDDER


def test_findings_of_the_tokenizer_are_in_it(here: Path, tiny_reranker: Path) -> None:
    folder = copied(tiny_reranker, here)
    edit_json(
        folder / "tokenizer_config.json",
        lambda config: config.update(tokenizer_class="XLMRobertaTokenizer", add_prefix_space=False),
    )
    done = run_here("certify", f"model={RERANKER}", f"model.path={folder}", "device=cpu", "--json")
    (content,) = json.loads(done.stdout)["certificates"]
    assert done.code == 0
    assert any("makes other tokens than tokenizer.json" in finding for finding in content["findings"])
    assert content["tokenizer"]["ids"] == file_ids(folder / "tokenizer.json")


def test_differences_of_the_folder_s_files_are_in_it(here: Path, e5_small: Path) -> None:
    folder = here / "model"
    (folder / "1_Pooling").mkdir(parents=True)
    for path in e5_small.iterdir():
        if path.name != "1_Pooling":
            (folder / path.name).symlink_to(path)
    (folder / "1_Pooling" / "config.json").write_text(
        '{"pooling_mode_cls_token": true, "word_embedding_dimension": 384}'
    )
    done = run_here("certify", f"model={EMBEDDER}", f"model.path={folder}", "device=cpu", "--json")
    (content,) = json.loads(done.stdout)["certificates"]
    assert content["differences"] == ["pooling: 'mean' here, 'cls' in 1_Pooling/config.json"]
    assert content["recipe"]["pooling"]["value"] == "mean"


def test_the_same_folder_is_as_certified(own: Path, tiny_reranker: Path, e5_small: Path) -> None:
    for name, folder in ((RERANKER, tiny_reranker), (EMBEDDER, e5_small)):
        _, line = doctor(folder, own, model=name)
        assert line[2:10].strip() == "ok"
        assert "token ids of 64 inputs; token ids of" in line
        assert "scores: " in line
    again = run_here(
        "certify", f"model={RERANKER}", f"model.path={tiny_reranker}", "device=cpu", "--config-dir", str(own)
    )
    assert again.code == 0
    assert "as certified" in again.stdout


def test_scores_are_compared_where_weights_load(own: Path, tiny_reranker: Path, here: Path) -> None:
    first = run(tiny_reranker, own, f"cache_dir={here / 'kept'}")
    assert first.code == 0, first.stderr
    assert f"{RERANKER} is as certified: scores: " in first.stderr
    again = run(tiny_reranker, own, f"cache_dir={here / 'kept'}", "seed=43")
    assert again.code == 0, again.stderr
    assert "as certified" not in again.stderr


def test_without_a_certificate_doctor_says_so(own: Path, tiny_reranker: Path) -> None:
    _, line = doctor(tiny_reranker, own, model=HUB)
    assert line.split() == ["–", "certificate", "no", "certificate"]


def other_weights(tensors: Tensors) -> Tensors:
    return {**tensors, "classifier.out_proj.weight": tensors["classifier.out_proj.weight"] * 1.01}


def test_another_folder_s_weights(own: Path, tiny_reranker: Path, here: Path) -> None:
    folder = copied(tiny_reranker, here)
    edit_weights(folder, other_weights)
    done, line = doctor(folder, own)
    assert done.code == 1
    assert line[2:10].strip() == "FAULT"
    assert "scores of other weight files: " in line
    ran = run(folder, own)
    assert ran.code == 0
    assert f"{RERANKER} differs from its certificate: scores of other weight files: " in ran.stderr
    certified = run_here("certify", f"model={RERANKER}", f"model.path={folder}", "device=cpu", "--config-dir", str(own))
    assert certified.code == 1
    assert "scores of other weight files" in " ".join(certified.stdout.split())


def test_another_tokenizer(own: Path, tiny_reranker: Path, here: Path) -> None:
    """One that only a rare text shows: the golden pairs' tokens and scores are the same."""
    folder = copied(tiny_reranker, here)
    edit_json(folder / "tokenizer.json", lambda content: content.update(normalizer={"type": "Nmt"}))
    done, line = doctor(folder, own)
    assert done.code == 1
    assert line[2:10].strip() == "FAULT"
    assert "token ids of '感冒了应该吃什么药？' behind the first " in line
    ran = run(folder, own)
    assert ran.code == 0
    assert f"{RERANKER} differs from its certificate: token ids of '感冒" in ran.stderr


def test_a_recipe_of_the_user_s_own_is_no_difference(own: Path, tiny_reranker: Path) -> None:
    _, line = doctor(tiny_reranker, own, "model.max_length=64")
    assert line[2:10].strip() == "ok"
    assert "not compared: scores: you say another recipe (max_length)" in line


def test_a_recipe_that_changed_since_is_a_difference(own: Path, tiny_reranker: Path, here: Path) -> None:
    changed = rewritten(own, here, RERANKER, lambda content: content["recipe"]["max_length"].update(value=256))
    done, line = doctor(tiny_reranker, changed)
    assert done.code == 1
    assert "recipe: max_length is 512, certified 256" in line


def test_a_precision_without_a_tolerance_is_not_compared(own: Path, tiny_reranker: Path) -> None:
    done = run_here(
        *("doctor", "task=demo-zh2en", "limit=2", "backend=onnx", "dtype=int8", f"model={RERANKER}"),
        *(f"model.path={tiny_reranker}", "--config-dir", str(own)),
    )
    line = next(line for line in done.stdout.splitlines() if line[10:24].strip() == "certificate")
    assert line[2:10].strip() == "ok"
    assert "not compared: scores: int8 is too coarse" in line


@pytest.mark.parametrize(
    ("dtype", "expected", "tolerance"),
    [("fp32", [8.0, -1.0], 1e-3), ("fp32", [0.9, 0.8], 1.25e-4), ("bf16", [0.9], 0.03125), ("fp32", [-80.0], 1e-2)],
)
def test_a_tolerance_goes_with_the_size_of_the_scores(dtype: str, expected: list[float], tolerance: float) -> None:
    assert tolerance_for(dtype, expected) == pytest.approx(tolerance)


def hub_cache(home: Path, folder: Path) -> Path:
    """The folder where the Hub cache would have bge-reranker-large, with a stand-in's files."""
    settings = read_model(HUB)
    place = home / "hub" / f"models--{str(settings.hub_id).replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(str(settings.revision))
    return shutil.copytree(folder, place / "snapshots" / str(settings.revision))


def test_weights_from_the_hub_at_the_certified_revision_must_be_the_certified_ones(
    tiny_reranker: Path, here: Path
) -> None:
    snapshot = hub_cache(here / "home", tiny_reranker)
    (here / "own" / "model").mkdir(parents=True)
    words = (f"model={HUB}", "offline=true", "device=cpu")

    def program(*arguments: str) -> Outcome:
        return run_program(here, *arguments, HF_HOME=str(here / "home"))

    made = program("certify", *words, "--folder", "own/model", "--json")
    assert made.code == 0, made.stderr
    (content,) = json.loads(made.stdout)["certificates"]
    assert (content["source"], content["revision"]) == ("hub", read_model(HUB).revision)
    listed = json.loads(run_here("list", "models", "--json", "--config-dir", "own").stdout)["models"]
    assert next(one["verified"] for one in listed if one["name"] == HUB) == "yes"
    sound = program(*QUICK, *words, "--config-dir", "own")
    assert sound.code == 0, sound.stderr
    assert f"{HUB} is as certified" in sound.stderr
    results = files_below(here / "results")
    # as where the files are whole, and a library reads them otherwise than where the certificate was made
    other = rewritten(here / "own", here, HUB, lambda content: content["scores"].update(values=[1.0, 2.0, 3.0]))
    stopped = program(*QUICK, *words, "cache_dir=kept", "--config-dir", str(other))
    assert stopped.code == 1
    last = stopped.stderr.splitlines()[-1]
    assert f"{HUB} differs from its certificate, so nothing was run: scores of the same weight files: " in last
    assert " for 3.0000 (backend torch, fp32; tolerance" in last
    info = json.loads(run_here("cache", "info", "--json", "--cache-dir", "kept").stdout)
    assert sum(way["scores"] for way in info["ways"]) == 0
    edit_weights(snapshot, other_weights)
    stopped = program(*QUICK, *words, "--config-dir", "own")
    assert stopped.code == 1
    last = stopped.stderr.splitlines()[-1]
    assert last.startswith(f"evalkit: {HUB} differs from its certificate, so nothing was run: weight files: ")
    assert files_below(here / "results") == results
    again = program("certify", *words, "--config-dir", "own", "--json=again.json")
    assert again.code == 1
    found = json.loads((here / "again.json").read_text(encoding="utf-8"))
    assert [text.partition(":")[0] for text in found["differences"][HUB]] == [
        "weight files",
        "scores of other weight files",
    ]


def test_all_without_a_network_lists_the_reasons(here: Path) -> None:
    done = run_program(here, "certify", "model=all", "offline=true", HF_HOME=str(here / "home"))
    assert done.code == 2, done.stderr
    content = json.loads((here / "evalkit-certificates.json").read_text(encoding="utf-8"))
    assert content["certificates"] == []
    assert set(content["missing"]) == {name for name in option_names("model") if read_model(name).hub_id}
    assert "is not in the Hub cache" in content["missing"][RERANKER]
    assert "model.trust_remote_code=true" in content["missing"]["gte-multilingual-reranker-base"]
    assert "behind an API" in content["missing"]["text-embedding-3-small"]
    assert "bug" not in done.stderr + json.dumps(content)
    assert "made" in done.stdout


def test_one_that_can_t_be_had_leaves_the_others(own: Path, here: Path, tiny_reranker: Path) -> None:
    hub_cache(here / "home", tiny_reranker)
    words = ("certify", f"model=bge-m3,{HUB}", "offline=true", "device=cpu", "--json")
    done = run_program(here, *words, HF_HOME=str(here / "home"))
    assert done.code == 0, done.stderr
    content = json.loads(done.stdout)
    assert [one["model"] for one in content["certificates"]] == [HUB]
    assert list(content["missing"]) == ["bge-m3"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "takes one model=NAME"),
        (["model=bge-m3", "task=demo"], "task=demo: a certificate is of a model's own recipe, and of no task"),
        (["model=bge-m3", "model.max_length=64"], "model.max_length=64: a certificate is of a model's own recipe"),
        (["model=bge-m4"], "there is no model 'bge-m4'"),
        (["model=bm25"], "model=bm25 is no model of its own"),
        (["model=local-embedder"], "model=local-embedder is no model of its own"),
        (["model=bge-m3", "--folder", "nowhere"], "--folder nowhere: there is no such folder"),
    ],
)
def test_wrong_usage(words: list[str], said: str, here: Path) -> None:
    done = run_here("certify", *words)
    assert done.code == 2
    (line,) = done.stderr.splitlines()
    assert said in line
    assert files_below(here) == []


def test_certificates_are_of_fp32(tiny_reranker: Path) -> None:
    words = (f"model={RERANKER}", f"model.path={tiny_reranker}", "dtype=bf16", "device=cpu", "--json")
    done = run_here("certify", *words)
    assert done.code == 2
    assert json.loads(done.stdout)["missing"] == {RERANKER: "dtype=bf16: certificates are of fp32; leave dtype out"}


def test_a_certificate_that_is_there_is_not_replaced(own: Path, tiny_reranker: Path) -> None:
    before = certificate_of(own, RERANKER)
    words = (f"model={RERANKER}", f"model.path={tiny_reranker}", "device=cpu", "--folder", str(own / "model"))
    done = run_here("certify", *words, "--json")
    assert "is there already, and stays as it is" in done.stderr
    assert certificate_of(own, RERANKER) == before


def test_a_certificate_is_no_option(own: Path) -> None:
    assert option_names("model", [own]) == option_names("model")


def test_who_is_verified(own: Path) -> None:
    done = run_here("list", "models", "--json", "--config-dir", str(own))
    verified = {entry["name"]: entry["verified"] for entry in json.loads(done.stdout)["models"]}
    assert verified[RERANKER] == "no"  # of a folder, which may hold anything
    assert verified[HUB] == "no"
    assert verified["jina-reranker-v2-base-multilingual"] == "no, code of its own"
    assert verified["bm25"] is None


def test_a_certificate_of_another_revision_verifies_nothing(own: Path, here: Path) -> None:
    settings = read_model(RERANKER)
    revisions = {"another": "no", str(settings.revision): "yes"}
    for number, (revision, said) in enumerate(revisions.items()):
        said_of = {"source": "hub", "revision": revision}
        changed = rewritten(own, here / str(number), RERANKER, lambda content, of=said_of: content.update(of))
        assert verification(RERANKER, settings, [changed]) == said


def test_a_model_of_the_user_s_own(own: Path, here: Path, tiny_reranker: Path) -> None:
    model = here / "mine" / "model"
    model.mkdir(parents=True)
    (model / "mine.yaml").write_text(f"name: mine\nkind: cross-encoder\npath: {tiny_reranker}\n")
    words = ("model=mine", "device=cpu", "--config-dir", "mine")
    made = run_here("certify", *words, "--folder", str(model))
    assert made.code == 0, made.stderr
    listed = json.loads(run_here("list", "models", "--json", "--config-dir", "mine").stdout)["models"]
    assert next(one["verified"] for one in listed if one["name"] == "mine") == "yes"
    done = run_here(*QUICK, *words)
    assert done.code == 0, done.stderr
    assert "mine is as certified" in done.stderr


def test_a_document_of_several_certificates_holds_one_s_own(own: Path, here: Path) -> None:
    document = {"certificates": [certificate_of(own, name) for name in (RERANKER, EMBEDDER)]}
    for name in (RERANKER, EMBEDDER):
        path = here / f"{name}.certificate.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        assert read_certificate(path).model == name


def without(content: dict[str, Any], *keys: str) -> None:
    for key in keys[:-1]:
        content = content[key]
    del content[keys[-1]]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda content: without(content, "weights_hash"), "weights_hash: Field required"),
        (lambda content: without(content, "scores", "values"), "scores.values: Field required"),
        (lambda content: content["scores"]["values"].__setitem__(1, "high"), "scores.values.1: "),
        (lambda content: content["scores"]["values"].__setitem__(1, None), "scores.values.1: "),
        (lambda content: content["scores"]["values"].pop(), "scores.values: 2 scores of 3 pairs"),
        (lambda content: content["scores"].update(dtype="bf16"), "scores.dtype: "),
        (lambda content: content["scores"]["inputs"].pop(), "scores.inputs: 2 lists do not fit 3 pairs"),
        (lambda content: content["tokenizer"]["ids"][7].__setitem__(0, -1), "tokenizer.ids.7.0: "),
        (lambda content: content["tokenizer"]["ids"].pop(), "tokenizer.ids: 63 lists do not fit 16 probes"),
        (lambda content: content["recipe"].update(pooling="cls"), "recipe.pooling: "),
        (lambda content: content.update(model=EMBEDDER), f"model: it certifies {EMBEDDER}"),
        (lambda content: content.update(source="somewhere"), "source: "),
    ],
)
def test_a_damaged_certificate_is_one_line_that_names_file_and_field(
    change: Callable[[dict[str, Any]], object], field: str, own: Path, here: Path, tiny_reranker: Path
) -> None:
    changed = rewritten(own, here, RERANKER, change)
    done = run_here("list", "models", "--config-dir", str(changed))
    assert done.code == 2
    (line,) = done.stderr.splitlines()
    assert f"{RERANKER}.certificate.json: {field}" in line
    assert "evalkit certify" in line


def test_a_damaged_certificate_stops_a_run_of_its_model_alone(own: Path, here: Path, tiny_reranker: Path) -> None:
    (here / "own" / "model").mkdir(parents=True)
    (here / "own" / "model" / f"{RERANKER}.certificate.json").write_text('{"model": ')
    done = run(tiny_reranker, here / "own")
    assert done.code == 2
    assert f"{RERANKER}.certificate.json: is not JSON" in done.stderr.splitlines()[-1]
    assert run(tiny_reranker, here / "own", model=HUB).code == 0


def test_a_certificate_of_no_model_is_refused(own: Path, here: Path) -> None:
    (here / "own" / "model").mkdir(parents=True)
    (here / "own" / "model" / "bge-m4.certificate.json").write_text("{}")
    with pytest.raises(EvalkitError, match=r"bge-m4.*there is no model 'bge-m4'"):
        verification(RERANKER, read_model(RERANKER), [here / "own"])


def test_help_loads_no_torch(here: Path) -> None:
    code = "import sys; from evalkit.commands.main import run_command_line as r; r(['certify', '--help']); "
    done = run_program(here, "-c", code + "print('torch' in sys.modules)", program=(os.sys.executable,))
    assert done.stdout.splitlines()[-1] == "False"


def test_lists_of_numbers_stand_in_one_line() -> None:
    content = {"ids": [[1, 22, -3], [0.5, 1e-9], []], "text": ["[ 1, 2 ]", "[\n  1\n]"], "mixed": [1, "2"], "one": [7]}
    text = compact_json(content)
    assert json.loads(text) == content
    assert "[1, 22, -3]" in text
    assert "[0.5, 1e-09]" in text
    assert '"one": [7]' in text
