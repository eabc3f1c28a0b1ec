"""A handful of requests to a server before it scores: whether it scores single pairs or texts, and cuts them where it should.

The texts are the same each time, so that the answers also show whether a server has changed its model between two runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from evalkit.backends.servers.client import AnswerError, RefusedError
from evalkit.errors import EvalkitError, UnfitServerError
from evalkit.models.interfaces import ServerProbe
from evalkit.models.settings import ModelSettings
from evalkit.models.weights import described_folder

Outcome = NDArray[np.float32] | AnswerError
Ask = Callable[[Sequence[tuple[str, ...]], int], list[Outcome]]
"""Ask for pairs, or for a role with a text, in requests of at most so many: the outcome of each request, in that order."""

QUERY = "感冒了应该吃什么药？ What helps against a cold?"
OTHER_QUERY = "护照怎么换发？ How is a passport renewed?"
DOCUMENTS = (
    "普通感冒多由病毒引起：多喝温水，注意休息，发热时可服用对乙酰氨基酚。",
    "The ferry to the island leaves at seven in the morning and returns at dusk.",
    "护照到期前应当到出入境管理局办理换发手续。",
    "A common cold passes by itself; rest, drink enough, and take paracetamol against fever.",
)
"""Of the query two are relevant. Two are asked for alone too: the last, which has all others before it, and one of no relevance."""
ALONE = (3, 1)
TOPICS = (
    "第{}条：感冒时要多喝温水，注意休息。",
    "Item {}: the ferry leaves at seven, 票价三十元。",
    "第{}句：发热可服用退烧药。",
)
LONGEST = 8_192
"""Tokens; a model that reads more is not asked with a text that is too long, which would cost too much."""
TOGETHER = 1_024
"""Tokens; of a model that reads more, texts that are too long are asked for one by one, so that each is answered in time."""
ROUNDING = 0.02
"""How far answers may be moved by low precision, as a share of the range of the probe's answers; bf16 moves them by up to this."""
SMALL = 0.005
"""What is no change whatever the range, as a share of the largest answer: bf16 has steps of 0.004."""
REPEATED = 1e-4
"""From which share of the range on two answers to one request make a repeated run give other figures."""
SAME = 1e-6
"""How far answers to one input may lie apart in one request, as a share of the largest."""
Answers = NDArray[np.float32]


def differ(one: Answers, other: Answers, answers: Answers) -> bool:
    """Return whether two answers lie further apart than low precision explains, where `answers` show the range that they have."""
    apart = _apart(one, other)
    return apart > ROUNDING * float(np.ptp(answers)) and apart > SMALL * float(np.abs(answers).max())


def probe_server(
    settings: ModelSettings, ask: Ask, batch_size: int, outputs: str, limit: int | None, roles: bool
) -> ServerProbe:
    """Ask a server a handful of questions. `outputs` is what it is meant to give: raw scores, probabilities or vectors.

    Texts are cut to `limit` characters before they are sent (None: not cut); `roles` says whether requests name their texts' role.
    Raises UnfitServerError where its answers depend on what else a request holds, or vectors differ in length; EvalkitError where
    it does not answer.
    """
    trial = _Trial(settings, ask, batch_size, outputs)
    trial.look_at_lists()
    trial.look_at_blanks()
    trial.look_at_long_texts(limit)
    if settings.makes_vectors:
        trial.look_at_prompts(roles)
    else:
        trial.look_at_range()
    return ServerProbe(trial.answers, trial.requests, tuple(trial.seen), tuple(trial.findings))


