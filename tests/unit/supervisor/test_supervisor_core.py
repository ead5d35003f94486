import random

import pytest

from zts.backoff import BackoffRule
from zts.supervisor.core import Phase, SupervisorCore, longest_stop_s, role_names
from zts.supervisor.events import (
    Action,
    AnnounceReady,
    Drained,
    DrainRole,
    Event,
    Finish,
    FleetReady,
    HttpReady,
    KillRole,
    ModelsSettled,
    RegisterModels,
    ReportRestart,
    ResumeAll,
    RoleExited,
    StartFailed,
    StartRequested,
    StartRole,
    StopRequested,
    StopRole,
    TimePassed,
)

RULE = BackoffRule(start_s=1.0, cap_s=4.0, jitter=0.0, stable_s=60.0)


def make_core(http_processes: int = 1, *, embedded: bool = False) -> SupervisorCore:
    return SupervisorCore(
        role_names(http_processes, embedded=embedded),
        drain_timeout_s=10.0,
        start_timeout_s=60.0,
        rng=random.Random(1),
        rule=RULE,
        embedded=embedded,
    )


def feed(core: SupervisorCore, *events: tuple[Event, float]) -> list[Action]:
    return [action for event, now in events for action in core.handle(event, now)]


def running_core(http_processes: int = 1, *, embedded: bool = False) -> SupervisorCore:
    core = make_core(http_processes, embedded=embedded)
    feed(core, (StartRequested(), 0.0), (FleetReady(), 0.1), (HttpReady(), 0.2), (ModelsSettled(), 0.3))
    assert core.phase is Phase.RUNNING
    return core


def test_all_roles_start_at_once() -> None:
    core = make_core(2)
    assert core.handle(StartRequested(), 0.0) == [
        StartRole("broker"),
        StartRole("node"),
        StartRole("http-0"),
        StartRole("http-1"),
    ]
    assert (core.phase, core.next_deadline()) == (Phase.STARTING, 60.0)


def test_models_are_registered_when_the_fleet_is_there_without_waiting_for_http() -> None:
    core = make_core()
    core.handle(StartRequested(), 0.0)
    assert feed(core, (FleetReady(), 0.1), (FleetReady(), 0.2)) == [RegisterModels()]


@pytest.mark.parametrize("order", [(HttpReady(), ModelsSettled()), (ModelsSettled(), HttpReady())])
def test_ready_is_announced_once_when_http_and_models_are_there(order: tuple[Event, Event]) -> None:
    core = make_core()
    feed(core, (StartRequested(), 0.0), (FleetReady(), 0.1))
    assert core.handle(order[0], 0.2) == []
    assert core.handle(order[1], 0.3) == [AnnounceReady()]
    assert feed(core, (order[0], 0.4), (order[1], 0.5)) == []
    assert core.next_deadline() is None


def test_loading_models_has_no_limit_once_the_roles_are_there() -> None:
    core = make_core()
    feed(core, (StartRequested(), 0.0), (FleetReady(), 0.1), (HttpReady(), 0.2))
    assert core.next_deadline() is None
    assert core.handle(TimePassed(), 1000.0) == []


def test_a_dead_role_comes_back_at_once_and_then_after_growing_pauses() -> None:
    core = running_core()
    assert core.handle(RoleExited("node", -9, "killed"), 100.0) == [
        ReportRestart("node", "killed", 0.0),
        StartRole("node"),
    ]
    assert core.handle(RoleExited("node", -9, "killed"), 101.0) == [ReportRestart("node", "killed", 1.0)]
    assert core.next_deadline() == 102.0
    assert core.handle(TimePassed(), 101.9) == []
    assert core.handle(TimePassed(), 102.0) == [StartRole("node")]
    assert core.handle(RoleExited("node", -9, "killed"), 103.0) == [ReportRestart("node", "killed", 2.0)]
    assert core.snapshot()["roles"]["node"] == {"alive": False, "restarts": 3, "restart_at": 105.0}


def test_configuration_error_at_start_fails_the_start_and_stops_the_others() -> None:
    core = make_core()
    core.handle(StartRequested(), 0.0)
    assert core.handle(RoleExited("http-0", 2, "port 8080 is taken"), 0.5) == [ResumeAll(), StopRole("node")]
    assert core.handle(RoleExited("node", 0, ""), 0.6) == [DrainRole("broker"), StopRole("broker")]
    assert core.handle(RoleExited("broker", 0, ""), 0.7) == [Finish(1, "port 8080 is taken")]
    assert core.phase is Phase.ENDED


def test_configuration_error_later_is_a_death_like_any_other() -> None:
    core = running_core()
    assert core.handle(RoleExited("http-0", 2, "port"), 90.0) == [
        ReportRestart("http-0", "port", 0.0),
        StartRole("http-0"),
    ]


