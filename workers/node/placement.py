"""Which device a worker gets and how many threads. No device is touched here. Layer 2.

GPUs are dealt round robin over the whole node; a place that a stopped worker left is filled first, so that ten
scale-ups and downs don't end with two workers on one GPU and none on the other.
"""

from __future__ import annotations

from zts.model_spec import ModelSpec

__all__ = ["Placement", "threads_per_worker"]


def threads_per_worker(*, cores: int, workers: int, wanted: int = 0) -> int:
    """Return how many CPU threads one of ``workers`` gets: ``wanted`` if set, else its share, at least 1.

    >>> threads_per_worker(cores=16, workers=3)
    5
    """
    return wanted if wanted > 0 else max(1, cores // max(1, workers))


class Placement:
    """The GPUs of one node and how many workers each has.

    Args:
        gpu_count: GPUs that may be used: indices 0 … ``gpu_count - 1``.
    """

    def __init__(self, gpu_count: int) -> None:
        self._loads = [0] * gpu_count
        self._next = 0

    def assign(self, spec: ModelSpec) -> int | None:
        """Return the GPU for one more worker of ``spec``, None for the CPU; ``release`` gives it back.

        A ``deviceIds`` list with an id that this node lacks is ignored as a whole, as TorchServe does.
        """
        count = len(self._loads)
        if not count or spec.device_type == "cpu":
            return None
        allowed = spec.device_ids if spec.device_ids and max(spec.device_ids) < count else range(count)
        gpu = min(allowed, key=lambda index: (self._loads[index], (index - self._next) % count))
        self._loads[gpu] += 1
        self._next = (gpu + 1) % count
        return gpu

    def release(self, gpu: int | None) -> None:
        """Take one worker off ``gpu``."""
        if gpu is not None:
            self._loads[gpu] -= 1
