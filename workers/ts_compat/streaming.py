"""Answers sent ahead, and classes by name; handlers find them in ``ts.handler_utils.utils``."""

from __future__ import annotations

import importlib
import os
from typing import Any

from zts.workers.handler.context import Context
from zts.workers.worker_log import log

__all__ = ["import_class", "send_intermediate_predict_response"]


def send_intermediate_predict_response(
    ret: list[Any], req_id_map: dict[int, str], message: str, code: int, context: Context | None = None
) -> None:
    """Send one chunk of each request's answer to its client, now.

    Does nothing on ranks other than the first of a parallel model. Outside a worker (a context without a connection,
    as in unit tests) the chunks go nowhere.

    Args:
        ret: One chunk for each request of the batch.
        req_id_map: The batch's request ids (``context.request_ids``).
        message: As in TorchServe; not used.
        code: Status of the answer, unless the handler sets one on the context.
        context: The handler's context.

    Raises:
        ValueError: If there is no context, or not one chunk for each request.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return
    if context is None:
        raise ValueError("send_intermediate_predict_response needs the handler's context as its last argument")
    sink = getattr(context, "cl_socket", None)
    if sink is None:
        log.info("no client is connected: a chunk of a streamed answer is dropped")
        return
    sink.send(ret, code)


def import_class(class_name: str, module_prefix: str | None = None) -> Any:
    """Return the class ``package.module.Class``, looked up below ``module_prefix`` if one is given.

    Raises:
        ImportError: If there is no such module or class.
    """
    module_name, _, attribute = class_name.rpartition(".")
    full_name = ".".join(part for part in (module_prefix, module_name) if part)
    if not full_name:
        raise ImportError(f"{class_name!r} names no module; write module.Class")
    try:
        return getattr(importlib.import_module(full_name), attribute)
    except AttributeError:
        raise ImportError(f"module {full_name!r} has no {attribute!r}") from None
