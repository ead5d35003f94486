"""The lines that ``zts start`` prints first: what is started, where, with which settings. Layer 3.

The keys are TorchServe's where it has one; those that only a JVM has are left out.
"""

from __future__ import annotations

import os
import sys
import tempfile

from zts import __version__
from zts.masking import masked_url
from zts.settings import Settings
from zts.supervisor.startup_models import models_of_start

__all__ = ["banner"]


def banner(settings: Settings, config_file: str = "") -> str:
    """Return the banner.

    Args:
        settings: Of the instance.
        config_file: What was read; ``""``: nothing.
    """
    names = [model.name or masked_url(model.url) for model in models_of_start(settings)]
    mode = settings.metrics_mode.upper()
    rows = {
        "zts version": __version__,
        "Current directory": os.getcwd(),
        "Temp directory": tempfile.gettempdir(),
        "Metrics config path": settings.metrics_config or "packaged",
        "Number of GPUs": "all" if settings.number_of_gpu < 0 else settings.number_of_gpu,
        "Number of CPUs": len(os.sched_getaffinity(0)),
        "Python executable": sys.executable,
        "Config file": config_file or "N/A",
        "Inference address": settings.inference_address,
        "Management address": settings.management_address,
        "Metrics address": settings.metrics_address,
        "Model Store": settings.model_store or "N/A",
        "Initial Models": ", ".join(names) or "N/A",
        "Log dir": settings.log_dir or "none (stderr only)",
        "Metrics dir": settings.metrics_dir or "none",
        "HTTP processes": settings.http_processes,
        "Broker": "in the HTTP process" if settings.broker == "embedded" else "a process of its own",
        "Default workers per model": settings.default_workers_per_model or "GPUs, else CPUs",
        "Blacklist Regex": settings.blacklist_env_vars or "N/A",
        "Maximum Response Size": settings.max_response_bytes,
        "Maximum Request Size": settings.max_request_bytes,
        "Limit Maximum Image Pixels": _word(settings.limit_max_image_pixels),
        "Allowed Urls": f"[{'|'.join(settings.allowed_urls)}]",
        "Custom python dependency for model allowed": _word(settings.install_py_dep_per_model),
        "Enable metrics API": _word(settings.enable_metrics_api),
        "Metrics mode": mode,
        "Disable system metrics": _word(settings.disable_system_metrics),
        "Workflow Store": settings.workflow_store or "N/A",
        "System metrics command": settings.system_metrics_cmd or "default",
        "Model API enabled": _word(settings.enable_model_api),
        "Token authorization": "enabled (key_file.json)" if settings.token_auth else "disabled",
        "Runtime folder": settings.runtime_dir,
    }
    return "\n".join(f"{key}: {value}" for key, value in rows.items())


def _word(value: bool) -> str:
    return "true" if value else "false"
