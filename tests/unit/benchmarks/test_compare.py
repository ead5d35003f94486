"""The pure parts of ``make compare``: figures, verdicts, tables, and the plan of rows."""

from __future__ import annotations

import pytest

from benchmarks.compare import batching
from benchmarks.compare.figures import Figures, Key, parse_wrk
from benchmarks.compare.goals import Check, checks, judge
from benchmarks.compare.plan import GOALS, SERVERS, chosen, loads
from benchmarks.compare.report import goal_tables, number, report

OURS, PEER, OTHER = (Key(server, "noop", "rest", 64) for server in ("zts", "mosec", "bare"))

WRK = """Running 1s test @ http://127.0.0.1:48520/predictions/noop
  2 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     2.05ms    1.23ms  30.20ms   91.00%
  Latency Distribution
     50%  980.00us
     75%    2.20ms
     90%    3.00ms
     99%    1.20s
  30917 requests in 1.00s, 4.10MB read
Requests/sec:  30820.77
Transfer/sec:      4.09MB
"""


def figures(**rounds: list[float]) -> Figures:
    found = Figures()
    for server, values in rounds.items():
        for value in values:
            found.add(Key(server, "noop", "rest", 64), {"rps": value, "errors": 0.0})
    return found


def check(*others: Key, bound: float | None = 1.0, at_least: bool = True) -> Check:
    return Check(goal=1, what="requests/s", ours=OURS, figure="rps", bound=bound, at_least=at_least, others=others)


def test_median_is_over_the_rounds_and_none_without_any() -> None:
    found = figures(zts=[30.0, 10.0, 20.0], mosec=[1.0, 3.0])
    assert (found.median(OURS, "rps"), found.median(PEER, "rps")) == (20.0, 2.0)
    assert found.median(OTHER, "rps") is None
    assert found.median(OURS, "p50_ms") is None


def test_ratio_is_of_the_medians() -> None:
    found = figures(zts=[30.0, 10.0, 20.0], mosec=[40.0])
    assert found.ratio(OURS, PEER, "rps") == 0.5
    assert found.ratio(OURS, OTHER, "rps") is None


def test_ratio_to_nothing_is_none() -> None:
    assert figures(zts=[1.0], mosec=[0.0]).ratio(OURS, PEER, "rps") is None


def test_figures_that_are_not_numbers_do_not_count() -> None:
    assert figures(zts=[float("nan"), 7.0]).values(OURS, "rps") == [7.0]


@pytest.mark.parametrize(
    ("bound", "at_least", "outcome"),
    [
        (2.0, True, "reached"),
        (2.1, True, "not reached"),
        (2.0, False, "reached"),
        (1.9, False, "not reached"),
        (None, True, ""),
    ],
)
def test_the_bound_itself_is_reached(bound: float | None, at_least: bool, outcome: str) -> None:
    verdict = judge(check(PEER, bound=bound, at_least=at_least), figures(zts=[20.0], mosec=[10.0]))
    assert (verdict.outcome, verdict.ratio) == (outcome, 2.0)


def test_without_others_the_bound_is_on_the_figure() -> None:
    verdict = judge(check(bound=15.0), figures(zts=[20.0]))
    assert (verdict.outcome, verdict.ratio, verdict.ours) == ("reached", None, 20.0)


@pytest.mark.parametrize("there", [{"zts": [1.0]}, {"mosec": [1.0]}, {}])
def test_a_missing_side_is_not_measured(there: dict[str, list[float]]) -> None:
    assert judge(check(PEER), figures(**there)).outcome == "not measured"


@pytest.mark.parametrize(("at_least", "best"), [(True, "bare"), (False, "mosec")])
def test_the_best_of_several_others_counts(at_least: bool, best: str) -> None:
    verdict = judge(check(PEER, OTHER, at_least=at_least), figures(zts=[5.0], mosec=[4.0], bare=[10.0]))
    assert verdict.other_name == best


