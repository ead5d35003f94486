"""``ts.handler_utils.micro_batching``: the three stages of a handler as a pipeline over parts of the batch."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

from zts.clock import monotonic

__all__ = ["HANDLER_METHODS", "PROFILER_AVAILABLE", "MicroBatching"]

HANDLER_METHODS: Final = ["preprocess", "inference", "postprocess"]
# Whether torch has a profiler: always, in the versions that zts runs with.
PROFILER_AVAILABLE: Final = True


class MicroBatching:
    """Called instead of a handler's ``handle``: splits the batch and overlaps the stages of its parts.

    While one part is in inference, the next is preprocessed and the one before postprocessed, each stage in threads
    of its own. Results keep the order of the requests.

    Args:
        parent_handler: Object with ``preprocess``, ``inference`` and ``postprocess``.
        micro_batch_size: Most requests in one part.
        parallelism: Threads for each stage by its name; one where not given. May be set later, too.
    """

    def __init__(
        self, parent_handler: Any, micro_batch_size: int = 1, parallelism: dict[str, int] | None = None
    ) -> None:
        if micro_batch_size < 1:
            raise ValueError("micro_batch_size must be at least 1")
        self.handler = parent_handler
        self.micro_batch_size = micro_batch_size
        self._here = threading.local()
        self._pools: dict[str, ThreadPoolExecutor] = {}
        self._parallelism: dict[str, int] = {}
        self.parallelism = parallelism or {}

    @property
    def parallelism(self) -> dict[str, int]:
        """Threads for each stage."""
        return dict(self._parallelism)

    @parallelism.setter
    def parallelism(self, wanted: dict[str, int]) -> None:
        unknown = set(wanted) - set(HANDLER_METHODS)
        if unknown:
            raise ValueError(f"{min(unknown)!r} is no stage; there are {', '.join(HANDLER_METHODS)}")
        self.shutdown()
        self._parallelism = {stage: max(1, int(wanted.get(stage, 1))) for stage in HANDLER_METHODS}

    def get_micro_batch_idx(self) -> int | None:
        """Return which part (from 0) the stage that runs in this thread works on; None outside of a stage."""
        return getattr(self._here, "part", None)

    def __call__(self, data: list[Any], context: Any) -> Any:
        """Do as ``BaseHandler.handle``: answers for ``data``, an explanation, or the model's own description."""
        started = monotonic()
        handler = self.handler
        handler.context = context
        if _says(handler, "_is_describe"):
            output: Any = [handler.describe_handle()]
        elif _says(handler, "_is_explain"):
            output = handler.explain_handle(handler.preprocess(data), data)
        else:
            output = self.handle(data)
        metrics = getattr(context, "metrics", None)
        if metrics is not None:
            metrics.add_time("HandlerTime", round((monotonic() - started) * 1000, 2), None, "ms")
        return output

    def handle(self, data: list[Any]) -> list[Any]:
        """Return the answers for ``data`` in its order.

        Raises:
            Exception: What a stage raised for the first part that failed.
        """
        for stage in HANDLER_METHODS:
            if stage not in self._pools:
                self._pools[stage] = ThreadPoolExecutor(self._parallelism[stage], thread_name_prefix=f"zts-{stage}")
        step = self.micro_batch_size
        chains = [self._chain(part, data[at : at + step]) for part, at in enumerate(range(0, len(data), step))]
        return [answer for chain in chains for answer in chain.result()]

    def shutdown(self) -> None:
        """End the threads; the next call starts them anew."""
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.shutdown(wait=True)

    def _chain(self, part: int, rows: list[Any]) -> Future[Any]:
        """Put part number ``part`` through the stages; each stage is queued when the one before it is done."""
        done: Future[Any] = Future()

        def advance(value: Any, stage_number: int) -> None:
            if stage_number == len(HANDLER_METHODS):
                done.set_result(value)
                return
            stage = HANDLER_METHODS[stage_number]
            running = self._pools[stage].submit(self._run_stage, stage, part, value)
            running.add_done_callback(lambda future: finished(future, stage_number))

        def finished(future: Future[Any], stage_number: int) -> None:
            try:
                advance(future.result(), stage_number + 1)
            except BaseException as exc:
                done.set_exception(exc)

        advance(rows, 0)
        return done

    def _run_stage(self, stage: str, part: int, value: Any) -> Any:
        self._here.part = part
        try:
            return getattr(self.handler, stage)(value)
        finally:
            self._here.part = None


def _says(handler: Any, question: str) -> bool:
    ask = getattr(handler, question, None)
    return bool(ask()) if callable(ask) else False
