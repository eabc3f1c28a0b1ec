"""The crew of this process, and the scorer that the engine sees."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from evalkit.cluster.crew import Crew
from evalkit.cluster.settings import RaySettings
from evalkit.cluster.work import Job
from evalkit.models.interfaces import DoneBatch, TextWindow

_crew: Crew | None = None


def crew_of(settings: RaySettings) -> Crew:
    """The crew of this process; one of other settings is let go first."""
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
