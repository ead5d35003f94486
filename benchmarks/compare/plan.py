"""What is measured: models with their settings, bodies, and the rows of load on each server. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from benchmarks.compare.families import FAMILIES
from benchmarks.compare.figures import Key

__all__ = ["CONNECTIONS", "GOALS", "SERVERS", "Case", "Load", "Variant", "chosen", "loads"]

SERVERS: Final = ("zts", "mosec", "torchserve", "bare", "embedded")
# Names of the goals, by which --only chooses: those of the project's list, and one beside it.
GOALS: Final = {
    "rest": 1,
    "direct": 2,
    "dense": 3,
    "heavy": 4,
    "gpu": 4,
    "bodies": 5,
    "batching": 6,
    "flat": 7,
    "one-process": 8,
    "start": 9,
    "processes": 10,
}
# It asks what a default should be, and has no bound.
_NOT_BY_ITSELF: Final = {"processes"}

CONNECTIONS: Final = (1, 16, 64, 256)
DIRECT_IN_FLIGHT: Final = (1, 16, 64, 256, 1024)
MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Variant:
    """A model with its settings. ``window_ms`` None leaves ``maxBatchDelay`` out; ``config``: settings of zts."""

    model: str
    batch: int
    window_ms: int | None = 1
    workers: int = 1
    config: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """Return the name under which it is served."""
        window = "" if self.window_ms is None else f"w{self.window_ms}"
        return f"{self.model}{self.batch}{window}x{self.workers}"


@dataclass(frozen=True, slots=True)
class Case:
    """A variant and the body that it gets: random float32 of the right shape, or so many bytes."""

    name: str
    variant: Variant
    body_bytes: int
    # How many times the normal time a row runs: batches of a second need longer than those of a millisecond.
    times: int = 1


NOOP: Final = Case("noop", Variant("noop", 64), 100)
LONE: Final = Case("noop, batch 1", Variant("noop", 1), 100)
DENSE: Final = Case("dense", Variant("dense", 64), 784 * 4)
HEAVY: Final = Case("heavy", Variant("heavy", 4), 3 * 224 * 224 * 4, times=4)
BODIES: Final = (
    (Case("1 MiB", Variant("echo", 1), MIB), 16),
    (Case("16 MiB", Variant("echo", 1), 16 * MIB), 4),
)
SMALL: Final = Case("2 workers", Variant("noop", 1, workers=2), 100)
HEAVY_IN_FLIGHT: Final = 12
NETWORK_IN_FLIGHT: Final = (64, 256)
HTTP_PROCESSES: Final = (1, 2, 3, 4)
PROCESSES_IN_FLIGHT: Final = (1, 64, 256)
# With one worker, and with two that take turns: while one computes the other copies.
GPU: Final = {
    count: Case(f"gpu, {count} workers", Variant("resnet50", 64, None, workers=count), 3 * 224 * 224 * 2, times=3)
    for count in (1, 2)
}
GPU_IN_FLIGHT: Final = 256


def processes_case(count: int) -> Case:
    """Return the no-op behind so many HTTP processes."""
    config = (("zts_http_processes", str(count)),)
    return Case(f"noop, {count} HTTP processes", Variant("noop", 64, config=config), 100)


@dataclass(frozen=True, slots=True)
class Load:
    """One row: so many requests in flight on one path of a case, for a goal."""

    goal: str
    case: Case
    path: str
    in_flight: int

    def key(self, server: str) -> Key:
        """Return the row's key for one server."""
        return Key(server, self.case.name, self.path, self.in_flight)


def chosen(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return (servers, goals) that names of both ask for; a kind of which none is named comes whole.

    Raises:
        ValueError: If a name is neither.
    """
    servers, goals = [], []
    for name in names:
        named = [goal for goal, number in GOALS.items() if name in (goal, str(number))]
        if name in SERVERS:
            servers.append(name)
        elif named:
            goals += named
        else:
            raise ValueError(f"{name}: not one of {', '.join((*SERVERS, *GOALS))}")
    return servers or list(SERVERS), goals or [name for name in GOALS if name not in _NOT_BY_ITSELF]


def loads(server: str, goals: Iterable[str]) -> list[Load]:
    """Return the rows that a server gets, rows of one variant one after the other."""
    wanted = set(goals)
    rows = [row for row in _loads(server) if row.goal in wanted]
    # The same row may serve two goals: it is measured once.
    by_key = {row.key(server): row for row in reversed(rows)}
    order = list(dict.fromkeys(row.case.variant for row in rows))
    kept = [row for row in rows if by_key.get(row.key(server)) is row]
    return sorted(kept, key=lambda row: order.index(row.case.variant))


def _loads(server: str) -> Iterator[Load]:
    if server == "bare":
        yield from _bare()
        return
    for count in CONNECTIONS:
        yield Load("one-process" if server == "embedded" else "rest", NOOP, "rest", count)
    yield Load("one-process" if server == "embedded" else "rest", LONE, "rest", 1)
    if server == "embedded":
        return
    if server == "mosec":
        yield from (Load("one-process", NOOP, "rest", count) for count in CONNECTIONS)
        yield Load("one-process", LONE, "rest", 1)
    if server == "zts":
        yield from _zts()
    yield from (Load("dense", DENSE, "rest", count) for count in NETWORK_IN_FLIGHT)
    if server in ("zts", "torchserve"):
        yield Load("start", SMALL, "start", 0)


def _zts() -> Iterator[Load]:
    """Yield what only zts has, or only it and the bare loops."""
    yield from (Load("direct", NOOP, "zmq", count) for count in DIRECT_IN_FLIGHT)
    yield Load("direct", LONE, "zmq", 1)
    yield from (Load("dense", DENSE, "zmq", count) for count in NETWORK_IN_FLIGHT)
    yield from (Load("heavy", HEAVY, path, HEAVY_IN_FLIGHT) for path in ("rest", "zmq"))
    yield from (Load("gpu", case, "zmq", GPU_IN_FLIGHT) for case in GPU.values())
    yield from (Load("bodies", case, path, count) for case, count in BODIES for path in ("rest", "zmq"))
    # The rows of "rest" and "direct" again, for those who ask for this goal alone.
    yield from (Load("flat", NOOP, "rest", count) for count in CONNECTIONS)
    yield Load("flat", NOOP, "zmq", 64)
    for name in FAMILIES:
        yield from (Load("flat", *row) for row in simulated_rows(name))
    for count in HTTP_PROCESSES:
        case = processes_case(count)
        yield from (Load("processes", case, "rest", in_flight) for in_flight in PROCESSES_IN_FLIGHT)


def simulated_rows(family: str) -> list[tuple[Case, str, int]]:
    """Return (case, path, jobs in flight) of each point of a family; the variant's name is the family's."""
    variant = Variant(family, 1)
    return [
        (Case(f"{FAMILIES[family].title}: {point.name}", variant, 100), "simulated", point.in_flight)
        for point in FAMILIES[family].points
    ]


def _bare() -> Iterator[Load]:
    for count in (1, 64, 1024):
        yield Load("direct", NOOP, "chain", count)
    for case, goal in ((DENSE, "dense"), (HEAVY, "heavy")):
        for path in ("model", "handler"):
            yield Load(goal, case, path, case.variant.batch)
    yield Load("gpu", GPU[1], "gpu", GPU[1].variant.batch)
    for case, count in BODIES:
        for path in ("rest", "zmq"):
            yield Load("bodies", case, path, count)
