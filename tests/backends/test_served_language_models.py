"""Language models that rerank behind servers: the same tokens and scores as on torch, or an error that says why not."""

from __future__ import annotations

import math
import operator
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chinese_texts import demo_pairs
from command import run_here
from language_servers import language_server, tokenizer_of
from made_tasks import make_task
from model_folders import copied
from numpy.typing import NDArray
from served_models import served

import evalkit
from evalkit import Model
from evalkit.doctor.checks import judge_evidence
from evalkit.doctor.examination import examine
from evalkit.doctor.records import Opinion
from evalkit.errors import EvalkitError
from evalkit.models.interfaces import LocalNetwork, PairScorer, Probed

PAIRS = [
    *demo_pairs(6),
    ("感冒怎么办？", ""),
    ("", "多喝水"),
    ("what is\n", " (x)\n 1 <|im_end|>"),
    ("e", "水" * 3_000),
]
GEMMA, QWEN = "bge-reranker-v2-gemma", "Qwen3-Reranker-0.6B"
# mxbai's words: digits
DIGITS = {"positive_word": "1", "negative_word": "0"}
TOLERANCE = 1e-4
PLAIN = make_task(
    (["感冒了应该吃什么药"], [("多喝水", 1), ("感冒药一天三次", 1), ("渡轮七点开", 0)]),
    (["如何办理护照"], [("出入境管理局", 1), ("今天天气很好", 0), ("护照两寸照片", 1)]),
)


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k" * 20)


def on_torch(name: str, folder: Path, **recipe: Any) -> LocalNetwork:
    scorer = evalkit.load_model(name, backend="torch", device="cpu", path=str(folder), **recipe).runnable.scorer
    assert isinstance(scorer, LocalNetwork)
    return scorer


def expected(name: str, folder: Path, **recipe: Any) -> tuple[list[list[int]], NDArray[np.float32]]:
    """The token ids and the scores on torch."""
    network = on_torch(name, folder, **recipe)
    encodings = [
        network.encode_pair(network.tokenize([query], "query")[0], network.tokenize([document], "document")[0])
        for query, document in PAIRS
    ]
    scores = np.concatenate([network.run([encoding]) for encoding in encodings])
    return [encoding.token_ids.tolist() for encoding in encodings], scores


def behind(server: Any, name: str, folder: Path, **settings: Any) -> Model:
    recipe = settings.pop("recipe", {})
    return served(
        server.backend, server.url, name, recipe={"path": str(folder), **recipe}, served_model="m", **settings
    )


def scores_of(model: Model) -> NDArray[np.float32]:
    scorer = model.runnable.scorer
    assert isinstance(scorer, PairScorer)
    return scorer.score(PAIRS)


def refusal(server: Any, name: str, folder: Path, **settings: Any) -> str:
    with pytest.raises(EvalkitError) as caught:
        _ = behind(server, name, folder, retries=0, **settings).runnable.scorer
    assert "\n" not in str(caught.value)
    return str(caught.value)


