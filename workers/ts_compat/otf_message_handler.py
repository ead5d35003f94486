"""``ts.protocol.otf_message_handler``: the old place of the streaming call."""

from __future__ import annotations

import warnings
from typing import Any

from zts.workers.context import Context
from zts.workers.ts_compat import streaming

__all__ = ["send_intermediate_predict_response"]


def send_intermediate_predict_response(
    ret: list[Any], req_id_map: dict[int, str], message: str, code: int, context: Context | None = None
) -> None:
    """Warn that the name has moved and do as ``ts.handler_utils.utils`` does."""
    warnings.warn(
        "import send_intermediate_predict_response from ts.handler_utils.utils", PendingDeprecationWarning, stacklevel=2
    )
    streaming.send_intermediate_predict_response(ret, req_id_map, message, code, context)
