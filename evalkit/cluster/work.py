"""What the driver keeps account of: a model that actors are to hold, an actor, and the windows still to be handed out."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from evalkit.cluster.connection import FINISH
from evalkit.cluster.worker import Description, Failure, Prepare, Share, differences
from evalkit.errors import EvalkitError
from evalkit.models.interfaces import TextWindow

DEATHS = 3  # so often may a window kill its actor without a step forward, and a model its actors while they load it
# a window is cut into shares where there are too few for all actors to end at about the same time; each tokenises it anew
SHARES_PER_ACTOR = 8
MOST_SHARES = 16


@dataclass(frozen=True)
class Job:
    """A model that actors are to hold: its `name` for messages, its `key`, how it is had, and how it must be where one has it."""

    name: str
    key: str
    prepare: Prepare
    expected: Description | None = None


@dataclass(eq=False)
class Member:
    """An actor: the call whose answer is awaited, the model that it holds, and its shares of windows, the first of which runs."""

    actor: Any
    call: Any = None
    asked: str = ""  # the key of the model that it was last asked to hold
    key: str = ""
    shares: deque[Share] = field(default_factory=deque)


class Work:
    """The shares of windows still to hand out, and how often each killed its actor."""

    def __init__(
        self, job: Job, starts: Sequence[int], window: Callable[[int], TextWindow | None], actors: int
    ) -> None:
        shares = min(MOST_SHARES, math.ceil(SHARES_PER_ACTOR * actors / max(1, len(starts))))
        self.job = job
        self.waiting = deque((start, share) for start in starts for share in range(shares))
        self._shares = shares
        self._window = window
        self._deaths: Counter[Share] = Counter()

    def window(self, share: Share) -> TextWindow | None:
        """Return the window as it is now, with the share that is asked for; None where it lacks nothing."""
        start, number = share
        window = self._window(start)
        return None if window is None else replace(window, share=number, shares=self._shares)

    def moves(self, share: Share) -> None:
        """Note a step forward with this share: its deaths are counted anew."""
        self._deaths.pop(share, None)

    def take_back(self, shares: Sequence[Share]) -> None:
        """Take back the shares of an actor that died at the first of them.

        Raises EvalkitError where that one keeps killing actors.
        """
        self._deaths[shares[0]] += 1
        if self._deaths[shares[0]] >= DEATHS:
            raise self._deadly(shares[0])
        self.waiting.extendleft(reversed(shares))

    def _deadly(self, share: Share) -> EvalkitError:
        window = self.window(share)
        if window is None:
            return EvalkitError(f"{DEATHS} actors died at the end of a window; {FINISH}")
        first = window.items.first + int((~window.known).argmax())
        return EvalkitError(
            f"{DEATHS} actors in a row died at {window.items.name(first)} or one of the {len(window.known)} items around it: out "
            f"of memory, or a fault in the backend's own code? {FINISH}"
        )


def refuse_other_model(answer: Description, job: Job, expected: Description) -> None:
    """Raise EvalkitError where an actor has not the model that another one has."""
    ours = {"weights": expected.identity.weights_hash, **(expected.way or {})}
    theirs = {"weights": answer.identity.weights_hash, **(answer.way or {})}
    found = differences(ours, theirs)
    if found:
        what = "weights" if ours["weights"] != theirs["weights"] else "settings"
        raise EvalkitError(
            f"node {answer.node} of the Ray cluster has other {what} of {job.name} than node {expected.node} ({found[0]}); all "
            "need the same files and devices"
        )


def error_of(message: EvalkitError | Failure) -> Exception:
    """Return what an actor said went wrong, to be raised here."""
    if isinstance(message, EvalkitError):
        return message
    return RuntimeError(f"{message.kind} in an actor: {message.text}")
