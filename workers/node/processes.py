"""Start worker processes, watch them by pidfd, read what they print, end them. Layer 3: processes.

Everything happens in the caller's thread, through file descriptors in the caller's poller. That must be a thread that
stays (the main thread): the kernel tells a worker that its parent died when the *thread* that started it ends.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from zts.accounts import Account
from zts.masking import masked_url
from zts.metrics.lines import PREFIX
from zts.visible import visible
from zts.workers.exit_codes import (
    EXIT_DONE,
    EXIT_DRAIN_LIMIT,
    EXIT_LOAD_FAILED,
    EXIT_ORPHAN,
    EXIT_OUT_OF_MEMORY,
    EXIT_REFUSED,
)
from zts.workers.node.events import ExitCause, ProcessExited
from zts.workers.node.gpus import Gpu, oom_kills
from zts.workers.node.line_reader import LineReader, joined
from zts.workers.options import OPTIONS_VARIABLE, WorkerOptions

__all__ = ["Processes", "exit_reason", "worker_command", "worker_environment"]

_KEPT_LINES: Final = 20
# A killed process is gone within this time, unless the kernel cannot end it.
_DEAD_S: Final = 5.0
_KEPT_CHARACTERS: Final = 1000  # of each
# One environment string may have 128 KiB (MAX_ARG_STRLEN of the kernel).
_MAX_OPTIONS_BYTES: Final = 120_000
_LIMIT_AND_RUN: Final = (
    "import os, resource, sys; limit = int(sys.argv[1]); "
    "resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)); os.execv(sys.argv[2], sys.argv[2:])"
)
_EXIT_WORDS: Final = {
    EXIT_DONE: "it left though nobody asked it to",
    EXIT_LOAD_FAILED: "the model failed to load",
    EXIT_OUT_OF_MEMORY: "out of memory while loading",
    EXIT_DRAIN_LIMIT: "the drain limit was over before its jobs were",
    EXIT_ORPHAN: "it had no broker for too long",
    EXIT_REFUSED: "the broker refused it",
}
_model_log = logging.getLogger("zts.model")

OnMetrics = Callable[[Sequence[str], str], None]


def worker_command(options: WorkerOptions) -> list[str]:
    """Return the command line of a worker; its flags are for people who read ``ps``."""
    spec = options.spec
    command = [
        options.python or sys.executable,
        "-P",  # else the working folder, the model's, would be in front while zts itself is imported
        "-m",
        "zts",
        "worker",
        # With '=': a name may begin with a dash.
        f"--model-name={visible(spec.name)}",
        f"--model-version={visible(spec.version)}",
    ]
    return [*command, "--worker-id", options.worker_id]


def worker_environment(
    options: WorkerOptions,
    *,
    base: Mapping[str, str],
    gpu: Gpu | None = None,
    hide_gpus: bool = False,
) -> dict[str, str]:
    """Return the environment of a worker process (TORCHSERVE.md 8.1).

    Args:
        options: The worker's orders.
        base: What it gets of the node agent's environment (``ModelUsers.variables``).
        gpu: The only GPU that the worker may see.
        hide_gpus: Without ``gpu``: the host has GPUs, and this worker is not to see them.
    """
    env = dict(base)
    # PYTHONPATH gets the model's folders when zts has been imported (workers/handler/import_path.py).
    env["TS_DECODE_INPUT_REQUEST"] = "true" if options.decode_input_request else "false"
    env["TS_IPEX_ENABLE"] = env["TS_IPEX_GPU_ENABLE"] = "false"
    env.setdefault("OMP_NUM_THREADS", str(options.cpu_threads))
    if gpu is not None:
        env["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # the order of nvidia-smi, hence of our indices
        env["CUDA_VISIBLE_DEVICES"] = gpu.token
    elif hide_gpus:
        env["CUDA_VISIBLE_DEVICES"] = ""
    # The archive's address may have its owner's key in it, and is nothing to the code of the archive.
    spec = replace(options.spec, url=masked_url(options.spec.url))
    env[OPTIONS_VARIABLE] = replace(options, spec=spec).to_json()
    return env


def exit_reason(returncode: int, *, oom: bool, last_lines: Sequence[str], was_asked: bool = False) -> str:
    """Return one line that says how a process ended; ``returncode`` as of ``subprocess`` (negative: signal).

    ``was_asked``: it was told to leave, so that code 0 needs no explanation.

    >>> exit_reason(-9, oom=False, last_lines=())
    'killed by signal 9 (SIGKILL)'
    """
    if returncode < 0:
        try:
            name = signal.Signals(-returncode).name
        except ValueError:
            name = "unknown"
        text = f"killed by signal {-returncode} ({name})"
    else:
        words = "as asked" if was_asked and returncode == EXIT_DONE else _EXIT_WORDS.get(returncode, "")
        text = f"exited with code {returncode}" + (f" ({words})" if words else "")
    if oom:
        text += "; its memory group (cgroup) ran out of memory"
    elif returncode > 0 and last_lines:
        text += f": {last_lines[-1][:300]}"
    return text


def _limited(command: list[str], limit_bytes: int) -> list[str]:
    """Return ``command`` behind a step that bounds what it may allocate; 0: as it is.

    RLIMIT_DATA counts what is private and writable. The limit of the whole address space would stop CUDA, which
    reserves much more than it uses. The step is a program of its own, because none of the model's code is to run before
    it, and for another user's process ``prlimit`` needs a capability that containers lack. It keeps the process id.
    """
    if not limit_bytes:
        return command
    return [command[0], "-I", "-S", "-c", _LIMIT_AND_RUN, str(limit_bytes), *command]


class _Process:
    """One running worker process and what is known of it."""

    def __init__(self, options: WorkerOptions, popen: subprocess.Popen[bytes], oom_before: int) -> None:
        assert popen.stdout is not None and popen.stderr is not None
        self.options = options
        self.popen = popen
        self.pid = popen.pid
        self.pidfd = os.pidfd_open(popen.pid)
        self.oom_before = oom_before
        self.was_asked = False  # to leave
        self.last_lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self.streams = {
            popen.stdout.fileno(): LineReader(popen.stdout.fileno(), "stdout"),
            popen.stderr.fileno(): LineReader(popen.stderr.fileno(), "stderr"),
        }
        spec = options.spec
        self._source = visible(f"W-{options.worker_id}-{spec.name}_{spec.version}")
        self._extra = {
            "model": spec.name,
            "version": spec.version,
            "worker_id": options.worker_id,
            "worker_pid": popen.pid,
        }

    def forward(self, stream: LineReader, on_metrics: OnMetrics | None) -> None:
        """Log what one read of ``stream`` gives; metric lines go to ``on_metrics``."""
        metrics: list[str] = []
        lines: list[str] = []
        # TorchServe's form and levels (TORCHSERVE.md 5.6): people have parsers for it.
        head = f"{self._source}-{stream.name} MODEL_LOG - "
        for line in stream.read():
            if on_metrics is not None and line.startswith(PREFIX):
                metrics.append(line)
                continue
            if stream.name == "stderr" and line.strip():
                self.last_lines.append(line.strip()[:_KEPT_CHARACTERS])
            lines.append(head + line)
        level = logging.WARNING if stream.name == "stderr" else logging.INFO
        for text in joined(lines):
            _model_log.log(level, "%s", text, extra={**self._extra, "stream": stream.name})
        if metrics and on_metrics is not None:
            on_metrics(metrics, self._source)

    def signal_group(self, number: int) -> None:
        """Send a signal to the process and all its children that stayed in its group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