@dataclass
class _Trial:
    """One probe: asks, and notes what it sees."""

    settings: ModelSettings
    ask: Ask
    batch_size: int
    outputs: str
    answers: Answers = field(default_factory=lambda: np.empty(0, np.float32))
    requests: int = 0
    seen: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)

    def items(self, *documents: str) -> list[tuple[str, ...]]:
        first = "document" if self.settings.makes_vectors else QUERY
        return [(first, document) for document in documents]

    def outcome(self, items: Sequence[tuple[str, ...]], size: int | None = None) -> Outcome:
        """Ask for all items, in one request unless `size` says how many it may hold. Raises UnfitServerError for other lengths."""
        parts = self.ask(items, size or len(items))
        self.requests += len(parts)
        for part in parts:
            if isinstance(part, AnswerError):
                return part
        found = [part for part in parts if not isinstance(part, AnswerError)]
        shapes = {part.shape[1:] for part in found} | ({self.answers.shape[1:]} if len(self.answers) else set())
        if len(shapes) > 1:
            lengths = " and of ".join(str(shape[0]) for shape in sorted(shapes))
            raise UnfitServerError(f"its vectors are of {lengths} numbers: one model gives vectors of one length")
        return np.concatenate(found)

    def answer(self, items: Sequence[tuple[str, ...]], size: int | None = None) -> Answers:
        """Return the answers to texts that any server should take. Raises AnswerError where it does not."""
        outcome = self.outcome(items, size)
        if isinstance(outcome, AnswerError):
            raise outcome
        return outcome

    def tell(self, finding: str) -> None:
        self.seen.append(finding)
        self.findings.append(finding)

    def look_at_lists(self) -> None:
        """Ask for the documents together, once more, and for some alone."""
        items, size = self.items(*DOCUMENTS), None
        outcome = self.outcome(items)
        if isinstance(outcome, RefusedError) and self.batch_size < len(items):
            size = self.batch_size
            outcome = self.outcome(items, size)
        if isinstance(outcome, AnswerError):
            raise outcome
        self.answers = outcome
        again, alone = self.answer(items, size), self.answer([items[number] for number in ALONE], 1)
        among = outcome[list(ALONE)]
        repeated, moved = _apart(outcome, again), _apart(among, alone)
        what = "vectors" if self.settings.makes_vectors else "scores"
        if moved > 3 * repeated and differ(among, alone, outcome):
            raise UnfitServerError(_in_company(self.settings, among, alone))
        if repeated > REPEATED * float(np.ptp(outcome)):
            self.tell(
                f"the same request twice gives {what} up to {repeated:.2g} apart: a repeated run may give other figures"
            )
        else:
            self.seen.append("the same request twice gives the same answer")
        self.seen.append(f"one text alone, and among {len(items)}, gives {what} {moved:.2g} apart")
        if len(np.unique(outcome, axis=0)) == 1:
            self.tell(f"the same answer to {len(items)} different texts: figures depend on the order of ties alone")

    def look_at_blanks(self) -> None:
        outcome = self.outcome(self.items(""))
        if isinstance(outcome, AnswerError):
            self.tell(
                f"a blank text is not answered as asked, so that a task which holds one can't be scored: {_short(outcome)}"
            )
        else:
            self.seen.append("a blank text is answered")

    def look_at_long_texts(self, limit: int | None) -> None:
        """Ask for a text that is too long, for one that a model can't tell from it, and for less of it."""
        length = self.settings.max_length
        if length is None or length > LONGEST:
            return
        texts = LongTexts.of(self.settings, length)
        if limit is not None and limit < len(texts.long):
            self.seen.append(f"evalkit cuts texts to {limit:,} characters")
            return
        size = self.batch_size if length <= TOGETHER else 1
        outcome = self.outcome(self.items(texts.long, texts.other, texts.beginning), size)
        if isinstance(outcome, AnswerError):
            self.tell(
                f"a text of more than {length} tokens is not cut but refused; backend.max_characters=N cuts texts before they are "
                f"sent: {_short(outcome)}"
            )
            return
        long, other, beginning = np.split(outcome, 3)
        if differ(long, other, self.answers):
            self.tell(f"max_length is {length}, but a longer text is answered otherwise than {texts.what}")
        elif self._is_same(other, beginning):
            self.tell(
                f"max_length is {length}, but a longer text is answered as its first {len(texts.beginning):,} characters, which "
                "have fewer tokens"
            )
        else:
            self.seen.append(f"a text of more than {length} tokens is answered as {texts.what}")

    def _is_same(self, one: Answers, other: Answers) -> bool:
        """Return whether two answers are those to one input; probabilities near 0 and 1 don't tell."""
        probabilities = not self.settings.makes_vectors and self.answers.min() >= 0 and self.answers.max() <= 1
        if probabilities and not 0.01 < float(one[0]) < 0.99:
            return False
        return _apart(one, other) <= SAME * float(np.abs(one).max())

    def look_at_range(self) -> None:
        """See whether the scores of the first request are what they are meant to be, and whether the query counts."""
        other = self.answer([(OTHER_QUERY, DOCUMENTS[0])])
        if _apart(other, self.answers[:1]) == 0 and np.ptp(self.answers) > 0:
            self.tell(f"a document has the same score, {float(other[0]):.4g}, for another query: is the query read?")
        low, high = float(self.answers.min()), float(self.answers.max())
        seen = f"the probe's scores go from {low:.4g} to {high:.4g}"
        inside = low >= 0 and high <= 1
        ends = int(np.isin(self.answers, (0, 1)).sum())
        if self.outputs == "probabilities" and not inside:
            self.tell(f"{seen}: these are no probabilities, which this backend is meant to give")
        elif self.outputs == "raw scores" and inside:
            self.tell(
                f"{seen}, all within 0 and 1, though raw scores were asked for: probabilities have ties near 0 and 1"
            )
        else:
            self.seen.append(seen)
        if inside and ends > 1:
            self.tell(
                f"{ends} of the probe's {len(self.answers)} scores are exactly 0 or 1: saturated, so that texts are tied"
            )

    def look_at_prompts(self, roles: bool) -> None:
        """Ask for a text with its role's prompt and without, to see whether the server puts one there itself."""
        bare: dict[str, Answers] = {}
        prompts = {"query": self.settings.query_prompt, "document": self.settings.document_prompt}
        for role, prompt in prompts.items():
            if not any(prompts.values()) or not (prompt or roles):
                continue
            prompted, bare[role] = np.split(
                self.answer([(role, DOCUMENTS[0]), (f"bare {role}", DOCUMENTS[0])], self.batch_size), 2
            )
            if prompt and not differ(prompted, bare[role], self.answers):
                self.tell(
                    f"a {role} gets the same vector with the prompt {prompt!r} and without: the server puts it there itself, or "
                    "takes it away"
                )
        if len(bare) == 2 and roles and differ(bare["query"], bare["document"], self.answers):
            self.tell(
                "the server itself tells queries from documents (backend.role_field), and evalkit puts prompts before them too; "
                "where that is twice the same: model.query_prompt= model.document_prompt="
            )


