"""Language models that rerank, behind /v1/completions: evalkit assembles the input, and the server gives the logits of words.

Token ids are sent, so that no chat template of the server's matters. A two-word recipe needs log-probabilities alone, whose
difference is that of the logits; the logit of one word needs the logits themselves, since a log-probability has a constant of its
own for every input. vLLM computes what it answers before it forbids tokens (`--logprobs-mode` raw_logprobs, the default, and
raw_logits) or after that (processed_…). Source: vLLM's vllm/v1/sample/sampler.py and vllm/entrypoints/openai/completion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from evalkit.backends.parts import by_query
from evalkit.backends.servers.answers import WrongAnswerError, by_index, member, numbers
from evalkit.backends.servers.client import AnswerError, Client, Question, RefusedError
from evalkit.backends.servers.codecs import LateCodec, Opened
from evalkit.backends.servers.names import LISTING_TRIES, listed_findings
from evalkit.backends.servers.probing import DOCUMENTS, QUERY
from evalkit.backends.servers.scorers import served_model, served_model_name
from evalkit.errors import EvalkitError, UnfitServerError
from evalkit.models.interfaces import RunnableModel, Runtime
from evalkit.models.settings import ModelSettings
from evalkit.models.weights import described_folder

if TYPE_CHECKING:
    from evalkit.models.prompted import PromptedInputs

COMPLETIONS, TOKENIZE = "/v1/completions", "/tokenize"
TOP = (20, 5)
"""How many of the likeliest tokens are asked for: vLLM's usual limit, then OpenAI's."""
NOTHING = -9999.0
"""What vLLM writes for the log-probability of what can't be."""
ROUNDING = 0.05
"""By how much log-probabilities may exceed 0, and probabilities 1 in all, before they are none."""
NEARLY_CERTAIN = 1e-3
"""Two words can't both have a log-probability as near to 0 as this."""
BIAS = 100
"""What makes a token the likeliest, as OpenAI's logit_bias."""
UNREADABLE = ("\ufffd", "bytes:")
"""What stands in the text of a token that is a part of a character."""
ID = "token_id:"
BATCH_SIZE = 32  # inputs of one request
GREEDY: Mapping[str, Any] = {"max_tokens": 1, "temperature": 0}
# so that tokens come as their ids, and penalties of the model's generation_config.json move nothing
VLLM: Mapping[str, Any] = {"return_tokens_as_token_ids": True, "repetition_penalty": 1.0, "add_special_tokens": False}
Wishes = tuple[Mapping[str, Any], ...]
Table = Mapping[str, float]


@dataclass(frozen=True)
class Word:
    """A word whose logit counts: its token's id, and what a server may call the token."""

    text: str
    token: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class WordCodec:
    """Makes requests out of pairs; a score is the logit of the first word less that of the second, if there are two.

    Both are divided by the recipe's temperature.

    `wishes` are what each of the requests for some inputs says besides: one request that asks for all words, or one for each word.
    """

    inputs: PromptedInputs
    words: tuple[Word, ...]
    wishes: Wishes

    def questions(self, model: str, pairs: Sequence[tuple[str, str]], size: int) -> Iterator[Question]:
        """Yield the requests, which hold token ids; pairs of one query go together, wherever they stand."""
        for positions in by_query(pairs, size):
            (query,) = self.inputs.tokenize([pairs[positions[0]][0]], "query")
            documents = self.inputs.tokenize([pairs[position][1] for position in positions], "document")
            prompts = [self.inputs.encode_pair(query, document).token_ids.tolist() for document in documents]
            first, *others = ({"model": model, "prompt": prompts, **GREEDY, **wishes} for wishes in self.wishes)
            yield Question(positions, COMPLETIONS, first, self._reader(prompts), tuple(others))

    def _reader(self, prompts: Sequence[Sequence[int]]) -> Callable[..., NDArray[np.float32]]:
        tokens = sum(map(len, prompts))

        def read(*answers: Any) -> NDArray[np.float32]:
            tables = [read_tables(answer, len(prompts), tokens) for answer in answers]
            if len(answers) == 1:
                tables *= len(self.words)
            values = np.array(
                [[logit_of(word, table) for table in found] for word, found in zip(self.words, tables, strict=True)]
            )
            if len(self.words) == 2 and (np.abs(values) < NEARLY_CERTAIN).all():
                raise WrongAnswerError(
                    "both words have log-probability 0, as after all other tokens were forbidden: vLLM gives the true ones with "
                    "--logprobs-mode raw_logprobs"
                )
            return numbers(((values[0] - values[1:].sum(axis=0)) / self.inputs.settings.temperature).tolist())

        return read


