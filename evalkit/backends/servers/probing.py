"""A handful of requests to a server before it scores: whether it scores single pairs or texts, and cuts them where it should.

The texts are the same each time, so that the answers also show whether a server has changed its model between two runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from evalkit.backends.servers.client import AnswerError, RefusedError
from evalkit.backends.servers.list_answers import LEFT_OUT, ListAnswers, ListSize, Orders
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
WORDS = "the of and to in a is for on that by this with it not or be are from at as all new more one we will can"
"""Words that are one token each in nearly every vocabulary, so that a text of them has about as many tokens as words."""
AROUND = 32
"""Tokens that a pair has beside its document's words, about: the query's, the marks between, and those of the document's start."""
PARTS = (8, 7, 6, 4, 2, 1)
"""How much of what a model reads is asked for, in eighths."""
LAST = 8
"""Tokens by which the longest of those parts is shorter than what a model reads."""
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
ONE = 1 - 1e-6
"""From where on probabilities in float32, or printed with six digits, have hardly a step left before 1."""
JOINTS = ("", " ", "\n")
"""What a server that knows no template may put between a query and a document."""
SAME = 1e-6
"""How far answers to one input may lie apart in one request, as a share of the largest."""
Answers = NDArray[np.float32]


def differ(one: Answers, other: Answers, answers: Answers) -> bool:
    """Return whether two answers lie further apart than low precision explains, where `answers` show the range that they have."""
    apart = _apart(one, other)
    return apart > ROUNDING * float(np.ptp(answers)) and apart > SMALL * float(np.abs(answers).max())


def probe_server(
    settings: ModelSettings,
    ask: Ask,
    batch_size: int,
    outputs: str,
    limit: int | None,
    roles: bool,
    as_numbers: Ask | None = None,
    *,
    assembled: bool = False,
    lists: ListSize | None = None,
) -> ServerProbe:
    """Ask a server a handful of questions. `outputs` is what it is meant to give: raw scores, probabilities or vectors.

    Texts are cut to `limit` characters before they are sent (None: not cut); `roles` says whether requests name their texts' role.
    `as_numbers` asks for vectors as lists of numbers, where `ask` has them packed. Where evalkit assembles what the model reads
    (`assembled`), the server neither cuts texts nor puts them together. `lists` is how long lists a listwise model gets.
    Raises UnfitServerError where its answers depend on what else a request holds, are in another order than the texts, do not
    follow the texts of a list to its end, are vectors of several lengths or packed as other numbers than float32, or are those of a
    language model without its prompt; EvalkitError where it does not answer.
    """
    trial = _Trial(settings, ask, batch_size, outputs)
    if settings.kind == "listwise":
        trial.look_at_one_list()
        trial.look_at_a_long_list(lists or ListSize())
        trial.look_at_blanks()
        return trial.probe
    trial.look_at_lists()
    trial.look_at_full_requests()
    if as_numbers is not None:
        trial.look_at_packing(as_numbers)
    trial.look_at_blanks()
    if assembled:
        trial.seen.append("evalkit assembles each input, and cuts it to max_length")
    else:
        trial.look_at_long_texts(limit)
    if settings.makes_vectors:
        trial.look_at_prompts(roles)
    else:
        trial.look_at_range()
        if not assembled:
            trial.look_at_joints()
    return trial.probe


def ask_again(settings: ModelSettings, ask: Ask, batch_size: int) -> Answers:
    """Ask the probe's first question once more, in requests that the server surely takes. Raises EvalkitError as a probe does."""
    size = len(DOCUMENTS) if settings.kind == "listwise" else min(batch_size, len(DOCUMENTS))
    return _Trial(settings, ask, batch_size, "").answer(_items(settings, *DOCUMENTS), size)


def _items(settings: ModelSettings, *documents: str) -> list[tuple[str, ...]]:
    first = "document" if settings.makes_vectors else QUERY
    return [(first, document) for document in documents]