@dataclass(frozen=True)
class LongTexts:
    """Texts about `long`, which has far more tokens than a model reads.

    `other` is what a model reads of it, or, where its tokenizer is not at hand, a text that differs far behind that: `what` says
    which in words. `beginning` is the first part of both, surely shorter than what is read.
    """

    long: str
    other: str
    beginning: str
    what: str

    @classmethod
    def of(cls, settings: ModelSettings, length: int) -> LongTexts:
        """Make texts for a model that reads `length` tokens; a character of them has a third of a token to three tokens."""
        start = _about(TOPICS[0], length // 2)
        shared = start + _about(TOPICS[1], 3 * length - len(start))
        long = shared + _about(TOPICS[1], length, first=10_000)
        cut, less = _cut(settings, long, length), _cut(settings, long, 3 * length // 4)
        if cut is not None and less is not None:
            return cls(long, cut, less, f"the same cut to {length} tokens")
        other = shared + _about(TOPICS[2], length)
        return cls(long, other, long[: max(length // 8, 1)], "another with the same beginning")


def _about(topic: str, characters: int, first: int = 1) -> str:
    sentences = (topic.format(number) for number in itertools.count(first))
    text = ""
    while len(text) < characters:
        text += next(sentences)
    return text[:characters]


def _cut(settings: ModelSettings, text: str, length: int) -> str | None:
    """Cut a document to the tokens that a model of `length` reads of it; None without its tokenizer.json on this machine."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(described_folder(settings, offline=True) / "tokenizer.json"))
    except Exception:  # whatever is wrong with a file that need not be there: the library raises Exception itself
        return None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    pairs = not settings.makes_vectors
    room = length - tokenizer.num_special_tokens_to_add(pairs)
    if pairs:
        room -= len(tokenizer.encode(settings.query_prompt + QUERY, add_special_tokens=False).ids)
    sent = settings.document_prompt + text
    encoded = tokenizer.encode(sent, add_special_tokens=False)
    if not 0 < room < len(encoded.ids):
        return None
    cut = sent[: encoded.offsets[room - 1][1]]
    same = tokenizer.encode(cut, add_special_tokens=False).ids == encoded.ids[:room]
    return cut[len(settings.document_prompt) :] if same else None


def _apart(one: Answers, other: Answers) -> float:
    return float(np.abs(one.astype(np.float64) - other.astype(np.float64)).max())


def _short(error: EvalkitError) -> str:
    return str(error).partition("; ")[0]


def _in_company(settings: ModelSettings, among: Answers, alone: Answers) -> str:
    if settings.makes_vectors:
        return "a text's vector depends on what else a request holds: look for padding that the attention mask does not hide"
    number = int(np.argmax(np.abs(among - alone)))
    return (
        f"the score of a document depends on what else a request holds ({among[number]:.4g} among {len(DOCUMENTS)}, "
        f"{alone[number]:.4g} alone): the model ranks whole lists, of which evalkit asks for parts, or the server computes too "
        "coarsely"
    )