def read_tables(answer: Any, count: int, tokens: int) -> list[dict[str, float]]:
    """Return for each input what is said of its next token, by the token's name.

    Raises WrongAnswerError where the answer is none, or another number of tokens was read than was sent.
    """
    read = member(member(answer, "usage"), "prompt_tokens")
    if read != tokens:
        raise WrongAnswerError(f"{read} tokens were read (usage.prompt_tokens) of {tokens} that were sent")
    return [_table(said) for said in by_index(member(answer, "choices"), count, "logprobs")]


def _table(said: Any) -> dict[str, float]:
    tokens, values, tops = (member(said, name) for name in ("tokens", "token_logprobs", "top_logprobs"))
    if not all(isinstance(one, list) and one for one in (tokens, values)):
        raise WrongAnswerError("there is no log-probability of a token")
    top = tops[0] if isinstance(tops, list) and tops and isinstance(tops[0], dict) else {}
    table = {str(tokens[0]): values[0], **top}
    return dict(zip(table, numbers(list(table.values())).astype(float).tolist(), strict=True))


def logit_of(word: Word, table: Table) -> float:
    """Return a word's log-probability or logit. Raises WrongAnswerError, which names the word, where the answer has none."""
    value = next((table[name] for name in word.names if name in table), None)
    if value is None:
        raise WrongAnswerError(
            f"the word {word.text!r} (token {word.token}) is not among the {len(table)} tokens that it tells of, and what it is "
            "worth is not known"
        )
    if value <= NOTHING:
        raise WrongAnswerError(f"the word {word.text!r} (token {word.token}) is said to be impossible ({value:g})")
    return value


def served_words(client: Client, settings: ModelSettings, runtime: Runtime, *, models: str | None) -> RunnableModel:
    """Return a language model that reranks, of which the server gives the logits of words at /v1/completions.

    `models` is the path of the server's list of models (None: it lists the vendor's own).
    """
    name = served_model_name(client, settings)
    return served_model(
        client,
        settings,
        LateCodec(lambda: open_words(client, settings, name, offline=runtime.offline)),
        name=name,
        batch_size=client.settings.batch_size or BATCH_SIZE,
        cache_dir=runtime.cache_dir,
        facts={"outputs": "logits of words", "truncation": "at max_length, by evalkit", "endpoint": "completions"},
        doubts=tuple if models is None else lambda: listed_findings(client, settings, name, models),
    )


def open_words(client: Client, settings: ModelSettings, name: str, *, offline: bool) -> Opened:
    """Read the model's tokenizer, and find how the server gives what the recipe needs; `name` is what it calls the model.

    Raises UnfitServerError where its tokens are others, or it can't give the words' logits, and EvalkitError where the tokenizer
    can't be had, the recipe can't be built or the server does not answer.
    """
    from evalkit.models.recipes import recipe_inputs

    folder = described_folder(settings, offline=offline)
    inputs = cast("PromptedInputs", recipe_inputs(settings, folder))  # as the kind is made
    words = _words(settings, inputs)
    asking = Client(
        client.backend,
        client.settings.model_copy(update={"retries": min(client.settings.retries, LISTING_TRIES)}),
        client.key,
    )
    seen, findings = _compare_tokens(asking, name, inputs, settings)
    trial = _Trial(asking, name, WordCodec(inputs, words, ()))
    codec, how = trial.vllm() if client.backend == "vllm" else trial.top()
    trial.examine(codec)
    if len(words) == 1:
        how += "; they are logits, since as probabilities they would exceed 1"
    read, doubts = trial.compare_input(codec)
    return Opened(codec, (seen, how, *read, *doubts), (*findings, *doubts))