@dataclass
class _Trial:
    """One probe: asks, and notes what it sees."""

    settings: ModelSettings
    ask: Ask
    batch_size: int
    outputs: str
    answers: Answers = field(default_factory=lambda: np.empty(0, np.float32))
    again: Answers = field(default_factory=lambda: np.empty(0, np.float32))
    requests: int = 0
    seen: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)

    @property
    def probe(self) -> ServerProbe:
        return ServerProbe(self.answers, self.again, self.requests, tuple(self.seen), tuple(self.findings))

    def items(self, *documents: str) -> list[tuple[str, ...]]:
        return _items(self.settings, *documents)

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
        self.again = self.answer(items, size)
        alone = self.answer([items[number] for number in ALONE], 1)
        among = outcome[list(ALONE)]
        repeated, moved = _apart(outcome, self.again), _apart(among, alone)
        what = "vectors" if self.settings.makes_vectors else "scores"
        if moved > 3 * repeated and differ(among, alone, outcome):
            raise UnfitServerError(_in_company(self.settings, among, alone))
        self._tell_repetition(outcome, self.again, what)
        self.seen.append(f"one text alone, and among {len(items)}, gives {what} {moved:.2g} apart")
        if len(np.unique(outcome, axis=0)) == 1:
            self.tell(f"the same answer to {len(items)} different texts: figures depend on the order of ties alone")

    def look_at_one_list(self) -> None:
        """Ask a model that ranks whole lists for one, once more, turned round, and for another query."""
        items = self.items(*DOCUMENTS)
        self.answers = self.answer(items)
        self.again = self.answer(items)
        turned = self.answer(items[::-1])[::-1]
        other = self.answer([(OTHER_QUERY, document) for _, document in items])
        self._tell_repetition(self.answers, self.again, "scores")
        moved = _apart(self.answers, turned)
        self.seen.append(f"the same list turned round gives scores {moved:.2g} apart")
        if np.ptp(self.answers) == 0:
            self.tell(f"the same score for {len(items)} different texts: figures depend on the order of ties alone")
        elif _apart(other, self.answers) == 0:
            self.tell("a list has the same scores for another query: is the query read?")

    def look_at_a_long_list(self, size: ListSize) -> None:
        """Ask for a list as long as the run's in two orders, and for most of it: answers must follow the texts to its end."""
        count = min(size.documents, self.batch_size)
        if count <= len(DOCUMENTS) + LEFT_OUT or np.ptp(self.answers) == 0:
            return
        texts = [
            _about(TOPICS[1] if number % 2 else TOPICS[number % 4], size.characters, first=100 + number)
            for number in range(count)
        ]
        orders = Orders.of(count)
        asked = [orders.first, orders.second, orders.first[:-LEFT_OUT]]
        found = []
        for order in asked:
            outcome = self.outcome(self.items(*(texts[number] for number in order)))
            if isinstance(outcome, RefusedError):
                self.tell(
                    f"a list of {len(order)} texts of {size.characters:,} characters, as long as the task's, is refused: "
                    f"{_short(outcome)}"
                )
                return
            if isinstance(outcome, AnswerError):
                raise outcome
            found.append(outcome.astype(np.float64))
        answers = ListAnswers(orders, *found)
        if (fault := answers.fault()) is not None:
            raise UnfitServerError(f"it {fault}")
        self.seen.append(f"{answers.seen()}; where texts are cut within a list can't be seen")
        for finding in answers.findings():
            self.tell(finding)

    def _tell_repetition(self, outcome: Answers, again: Answers, what: str) -> None:
        repeated = _apart(outcome, again)
        if repeated > REPEATED * float(np.ptp(outcome)):
            self.tell(
                f"the same request twice gives {what} up to {repeated:.2g} apart: a repeated run may give other figures"
            )
        else:
            self.seen.append("the same request twice gives the same answer")

    def look_at_full_requests(self) -> None:
        """Ask for as many texts as a request of the run holds, and for every second of them: the answers must be the same."""
        count = self.batch_size
        if count <= len(DOCUMENTS):
            return
        texts = [
            _about(TOPICS[number % len(TOPICS)], 12 + 7 * (5 * number % 11), first=100 + number)
            for number in range(count)
        ]
        places = np.linspace(0, count - 1, len(DOCUMENTS)).astype(int)
        for place, document in zip(places, DOCUMENTS, strict=True):
            texts[place] = document
        items = self.items(*texts)
        whole = self.answer(items)
        halves = np.empty_like(whole)
        for start in (0, 1):
            halves[start::2] = self.answer(items[start::2])
        what = "vectors" if self.settings.makes_vectors else "scores"
        for one, other, said in (
            (whole, halves, f"{(count + 1) // 2}"),
            (whole[places], self.answers, f"{len(DOCUMENTS)}"),
        ):
            if _apart(one, other) > 3 * _apart(self.answers, self.again) and differ(one, other, whole):
                moved = int((np.abs(one - other).reshape(len(one), -1).max(axis=1) > 0).sum())
                raise UnfitServerError(
                    f"{moved} of {len(one)} texts get other {what} in a request of {count} texts than in one of {said}: they are "
                    "in another order than the texts, or depend on what else a request holds; a smaller backend.batch_size may do"
                )
        self.seen.append(f"requests of {count} texts give the {what} that smaller ones give")

    def look_at_packing(self, as_numbers: Ask) -> None:
        """Ask for vectors as lists of numbers, and compare them with those that were packed in base64."""
        parts = as_numbers(self.items(*DOCUMENTS[:2]), 2)
        self.requests += len(parts)
        for part in parts:
            if isinstance(part, RefusedError):
                self.tell(f"vectors are only given in base64, so that their kind can't be compared: {_short(part)}")
                return
            if isinstance(part, AnswerError):
                raise part
            if part.shape[1:] != self.answers.shape[1:] or differ(part, self.answers[:2], self.answers):
                raise UnfitServerError(
                    f"its vectors in base64 are not its vectors as numbers ({self.answers.shape[1]} and {part.shape[1]} numbers): "
                    "base64 should hold little-endian float32"
                )
        self.seen.append("vectors in base64 are those that are given as numbers")

    def outcome_of_trouble(self, items: Sequence[tuple[str, ...]], size: int | None = None) -> Outcome:
        """Ask for texts that a server may fail at, which no task need hold: whatever goes wrong is an outcome."""
        try:
            return self.outcome(items, size)
        except UnfitServerError:
            raise
        except EvalkitError as error:
            return AnswerError(str(error))

    def look_at_blanks(self) -> None:
        outcome = self.outcome_of_trouble(self.items(""))
        if isinstance(outcome, AnswerError):
            self.tell(
                f"a blank text is not answered as asked, so that a task which holds one can't be scored: {_short(outcome)}"
            )
        else:
            self.seen.append("a blank text is answered")

    def look_at_long_texts(self, limit: int | None) -> None:
        """Ask for a text that is too long, for one that a model can't tell from it, and for ever less of it."""
        length = self.settings.max_length
        if length is None or length > LONGEST:
            stated = "no max_length is stated" if length is None else f"max_length is {length:,}"
            self.seen.append(f"{stated}: where texts are cut was not looked at")
            return
        texts = LongTexts.of(self.settings, length)
        parts = {tokens: part for tokens, part in texts.parts.items() if limit is None or len(part) < limit}
        asked = (
            list(parts.values()) if limit is not None and limit < len(texts.long) else [texts.other, *parts.values()]
        )
        if not asked:
            self.seen.append(f"evalkit cuts texts to {limit:,} characters")
            return
        size = min(self.batch_size, 1 + len(asked)) if length <= TOGETHER else 1
        outcome = self.outcome_of_trouble(self.items(texts.long, *asked), size)
        if isinstance(outcome, AnswerError):
            self.tell(
                f"a text of more than {length} tokens is not cut but refused; backend.max_characters=N cuts texts before they are "
                f"sent: {_short(outcome)}"
            )
            return
        long = outcome[:1]
        if len(asked) > len(parts):
            if differ(long, outcome[1:2], self.answers):
                self.tell(f"max_length is {length}, but a longer text is answered otherwise than {texts.what}")
                return
            self.seen.append(f"a text of more than {length} tokens is answered as {texts.what}")
        else:
            self.seen.append(f"evalkit cuts texts to {limit:,} characters")
        if not self._can_tell(long):
            self.tell(
                f"max_length is {length}, but whether texts are cut there can't be known: the answer to a long one is "
                f"{float(long[0]):.4g}, where probabilities don't tell"
            )
            return
        self._look_at_parts(long, dict(zip(parts, outcome[len(asked) - len(parts) + 1 :], strict=True)), texts, length)

    def _look_at_parts(self, long: Answers, parts: Mapping[int, Answers], texts: LongTexts, length: int) -> None:
        """Find the shortest part of a long text that is answered as the whole; `parts` go from the longest to the shortest."""
        same = list(
            itertools.takewhile(lambda tokens: _apart(parts[tokens][None], long) <= self._resolution(long), parts)
        )
        about = "" if texts.exact else "about "
        if 0 < len(same) <= 2 and _is_coarse(
            np.concatenate([self.answers, long, *(part[None] for part in parts.values())])
        ):
            self.seen.append(
                f"its first {about}{same[-1]} tokens give the same answer, but answers are too coarse to tell"
            )
        elif len(same) == 1 and texts.exact:
            self.tell(
                f"max_length is {length}, but the last {LAST} tokens of it don't change an answer: texts are cut earlier, or the "
                "server computes too coarsely to tell"
            )
        elif same:
            fewer = " or fewer" if len(same) == len(parts) else ""
            self.tell(
                f"max_length is {length}, but a longer text is answered as its first {about}{same[-1]} tokens{fewer}"
            )
        elif parts:
            known = "" if texts.exact else ": where exactly it is cut can't be known without the model's tokenizer.json"
            self.seen.append(f"and otherwise than its first {about}{next(iter(parts))} tokens{known}")

    def _can_tell(self, answer: Answers) -> bool:
        """Return whether an answer shows what was read; probabilities near 0 and 1 don't."""
        probabilities = not self.settings.makes_vectors and self.answers.min() >= 0 and self.answers.max() <= 1
        return not probabilities or 0.0001 < float(answer[0]) < 0.999

    def _resolution(self, answer: Answers) -> float:
        return SAME * float(np.abs(answer).max())

    def look_at_range(self) -> None:
        """See whether the scores of the first request are what they are meant to be, and whether the query counts."""
        other = self.answer([(OTHER_QUERY, DOCUMENTS[0])])
        if _apart(other, self.answers[:1]) == 0 and np.ptp(self.answers) > 0:
            self.tell(f"a document has the same score, {float(other[0]):.4g}, for another query: is the query read?")
        low, high = float(self.answers.min()), float(self.answers.max())
        seen = f"the probe's scores go from {low:.4g} to {high:.4g}"
        inside = low >= 0 and high <= 1
        ends = int(((self.answers == 0) | ((self.answers > ONE) & inside)).sum())
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
                f"{ends} of the probe's {len(self.answers)} scores are 0 or 1, or as good as that: saturated, so that texts are "
                "tied"
            )

    def look_at_joints(self) -> None:
        """Move the border between a query and a document: where that changes nothing, the two are one text to the model."""
        texts = (DOCUMENTS[1], DOCUMENTS[2], DOCUMENTS[0], DOCUMENTS[3])
        expected = self.answer(self.items(*(joint.join(texts) for joint in JOINTS)), self.batch_size)
        for number, joint in enumerate(JOINTS):
            borders = ((joint.join((QUERY, *texts[:place])), joint.join(texts[place:])) for place in (1, 2, 3))
            if not any(differ(self.answer([pair]), expected[number : number + 1], self.answers) for pair in borders):
                mixed = self.answer(self.items(joint.join(reversed(texts))))
                if differ(mixed, expected[number : number + 1], self.answers):
                    self._tell_joint(joint)
                else:
                    self.seen.append(
                        "whether query and document are one text to it can't be known: other texts score the same"
                    )
                return
        self.seen.append("a text counts otherwise in the query than in the document")

    def _tell_joint(self, joint: str) -> None:
        between = f"nothing but {joint!r}" if joint else "nothing"
        glued = (
            f"a text has the same score at the query's end as at the document's beginning: the server glues the two together, with "
            f"{between} between them"
        )
        if self.settings.kind == "llm-reranker":
            raise UnfitServerError(
                f"{glued}, and without the prompt of {self.settings.name}'s recipe; start it with the model's template "
                "(vLLM: --chat-template FILE), or leave out backend.endpoint, and evalkit assembles the input"
            )
        self.tell(f"{glued}; look for the template that the model was trained with")

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

    `other` is what a model reads of it, or, where its tokenizer is not at hand, a text that differs only far behind that: `what`
    says which in words. `parts` are beginnings of both that are shorter than what is read, by the tokens that a model of that
    length would read, from the longest to the shortest. `exact` says whether those were counted, or estimated.
    """

    long: str
    other: str
    parts: Mapping[int, str]
    what: str
    exact: bool

    @classmethod
    def of(cls, settings: ModelSettings, length: int) -> LongTexts:
        """Make texts for a model that reads `length` tokens."""
        start = TOPICS[0].format(1)
        words = np.random.default_rng(0).choice(WORDS.split(), 4 * length + AROUND).tolist()

        def first(count: int) -> str:
            return " ".join([start, *words[:count]])

        long = first(len(words))
        lengths = [length - LAST if eighths == 8 else eighths * length // 8 for eighths in PARTS]
        if length > TOGETHER:  # each is a request of its own, and a slow one
            lengths = [lengths[0], lengths[3], lengths[-1]]
        lengths = [tokens for tokens in dict.fromkeys(lengths) if tokens > 2 * AROUND or tokens == length - LAST]
        cut, counted = _cut(settings, long, length), {tokens: _cut(settings, long, tokens) for tokens in lengths}
        parts = {tokens: part for tokens, part in counted.items() if part is not None}
        if cut is not None and len(parts) == len(counted):
            return cls(long, cut, parts, f"the same cut to {length} tokens", exact=True)
        other = " ".join([first(length + length // 4), *reversed(words[length + length // 4 :])])
        parts = {tokens: first(tokens - AROUND) for tokens in lengths if 2 * AROUND < tokens < length - LAST}
        return cls(long, other, parts, "another with the same beginning", exact=False)


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
    if settings.kind == "llm-reranker":  # whose template is the server's
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


def _is_coarse(answers: Answers) -> bool:
    """Return whether all answers, or as probabilities their logits, have few digits: those of bf16 or fp16, or four decimals."""
    from scipy.special import logit

    values = answers.astype(np.float64).ravel()
    kinds = [values]
    if values.min() > 0 and values.max() < 1:
        kinds.append(logit(values))
    for numbers in kinds:
        bf16 = np.round(np.frexp(numbers)[0] * 256) / 256  # a mantissa of eight digits, in binary
        fp16 = np.round(np.frexp(numbers)[0] * 2048) / 2048
        if min(np.abs(np.frexp(numbers)[0] - few).max() for few in (bf16, fp16)) < 1e-5:
            return True
    return bool(np.abs(values - np.round(values, 4)).max() < 6e-8)


def _short(error: EvalkitError) -> str:
    return str(error).partition("; ")[0]


def _in_company(settings: ModelSettings, among: Answers, alone: Answers) -> str:
    if settings.makes_vectors:
        return "a text's vector depends on what else a request holds: look for padding that the attention mask does not hide"
    number = int(np.argmax(np.abs(among - alone)))
    return (
        f"the score of a document depends on what else a request holds ({among[number]:.4g} among {len(DOCUMENTS)}, "
        f"{alone[number]:.4g} alone): the model ranks whole lists, of which evalkit asks for parts (for whole ones: "
        "backend.listwise=true), or the server computes too coarsely"
    )
