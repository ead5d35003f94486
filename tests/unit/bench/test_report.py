from __future__ import annotations

import json
import math

import pytest

from zts.bench.report import Load, Measured, percentile, summarize, table


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [([5.0], 50, 5.0), ([5.0], 99, 5.0), ([1.0, 2.0], 50, 1.0), ([1.0, 2.0], 51, 2.0), ([1.0, 2.0, 3.0], 0, 1.0)],
)
def test_percentile_is_the_nearest_rank(values: list[float], percent: float, expected: float) -> None:
    assert percentile(values, percent) == expected
    assert percentile([float(i) for i in range(1, 101)], percent) == max(1, math.ceil(percent))


def test_figures_of_a_run() -> None:
    measured = Measured([0.004, 0.001, 0.002, 0.003])
    measured.add_error("status 503")
    measured.add_error("status 503")
    row = summarize("rest", Load(target="t", model="m", concurrency=16, duration_s=2.0), measured)
    assert (row.requests, row.rps, row.p50_ms, row.p99_ms, row.max_ms, row.errors) == (4, 2.0, 2.0, 4.0, 4.0, 2)
    assert row.mean_ms == pytest.approx(2.5)
    assert row.error_kinds == {"status 503": 2}
    assert table([row]).splitlines()[1].split() == ["rest", "16", "2", "2.00", "4.00", "4.00", "2"]


def test_run_without_answers_has_nulls_in_json() -> None:
    row = summarize("zmq", Load(target="t", model="m"), Measured())
    assert math.isnan(row.p50_ms)
    assert json.loads(json.dumps(row.to_map(), allow_nan=False))["p50_ms"] is None
    assert "nan" in table([row])
