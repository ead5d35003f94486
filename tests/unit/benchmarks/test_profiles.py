"""Stacks of py-spy as a table, and the points of goal 7."""

from __future__ import annotations

from benchmarks.compare.families import FAMILIES
from benchmarks.compare.goals import checks
from benchmarks.profiles import parse_stacks, shown, table

STACKS = [
    "main (a.py:1);turn (zts/loop.py:5);send (/v/site-packages/zmq/socket.py:9) 60",
    "main (a.py:1);turn (zts/loop.py:5) 30",
    "main (a.py:1);wait (zts/loop.py:7) 10",
    "",
]


def test_a_function_counts_once_for_a_stack_and_alone_when_it_is_the_innermost() -> None:
    found = parse_stacks([*STACKS, "f (x.py:1);f (x.py:1) 5"])
    assert found.total == 105
    assert found.own["f (x.py:1)"] == found.inclusive["f (x.py:1)"] == 5
    assert (found.own["turn (zts/loop.py:5)"], found.inclusive["turn (zts/loop.py:5)"]) == (30, 90)


def test_table_is_in_microseconds_a_request_without_functions_that_are_all_of_it() -> None:
    assert table(parse_stacks(STACKS), 10.0, 2).splitlines()[2:] == [
        "| 6.00 | `send (zmq/socket.py:9)` | 9.00 | `turn (zts/loop.py:5)` |",
        "| 3.00 | `turn (zts/loop.py:5)` | 6.00 | `send (zmq/socket.py:9)` |",
    ]


def test_no_samples_make_an_empty_table() -> None:
    assert len(table(parse_stacks([]), 10.0, 5).splitlines()) == 2


def test_a_frame_without_a_file_stays_as_it_is() -> None:
    assert shown("[GC]") == "[GC]"


def test_families_begin_with_one_and_differ_in_names() -> None:
    for family in FAMILIES.values():
        first = family.points[0]
        assert (first.models, first.workers, first.loaded) == (1, 1, 1)
        assert len({point.name for point in family.points}) == len(family.points)
        assert all(1 <= point.loaded <= point.models for point in family.points)


def test_each_larger_point_is_held_against_the_first_of_its_family() -> None:
    found = [one for one in checks() if one.ours.path == "simulated"]
    assert len(found) == sum(len(family.points) for family in FAMILIES.values())
    assert {one.bound for one in found if one.others} == {1.1, None}
    assert sum(not one.others for one in found) == len(FAMILIES)