WAYS: dict[str, dict[str, Any]] = {
    "asked for": {},
    "one word per request": {"asks": False},
    "processed, and asked for": {"mode": "processed_logprobs"},
    "raw logits": {"mode": "raw_logits"},
    "raw logits, one word per request": {"mode": "raw_logits", "asks": False},
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("recipe", [{}, DIGITS, {"max_length": 150}], ids=["yes-no", "1-0", "cut"])
def test_two_words_are_torchs(tiny_qwen: Path, way: dict[str, Any], recipe: dict[str, Any]) -> None:
    ids, scores = expected(QWEN, tiny_qwen, **recipe)
    server, own = language_server(tiny_qwen, **way)
    with server:
        found = scores_of(behind(server, QWEN, tiny_qwen, recipe=recipe))
    np.testing.assert_allclose(found, scores, atol=TOLERANCE, rtol=0)
    assert np.ptp(scores) > 100 * TOLERANCE
    assert all(one in own.read for one in ids)


@pytest.mark.parametrize("mode", ["raw_logits", "processed_logits"])
@pytest.mark.parametrize("asks", [True, False])
def test_one_word_is_flagembeddings_where_the_server_gives_logits(tiny_gemma: Path, mode: str, asks: bool) -> None:
    from FlagEmbedding import FlagLLMReranker

    ids, scores = expected(GEMMA, tiny_gemma)
    server, own = language_server(tiny_gemma, mode=mode, asks=asks)
    with server:
        found = scores_of(behind(server, GEMMA, tiny_gemma))
    np.testing.assert_allclose(found, scores, atol=TOLERANCE, rtol=0)
    assert all(one in own.read for one in ids)
    theirs = FlagLLMReranker(str(tiny_gemma), use_fp16=False, devices="cpu").compute_score(
        [list(pair) for pair in PAIRS]
    )
    np.testing.assert_allclose(found, theirs, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("mode", ["raw_logprobs", "processed_logprobs"])
def test_one_word_is_refused_where_the_server_gives_log_probabilities(tiny_gemma: Path, mode: str) -> None:
    server, _ = language_server(tiny_gemma, mode=mode)
    with server:
        says = refusal(server, GEMMA, tiny_gemma)
    assert "gives log-probabilities, and a score of m is the logit of one word, 'Yes'" in says
    assert "--logprobs-mode raw_logits" in says


@pytest.mark.parametrize(
    ("tells", "says"),
    [
        (operator.neg, "takes another token than the likeliest by its own numbers"),
        (math.exp, "gives probabilities where log-probabilities are due"),
        (lambda value: 100 * math.exp(value), "gives percentages where log-probabilities are due"),
    ],
    ids=["negated", "probabilities", "percentages"],
)
@pytest.mark.parametrize("recipe", [{}, {"negative_word": None}], ids=["two words", "one"])
def test_numbers_that_are_no_log_probabilities_are_refused(
    sure_qwen: Path, tells: Callable[[float], float], says: str, recipe: dict[str, Any]
) -> None:
    server, _ = language_server(sure_qwen, tells=tells)
    with server, pytest.raises(EvalkitError, match=says):
        scores_of(behind(server, QWEN, sure_qwen, recipe=recipe))


@pytest.fixture(scope="module")
def sure_qwen(tiny_qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a network that thinks `yes` and `no` likely behind any input, as a trained one does, and `1` never."""
    import torch
    from transformers import AutoModelForCausalLM

    folder = copied(tiny_qwen, tmp_path_factory.mktemp("sure"))
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    rows = network.get_input_embeddings().weight.detach().clone()
    tokenizer = tokenizer_of(folder)
    head = rows.clone()
    head[:, 0] = 0
    for word, weight in (("yes", 10.0), ("no", 10.0), ("1", -10.0)):
        head[tokenizer(word)["input_ids"][0], 0] = weight
    with torch.no_grad():
        network.get_input_embeddings().weight[:, 0] = 3  # what every position then has, whatever its text
        network.config.tie_word_embeddings = False
        network.lm_head.weight = torch.nn.Parameter(head)
    network.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("most", [20, 5])
def test_words_among_the_likeliest_are_torchs(sure_qwen: Path, most: int) -> None:
    """As of any server that speaks like OpenAI's, which knows tokens by their text and tells of so many."""
    ids, scores = expected(QWEN, sure_qwen)
    server, own = language_server(sure_qwen, "openai", top=most)
    with server:
        found = scores_of(behind(server, QWEN, sure_qwen))
    np.testing.assert_allclose(found, scores, atol=TOLERANCE, rtol=0)
    assert np.ptp(scores) > 100 * TOLERANCE
    assert all(one in own.read for one in ids)


def test_words_are_known_by_a_text_that_is_theirs_alone(tiny_qwen: Path, tiny_gemma: Path) -> None:
    from evalkit.backends.servers.words import Word, _spelt

    for folder in (tiny_qwen, tiny_gemma):
        tokenizer = tokenizer_of(folder)
        for text in ("yes", " what", "病", "的", "1"):
            token, *others = tokenizer(text, add_special_tokens=False)["input_ids"]
            assert others or _spelt(Word(text, token, ()), tokenizer, "openai").names == (text,)
    (half,) = (token for piece, token in tokenizer_of(tiny_qwen).get_vocab().items() if piece == "æ")
    with pytest.raises(EvalkitError, match="is not its alone"):
        _spelt(Word("?", half, ()), tokenizer_of(tiny_qwen), "openai")


def test_a_word_outside_of_the_likeliest_is_an_error_that_names_it(sure_qwen: Path) -> None:
    server, _ = language_server(sure_qwen, "openai")
    with server:
        says = refusal(server, QWEN, sure_qwen, recipe=DIGITS)
    assert re.search(r"the word '[01]' \(token \d+\) is not among the \d+ tokens that it tells of", says)


def test_a_word_that_is_outside_for_one_pair_alone_is_an_error_and_no_score(sure_qwen: Path) -> None:
    """The probe's answers have it."""
    server, own = language_server(sure_qwen, "openai")
    with server:
        model = behind(server, QWEN, sure_qwen, retries=0)
        _ = model.runnable.scorer
        own.top_of = lambda ids: 1 if len(ids) > 2_000 else 20
        with pytest.raises(EvalkitError, match=r"the word '(yes|no)' \(token \d+\) is not among the 1 tokens"):
            scores_of(model)


def test_masked_log_probabilities_are_refused(tiny_qwen: Path) -> None:
    """As vLLM gives them with --logprobs-mode processed_logprobs, where all other tokens were forbidden before."""
    server, _ = language_server(tiny_qwen, mode="processed_logprobs", asks=False)
    with server:
        says = refusal(server, QWEN, tiny_qwen)
    assert "both words have log-probability 0, as after all other tokens were forbidden" in says


def test_a_server_that_allows_any_token_is_refused_by_the_word(tiny_qwen: Path) -> None:
    server, _ = language_server(tiny_qwen, asks=False, allows=False)
    with server:
        says = refusal(server, QWEN, tiny_qwen)
    assert "the word 'yes' (token " in says
    assert "is not among the" in says


def test_a_server_that_reads_other_tokens_than_it_is_sent_is_refused(tiny_qwen: Path) -> None:
    for reads in (lambda ids: [0, *ids], lambda ids: ids[-40:], lambda ids: ids[:-1]):
        server, _ = language_server(tiny_qwen, reads=reads)
        with server:
            assert "tokens were read (usage.prompt_tokens) of" in refusal(server, QWEN, tiny_qwen)


def test_a_server_with_another_tokenizer_is_refused(tiny_qwen: Path, tiny_gemma: Path) -> None:
    server, own = language_server(tiny_qwen, tokenizes=tiny_gemma)
    with server:
        says = refusal(server, QWEN, tiny_qwen)
    assert "makes other tokens than the tokenizer of" in says
    assert "it runs another model" in says
    assert not own.read


def test_a_server_without_tokenize_is_used_and_that_is_said(tiny_qwen: Path) -> None:
    server, _ = language_server(tiny_qwen, has_tokenize=False)
    with server:
        model = behind(server, QWEN, tiny_qwen)
        scorer = model.runnable.scorer
        assert isinstance(scorer, Probed)
        assert any("it has no /tokenize" in finding for finding in scorer.probe.findings)
        assert any("it has no /tokenize" in finding for finding in model.runnable.findings or ())


@pytest.mark.parametrize("backend", ["vllm", "openai"])
@pytest.mark.parametrize(
    "reads",
    [lambda ids: ids[::-1], lambda ids: [*ids[:-1], ids[0]], lambda ids: [7] * len(ids)],
    ids=["reversed", "one other", "none of them"],
)
def test_a_server_that_reads_as_many_other_tokens_is_refused(
    sure_qwen: Path, backend: str, reads: Callable[[list[int]], list[int]]
) -> None:
    server, _ = language_server(sure_qwen, backend, reads=reads)
    with server:
        says = refusal(server, QWEN, sure_qwen)
    assert re.search(r"gives back token \d+ of an input as '.*', and '.*' was sent: it reads other tokens", says)


NAMES = {"lower case": str.lower, "without spaces": str.strip, "both": lambda text: text.strip().lower()}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("echoes", [True, False], ids=["echo", "logit_bias"])
def test_a_server_that_changes_the_texts_of_tokens_is_refused(
    sure_qwen: Path, names: Callable[[str], str], echoes: bool
) -> None:
    server, _ = language_server(sure_qwen, "openai", names=names, echoes=echoes, has_tokenize=False)
    with server:
        says = refusal(server, QWEN, sure_qwen)
    assert ("changes the texts that it names them by" if echoes else "names token ") in says


def test_what_a_server_does_to_tokens_is_said_where_it_cannot_be_known(sure_qwen: Path) -> None:
    read, named = "it has no echo", "it heeds no logit_bias"
    for backend, biases, says in (("vllm", False, [read]), ("openai", True, [read]), ("openai", False, [read, named])):
        server, _ = language_server(sure_qwen, backend, echoes=False, biases=biases)
        with server:
            found = evalkit.evaluate(behind(server, QWEN, sure_qwen), PLAIN, cache="off").remarks
        assert [one for one in (read, named) if any(text.endswith(one) for _, text in found)] == says


def test_a_server_that_reads_less_than_the_recipe_is_told_of(tiny_qwen: Path) -> None:
    server, _ = language_server(tiny_qwen, most=2_000)
    with server:
        model = behind(server, QWEN, tiny_qwen)
        _ = model.runnable.scorer
        assert any("reads 2,000 tokens" in finding for finding in model.runnable.findings or ())
        with pytest.raises(EvalkitError, match=r"answered 400: .*; refused is the pair query '.+' with document '"):
            scores_of(model)


def torch_score(network: LocalNetwork, query: str, document: str) -> float:
    texts = network.tokenize([query], "query")[0], network.tokenize([document], "document")[0]
    return float(network.run([network.encode_pair(*texts)])[0])


def test_a_server_with_the_right_template_can_be_asked_for_scores(tiny_qwen: Path) -> None:
    """The texts are sent as they are: the template has the prompts."""
    network = on_torch(QWEN, tiny_qwen)
    _, scores = expected(QWEN, tiny_qwen)
    server, _ = language_server(tiny_qwen, scores=lambda query, document: torch_score(network, query, document))
    with server:
        model = behind(server, QWEN, tiny_qwen, endpoint="score")
        np.testing.assert_allclose(scores_of(model), scores, atol=1e-5, rtol=0)
        sent = [request.body for request in server.posts]
        assert sent
        assert all("truncate_prompt_tokens" not in body for body in sent)
        assert {body["text_1"] for body in sent} == {query for query, _ in PAIRS}
        assert model.runnable.way != behind(server, QWEN, tiny_qwen).runnable.way


def hashed(query: str, document: str, joint: str) -> float:
    return zlib.crc32(f"{query}{joint}{document}".encode()) / 2**30 - 2


def verdicts(model: Model) -> dict[str, Opinion]:
    return {check.name: opinion for check, opinion in judge_evidence(examine(model, PLAIN, seconds=3))}


@pytest.mark.parametrize("joint", ["", " ", "\n"], ids=repr)
def test_doctor_finds_a_server_that_glues_query_and_document(tiny_qwen: Path, joint: str) -> None:
    """As one that was started without the model's template does."""
    server, _ = language_server(tiny_qwen, scores=lambda query, document: hashed(query, document, joint))
    with server:
        found = verdicts(behind(server, QWEN, tiny_qwen, endpoint="score"))["server"]
        assert found.verdict == "fault"
        assert "the server glues the two together" in found.seen
        assert f"without the prompt of {QWEN}'s recipe" in found.seen
        cross_encoder = served("vllm", server.url)
        assert any("the server glues the two together" in one for one in cross_encoder.runnable.scorer.probe.findings)


def test_doctor_finds_saturated_probabilities(tiny_qwen: Path) -> None:
    """As a server gives them that was started with a sigmoid of its own, or computes it in low precision."""
    network = on_torch(QWEN, tiny_qwen)

    def probability(query: str, document: str) -> float:
        return float(np.float16(1 / (1 + np.exp(-2_000 * torch_score(network, query, document)))))

    server, _ = language_server(tiny_qwen, scores=probability)
    with server:
        found = verdicts(behind(server, QWEN, tiny_qwen, endpoint="score"))
    assert found["server"].verdict == "warning"
    assert "saturated, so that texts are tied" in found["server"].seen
    assert "probabilities have ties near 0 and 1" in found["server"].seen


def test_doctor_shows_how_the_server_is_asked(tiny_qwen: Path) -> None:
    server, _ = language_server(tiny_qwen, asks=False)
    with server:
        found = verdicts(behind(server, QWEN, tiny_qwen))["server"]
    assert found.verdict == "ok"
    assert f"the server's tokens are {QWEN}'s; it gives one word per request (allowed_token_ids)" in found.seen
    assert "evalkit assembles each input, and cuts it to max_length" in found.seen


def test_the_endpoint_says_nothing_to_others(tiny_qwen: Path) -> None:
    server, _ = language_server(tiny_qwen)
    with server:
        with pytest.raises(EvalkitError, match=r"backend\.endpoint says nothing to bge-reranker-base"):
            _ = served("vllm", server.url, endpoint="score").runnable
        with pytest.raises(EvalkitError, match=r"backend\.endpoint=score: backend=openai has none"):
            _ = served("openai", server.url, QWEN, recipe={"path": str(tiny_qwen)}, endpoint="score").runnable


@pytest.mark.parametrize(
    "words", [{"positive_word": "yes please"}, {"negative_word": "no!"}, {"positive_word": "感冒了"}]
)
def test_a_word_of_several_tokens_is_told_of(tiny_qwen: Path, words: dict[str, str]) -> None:
    """On torch and behind a server."""
    (word,) = words.values()
    told = f"the word {word!r} is "
    model = evalkit.load_model(QWEN, backend="torch", device="cpu", path=str(tiny_qwen), **words)
    assert any(told in text for _, text in evalkit.evaluate(model, PLAIN, cache="off").remarks)
    server, _ = language_server(tiny_qwen)
    with server:
        model = behind(server, QWEN, tiny_qwen, recipe=words)
        assert any(told in text for _, text in evalkit.evaluate(model, PLAIN, cache="off").remarks)
        plain = evalkit.evaluate(behind(server, QWEN, tiny_qwen), PLAIN, cache="off")
        assert not [text for _, text in plain.remarks if "tokens to its tokenizer" in text]


def test_two_words_of_one_token_are_refused(tiny_qwen: Path) -> None:
    server, _ = language_server(tiny_qwen)
    with server:
        assert "begin with one token" in refusal(server, QWEN, tiny_qwen, recipe={"negative_word": "yes"})


def test_a_run_and_parity_from_the_command_line(
    tiny_qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    network = on_torch(QWEN, tiny_qwen)
    model = ["task=demo-zh", "limit=2", f"model={QWEN}", f"model.path={tiny_qwen}", f"cache_dir={tmp_path}"]
    server, _ = language_server(tiny_qwen, scores=lambda query, document: torch_score(network, query, document) + 1)
    with server:
        run = run_here(
            *model, "backend=vllm", f"backend.url={server.url}", "backend.served_model=m", "results_dir=here"
        )
        assert run.code == 0, run.stderr
        ours = run_here(*model, "backend=torch", "device=cpu", "results_dir=there")
        assert ours.code == 0, ours.stderr
        (one,), (other,) = evalkit.load_results("here"), evalkit.load_results("there")
        np.testing.assert_allclose(one.candidates["score"], other.candidates["score"], atol=TOLERANCE, rtol=0)
        agreed = run_here(
            "parity", *model, "backends=torch,vllm", "device=cpu", f"vllm.url={server.url}", "vllm.served_model=m"
        )
        assert agreed.code == 0, agreed.stdout + agreed.stderr
        differs = run_here(
            "parity", *model, "backends=torch,vllm", "device=cpu", f"vllm.url={server.url}", "vllm.served_model=m",
            "vllm.endpoint=score",
        )  # fmt: skip
    assert differs.code == 1, differs.stdout + differs.stderr