def test_a_row_with_errors_is_not_reached_and_says_so() -> None:
    found = figures(zts=[20.0], mosec=[10.0])
    found.add(OURS, {"rps": 20.0, "errors": 3.0})
    verdict = judge(check(PEER), found)
    assert verdict.outcome == "not reached"
    assert "| not reached (3 errors) |" in goal_tables([verdict])


def test_table_of_a_goal() -> None:
    verdict = judge(check(PEER), figures(zts=[37_600.4], mosec=[33_117.0]))
    assert goal_tables([verdict]).splitlines()[2:] == [
        "|  | zts | beside | ratio | goal | verdict |",
        "| --- | --- | --- | --- | --- | --- |",
        "| requests/s | 37,600 | mosec 33,117 | 1.14 | ≥ 1 | reached |",
    ]


def test_a_goal_of_which_nothing_was_measured_has_no_table() -> None:
    assert goal_tables([judge(check(PEER), Figures())]) == ""


def test_report_has_facts_goals_and_the_spread_of_all_figures() -> None:
    found = figures(zts=[30.0, 10.0, 20.0])
    text = report([], found, {"machine": "two cores"})
    assert text.startswith("- machine: two cores\n")
    assert "| zts | noop | rest | 64 | rps 20.0 (10.0 to 30.0) | 0 |" in text


def test_numbers_as_people_write_them() -> None:
    assert [number(value) for value in (38_584.4, 12.34, 0.4321, None)] == ["38,584", "12.3", "0.43", "-"]


def test_wrk_output() -> None:
    assert parse_wrk(WRK) == {"rps": 30820.77, "errors": 0.0, "requests": 30917.0, "p50_ms": 0.98, "p99_ms": 1200.0}


def test_wrk_counts_refusals_and_broken_connections_as_errors() -> None:
    more = "  Socket errors: connect 1, read 2, write 0, timeout 4\n  Non-2xx or 3xx responses: 10\n"
    assert parse_wrk(more + WRK)["errors"] == 17.0


def test_other_output_than_wrks_is_refused() -> None:
    with pytest.raises(ValueError, match="not wrk's output"):
        parse_wrk("unable to connect")


def test_names_choose_servers_and_goals() -> None:
    assert chosen(["zts", "bare", "dense", "1"]) == (["zts", "bare"], ["dense", "rest"])


def test_nothing_named_leaves_out_what_has_to_be_named() -> None:
    servers, goals = chosen([])
    assert servers == list(SERVERS)
    assert set(GOALS) - set(goals) == {"processes"}


def test_a_goal_of_two_halves_is_chosen_by_its_number() -> None:
    assert chosen(["4"])[1] == ["heavy", "gpu"]


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="rset: not one of zts"):
        chosen(["rset"])


@pytest.mark.parametrize("server", SERVERS)
def test_rows_are_measured_once_and_those_of_one_variant_together(server: str) -> None:
    rows = loads(server, GOALS)
    keys = [row.key(server) for row in rows]
    assert len(set(keys)) == len(keys) > 0
    variants = [row.case.variant for row in rows]
    runs = [variant for at, variant in enumerate(variants) if at == 0 or variants[at - 1] != variant]
    assert len(set(runs)) == len(runs)


def test_every_check_is_on_rows_of_the_plan() -> None:
    planned = {row.key(server) for server in SERVERS for row in loads(server, GOALS)}
    used = {key for one in checks() for key in (one.ours, *one.others)}
    assert used <= planned


def test_every_goal_has_checks() -> None:
    assert {one.goal for one in checks()} | {batching.GOAL} == set(GOALS.values())


def test_wrk_without_an_answer_has_no_latency() -> None:
    text = WRK.replace("30820.77", "0.00").replace("980.00us", "0.00us").replace("1.20s", "0.00us")
    assert set(parse_wrk(text)) == {"rps", "errors", "requests"}
