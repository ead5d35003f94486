"""Given events, the whole list of actions equals."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from typing import Any

import pytest

from zts.backoff import BackoffRule
from zts.errors import ZtsError
from zts.model_spec import ModelSpec
from zts.wire.messages import StateReport
from zts.workers.exit_codes import EXIT_LOAD_FAILED, EXIT_ORPHAN
from zts.workers.node import events as ev
from zts.workers.node.agent import KILL_GRACE_S, Agent
from zts.workers.node.placement import Placement
from zts.workers.node.restarts import RestartRule

E0 = 1_000_000  # wall clock of the tests, in ms
RULE = RestartRule(backoff=BackoffRule(jitter=0.0, stable_s=30.0))
KILLED = ev.ExitCause(reason="killed by signal 9 (SIGKILL)", signal=9)


def spec(**changes: Any) -> ModelSpec:
    return ModelSpec(**{"name": "m", "version": "1.0", "url": "m.mar", **changes})


def make(**changes: Any) -> Agent:
    options: dict[str, Any] = {
        "placement": Placement(0),
        "rng": random.Random(1),
        "wall_clock": lambda: E0 / 1000,
        "cores": 8,
        "drain_timeout_s": 30.0,
        "rule": RULE,
    }
    return Agent(**{**options, **changes})


def desire(*worker_ids: str, generation: int = 1, revive: int = 0, **changes: Any) -> ev.DesireArrived:
    slots = [ev.Slot(worker_id, spec(**changes), 0, revive) for worker_id in worker_ids]
    return ev.DesireArrived(generation, slots)


def start(worker_id: str = "9000", epoch: int = E0, threads: int = 8, **changes: Any) -> ev.StartProcess:
    return ev.StartProcess(
        worker_id=worker_id, epoch=epoch, spec=spec(**changes), model_dir="/d/m", gpu_id=None, cpu_threads=threads
    )


def report(event: str, reason: str, epoch: int = E0, worker_id: str = "9000", **detail: Any) -> ev.ReportState:
    return ev.ReportState(StateReport(worker_id, epoch, event, reason, detail))


def died(cause: ev.ExitCause, reason: str = "", epoch: int = E0, event: str = "died", pid: int = 77) -> ev.ReportState:
    return report(
        event,
        reason or cause.reason,
        epoch,
        signal=cause.signal,
        exit_code=cause.exit_code,
        oom=cause.oom,
        pid=pid,
        last_lines=list(cause.last_lines),
    )


PREPARED = ev.ModelPrepared(spec().files_id, "/d/m")


def running(now: float = 0.0, **changes: Any) -> Agent:
    agent = make(**changes)
    agent.handle(PREPARED, now)
    agent.handle(desire("9000"), now)
    agent.handle(ev.ProcessStarted("9000", E0, 77), now)
    return agent


def test_wanted_workers_wait_for_their_archive_which_is_asked_for_once() -> None:
    agent = make()
    assert agent.handle(desire("9000", "9001"), 0.0) == [ev.PrepareModel(spec())]
    assert agent.handle(PREPARED, 1.0) == [start(threads=4), start("9001", threads=4)]


def test_started_process_is_reported_with_its_pid() -> None:
    agent = make()
    agent.handle(PREPARED, 0.0)
    assert agent.handle(desire("9000"), 0.0) == [start()]
    assert agent.handle(ev.ProcessStarted("9000", E0, 77), 0.0) == [
        report("restart", "process 77 was started", pid=77, gpu_id=None)
    ]
    assert agent.next_deadline() is None


def test_killed_process_is_replaced_at_once_by_one_with_a_higher_epoch() -> None:
    agent = running()
    assert agent.handle(ev.ProcessExited("9000", E0, KILLED), 5.0) == [died(KILLED), start(epoch=E0 + 1)]


def test_second_death_waits() -> None:
    agent = running()
    agent.handle(ev.ProcessExited("9000", E0, KILLED), 5.0)
    agent.handle(ev.ProcessStarted("9000", E0 + 1, 78), 5.0)
    assert agent.handle(ev.ProcessExited("9000", E0 + 1, KILLED), 6.0) == [died(KILLED, epoch=E0 + 1, pid=78)]
    assert agent.next_deadline() == 6.5
    assert agent.handle(ev.TimePassed(), 6.4) == []
    assert agent.handle(ev.TimePassed(), 6.5) == [start(epoch=E0 + 2)]


def test_end_of_an_older_process_is_nobodys_business() -> None:
    agent = running()
    assert agent.handle(ev.ProcessExited("9000", E0 - 1, KILLED), 5.0) == []
    assert agent.handle(ev.ProcessExited("1", E0, KILLED), 5.0) == []


def test_epochs_grow_even_when_the_wall_clock_went_back() -> None:
    agent = make(wall_clock=lambda: 0.0)
    agent.handle(PREPARED, 0.0)
    slots = [ev.Slot("9000", spec(), epoch=50)]
    assert agent.handle(ev.DesireArrived(1, slots), 0.0) == [start(epoch=51)]


def test_unwanted_worker_is_asked_to_leave_then_killed_after_the_limit() -> None:
    agent = running()
    assert agent.handle(desire(generation=2), 10.0) == [ev.Terminate("9000", E0)]
    assert agent.next_deadline() == 40.0 + KILL_GRACE_S
    assert agent.handle(ev.TimePassed(), 42.0) == [ev.Kill("9000", E0)]
    assert agent.next_deadline() is None
    assert agent.handle(ev.ProcessExited("9000", E0, KILLED), 42.1) == [
        died(KILLED, "killed: it did not finish within 30 s", event="exited")
    ]
    assert agent.snapshot() == []


def test_worker_that_becomes_unwanted_while_it_starts_is_ended_when_it_is_there() -> None:
    agent = make()
    agent.handle(PREPARED, 0.0)
    agent.handle(desire("9000"), 0.0)
    assert agent.handle(desire(generation=2), 0.0) == []
    assert agent.handle(ev.ProcessStarted("9000", E0, 77), 0.0) == [
        report("restart", "process 77 was started", pid=77, gpu_id=None),
        ev.Terminate("9000", E0),
    ]


def test_worker_wanted_again_while_it_leaves_gets_a_new_process_afterwards() -> None:
    agent = running()
    agent.handle(desire(generation=2), 1.0)
    assert agent.handle(desire("9000", generation=3), 2.0) == []
    left = ev.ExitCause(reason="exited with code 0", exit_code=0)
    assert agent.handle(ev.ProcessExited("9000", E0, left), 3.0) == [died(left)]
    assert agent.next_deadline() == 4.0


def test_unwanted_slot_without_a_process_ends_at_once() -> None:
    agent = make()
    agent.handle(desire("9000"), 0.0)
    assert agent.handle(desire(generation=2), 0.0) == [report("exited", "no process was running", 0)]


def test_older_list_of_the_same_broker_is_ignored_but_not_that_of_a_new_one() -> None:
    agent = running()
    agent.handle(ev.Welcomed("b1"), 0.0)
    agent.handle(desire("9000", generation=9), 0.0)
    assert agent.handle(desire(generation=8), 0.0) == []
    agent.handle(ev.Welcomed("b2"), 0.0)
    assert agent.handle(desire(generation=1), 0.0) == [ev.Terminate("9000", E0)]


def test_hung_process_is_killed_and_replaced() -> None:
    agent = running()
    assert agent.handle(ev.KillAsked("9000", E0 - 1, "old"), 1.0) == []
    assert agent.handle(ev.KillAsked("9000", E0, "no progress"), 1.0) == [ev.Kill("9000", E0)]
    assert agent.handle(ev.ProcessExited("9000", E0, KILLED), 1.1) == [
        died(KILLED, "killed: no progress"),
        start(epoch=E0 + 1),
    ]


def fail_loading(agent: Agent, times: int) -> list[ev.AgentAction]:
    cause = ev.ExitCause(reason="exited with code 3", exit_code=EXIT_LOAD_FAILED)
    actions: list[ev.AgentAction] = []
    now = 0.0
    for number in range(times):
        epoch = E0 + number
        agent.handle(ev.ProcessStarted("9000", epoch, 77), now)
        actions = agent.handle(ev.ProcessExited("9000", epoch, cause), now)
        if number < times - 1 and not any(isinstance(action, ev.StartProcess) for action in actions):
            now = agent.next_deadline() or now
            agent.handle(ev.TimePassed(), now)
    return actions


def test_model_that_never_loads_is_given_up_with_the_cause_and_tried_again_later() -> None:
    agent = make()
    agent.handle(PREPARED, 0.0)
    agent.handle(desire("9000"), 0.0)
    cause = ev.ExitCause(reason="exited with code 3", exit_code=EXIT_LOAD_FAILED)
    reason = "the model failed to load 6 times in a row; the last cause: exited with code 3; next try in 300 s"
    assert fail_loading(agent, 6) == [
        died(cause, epoch=E0 + 5),
        report("gave_up", reason, E0 + 5, retry_in_s=300.0),
    ]
    assert agent.snapshot()[0]["state"] == "broken"
    due = agent.next_deadline()
    assert due is not None
    assert agent.handle(ev.TimePassed(), due) == [start(epoch=E0 + 6)]


@pytest.mark.parametrize("change", [{"batch_size": 2}, {"revive": 1}])
def test_changed_order_revives_a_worker_that_was_given_up(change: dict[str, Any]) -> None:
    agent = make()
    agent.handle(PREPARED, 0.0)
    agent.handle(desire("9000"), 0.0)
    fail_loading(agent, 6)
    assert agent.handle(desire("9000", generation=2), 0.0) == []
    changed = {key: value for key, value in change.items() if key != "revive"}
    assert agent.handle(desire("9000", generation=3, **change), 0.0) == [start(epoch=E0 + 6, **changed)]


def test_archive_that_cannot_be_prepared_is_a_failed_load_of_every_worker_that_waits() -> None:
    agent = make()
    agent.handle(desire("9000"), 0.0)
    assert agent.handle(ev.PrepareFailed(spec().files_id, "no such file"), 0.0) == [
        report("load_failed", "no such file", kind="archive", traceback=""),
        ev.PrepareModel(spec()),
    ]


def test_process_that_cannot_be_started_has_its_archive_looked_for_again() -> None:
    agent = make()
    agent.handle(PREPARED, 0.0)
    agent.handle(desire("9000"), 0.0)
    assert agent.handle(ev.StartFailed("9000", E0, "folder gone"), 0.0) == [
        report("died", "folder gone", signal=None, exit_code=None, oom=False),
        ev.PrepareModel(spec()),
    ]


def test_worker_that_left_for_want_of_a_broker_waits_for_one() -> None:
    agent = running()
    cause = ev.ExitCause(reason="exited with code 6", exit_code=EXIT_ORPHAN)
    assert agent.handle(ev.ProcessExited("9000", E0, cause), 60.0) == [died(cause)]
    assert agent.next_deadline() is None
    assert agent.handle(ev.Welcomed("b1"), 90.0) == [died(cause), start(epoch=E0 + 1)]


def test_new_broker_hears_of_failures_that_it_missed() -> None:
    agent = running()
    agent.handle(ev.ProcessExited("9000", E0, KILLED), 1.0)
    agent.handle(ev.ProcessStarted("9000", E0 + 1, 78), 1.0)
    agent.handle(ev.ProcessExited("9000", E0 + 1, KILLED), 2.0)
    assert agent.handle(ev.Welcomed("b2"), 2.1) == [died(KILLED, epoch=E0 + 1, pid=78)]


def test_files_of_a_forgotten_model_go_when_its_last_process_is_gone() -> None:
    agent = running()
    assert agent.handle(ev.ForgetAsked(spec().files_id), 0.0) == []
    agent.handle(desire(generation=2), 0.0)
    left = ev.ExitCause(reason="exited with code 0", exit_code=0)
    assert agent.handle(ev.ProcessExited("9000", E0, left), 1.0) == [
        died(left, event="exited"),
        ev.RemoveModel(spec().files_id),
    ]
    assert agent.handle(desire("9001", generation=3), 2.0) == [ev.PrepareModel(spec())]


def test_two_registrations_of_one_version_keep_their_files_apart() -> None:
    agent = running()
    again = {"registration": "again"}
    # The first one's worker still leaves when the second one's is wanted.
    agent.handle(desire("9001", generation=2, **again), 0.0)
    assert agent.handle(ev.ModelPrepared("again", "/d/again"), 0.0) == [
        replace(start("9001", threads=4, **again), model_dir="/d/again")
    ]
    assert agent.handle(ev.ForgetAsked(spec().files_id), 0.0) == []
    left = ev.ExitCause(reason="exited with code 0", exit_code=0)
    assert agent.handle(ev.ProcessExited("9000", E0, left), 1.0) == [
        died(left, event="exited"),
        ev.RemoveModel(spec().files_id),
    ]


def test_stop_ends_everything_and_the_second_one_kills() -> None:
    agent = running()
    agent.handle(ev.DesireArrived(2, [ev.Slot("9000", spec()), ev.Slot("9001", spec(name="x", url="x.mar"))]), 0.0)
    assert agent.handle(ev.StopAsked(), 0.0) == [
        ev.Terminate("9000", E0),
        report("exited", "no process was running", 0, "9001"),
    ]
    assert not agent.is_stopped
    assert agent.handle(desire("9002", generation=3), 0.0) == []
    assert agent.handle(ev.StopAsked(), 0.4) == []  # the same wish, signalled twice
    assert agent.handle(ev.StopAsked(), 0.5) == [ev.Kill("9000", E0)]
    agent.handle(ev.ProcessExited("9000", E0, KILLED), 0.6)
    assert agent.is_stopped


def test_restarted_worker_keeps_its_gpu_and_a_removed_one_frees_it() -> None:
    agent = make(placement=Placement(2))
    agent.handle(PREPARED, 0.0)
    agent.handle(desire("9000", "9001"), 0.0)
    agent.handle(ev.ProcessStarted("9000", E0, 77), 0.0)
    agent.handle(ev.ProcessExited("9000", E0, KILLED), 1.0)
    assert agent.devices() == {"9000": 0, "9001": 1}
    agent.handle(ev.ProcessStarted("9001", E0, 78), 1.0)
    agent.handle(desire("9000", generation=2), 2.0)
    agent.handle(ev.ProcessExited("9001", E0, KILLED), 2.0)
    agent.handle(desire("9000", "9002", generation=3), 3.0)
    assert agent.devices() == {"9000": 0, "9002": 1}


def test_devices_follow_the_list_and_not_whose_archive_is_ready_first() -> None:
    names = ("a", "b", "c")
    slots = [ev.Slot(str(9000 + number), spec(name=name, url=name)) for number, name in enumerate(names)]
    for order in itertools.permutations(names):
        agent = make(placement=Placement(2))
        agent.handle(ev.DesireArrived(1, slots), 0.0)
        started: dict[str, int | None] = {}
        for name in order:
            for action in agent.handle(ev.ModelPrepared(spec(name=name, url=name).files_id, "/d"), 1.0):
                assert isinstance(action, ev.StartProcess)
                started[action.worker_id] = action.gpu_id
        assert started == {"9000": 0, "9001": 1, "9002": 0}


@pytest.mark.parametrize(
    "wrong",
    [
        {"worker_id": ""},
        {"worker_id": "w" * 257},
        {"worker_id": 5},
        {"epoch": -1},
        {"epoch": 2**53 + 1},
        {"epoch": "1"},
        {"spec": -1},
        {"spec": 1},
        {"spec": []},
    ],
)
def test_a_list_of_workers_that_would_lead_to_messages_nobody_can_read_is_no_list(wrong: dict[str, object]) -> None:
    slot = {"worker_id": "9000", "spec": ModelSpec(name="m", version="1.0", url="m.mar").to_map(), "epoch": 2**53}
    assert len(ev.slots_of([slot])) == 1
    with pytest.raises((ValueError, LookupError, AttributeError, TypeError, ZtsError)):
        ev.slots_of([{**slot, **wrong}])