def _words(settings: ModelSettings, inputs: PromptedInputs) -> tuple[Word, ...]:
    from evalkit.models.language_models import word_tokens

    tokens = word_tokens(settings, inputs.tokenizer)
    return tuple(Word(text, token, (f"{ID}{token}",)) for text, token in tokens.items())


def _spelt(word: Word, tokenizer: Any, backend: str) -> Word:
    """Return the word under its token's text too. Raises EvalkitError where that is the text of another token as well."""
    text = tokenizer.decode([word.token])
    bare = tokenizer.convert_ids_to_tokens(word.token).lstrip(
        "\u2581\u0120"
    )  # as vocabularies write the space before a word
    same = [token for piece, token in tokenizer.get_vocab().items() if bare in piece]
    if "\ufffd" in text or [token for token in same if tokenizer.decode([token]) == text] != [word.token]:
        raise EvalkitError(
            f"backend={backend} tells tokens by their text, and that of {word.text!r} (token {word.token}) is not its alone; "
            "backend=vllm tells them by their numbers"
        )
    return Word(word.text, word.token, (*word.names, text))


def _alike(word: Word, tokenizer: Any) -> list[int]:
    """Return tokens whose text is the word's but for case and the spaces around it: a few, the first in the vocabulary."""
    bare = word.text.strip().lower()
    near = sorted(token for piece, token in tokenizer.get_vocab().items() if bare in piece.lower())
    return [token for token in near if token != word.token and tokenizer.decode([token]).strip().lower() == bare][:3]


def _compare_tokens(
    client: Client, name: str, inputs: PromptedInputs, settings: ModelSettings
) -> tuple[str, tuple[str, ...]]:
    """Return what is seen and found of the server's tokens. Raises UnfitServerError where they are others than the recipe's."""
    text = "".join([
        settings.system_prompt, settings.query_prompt, QUERY, settings.separator, settings.document_prompt, *DOCUMENTS,
        settings.prompt,
    ])  # fmt: skip
    own = inputs.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    limits: list[int] = []

    def read(answer: Any) -> NDArray[np.float32]:
        tokens, limit = member(answer, "tokens"), answer.get("max_model_len")
        if not isinstance(tokens, list):
            raise WrongAnswerError("there is no list of tokens")
        limits.extend([limit] if isinstance(limit, int) else [])
        return numbers(tokens)

    body = {"model": name, "prompt": text, "add_special_tokens": False}
    try:
        (outcome,) = client.answers([Question(np.arange(0), TOKENIZE, body, read)])
    except EvalkitError as error:
        outcome = AnswerError(str(error))
    if isinstance(outcome, AnswerError):
        unknown = f"whether the server's tokens are {settings.name}'s is not known: it has no {TOKENIZE}"
        return unknown, (unknown,)
    if outcome.tolist() != own:
        place = next((place for place, (one, two) in enumerate(zip(outcome, own, strict=False)) if one != two), -1)
        what = (
            f"token {place + 1} is {outcome[place]:g} for {own[place]}"
            if place >= 0
            else f"{len(outcome)} for {len(own)}"
        )
        raise client.refusal(
            TOKENIZE,
            f"makes other tokens than the tokenizer of {settings.name}: {what}; it runs another model",
            UnfitServerError,
        )
    short = [limit for limit in limits if limit <= inputs.max_length]
    return f"the server's tokens are {settings.name}'s", tuple(
        f"the server reads {limit:,} tokens, the last of which is its answer, and max_length is {inputs.max_length:,}: longer "
        "inputs are refused"
        for limit in short[:1]
    )


