"""Figures of this host: memory and CPU by psutil, GPUs without importing torch, out-of-memory kills. Layer 3."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from zts.workers.node.brief_command import run_briefly

__all__ = ["Figures", "Gpu", "cpu_cores", "find_gpus", "oom_kills"]

_NVIDIA_SMI_TIMEOUT_S: Final = 10.0
_GPU_LINE: Final = re.compile(r"GPU (\d+): (.+?) \(UUID: (GPU-[^)]+)\)")
_MIG_LINE: Final = re.compile(r"\s+MIG (\S+)\s+Device\s+\d+: \(UUID: (MIG-[^)]+)\)")
_CGROUP: Final = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU (or MIG slice): its name, and the word that ``CUDA_VISIBLE_DEVICES`` knows it by."""

    name: str
    token: str


def cpu_cores() -> int:
    """Return how many CPU cores this process may use."""
    return len(os.sched_getaffinity(0))


def find_gpus(environ: Mapping[str, str], limit: int = -1, *, proc: Path = Path("/proc/driver/nvidia")) -> list[Gpu]:
    """Return the NVIDIA GPUs that may be used, in the driver's order; at most ``limit`` of them unless that is -1.

    ``CUDA_VISIBLE_DEVICES`` limits them as it limits any CUDA program. ``nvidia-smi`` is asked only when the kernel
    driver is there, and for at most ten seconds.
    """
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if limit == 0 or (visible is not None and not visible.strip(" ,")) or not proc.exists():
        return []
    found = _by_nvidia_smi() or _by_driver(proc)
    if visible is not None:
        found = _visible(found, visible)
    return found if limit < 0 else found[:limit]


def _by_nvidia_smi() -> list[Gpu]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        done = run_briefly([program, "-L"], _NVIDIA_SMI_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return _parse_nvidia_smi(done.stdout) if done.returncode == 0 else []


def _parse_nvidia_smi(text: str) -> list[Gpu]:
    """Read ``nvidia-smi -L``; a GPU that is cut into MIG slices stands for its slices."""
    found: list[Gpu] = []
    whole: Gpu | None = None
    for line in text.splitlines():
        if match := _GPU_LINE.match(line):
            whole = Gpu(match[2], match[1])
            found.append(whole)
        elif match := _MIG_LINE.match(line):
            if whole is not None and found and found[-1] is whole:
                found.pop()
            found.append(Gpu(f"{whole.name if whole else 'GPU'} MIG {match[1]}", match[2]))
    return found


def _by_driver(proc: Path) -> list[Gpu]:
    found: list[Gpu] = []
    # The folders are PCI addresses, so their order is that of CUDA_DEVICE_ORDER=PCI_BUS_ID.
    for index, folder in enumerate(sorted((proc / "gpus").glob("*"))):
        name = "NVIDIA GPU"
        with contextlib.suppress(OSError):
            match = re.search(r"^Model:\s*(.+)$", (folder / "information").read_text(), re.MULTILINE)
            name = match[1].strip() if match else name
        found.append(Gpu(name, str(index)))
    return found


def _visible(found: list[Gpu], visible: str) -> list[Gpu]:
    """Keep what ``CUDA_VISIBLE_DEVICES`` names, in its order; as in CUDA an unknown entry hides all behind it."""
    out: list[Gpu] = []
    by_token = {gpu.token: gpu for gpu in found}
    for token in (part.strip() for part in visible.split(",")):
        if token in by_token:
            out.append(by_token[token])
        elif token.startswith(("GPU-", "MIG-")):
            out.append(Gpu("NVIDIA GPU", token))
        else:
            break
    return out


def oom_kills(pid: int) -> int:
    """Return how many processes the kernel killed so far for want of memory in the memory cgroup of ``pid``.

    0 where that cannot be read, so a comparison of two readings then shows nothing.
    """
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return 0
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            file = _CGROUP / "memory" / path.lstrip("/") / "memory.oom_control"
        elif not controllers:
            file = _CGROUP / path.lstrip("/") / "memory.events"
        else:
            continue
        with contextlib.suppress(OSError, ValueError):
            words = file.read_text().split()
            if "oom_kill" in words:
                return int(words[words.index("oom_kill") + 1])
    return 0


class Figures:
    """What the node's beats say: CPU and memory of the host, memory of each worker process."""

    def __init__(self) -> None:
        import psutil

        self._psutil = psutil
        psutil.cpu_percent(None)  # the first call only sets the mark that later ones measure from

    def host(self) -> dict[str, Any]:
        """Return ``cpu_percent`` since the last call and ``memory_percent``."""
        return {
            "cpu_percent": self._psutil.cpu_percent(None),
            "memory_percent": self._psutil.virtual_memory().percent,
        }

    def rss_bytes(self, pid: int) -> int:
        """Return the resident memory of a process, 0 if it is gone."""
        try:
            return int(self._psutil.Process(pid).memory_info().rss)
        except self._psutil.Error:
            return 0