def test_third_death_of_a_role_at_start_fails_the_start() -> None:
    core = make_core()
    core.handle(StartRequested(), 0.0)
    assert core.handle(RoleExited("broker", 1, "a"), 0.1) == [ReportRestart("broker", "a", 0.0), StartRole("broker")]
    assert core.handle(RoleExited("broker", 1, "b"), 0.2) == [ReportRestart("broker", "b", 1.0)]
    assert core.handle(TimePassed(), 1.2) == [StartRole("broker")]
    assert core.handle(RoleExited("broker", 1, "c"), 1.3) == [
        ResumeAll(),
        DrainRole("http-0"),
        StopRole("http-0"),
        StopRole("node"),
    ]
    assert feed(core, (RoleExited("http-0", 0, ""), 1.4), (RoleExited("node", 0, ""), 1.5)) == [Finish(1, "c")]


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        ([], "the broker and the node agent were not ready within 60 s"),
        ([FleetReady()], "the HTTP servers were not ready within 60 s"),
    ],
)
def test_a_start_that_takes_too_long_fails_and_names_what_is_missing(before: list[Event], reason: str) -> None:
    core = make_core()
    core.handle(StartRequested(), 0.0)
    for event in before:
        core.handle(event, 1.0)
    assert core.handle(TimePassed(), 60.0) == [ResumeAll(), StopRole("node")]
    assert core.next_deadline() == 65.0  # nothing to drain after a failed start
    actions = feed(core, *((RoleExited(role, 0, ""), 61.0) for role in ("http-0", "node", "broker")))
    assert actions[-1] == Finish(1, reason)


def test_a_broken_watch_fails_the_start_only_while_starting() -> None:
    core = make_core()
    core.handle(StartRequested(), 0.0)
    assert core.handle(StartFailed("no zmq"), 1.0) == [ResumeAll(), StopRole("node")]
    assert running_core().handle(StartFailed("late"), 5.0) == []


DRAIN = [ResumeAll(), DrainRole("http-0"), DrainRole("broker")]
LEAVE = [StopRole("http-0"), StopRole("broker")]


def test_a_stop_drains_then_ends_workers_then_the_servers_which_are_there_until_then() -> None:
    core = running_core(2)
    assert core.handle(StopRequested(), 5.0) == [
        ResumeAll(),
        DrainRole("http-0"),
        DrainRole("http-1"),
        DrainRole("broker"),
    ]
    assert core.next_deadline() == 15.0
    assert core.handle(Drained(), 6.0) == [StopRole("node")]
    assert core.handle(Drained(), 6.1) == []
    assert core.next_deadline() == 15.0  # one budget for all of it
    assert core.handle(RoleExited("node", 0, ""), 7.0) == [StopRole("http-0"), StopRole("http-1"), StopRole("broker")]
    assert core.next_deadline() == 8.5
    assert core.handle(RoleExited("broker", 0, ""), 7.1) == []
    assert core.handle(RoleExited("http-1", 0, ""), 7.1) == []
    assert core.handle(RoleExited("http-0", 0, ""), 7.2) == [Finish(0, "")]
    assert core.handle(StopRequested(), 7.0) == []


def test_with_the_budget_over_servers_answer_what_is_open_and_the_node_is_killed() -> None:
    core = running_core()
    assert core.handle(StopRequested(), 0.0) == DRAIN
    assert core.handle(TimePassed(), 9.9) == []
    assert core.handle(TimePassed(), 10.0) == [ResumeAll(), *LEAVE, KillRole("node")]
    assert core.next_deadline() == 11.5
    assert core.handle(RoleExited("node", -9, ""), 10.1) == []
    assert core.handle(RoleExited("broker", 0, ""), 10.2) == []
    # A server that does not even answer now.
    assert core.handle(TimePassed(), 11.5) == [KillRole("http-0")]
    assert core.handle(RoleExited("http-0", -9, ""), 11.6) == [Finish(0, "")]


def test_workers_have_what_is_left_of_the_budget() -> None:
    core = running_core()
    feed(core, (StopRequested(), 0.0), (Drained(), 8.0))
    assert core.handle(TimePassed(), 9.0) == []
    assert core.handle(TimePassed(), 10.0) == [ResumeAll(), *LEAVE, KillRole("node")]


def test_what_cannot_be_killed_is_named_and_not_waited_for() -> None:
    core = running_core()
    feed(core, (StopRequested(), 0.0), (TimePassed(), 10.0))
    assert core.handle(TimePassed(), 11.5) == [KillRole("broker"), KillRole("node"), KillRole("http-0")]
    feed(core, (RoleExited("http-0", -9, ""), 11.6), (RoleExited("broker", -9, ""), 11.6))
    assert core.handle(TimePassed(), 12.5) == [Finish(1, "these could not be killed: node")]
    assert longest_stop_s(10.0) == 12.5


