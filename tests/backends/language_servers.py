"""A server on the loopback that runs a language model with transformers, and answers under vLLM's or OpenAI's description.

Like vLLM it tells of the 20 likeliest tokens at most, unless it is asked for others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from fake_servers import FakeServer
from server_schemas import response_problems
from transformers import AutoModelForCausalLM, AutoTokenizer

Mode = Literal["raw_logprobs", "raw_logits", "processed_logprobs", "processed_logits"]
MOST = 20


@cache
def network(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@cache
def tokenizer_of(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


@cache
def next_logits(folder: Path, ids: tuple[int, ...]) -> torch.Tensor:
    """The logits behind these tokens, in a batch of their own."""
    with torch.inference_mode():
        return network(folder)(input_ids=torch.tensor([ids])).logits[0, -1].float()


@dataclass
class LanguageServer:
    """What such a server is: how it was started (`mode`, as vLLM's --logprobs-mode), and what it knows of the requests' fields.

    `reads` is what it makes of the token ids that it gets, `most` the longest input with its answer; `folder` holds another
    tokenizer in `tokenizes` where that is the server's. /score gives `scores` of a query and a document. `top_of` says of how many
    likely tokens it tells behind an input, whatever was asked, `tells` what it makes of their numbers, and `names` of their texts.
    It heeds `echo` and `logit_bias` where it `echoes` and `biases`. `read` are the inputs that it has got.
    """

    folder: Path
    mode: Mode = "raw_logprobs"
    asks: bool = True
    allows: bool = True
    top: int = MOST
    tokenizes: Path | None = None
    has_tokenize: bool = True
    reads: Callable[[list[int]], list[int]] = list
    most: int = 10_000
    scores: Callable[[str, str], float] | None = None
    top_of: Callable[[list[int]], int] | None = None
    tells: Callable[[float], float] = float
    echoes: bool = True
    biases: bool = True
    names: Callable[[str], str] = str
    read: list[list[int]] = field(default_factory=list)

    def answer(self, fake: FakeServer, method: str, path: str, body: Any) -> tuple[int, Any]:
        if path == "/tokenize" and self.has_tokenize:
            status, content = 200, self._tokenize(body)
        elif path == "/score" and self.scores is not None:
            scores = [self.scores(body["text_1"], text) for text in body["text_2"]]
            content = {
                "id": "score-1", "object": "list", "created": 1, "model": body["model"], "usage": usage(1),
                "data": [{"index": number, "object": "score", "score": one} for number, one in enumerate(scores)],
            }  # fmt: skip
            status = 200
        elif path == "/v1/completions":
            status, content = self._complete(fake.backend, body)
        else:
            return 404, {"detail": "Not Found"}
        fake.problems += response_problems(fake.backend, path, status, content)
        return status, content

    def _tokenize(self, body: Any) -> dict[str, Any]:
        tokenizer = tokenizer_of(self.tokenizes or self.folder)
        tokens = tokenizer(body["prompt"], add_special_tokens=body.get("add_special_tokens", True))["input_ids"]
        return {"count": len(tokens), "max_model_len": self.most, "tokens": tokens, "token_strs": None}

    def _complete(self, backend: str, body: Any) -> tuple[int, Any]:
        if (body.get("logprobs") or 0) > self.top:
            said = f"Requested sample logprobs of {body['logprobs']}, which is greater than max allowed: {self.top}"
            return 400, {"error": {"message": said, "type": "BadRequestError", "param": None, "code": 400}}
        prompts = [self.reads(ids) for ids in body["prompt"]]
        if longest := max((len(ids) for ids in prompts if len(ids) >= self.most), default=0):
            return 400, {"error": {"message": f"maximum context length is {self.most}, got {longest}", "code": 400}}
        self.read += prompts
        choices = [self._choice(number, ids, body) for number, ids in enumerate(prompts)]
        own = {"stop_reason": None, "token_ids": None, "prompt_logprobs": None, "prompt_token_ids": None}
        return 200, {
            "id": "cmpl-1", "object": "text_completion", "created": 1, "model": body["model"],
            "choices": [choice | own if backend == "vllm" else choice for choice in choices],
            "usage": usage(sum(map(len, prompts))),
        }  # fmt: skip

    def _choice(self, number: int, ids: Sequence[int], body: Any) -> dict[str, Any]:
        raw = next_logits(self.folder, tuple(ids))
        allowed = body.get("allowed_token_ids") if self.allows else None
        processed = raw.clone()
        if allowed:
            processed[[token for token in range(len(raw)) if token not in allowed]] = -torch.inf
        shown = raw if self.mode.startswith("raw") else processed
        values = shown.log_softmax(-1) if self.mode.endswith("logprobs") else shown
        if self.biases:
            for token, bias in (body.get("logit_bias") or {}).items():
                processed[int(token)] += bias
        sampled = int(processed.argmax())
        asked = body.get("logprob_token_ids") if self.asks else None
        count = self.top_of(list(ids)) if self.top_of else body["logprobs"]
        told = [sampled, *(asked or values.topk(count).indices.tolist())]
        tokenizer = tokenizer_of(self.folder)
        as_ids = body.get("return_tokens_as_token_ids")

        def name(token: int) -> str:
            return f"token_id:{token}" if as_ids else self.names(tokenizer.decode([token]))

        table = {name(token): self.tells(max(float(values[token]), -9999.0)) for token in dict.fromkeys(told)}
        before = [name(token) for token in ids] if body.get("echo") and self.echoes else []
        return {
            "index": number, "text": name(sampled), "finish_reason": "length",
            "logprobs": {
                "text_offset": [0] * (len(before) + 1), "tokens": [*before, name(sampled)],
                "token_logprobs": [*[None for _ in before[:1]], *[-1.0 for _ in before[1:]], table[name(sampled)]],
                "top_logprobs": [*[None for _ in before[:1]], *[{one: -1.0} for one in before[1:]], table],
            },
        }  # fmt: skip


def usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": tokens, "completion_tokens": 1, "total_tokens": tokens + 1}


def language_server(folder: Path, backend: str = "vllm", **settings: Any) -> tuple[FakeServer, LanguageServer]:
    """The server, to be entered, and what it is."""
    own = LanguageServer(folder, **settings)
    return FakeServer(backend, own.answer), own
