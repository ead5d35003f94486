"""Goal 7's many models and workers: which points are compared, and what bounds them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["FAMILIES", "Family", "Point"]

_MODELS: Final = (1, 10, 100, 500)
_WORKERS: Final = (1, 4, 16, 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A broker with simulated workers, and the load on it.

    Attributes:
        name: As it stands in the table.
        models, workers: So many models, each with so many workers.
        loaded: How many of the models get jobs.
        batch: Batch size.
        in_flight: Jobs in flight, over all models.
    """

    name: str
    models: int = 1
    workers: int = 1
    loaded: int = 1
    batch: int = 64
    in_flight: int = 64


@dataclass(frozen=True, slots=True)
class Family:
    """Points of which all but one thing is the same. ``is_bound`` False: it only informs."""

    title: str
    points: tuple[Point, ...]
    is_bound: bool = True


FAMILIES: Final[Mapping[str, Family]] = {
    "models-one-loaded": Family(
        "models, load on one of them",
        tuple(Point(name=f"{n} models", models=n) for n in _MODELS),
    ),
    "models-batch-1": Family(
        "models, load on all, batch size 1",
        tuple(Point(name=f"{n} models", models=n, loaded=n, batch=1) for n in _MODELS),
    ),
    "models-8-each": Family(
        "models, load on all, 8 in flight each",
        tuple(Point(name=f"{n} models", models=n, loaded=n, in_flight=8 * n) for n in _MODELS),
    ),
    # A batch of one model and 64 jobs is one message; 64 jobs of as many models are 64 messages, whoever sends them.
    "models-64-in-all": Family(
        "models, load on all, 64 in flight in all",
        tuple(Point(name=f"{n} models", models=n, loaded=n) for n in _MODELS),
        is_bound=False,
    ),
    "workers": Family(
        "workers of one model",
        tuple(Point(name=f"{n} workers", workers=n) for n in _WORKERS),
    ),
    "workers-batch-1": Family(
        "workers of one model, batch size 1",
        tuple(Point(name=f"{n} workers", workers=n, batch=1) for n in _WORKERS),
    ),
    "workers-64-each": Family(
        "workers of one model, 64 in flight each",
        tuple(Point(name=f"{n} workers", workers=n, in_flight=64 * n) for n in _WORKERS),
    ),
}