class Processes:
    """The worker processes of one node. Not thread-safe.

    Args:
        watch: Called with each file descriptor that must be polled for reading; ``readable`` wants to hear of it.
        unwatch: Called before such a descriptor is closed.
        command: Makes the command line; tests put in stubs.
        on_metrics: Takes the metric lines of one read and the name of the worker; without it they are logged.
    """

    def __init__(
        self,
        *,
        watch: Callable[[int], None],
        unwatch: Callable[[int], None],
        command: Callable[[WorkerOptions], list[str]] = worker_command,
        on_metrics: OnMetrics | None = None,
    ) -> None:
        self._on_metrics = on_metrics
        self._watch = watch
        self._unwatch = unwatch
        self._command = command
        self._by_fd: dict[int, _Process] = {}
        self._by_id: dict[str, _Process] = {}

    def start(self, options: WorkerOptions, env: Mapping[str, str], account: Account | None = None) -> int:
        """Start a process and return its pid.

        Args:
            options: Its orders.
            env: Its environment.
            account: As whom it runs; None: as this process.

        Raises:
            OSError: If it cannot be started (folder gone, no more processes, …).
        """
        if len(env.get(OPTIONS_VARIABLE, "")) > _MAX_OPTIONS_BYTES:
            raise OSError(f"the model's configuration is too large to be handed over ({_MAX_OPTIONS_BYTES} bytes)")
        if not os.path.isdir(options.model_dir):
            raise OSError(f"the model's folder {options.model_dir} is gone")
        popen = subprocess.Popen(
            _limited(self._command(options), options.spec.memory_limit_bytes),
            cwd=options.model_dir,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
            user=None if account is None else account.user_id,
            group=None if account is None else account.group_id,
            extra_groups=None if account is None else account.groups,
        )
        process = _Process(options, popen, oom_kills(popen.pid))
        self._by_id[options.worker_id] = process
        for fd in (process.pidfd, *process.streams):
            self._by_fd[fd] = process
            self._watch(fd)
        return popen.pid

    def readable(self, fd: int) -> ProcessExited | None:
        """Deal with a descriptor that the poller named; return the end of a process if that is what it was."""
        process = self._by_fd.get(fd)
        if process is None:
            return None
        if fd == process.pidfd:
            return self._reap(process)
        stream = process.streams[fd]
        process.forward(stream, self._on_metrics)
        if not stream.is_open:
            self._drop(fd)
        return None

    def terminate(self, worker_id: str) -> None:
        """Ask a process to drain and leave, and let it go on if it was stopped; its own children hear nothing."""
        process = self._by_id.get(worker_id)
        if process is not None:
            process.was_asked = True
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(process.pidfd, signal.SIGTERM)
                signal.pidfd_send_signal(process.pidfd, signal.SIGCONT)

    def kill(self, worker_id: str) -> None:
        """Kill a process and its children at once."""
        process = self._by_id.get(worker_id)
        if process is not None:
            process.signal_group(signal.SIGKILL)

    def kill_all(self) -> None:
        """Kill and reap everything; used when the agent itself ends."""
        for process in list(self._by_id.values()):
            process.signal_group(signal.SIGKILL)
            # One that hangs in a driver does not even die: it is left to the system.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.popen.wait(_DEAD_S)
            self._reap(process)

    def living(self) -> dict[str, tuple[int, int]]:
        """Return worker id → (epoch, pid) of all processes."""
        return {worker_id: (process.options.epoch, process.pid) for worker_id, process in self._by_id.items()}

    def _reap(self, process: _Process) -> ProcessExited | None:
        returncode = process.popen.poll()
        if returncode is None:
            return None
        oom = oom_kills(os.getpid()) > process.oom_before
        # Children that a handler left behind would hold the GPU and our pipes.
        process.signal_group(signal.SIGKILL)
        for stream in process.streams.values():
            self._read_rest(process, stream)
        for fd in (process.pidfd, *process.streams):
            self._drop(fd)
        os.close(process.pidfd)
        for pipe in (process.popen.stdout, process.popen.stderr):
            if pipe is not None:
                pipe.close()
        del self._by_id[process.options.worker_id]
        lines = tuple(process.last_lines)
        oom = oom and returncode == -signal.SIGKILL
        cause = ExitCause(
            reason=exit_reason(returncode, oom=oom, last_lines=lines, was_asked=process.was_asked),
            signal=-returncode if returncode < 0 else None,
            exit_code=returncode if returncode >= 0 else None,
            oom=oom,
            last_lines=lines,
        )
        return ProcessExited(process.options.worker_id, process.options.epoch, cause)

    def _read_rest(self, process: _Process, stream: LineReader) -> None:
        """Read what a dead process left in its pipe: at most what a pipe can hold."""
        for _ in range(64):
            if not stream.is_open:
                return
            process.forward(stream, self._on_metrics)

    def _drop(self, fd: int) -> None:
        if self._by_fd.pop(fd, None) is not None:
            self._unwatch(fd)
