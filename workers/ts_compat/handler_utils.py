"""``ts.handler_utils.utils``: what handlers import from there."""

from zts.workers.handler.context import Context
from zts.workers.ts_compat.otf_message_handler import create_predict_response
from zts.workers.ts_compat.streaming import import_class, send_intermediate_predict_response

__all__ = ["Context", "create_predict_response", "import_class", "send_intermediate_predict_response"]
