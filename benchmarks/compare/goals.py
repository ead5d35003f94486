"""The goals as data, and the verdict on each. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.compare import plan
from benchmarks.compare.families import FAMILIES
from benchmarks.compare.figures import Figures, Key

__all__ = ["NOT_MEASURED", "NOT_REACHED", "REACHED", "TITLES", "Check", "Verdict", "checks", "judge"]

TITLES: Final = {
    1: "REST, no-op: batch 64, window 1 ms, 100-byte bodies, 1 worker",
    2: "Direct ZeroMQ client, no-op",
    3: "Dense model 784-1024-1024-10, float32, batch 64",
    4: "Heavy models: ResNet-18's size on the CPU, batch 4; ResNet-50's in bf16 on a GPU, batch 64",
    5: "Large bodies, answered with the body",
    6: "Batching never hurts: no maxBatchDelay beside the best fixed setting of at most this batch size",
    7: 'A request\'s cost is flat or falls: µs of processor time; "broker:" has simulated workers',
    8: "One process: zts_broker=embedded",
    9: "Start to first answer, and idle memory, with 2 workers of a handler without torch",
    10: "Beside the list: how many HTTP processes (zts_http_processes), no-op",
}

REACHED, NOT_REACHED, NOT_MEASURED, NO_GPU = "reached", "not reached", "not measured", "no GPU here"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One bound. With ``others`` it is on the ratio to the best of them, else on the figure itself.

    Attributes:
        goal: Number of the goal.
        what: What the row shows.
        ours: Row of zts.
        figure: Name of the figure in the samples.
        bound: None for a row that only informs.
        at_least: False: at most.
        others: Rows of others; the best of them counts (the greatest, or with ``at_least`` False the least).
        beside: What to call the others; ``""``: by their server.
    """

    goal: int
    what: str
    ours: Key
    figure: str
    bound: float | None
    at_least: bool = True
    others: tuple[Key, ...] = ()
    beside: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check came to. ``ratio`` None without others or without figures."""

    check: Check
    ours: float | None
    other: float | None
    other_name: str
    ratio: float | None
    errors: int
    outcome: str

    def to_map(self) -> dict[str, Any]:
        """Return it for JSON."""
        check = self.check
        return {
            "goal": check.goal,
            "what": check.what,
            "figure": check.figure,
            "zts": self.ours,
            "other": self.other,
            "other_name": self.other_name,
            "ratio": self.ratio,
            "bound": check.bound,
            "at_least": check.at_least,
            "errors": self.errors,
            "outcome": self.outcome,
        }


def judge(check: Check, figures: Figures) -> Verdict:
    """Return the verdict on one check; a row with errors never reaches its goal."""
    ours = figures.median(check.ours, check.figure)
    best, other = _best_of(check, figures)
    ratio = ours / other if check.others and ours is not None and other else None
    value = ratio if check.others else ours
    errors = figures.errors(check.ours)
    if value is None:
        outcome = NOT_MEASURED
    elif check.bound is None:
        outcome = ""
    else:
        is_good = value >= check.bound if check.at_least else value <= check.bound
        outcome = REACHED if is_good and not errors else NOT_REACHED
    name = "" if best is None else check.beside or best.server
    return Verdict(check=check, ours=ours, other=other, other_name=name, ratio=ratio, errors=errors, outcome=outcome)


def _best_of(check: Check, figures: Figures) -> tuple[Key | None, float | None]:
    measured = [(value, key) for key in check.others if (value := figures.median(key, check.figure)) is not None]
    if not measured:
        return None, None
    value, key = max(measured) if check.at_least else min(measured)
    return key, value


def checks() -> list[Check]:
    """Return all checks but those of the sweep (``benchmarks/compare/batching.py``), in the order of the report."""
    found = [*_rest(), *_direct(), *_dense(), *_heavy(), *_gpu(), *_bodies(), *_connections(), *_fleet()]
    return [*found, *_one_process(), *_start(), *_processes()]


def _key(server: str, case: plan.Case, path: str, in_flight: int) -> Key:
    return Key(server, case.name, path, in_flight)


def _rest() -> Iterator[Check]:
    for server, bounds in (
        ("mosec", dict.fromkeys(plan.CONNECTIONS, 1.0)),
        ("torchserve", {1: None, 16: None, 64: 4.0, 256: 4.0}),
    ):
        for count in plan.CONNECTIONS:
            yield Check(
                goal=1,
                what=f"requests/s, {count} connections",
                ours=_key("zts", plan.NOOP, "rest", count),
                others=(_key(server, plan.NOOP, "rest", count),),
                figure="rps",
                bound=bounds[count],
            )
    for server, most in (("torchserve", 0.6), ("mosec", 1.5)):
        yield Check(
            goal=1,
            what="lone request, batch size 1: p50 ms",
            ours=_key("zts", plan.LONE, "rest", 1),
            others=(_key(server, plan.LONE, "rest", 1),),
            figure="p50_ms",
            bound=most,
            at_least=False,
        )


def _direct() -> Iterator[Check]:
    for count, least in ((64, 80_000.0), (1024, 150_000.0)):
        ours = _key("zts", plan.NOOP, "zmq", count)
        bare = _key("bare", plan.NOOP, "chain", count)
        what = f"jobs/s, {count} in flight"
        yield Check(goal=2, what=what, ours=ours, figure="rps", bound=least)
        yield Check(goal=2, what=what, ours=ours, others=(bare,), figure="rps", bound=0.6)
    yield Check(
        goal=2,
        what="lone job, batch size 1: p50 ms",
        ours=_key("zts", plan.LONE, "zmq", 1),
        others=(_key("bare", plan.NOOP, "chain", 1),),
        figure="p50_ms",
        bound=2.0,
        at_least=False,
    )

    for count in plan.CONNECTIONS:
        yield Check(
            goal=2,
            what=f"jobs/s, {count} in flight, beside TorchServe's REST",
            ours=_key("zts", plan.NOOP, "zmq", count),
            others=(_key("torchserve", plan.NOOP, "rest", count),),
            figure="rps",
            bound=None,
        )


def _dense() -> Iterator[Check]:
    batch = plan.DENSE.variant.batch
    for path, word in (("rest", "connections"), ("zmq", "in flight, ZeroMQ")):
        for count in plan.NETWORK_IN_FLIGHT:
            ours, what = _key("zts", plan.DENSE, path, count), f"requests/s, {count} {word}"
            bare = _key("bare", plan.DENSE, "model", batch)
            yield Check(goal=3, what=what, ours=ours, others=(bare,), figure="rps", bound=0.9)
            bare = _key("bare", plan.DENSE, "handler", batch)
            what_else = f"{what}, beside the bare loop of the handler"
            yield Check(goal=3, what=what_else, ours=ours, others=(bare,), figure="rps", bound=None)
            if path == "rest":
                for server, least in (("mosec", 1.2), ("torchserve", None)):
                    peer = _key(server, plan.DENSE, "rest", count)
                    yield Check(goal=3, what=what, ours=ours, others=(peer,), figure="rps", bound=least)


def _heavy() -> Iterator[Check]:
    bare = _key("bare", plan.HEAVY, "model", plan.HEAVY.variant.batch)
    for path, word in (("zmq", "ZeroMQ"), ("rest", "REST")):
        ours = _key("zts", plan.HEAVY, path, plan.HEAVY_IN_FLIGHT)
        what = f"requests/s, {plan.HEAVY_IN_FLIGHT} in flight, {word}"
        yield Check(goal=4, what=what, ours=ours, others=(bare,), figure="rps", bound=0.97)


def _gpu() -> Iterator[Check]:
    for count, least in ((2, 0.9), (1, None)):
        yield Check(
            goal=4,
            what=f"requests/s, GPU, {count} worker{'s' if count > 1 else ''}, {plan.GPU_IN_FLIGHT} in flight, ZeroMQ",
            ours=_key("zts", plan.GPU[count], "zmq", plan.GPU_IN_FLIGHT),
            others=(_key("bare", plan.GPU[1], "gpu", plan.GPU[1].variant.batch),),
            figure="rps",
            bound=least,
        )


def _bodies() -> Iterator[Check]:
    for case, count in plan.BODIES:
        for path, word in (("rest", "REST"), ("zmq", "ZeroMQ")):
            ours, what = _key("zts", case, path, count), f"{case.name}, {count} in flight, {word}"
            bare = _key("bare", case, path, count)
            yield Check(goal=5, what=f"{what}: MiB/s", ours=ours, others=(bare,), figure="mib_s", bound=0.5)
            what = f"{what}: broker's memory / bodies in flight"
            yield Check(goal=5, what=what, ours=ours, figure="broker_memory", bound=3.0, at_least=False)


def _connections() -> Iterator[Check]:
    first = _key("zts", plan.NOOP, "rest", 1)
    for count in plan.CONNECTIONS:
        yield Check(
            goal=7,
            what=f"REST, {count} connections: all processes",
            ours=_key("zts", plan.NOOP, "rest", count),
            others=(first,) if count > 1 else (),
            beside="1 connection",
            figure="cpu_us",
            bound=1.0 if count > 1 else None,
            at_least=False,
        )
    for figure in ("http_us", "broker_us", "worker_us"):
        yield Check(
            goal=7,
            what=f"REST, 64 connections: {figure.removesuffix('_us')}",
            ours=_key("zts", plan.NOOP, "rest", 64),
            figure=figure,
            bound=8.0 if figure == "broker_us" else None,
            at_least=False,
        )
    for figure in ("broker_us", "worker_us"):
        yield Check(
            goal=7,
            what=f"ZeroMQ, 64 in flight: {figure.removesuffix('_us')}",
            ours=_key("zts", plan.NOOP, "zmq", 64),
            figure=figure,
            bound=8.0 if figure == "broker_us" else None,
            at_least=False,
        )


def _fleet() -> Iterator[Check]:
    for name, family in FAMILIES.items():
        first, *more = (_key("zts", *row) for row in plan.simulated_rows(name))
        yield Check(goal=7, what=f"broker: {first.case}", ours=first, figure="broker_us", bound=None, at_least=False)
        for ours in more:
            yield Check(
                goal=7,
                what=f"broker: {ours.case}",
                ours=ours,
                others=(first,),
                beside=family.points[0].name,
                figure="broker_us",
                bound=1.1 if family.is_bound else None,
                at_least=False,
            )


def _processes() -> Iterator[Check]:
    for figure, word in (("rps", "requests/s"), ("p50_ms", "p50 ms"), ("cpu_us", "µs of processor time a request")):
        for in_flight in plan.PROCESSES_IN_FLIGHT:
            first = _key("zts", plan.processes_case(1), "rest", in_flight)
            for count in plan.HTTP_PROCESSES:
                yield Check(
                    goal=10,
                    what=f"{word}, {in_flight} connections, {count} HTTP processes",
                    ours=_key("zts", plan.processes_case(count), "rest", in_flight),
                    others=(first,) if count > 1 else (),
                    beside="1 process",
                    figure=figure,
                    bound=None,
                    at_least=figure == "rps",
                )


def _one_process() -> Iterator[Check]:
    for count, least in ((64, 1.5), (256, 1.5)):
        yield Check(
            goal=8,
            what=f"requests/s, {count} connections",
            ours=_key("embedded", plan.NOOP, "rest", count),
            others=(_key("mosec", plan.NOOP, "rest", count),),
            figure="rps",
            bound=least,
        )
    yield Check(
        goal=8,
        what="lone request, batch size 1: p50 ms",
        ours=_key("embedded", plan.LONE, "rest", 1),
        others=(_key("mosec", plan.LONE, "rest", 1),),
        figure="p50_ms",
        bound=1.0,
        at_least=False,
    )


def _start() -> Iterator[Check]:
    for figure, what, most in (("start_s", "start to first answer, s", 1.0), ("pss_mb", "idle memory, MB Pss", 150.0)):
        ours, peer = _key("zts", plan.SMALL, "start", 0), _key("torchserve", plan.SMALL, "start", 0)
        yield Check(goal=9, what=what, ours=ours, figure=figure, bound=most, at_least=False)
        yield Check(goal=9, what=what, ours=ours, others=(peer,), figure=figure, bound=None, at_least=False)
