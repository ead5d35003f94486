"""``ts.service``: where some handlers import ``PredictionException`` from."""

from zts.workers.answers import PredictionException
from zts.workers.service import Service

__all__ = ["PredictionException", "Service"]