def test_second_stop_goes_to_the_end_at_once_and_a_third_kills() -> None:
    core = running_core()
    core.handle(StopRequested(), 0.0)
    assert core.handle(StopRequested(), 0.4) == []  # the same wish, signalled twice
    assert core.handle(StopRequested(), 0.5) == [ResumeAll(), *LEAVE, KillRole("node")]
    assert core.handle(StopRequested(), 0.9) == []
    assert core.handle(StopRequested(), 1.0) == [KillRole("broker"), KillRole("node"), KillRole("http-0")]
    assert core.handle(StopRequested(), 9.0) == []
    actions = feed(core, *((RoleExited(role, -9, ""), 1.2) for role in ("broker", "node", "http-0")))
    assert actions == [Finish(0, "")]


def test_second_stop_while_workers_leave() -> None:
    core = running_core()
    feed(core, (StopRequested(), 0.0), (Drained(), 1.0))
    assert core.handle(StopRequested(), 2.0) == [ResumeAll(), *LEAVE, KillRole("node")]


def test_broker_that_dies_while_it_drains_leaves_nothing_to_wait_for() -> None:
    core = running_core()
    core.handle(StopRequested(), 0.0)
    assert core.handle(RoleExited("broker", -9, ""), 0.1) == [StopRole("http-0"), StopRole("node")]
    assert core.handle(Drained(), 0.15) == []
    assert feed(core, (RoleExited("http-0", 0, ""), 0.2), (RoleExited("node", 0, ""), 0.3)) == [Finish(0, "")]


def test_other_roles_that_die_while_the_requests_end_change_nothing() -> None:
    core = running_core(2)
    core.handle(StopRequested(), 0.0)
    assert feed(core, (RoleExited("http-1", 0, ""), 0.1), (RoleExited("node", -9, ""), 0.2)) == []
    assert core.handle(Drained(), 0.3) == LEAVE


def test_stop_while_a_role_waits_for_its_restart() -> None:
    core = running_core()
    feed(core, (RoleExited("node", 1, ""), 1.0), (RoleExited("node", 1, ""), 1.1))
    assert core.handle(StopRequested(), 1.2) == DRAIN
    assert core.handle(TimePassed(), 5.0) == []
    assert core.handle(Drained(), 5.1) == LEAVE


def test_stop_while_the_broker_waits_for_its_restart() -> None:
    core = running_core()
    feed(core, (RoleExited("broker", 1, ""), 1.0), (RoleExited("broker", 1, ""), 1.1))
    # Its clients' requests wait for it at the HTTP server, which answers them now.
    assert core.handle(StopRequested(), 1.2) == [
        ResumeAll(),
        DrainRole("http-0"),
        StopRole("http-0"),
        StopRole("node"),
    ]
    assert core.next_deadline() == 11.2


def test_stop_with_no_role_left_finishes_at_once() -> None:
    core = make_core()
    assert core.handle(StopRequested(), 0.0) == [Finish(0, "")]


def test_stop_without_a_budget_answers_what_is_open_at_once() -> None:
    core = SupervisorCore(role_names(1), drain_timeout_s=0.0, start_timeout_s=60.0, rng=random.Random(1))
    feed(core, (StartRequested(), 0.0), (StopRequested(), 5.0))
    assert core.handle(TimePassed(), 5.0) == [ResumeAll(), *LEAVE, KillRole("node")]


def test_stop_during_the_start_is_no_failure() -> None:
    core = make_core()
    feed(core, (StartRequested(), 0.0), (StopRequested(), 0.1))
    actions = feed(core, *((RoleExited(role, 0, ""), 0.2) for role in ("http-0", "node", "broker")))
    assert actions[-1] == Finish(0, "")
    assert feed(core, (FleetReady(), 0.3), (StartRequested(), 0.4)) == []


