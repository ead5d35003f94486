"""The cases as data, one module for each part of the reference page."""

from __future__ import annotations

import json
from typing import Final

from conformance.case import Run
from conformance.requests import (
    batches,
    failures,
    forms,
    handlers,
    inference,
    management,
    others,
    process,
    results,
    rows,
    security,
    starts,
)

__all__ = ["all_runs"]

PLAIN: Final = {"disable_token_authorization": "true", "enable_model_api": "true", "metrics_mode": "prometheus"}
_ONE_WORKER: Final = {"minWorkers": 1, "maxWorkers": 1, "batchSize": 1, "maxBatchDelay": 100}
_MODELS: Final = {
    "kitchen": {"1.0": {"minWorkers": 1, "maxWorkers": 2, "batchSize": 3, "maxBatchDelay": 5, "responseTimeout": 7}},
    "configured": {"2.1": {"minWorkers": 2, "batchSize": 9, "responseTimeout": 11}},
    "renamed": {"1.0": {"minWorkers": 0, "startupTimeout": 66}},
}


def all_runs() -> list[Run]:
    """Return every run, in the order in which they are made."""
    return [*_plain_runs(), *_start_runs(), *_security_runs(), *_option_runs()]


def _start_runs() -> list[Run]:
    return [
        Run("versions", starts.VERSIONS, PLAIN, models=("many_2.mar", "many_1.0.mar", "many_1.2.1.mar")),
        Run(
            "operator-paths",
            starts.PATHS,
            {**PLAIN, "default_service_handler": "package.module:entry"},
            models=("bare={downloads}/bare", "outside={downloads}/outside", "file={downloads}/remote.mar"),
            ready=("bare", "outside"),
        ),
        Run("names", starts.NAMES, PLAIN),
        *(
            Run(
                f"shortened{ending}",
                starts.SHORTENED,
                {"metrics_mode": "prometheus"},
                models=("function.mar",),
                archiver=archiver,
                flags=("--nc", "--disable-token", "--enable-model"),
            )
            for ending, archiver in (("", "torch-model-archiver"), ("-zts", "zts"))
        ),
    ]


def _plain_runs() -> list[Run]:
    return [
        Run(
            "predict",
            (*inference.CASES, *rows.CASES, *results.CASES, *handlers.CONTEXT_CASES, *failures.CASES),
            {**PLAIN, "max_request_size": "100000", "max_response_size": "200000"},
            models=("kitchen.mar", "echo.mar", "function.mar", "streamer.mar"),
        ),
        Run("forms", forms.CASES, PLAIN, models=("echo.mar",)),
        Run(
            "manage",
            management.CASES,
            {**PLAIN, "models": json.dumps({"function": {"1.0": _ONE_WORKER}}), "default_workers_per_model": ""},
            models=("function.mar",),
        ),
        Run("batches", batches.CASES, PLAIN, models=batches.MODELS),
        Run("handlers", handlers.EAGER_CASES, PLAIN, models=handlers.EAGER),
        Run("process", process.CASES, PLAIN, models=process.MODELS),
        Run("process-unbuffered", process.CASES, PLAIN, {"PYTHONUNBUFFERED": "1"}, models=process.MODELS),
        Run("process-async", process.ASYNC, PLAIN, models=("processasync.mar",), ready=()),
        Run("process-posix", process.IN_POSIX_LOCALE, PLAIN, {"LC_ALL": "POSIX"}, models=process.MODELS),
        Run("archives", handlers.ARCHIVE_CASES, PLAIN, models=handlers.ARCHIVES),
        Run("archives-zts", handlers.ARCHIVE_CASES, PLAIN, models=handlers.ARCHIVES, archiver="zts"),
    ]


def _security_runs() -> list[Run]:
    one = ("function.mar",)
    cors = {f"cors_allowed_{name}": value for name, value in _CORS.items()}
    return [
        Run("tokens", security.TOKENS, {"enable_model_api": "true"}, models=one),
        Run("expiry", security.EXPIRY, {"token_expiration_min": "0.1"}),
        Run("defaults", security.SWITCHED_OFF, models=one),
        Run("cors", security.CORS, {**PLAIN, **cors, "max_request_size": "2000"}, models=one),
        Run("urls", security.URLS, PLAIN),
        Run("urls-limited", security.URLS_LIMITED, {**PLAIN, "allowed_urls": r"http://127.0.0.1.*"}),
        Run("tls-pem", (*security.LISTENING["tls-pem"], *security.PLAIN_TO_TLS), PLAIN, models=one, tls="pem"),
        Run("tls-p12", security.LISTENING["tls-p12"], PLAIN, models=one, tls="p12"),
        Run("unix", security.LISTENING["unix"], PLAIN, models=one, unix=True),
    ]


_CORS: Final = {"origin": "http://here", "methods": "GET, POST, PUT, OPTIONS", "headers": "X-Custom-Header"}


def _option_runs() -> list[Run]:
    from_environment = {
        "TS_DEFAULT_RESPONSE_TIMEOUT": "77",
        "TS_JOB_QUEUE_SIZE": "55",
        "TS_DISABLE_TOKEN_AUTHORIZATION": "true",
        "TS_ENABLE_MODEL_API": "true",
        "SECRET_ONE": "1",
        "SECRET_TWO": "2",
        "PLAIN_ONE": "3",
    }
    return [
        Run("oip", others.OIP, {**PLAIN, "ts_open_inference_protocol": "true"}, models=("echo.mar",)),
        Run("shared", others.SHARED, PLAIN, models=("function.mar",), shared=True),
        Run(
            "service-handler",
            others.SERVICE_HANDLER,
            {**PLAIN, "default_service_handler": "function.py:entry", "install_py_dep_per_model": "true"},
        ),
        Run("metrics", others.METRICS, PLAIN, models=("kitchen.mar", "counting.mar")),
        Run(
            "metrics-auto",
            others.METRICS,
            {**PLAIN, "model_metrics_auto_detect": "true"},
            models=("kitchen.mar", "counting.mar"),
        ),
        Run("metrics-legacy", others.LEGACY_METRICS, {**PLAIN, "metrics_mode": "legacy"}, models=("kitchen.mar",)),
        Run("raw", others.RAW_ROWS, {**PLAIN, "decode_input_request": "false"}, models=("echo.mar",)),
        Run(
            "environment",
            others.ENVIRONMENT,
            {"enable_envvars_config": "true", "default_response_timeout": "5", "blacklist_env_vars": "SECRET_.*"},
            from_environment,
            models=("kitchen.mar",),
        ),
        Run(
            "configuration",
            others.CONFIG,
            {
                **PLAIN,
                "models": json.dumps(_MODELS),
                "load_models": "kitchen.mar,renamed=renamed.mar,configured.mar",
                "default_response_timeout": "13",
                "default_startup_timeout": "101",
                "job_queue_size": "12",
            },
            ready=("kitchen", "renamed", "configured"),
        ),
        Run(
            "load-all",
            others.LOADED_ALL,
            {**PLAIN, "load_models": "all"},
            only=("echo.mar", "folder", "tarred.tar.gz", "readme.txt"),
            ready=("echo", "folder", "tarred"),
        ),
        *(
            Run(f"envelope-{kind}", cases, {**PLAIN, "service_envelope": kind}, models=("envelope.mar", "base.mar"))
            for kind, cases in others.ENVELOPES.items()
        ),
    ]
