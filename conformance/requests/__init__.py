"""The cases as data, one module for each part of the reference page."""

from __future__ import annotations

import json

from conformance.case import Run
from conformance.requests import failures, inference, management, results, rows

__all__ = ["all_runs"]

PLAIN = {"disable_token_authorization": "true", "enable_model_api": "true", "metrics_mode": "prometheus"}

_ONE_WORKER = json.dumps({"function": {"1.0": {"minWorkers": 1, "maxWorkers": 1, "batchSize": 1, "maxBatchDelay": 100}}})


def all_runs() -> list[Run]:
    """Return every run, in the order in which they are made."""
    return [
        Run(
            "predict",
            (*inference.CASES, *rows.CASES, *results.CASES, *failures.CASES),
            {**PLAIN, "max_request_size": "100000", "max_response_size": "200000"},
            models=("kitchen.mar", "echo.mar", "function.mar", "streamer.mar", "mnist.mar"),
        ),
        Run(
            "manage",
            management.CASES,
            {**PLAIN, "models": _ONE_WORKER, "default_workers_per_model": ""},
            models=("function.mar",),
        ),
    ]
