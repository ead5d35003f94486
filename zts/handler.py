"""``zts.Handler``: the base of handlers that are written for zts and need nothing of TorchServe. Layer 3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["Handler"]


class Handler:
    """Override ``load`` and ``predict``; an archive's handler module defines one subclass.

    An input is what the request's body is: bytes as a ``bytearray``, ``text/…`` as ``str``, JSON as its value, an array
    or tensor of a direct client as that. A form gives a dict of its fields.

    An answer may be a ``zts.errors.ZtsError``, or any other exception: then that one request gets the error, and the
    others of the batch their answers. Where ``predict`` itself raises, the requests are run once more, one by one.

    Attributes:
        context: The worker's context; during ``predict`` also that of the present batch.

    >>> class Length(Handler):
    ...     def predict(self, inputs):
    ...         return [len(item) for item in inputs]
    >>> Length().handle([{"body": "four"}], None)
    [4]
    """

    isolate_errors = True
    context: Any = None

    def load(self, context: Any) -> None:
        """Get ready for batches: read the model from ``context.system_properties["model_dir"]``, choose a device."""

    def predict(self, inputs: Sequence[Any]) -> list[Any]:
        """Return one answer for each input, in their order.

        Raises:
            NotImplementedError: Unless overridden.
        """
        raise NotImplementedError(f"{type(self).__name__} has no predict")

    def initialize(self, context: Any) -> None:
        """Called by the worker, once: keeps the context and calls ``load``."""
        self.context = context
        self.load(context)

    def handle(self, data: Sequence[dict[str, Any]], context: Any) -> list[Any]:
        """Called by the worker with the rows of a batch: takes the inputs out of them and calls ``predict``."""
        self.context = context
        return self.predict([row["body"] if list(row) == ["body"] else row for row in data])
