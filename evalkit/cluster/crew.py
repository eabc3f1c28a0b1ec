"""The driver's side: hires actors, hands windows out to them, gives the batches that come back, and replaces actors that die.

An actor has a share of a window that runs and one that waits, so that it never idles; who is fast gets more. Only ordinary calls
are used, since Ray Client knows no streaming generators: of each actor one answer is awaited, and it brings all that is done. A
process has one crew (`crew_of`), which stays for its next model; the engine sees it as a RayScorer.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

from evalkit.cluster import connection
from evalkit.cluster.settings import RaySettings
from evalkit.cluster.work import DEATHS, Job, Member, Work, error_of, refuse_other_model
from evalkit.cluster.worker import Description, Failure, Worker, code_versions, differences
from evalkit.errors import EvalkitError
from evalkit.models.interfaces import DoneBatch, TextWindow

DEPTH = 2  # shares of windows that an actor has at once
NOTICE_SECONDS = 30.0
CALLS_AT_ONCE = DEPTH + 1
logger = logging.getLogger("evalkit")


class Crew:
    """Actors of one cluster. They are hired when there is work for them, and stay for the next model."""

    def __init__(self, settings: RaySettings) -> None:
        self._started = connection.connect(settings)
        self.settings = settings
        try:
            # a cluster of this run's own gets no more nodes to wait for
            room = 0 if settings.actors and settings.address != "local" else self._room()
            self._size = settings.actors or room
        except BaseException:
            if self._started:
                connection.disconnect()
            raise
        self._members: list[Member] = []
        self._failed_starts = 0
        self._processors: set[str] = set()

    def describe(self, job: Job) -> Description:
        """Let one actor find the model, without loading it: its scores may all be stored.

        Raises EvalkitError where it can't, or differs from this machine.
        """
        with self._until_done():
            while True:
                self._hire(1)
                idle = [member for member in self._members if member.call is None]
                if idle and not any(member.call is not None and member.asked == job.key for member in self._members):
                    self._ask(
                        max(idle, key=lambda member: bool(member.asked)), job, load=False
                    )  # one that lives, rather
                for member in self._answered():
                    description = self._welcome(member, self._answer(member, None, job), job)
                    if description is not None:
                        member.key = member.asked = ""
                        return description

    def run_windows(
        self, job: Job, starts: Sequence[int], window: Callable[[int], TextWindow | None]
    ) -> Generator[DoneBatch]:
        """See WindowScorer."""
        work = Work(job, starts, window, self._size)
        with self._until_done():
            while True:
                self._hand_out(work)
                if not work.waiting and not any(member.shares for member in self._members):
                    return
                for member in self._answered():
                    yield from self._hear(member, work)

    def close(self) -> None:
        """Let the actors go, and end the connection if it was made here."""
        self._dismiss()
        if self._started:
            connection.disconnect()

    def _room(self) -> int:
        """How many actors the cluster's nodes have room for. Raises EvalkitError where it is none."""
        wanted = {"CPU": float(self.settings.cpus_per_actor), "GPU": self.settings.gpus_per_actor}
        room = sum(
            int(min(node.get(kind, 0.0) // amount for kind, amount in wanted.items() if amount))
            for node in connection.nodes()
        )
        if not room:
            raise EvalkitError(
                f"no node of the Ray cluster has {self._need()}: lower ray.cpus_per_actor or ray.gpus_per_actor"
                f"{'' if self.settings.address == 'local' else ', or say ray.actors=N to wait until there is one'}"
            )
        return room

    def _need(self) -> str:
        return f"CPUs: {self.settings.cpus_per_actor}, GPUs: {self.settings.gpus_per_actor:g}"

    def _hire(self, count: int) -> None:
        import ray

        options = {
            "num_cpus": self.settings.cpus_per_actor,
            "num_gpus": self.settings.gpus_per_actor,
            "max_concurrency": CALLS_AT_ONCE,
            "max_restarts": 0,  # a new one takes its place, with a new number of its calls
        }
        while len(self._members) < min(count, self._size):
            self._members.append(Member(ray.remote(Worker).options(**options).remote()))

    def _hand_out(self, work: Work) -> None:
        """Give the actors windows, everyone one before anyone two, and ask each for what it has done."""
        self._hire(max(1, len(work.waiting) + sum(1 for member in self._members if member.shares)))
        for depth in range(1, DEPTH + 1):
            for member in self._members:
                while member.key == work.job.key and len(member.shares) < depth and work.waiting:
                    share = work.waiting.popleft()
                    window = work.window(share)
                    if window is not None:
                        member.actor.score.remote(work.job.key, work.job.prepare, window)
                        member.shares.append(share)
        for member in self._members:
            if member.call is None and member.shares:
                member.call = member.actor.take.remote()
            elif member.call is None and member.key != work.job.key and work.waiting:
                self._ask(member, work.job, load=True)

    def _ask(self, member: Member, job: Job, *, load: bool) -> None:
        """Let an actor find or load the model, in the place of what it has."""
        member.key, member.asked = "", job.key
        member.call = member.actor.describe.remote(job.key, job.prepare, load)

    def _answered(self) -> list[Member]:
        """Wait for an answer; the members whose answers are there."""
        import ray

        calls = {member.call: member for member in self._members if member.call is not None}
        if not ray.wait(list(calls), num_returns=1, timeout=NOTICE_SECONDS)[0]:
            if not any(member.key for member in self._members):
                logger.info("waiting for the Ray cluster: an actor needs %s, or is still loading", self._need())
            return []
        ready, _ = ray.wait(list(calls), num_returns=len(calls), timeout=0)
        return [calls[call] for call in ready]

    def _hear(self, member: Member, work: Work) -> Generator[DoneBatch]:
        """Yield what a member answers, batch by batch."""
        answer = self._answer(member, work, work.job)
        if not isinstance(answer, list):
            self._welcome(member, answer, work.job)
            return
        for share, message in answer:
            work.moves(share)
            if message is None:
                member.shares.remove(share)
            elif isinstance(message, DoneBatch):
                yield message
            else:
                raise error_of(message)

    def _answer(self, member: Member, work: Work | None, job: Job) -> Any:
        """Return the answer, or None where the actor died."""
        import ray
        from ray import exceptions

        call, member.call = member.call, None
        try:
            return ray.get(call)
        except (exceptions.RayActorError, exceptions.NodeDiedError, exceptions.ObjectLostError) as error:
            self._lose(member, work, job, error)
            return None
        except exceptions.RayTaskError as error:
            raise error_of(Failure(type(error.cause).__name__, str(error.cause))) from error
        except (exceptions.RayError, ConnectionError) as error:
            raise connection.lost_connection(error) from error

    def _lose(self, member: Member, work: Work | None, job: Job, error: Exception) -> None:
        """Take a dead actor's windows back. Raises EvalkitError where they, or the model, keep killing actors."""
        self._members.remove(member)
        _kill(member)
        if "ModuleNotFoundError" in str(error):
            raise EvalkitError(
                "evalkit can't be imported on a node of the Ray cluster: install the same version on all of them"
            ) from error
        logger.warning("an actor of the Ray cluster is lost; its work is handed out again")
        if work is not None and member.shares:
            work.take_back(member.shares)
        elif member.key != job.key:
            self._failed_starts += 1
            if self._failed_starts < DEATHS:
                return
            if not any(other.key == job.key for other in self._members):
                raise EvalkitError(
                    f"{DEATHS} actors in a row died while they loaded {job.name}: is a node's memory too small for so many copies? "
                    "Raise ray.cpus_per_actor, or lower ray.actors"
                )
            self._size = max(1, len(self._members))  # go on with those that could

    def _welcome(
        self, member: Member, answer: Description | EvalkitError | Failure | None, job: Job
    ) -> Description | None:
        """Take a member on that has loaded the model; None where it died, or was asked for a model before this one.

        Raises EvalkitError where it can't load the model, or has another one.
        """
        if answer is None or member.asked != job.key:
            return None
        if not isinstance(answer, Description):
            raise error_of(answer)
        found = differences(code_versions(), answer.versions)
        if found:
            raise EvalkitError(
                f"node {answer.node} of the Ray cluster would give other digits: it has other versions ({'; '.join(found)}); "
                "install the same on this machine and all nodes"
            )
        if job.expected is not None:
            refuse_other_model(answer, job, job.expected)
        self._processors.add(answer.processor)
        if len(self._processors) == 2:
            logger.warning(
                "the Ray cluster has several kinds of processor (%s); their last bits may differ",
                ", ".join(sorted(self._processors)),
            )
        member.key = job.key
        self._failed_starts = 0
        return answer

    @contextlib.contextmanager
    def _until_done(self) -> Generator[None]:
        """Whatever ends the work early ends the actors, which would finish their windows for nobody."""
        try:
            yield
        except BaseException:
            self._dismiss()
            raise

    def _dismiss(self) -> None:
        for member in self._members:
            _kill(member)
        self._members.clear()


def _kill(member: Member) -> None:
    import ray

    with contextlib.suppress(Exception):  # it may be dead already, or the cluster gone
        ray.kill(member.actor)


_crew: Crew | None = None  # this process's


def crew_of(settings: RaySettings) -> Crew:
    """Return the crew of this process; one of other settings is let go first."""
    global _crew
    if _crew is not None and _crew.settings != settings:
        dismiss()
    if _crew is None:
        _crew = Crew(settings)
    return _crew


def dismiss() -> None:
    """Let this process's crew go, if it has one, with all that was started for it."""
    global _crew
    if _crew is not None:
        crew, _crew = _crew, None
        crew.close()


@dataclass(frozen=True)
class RayScorer:
    """A WindowScorer: the actors that hold a model."""

    settings: RaySettings
    job: Job

    def run_windows(self, starts: Sequence[int], window: Callable[[int], TextWindow | None]) -> Generator[DoneBatch]:
        return crew_of(self.settings).run_windows(self.job, starts, window)
