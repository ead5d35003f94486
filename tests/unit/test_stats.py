"""Histograms: bounds, maps, sums."""

from __future__ import annotations

from typing import Any

import pytest

from zts.errors import RemoteProtocolError
from zts.metrics.histogram import BATCH_SIZE_BOUNDS, SECONDS_BOUNDS, Histogram


def test_bounds_belong_to_the_bucket_below() -> None:
    waits = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.1, 2.0, 2.1):
        waits.observe(value)
    assert waits.to_map() == {"bounds": [1.0, 2.0], "counts": [2, 2, 1], "sum": pytest.approx(6.7), "count": 5}


def test_same_value_several_times_is_one_observation_each() -> None:
    once, many = Histogram((1.0,)), Histogram((1.0,))
    for _ in range(3):
        once.observe(0.5)
    many.observe(0.5, 3)
    assert once.to_map() == many.to_map()


def test_map_gives_the_histogram_back_and_shares_nothing() -> None:
    sizes = Histogram(BATCH_SIZE_BOUNDS)
    sizes.observe(64)
    raw = sizes.to_map()
    back = Histogram.from_map(raw)
    back.observe(1)
    assert (sizes.count, raw["count"], back.count, back.sum) == (1, 1, 2, 65.0)


def test_histograms_of_the_same_bounds_add_up() -> None:
    one, other = Histogram(SECONDS_BOUNDS), Histogram(SECONDS_BOUNDS)
    one.observe(0.01)
    other.observe(0.01)
    other.observe(100.0)
    one.merge(other)
    assert (one.count, one.counts[-1], one.sum) == (3, 1, pytest.approx(100.02))
    with pytest.raises(ValueError, match="bounds"):
        one.merge(Histogram((1.0,)))


@pytest.mark.parametrize("bounds", [(1.0, 1.0), (2.0, 1.0)])
def test_bounds_that_do_not_rise_are_refused(bounds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="rise"):
        Histogram(bounds)


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"bounds": [1.0], "counts": [1], "sum": 0.0},
        {"bounds": [1.0], "counts": [1, -1], "sum": 0.0},
        {"bounds": [1.0], "counts": [1, "1"], "sum": 0.0},
        {"bounds": ["1"], "counts": [1, 1], "sum": 0.0},
        {"bounds": [2.0, 1.0], "counts": [1, 1, 1], "sum": 0.0},
        {"bounds": [1.0], "counts": [1, 1], "sum": "0"},
        {"bounds": 1, "counts": 2, "sum": 0},
    ],
)
def test_malformed_map_is_a_protocol_error(raw: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError):
        Histogram.from_map(raw)
