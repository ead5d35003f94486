"""Every pair of state and event is either in the table or refused; the protocol page shows the same table."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

import zts.lifecycle as lifecycle
from zts.lifecycle import ALIVE, FINAL, SERVING, TRANSITIONS, IllegalTransition, WorkerEvent, WorkerState, next_state

PROTOCOL = Path(lifecycle.__file__).parent / "wire" / "PROTOCOL.md"


@pytest.mark.parametrize(("state", "event"), list(itertools.product(WorkerState, WorkerEvent)))
def test_each_pair_moves_as_the_table_says_or_is_refused(state: WorkerState, event: WorkerEvent) -> None:
    if event in TRANSITIONS[state]:
        assert next_state(state, event) is TRANSITIONS[state][event]
    else:
        with pytest.raises(IllegalTransition, match=state.value):
            next_state(state, event)


def test_every_state_has_a_row_and_every_event_is_used() -> None:
    assert set(TRANSITIONS) == set(WorkerState)
    assert {event for row in TRANSITIONS.values() for event in row} == set(WorkerEvent)


def test_every_state_can_be_reached_and_only_final_ones_are_ends() -> None:
    reached, todo = {WorkerState.STARTING}, [WorkerState.STARTING]
    while todo:
        for state in TRANSITIONS[todo.pop()].values():
            if state not in reached:
                reached.add(state)
                todo.append(state)
    assert reached == set(WorkerState)
    assert {state for state, row in TRANSITIONS.items() if not row} == FINAL
    assert SERVING < ALIVE


def test_the_protocol_page_holds_the_table_as_it_is() -> None:
    rows = [
        f"| {state.value} | {event.value} | {after.value} |"
        for state, row in TRANSITIONS.items()
        for event, after in row.items()
    ]
    page = PROTOCOL.read_text()
    start = page.index("| state | event | next |")
    table = page[start:].split("\n\n")[0].splitlines()[2:]
    assert table == rows