@pytest.mark.parametrize("seed", range(20))
def test_random_events_never_leave_a_role_behind(seed: int) -> None:
    rng = random.Random(seed)
    core = make_core(2)
    alive: set[str] = set()
    finished = 0
    now = 0.0

    def do(actions: list[Action]) -> None:
        nonlocal finished
        for action in actions:
            match action:
                case StartRole(role):
                    assert role not in alive
                    alive.add(role)
                case StopRole(role) | DrainRole(role) | KillRole(role):
                    assert role in alive
                case Finish():
                    assert not alive
                    finished += 1

    do(core.handle(StartRequested(), now))
    for step in range(200):
        now += rng.random()
        pool: list[Event] = [TimePassed(), FleetReady(), HttpReady(), ModelsSettled(), Drained()]
        if alive and rng.random() < 0.5:
            role = rng.choice(sorted(alive))
            alive.remove(role)
            pool = [RoleExited(role, rng.choice([0, 1, -9]), "x")]
        elif step > 150:
            pool.append(StopRequested())
        do(core.handle(rng.choice(pool), now))
    do(core.handle(StopRequested(), now))
    while alive:
        do(core.handle(RoleExited(alive.pop(), 0, ""), now))
    assert (finished, core.phase) == (1, Phase.ENDED)


def test_with_an_embedded_broker_the_http_server_starts_first_and_there_is_no_broker_role() -> None:
    core = make_core(embedded=True)
    assert core.handle(StartRequested(), 0.0) == [StartRole("http-0"), StartRole("node")]
    assert feed(core, (FleetReady(), 0.1), (HttpReady(), 0.2), (ModelsSettled(), 0.3)) == [
        RegisterModels(),
        AnnounceReady(),
    ]


def test_an_embedded_broker_drains_with_its_http_server_and_ends_last() -> None:
    core = running_core(embedded=True)
    assert core.handle(Drained(), 4.0) == []
    assert core.handle(StopRequested(), 5.0) == [ResumeAll(), DrainRole("http-0")]
    assert core.next_deadline() == 15.0
    assert core.handle(Drained(), 6.0) == [StopRole("node")]
    assert core.handle(RoleExited("node", 0, ""), 7.0) == [StopRole("http-0")]
    assert core.next_deadline() == 8.5
    assert core.handle(RoleExited("http-0", 0, ""), 7.1) == [Finish(0, "")]


def test_an_embedded_broker_answers_what_is_open_when_the_budget_is_over() -> None:
    core = running_core(embedded=True)
    core.handle(StopRequested(), 0.0)
    assert core.handle(TimePassed(), 10.0) == [ResumeAll(), StopRole("http-0"), KillRole("node")]
    assert core.handle(RoleExited("node", -9, ""), 10.1) == []
    assert core.handle(TimePassed(), 11.5) == [KillRole("http-0")]
    assert core.handle(RoleExited("http-0", -9, ""), 11.6) == [Finish(0, "")]


def test_an_embedded_broker_that_dies_while_it_drains_leaves_the_node_to_stop() -> None:
    core = running_core(embedded=True)
    core.handle(StopRequested(), 0.0)
    assert core.handle(RoleExited("http-0", -11, ""), 0.5) == [StopRole("node")]
    assert core.handle(Drained(), 0.6) == []
    assert core.handle(RoleExited("node", 0, ""), 0.7) == [Finish(0, "")]


def test_an_embedded_broker_that_dies_comes_back_as_any_role() -> None:
    core = running_core(embedded=True)
    assert core.handle(RoleExited("http-0", -9, "killed"), 100.0) == [
        ReportRestart("http-0", "killed", 0.0),
        StartRole("http-0"),
    ]


def test_second_stop_ends_an_embedded_broker_at_once() -> None:
    core = running_core(embedded=True)
    core.handle(StopRequested(), 0.0)
    assert core.handle(StopRequested(), 1.0) == [ResumeAll(), StopRole("http-0"), KillRole("node")]
    assert feed(core, (RoleExited("node", -9, ""), 1.1), (RoleExited("http-0", -9, ""), 1.2)) == [Finish(0, "")]


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("embedded", [False, True])
def test_a_stop_is_over_within_its_budget_whatever_dies_or_does_not(seed: int, embedded: bool) -> None:
    rng = random.Random(seed)
    core = running_core(embedded=embedded)
    alive = set(role_names(1, embedded=embedded))
    now, actions = 100.0, core.handle(StopRequested(), 100.0)
    killed: set[str] = set()
    while core.phase is not Phase.ENDED:
        killed |= {action.role for action in actions if isinstance(action, KillRole)}
        if alive & killed and rng.random() < 0.8:
            role = rng.choice(sorted(alive & killed))
        elif alive and rng.random() < 0.2:
            role = rng.choice(sorted(alive))  # leaves, or dies, when it likes
        else:
            due = core.next_deadline()
            assert due is not None
            now = max(now, due)
            actions = core.handle(rng.choice([TimePassed(), TimePassed(), Drained()]), now)
            continue
        alive.remove(role)
        actions = core.handle(RoleExited(role, 0, ""), now)
    assert now <= 100.0 + longest_stop_s(10.0)
    (last,) = [action for action in actions if isinstance(action, Finish)]
    assert last.exit_code == (1 if alive else 0)