@dataclass(frozen=True)
class _Trial:
    """Tries ways of asking on two pairs of the probe's."""

    client: Client
    name: str
    codec: WordCodec

    def vllm(self) -> tuple[WordCodec, str]:
        """Ask for the words by name; a server before that could be said takes one request per word, which allows no other."""
        tokens = [word.token for word in self.codec.words]
        asked = self._with(({**VLLM, "logprobs": 1, "logprob_token_ids": tokens},))
        if not isinstance(self._outcome(asked), AnswerError):
            return asked, "it gives the words that are asked for (logprob_token_ids)"
        allowed = self._with(tuple({**VLLM, "logprobs": 1, "allowed_token_ids": [token]} for token in tokens))
        return self._checked(allowed), "it gives one word per request (allowed_token_ids)"

    def top(self) -> tuple[WordCodec, str]:
        """Ask for the likeliest tokens, as many as the server gives; tokens are known by their text."""
        tokenizer, backend = self.codec.inputs.tokenizer, self.client.backend
        spelt = tuple(_spelt(word, tokenizer, backend) for word in self.codec.words)
        for count in TOP:
            codec = WordCodec(self.codec.inputs, spelt, ({"logprobs": count},))
            if not isinstance(self._outcome(codec), RefusedError):
                break
        return self._checked(
            codec
        ), f"it gives the {count} likeliest tokens, and a word that is not among them is an error"

    def examine(self, codec: WordCodec) -> None:
        """Raise UnfitServerError unless the likeliest tokens' numbers are what the recipe needs, as far as they show it.

        Two words need log-probabilities or logits: the token that is taken at temperature 0 has the highest, and they are no
        probabilities. One word needs logits, which can be no log-probabilities.
        """
        told: list[tuple[float, NDArray[np.float64]]] = []

        def read(answer: Any) -> NDArray[np.float32]:
            for said in by_index(member(answer, "choices"), len(DOCUMENTS), "logprobs"):
                values = list(_table(said).values())  # the first is that of the token that is taken
                told.append((values[0], np.array(values)))
            return numbers([0.0])

        wishes = {**VLLM, "logprobs": TOP[0]} if self.client.backend == "vllm" else codec.wishes[0]
        plain = self._with((wishes,))
        (question,) = plain.questions(self.name, [(QUERY, document) for document in DOCUMENTS], len(DOCUMENTS))
        (outcome,) = self.client.answers([Question(question.positions, question.path, question.body, read)])
        if isinstance(outcome, AnswerError):
            raise UnfitServerError(str(outcome)) from outcome
        if all(taken < values.max() - ROUNDING for taken, values in told):
            raise self._unfit(
                "takes another token than the likeliest by its own numbers, which are no log-probabilities"
            )
        if any(values.max() > ROUNDING for _, values in told):
            sums = [values.sum() if values.min() >= 0 else np.inf for _, values in told]
            if all(total <= 1 + ROUNDING for total in sums):
                raise self._unfit("gives probabilities where log-probabilities are due")
            if all(50 <= total <= 100 * (1 + ROUNDING) for total in sums):
                raise self._unfit("gives percentages where log-probabilities are due")
        raw = any(values.max() > ROUNDING or np.exp(values).sum() > 1 + ROUNDING for _, values in told)
        if len(codec.words) == 1 and not raw:
            raise self._unfit(
                f"gives log-probabilities, and a score of {self.name} is the logit of one word, {codec.words[0].text!r}: the two "
                "differ by another number for each input, which changes the order. Start vLLM with --logprobs-mode raw_logits, "
                "or backend=torch"
            )

    def compare_input(self, codec: WordCodec) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Ask for the input's own tokens (`echo`), and return what is seen, and what can't be known.

        Raises UnfitServerError where they are not those that were sent, or are named by texts that are not theirs.
        """
        tokenizer = codec.inputs.tokenizer
        by_number = self.client.backend == "vllm"
        wishes = {**VLLM, "logprobs": 1} if by_number else {"logprobs": 1}
        told = self._tokens({**wishes, "echo": True})
        (question,) = self._with((wishes,)).questions(self.name, self._pair, 1)
        (sent,) = question.body["prompt"]
        if told is None or len(told) == 1:
            doubt = "whether the server reads the tokens that it gets is known by their number alone: it has no echo"
            return (), (doubt, *(() if by_number else self._compare_names(codec)))
        if len(told) < len(sent):
            raise self._unfit(f"gives back {len(told)} tokens (echo) of {len(sent)} that were sent")
        for place, (token, name) in enumerate(zip(sent, told, strict=False), 1):
            own = f"{ID}{token}" if by_number else tokenizer.decode([token])
            if name != own and not any(mark in text for mark in UNREADABLE for text in (own, name)):
                raise self._unfit(
                    f"gives back token {place} of an input as {name!r}, and {own!r} was sent: it reads other tokens, or changes "
                    "the texts that it names them by"
                )
        return ("it reads the tokens that it gets (echo)",), ()

    def _compare_names(self, codec: WordCodec) -> tuple[str, ...]:
        """Have the words, and tokens that differ from them by case or spaces, taken one by one, and return what can't be known.

        Raises UnfitServerError where one is named by a text that is not its own: another's number would stand under it.
        """
        tokenizer = codec.inputs.tokenizer
        tokens = {token for word in codec.words for token in (word.token, *_alike(word, tokenizer))}
        named = {token: self._tokens({"logprobs": 1, "logit_bias": {str(token): BIAS}}) for token in sorted(tokens)}
        names = {token: told[0] for token, told in named.items() if told}
        if len(names) < len(tokens) or len(set(names.values())) == 1:  # whatever is asked for, the same is taken
            return (
                "whether the server changes the texts that it names tokens by can't be known: it heeds no logit_bias",
            )
        for token, name in names.items():
            if name != tokenizer.decode([token]):
                raise self._unfit(
                    f"names token {token} {name!r}, whose text is {tokenizer.decode([token])!r}: it changes texts, so that one "
                    "token's number stands under another's; backend=vllm tells tokens by their numbers"
                )
        return ()

    @property
    def _pair(self) -> list[tuple[str, str]]:
        return [(QUERY, DOCUMENTS[3])]

    def _tokens(self, wishes: Mapping[str, Any]) -> list[str] | None:
        """Return the tokens that the answer to one pair tells of, by name; None where the server does not answer so."""
        told: list[str] = []

        def read(answer: Any) -> NDArray[np.float32]:
            (said,) = by_index(member(answer, "choices"), 1, "logprobs")
            tokens = member(said, "tokens")
            if not isinstance(tokens, list) or not tokens:
                raise WrongAnswerError("there is no list of tokens")
            told.extend(map(str, tokens))
            return numbers([0.0])

        (question,) = self._with((wishes,)).questions(self.name, self._pair, 1)
        try:
            (outcome,) = self.client.answers([Question(question.positions, question.path, question.body, read)])
        except EvalkitError:  # a server may well fail at what it does not know
            return None
        return None if isinstance(outcome, AnswerError) else told

    def _unfit(self, what: str) -> EvalkitError:
        return self.client.refusal(COMPLETIONS, what, UnfitServerError)

    def _with(self, wishes: Wishes) -> WordCodec:
        return WordCodec(self.codec.inputs, self.codec.words, wishes)

    def _outcome(self, codec: WordCodec) -> NDArray[np.float32] | AnswerError:
        pairs = [(QUERY, document) for document in DOCUMENTS[:2]]
        return self.client.answers(list(codec.questions(self.name, pairs, len(pairs))))[0]

    def _checked(self, codec: WordCodec) -> WordCodec:
        outcome = self._outcome(codec)
        if isinstance(outcome, AnswerError):
            raise UnfitServerError(str(outcome)) from outcome
        return codec
