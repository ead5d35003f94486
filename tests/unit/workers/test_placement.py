from __future__ import annotations

from typing import Any

from zts.model_spec import ModelSpec
from zts.workers.node.placement import Placement, threads_per_worker


def spec(**changes: Any) -> ModelSpec:
    return ModelSpec(name="m", version="1.0", **changes)


def test_node_without_gpus_uses_the_cpu_even_for_models_that_ask_for_one() -> None:
    assert Placement(0).assign(spec(device_type="gpu")) is None


def test_gpus_are_dealt_round_robin_over_all_models() -> None:
    placement = Placement(3)
    assert [placement.assign(spec()) for _ in range(5)] == [0, 1, 2, 0, 1]


def test_cpu_models_take_no_gpu() -> None:
    placement = Placement(2)
    assert [placement.assign(spec(device_type="cpu")), placement.assign(spec())] == [None, 0]


def test_device_ids_limit_the_choice() -> None:
    placement = Placement(4)
    assert [placement.assign(spec(device_ids=(1, 3))) for _ in range(3)] == [1, 3, 1]


def test_device_ids_with_an_unknown_gpu_are_ignored_as_a_whole() -> None:
    placement = Placement(2)
    assert [placement.assign(spec(device_ids=(1, 7))) for _ in range(2)] == [0, 1]


def test_place_of_a_stopped_worker_is_filled_first() -> None:
    placement = Placement(3)
    for _ in range(3):
        placement.assign(spec())
    placement.release(1)
    assert placement.assign(spec()) == 1


def test_threads_are_the_share_of_the_cores_and_at_least_one() -> None:
    assert [threads_per_worker(cores=8, workers=count) for count in (0, 1, 3, 20)] == [8, 8, 2, 1]
    assert threads_per_worker(cores=8, workers=3, wanted=5) == 5
