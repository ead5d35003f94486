"""Which variables of the node agent's environment a worker gets (``zts_worker_environment``). Layer 1: values only.

``blacklist_env_vars`` comes first. ``all`` passes on everything else. ``minimal`` passes on what Python, its numeric
libraries and the GPU need; names and patterns behind it add to that. Models that run as another user get ``minimal``
unless the operator says something.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final

__all__ = ["kept_variables"]

# Meant for the node agent or its supervisor, never for workers.
_PRIVATE: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
_MINIMAL: Final = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ", "TZDIR", "TMPDIR", "TEMP", "TMP"),
    *("TERM", "PYTHON*", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "LD_PRELOAD", "MALLOC_*", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    *("OMP_*", "KMP_*", "GOMP_*", "MKL_*", "OPENBLAS_*", "NUMEXPR_*", "BLIS_*", "DNNL_*", "ONEDNN_*"),
    *("CUDA_*", "CUBLAS_*", "CUDNN_*", "NVIDIA_*", "NCCL_*", "HIP_*", "ROCR_*", "TORCH_*", "PYTORCH_*"),
)
# A pattern's width must not let a key through; who wants one names it.
_SECRET: Final = re.compile(
    r".*(TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|AUTH|(^|_)KEYS?(_|$)|APIKEY|(^|_)PASS(_|$)|(^|_)PWD(_|$)).*",
    re.IGNORECASE,
)


def kept_variables(
    environ: Mapping[str, str], *, rules: Sequence[str], blacklist: re.Pattern[str] | None, is_other_user: bool
) -> dict[str, str]:
    """Return what a worker gets of ``environ``.

    Args:
        environ: The node agent's.
        rules: ``zts_worker_environment``: ``all``, or ``minimal`` and names or patterns such as ``HF_*``; empty:
            not said.
        blacklist: ``blacklist_env_vars``; names that match as a whole never pass.
        is_other_user: The worker runs as another user than the node agent.
    """
    everything = "all" in rules or not (rules or is_other_user)
    wanted = (*_MINIMAL, *rules)
    return {
        name: value
        for name, value in environ.items()
        if name not in _PRIVATE
        and not (blacklist is not None and blacklist.fullmatch(name))
        and (everything or _is_wanted(name, wanted))
    }


def _is_wanted(name: str, wanted: Sequence[str]) -> bool:
    if name in wanted:
        return True
    return not _SECRET.fullmatch(name) and any(fnmatchcase(name, pattern) for pattern in wanted)
