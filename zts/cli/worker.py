"""Run one worker alone: one model version, one handler, one process.

The node agent starts workers with their orders in the environment. By hand give the archive (or a folder with an
unpacked one) and the broker's two addresses; a broker that does not know the model registers it from this worker.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any

from zts.errors import ConfigError
from zts.model_spec import ModelSpec
from zts.signals import take_defaults, unblock
from zts.workers.options import OPTIONS_VARIABLE, WorkerOptions

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``zts worker``."""
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--archive", metavar="PATH", help="model archive (.mar, .tgz) or a folder, by hand only")
    source.add_argument("--model-dir", metavar="DIR", help="folder with an unpacked archive, by hand only")
    parser.add_argument("--worker-address", metavar="ENDPOINT", help="the broker's worker socket, such as ipc://PATH")
    parser.add_argument("--control-address", metavar="ENDPOINT", help="the broker's control socket")
    parser.add_argument("--worker-id", metavar="ID", default="", help="default: host name and process id")
    parser.add_argument("--model-name", metavar="NAME", help="default: what the archive says")
    parser.add_argument("--model-version", metavar="VERSION", help="default: what the archive says")
    parser.add_argument("--handler", metavar="NAME", help="default: what the archive says")
    parser.add_argument("--batch-size", metavar="N", type=int, help="most jobs in one batch")
    parser.add_argument("--max-batch-delay-ms", metavar="MS", type=int, help="longest wait of a batch's first job")
    parser.add_argument("--gpu", metavar="N", type=int, help="GPU for the handler (default: CPU)")
    parser.add_argument(
        "--cpu-threads", metavar="N", type=int, help="threads for torch and OpenMP (default: all cores)"
    )
    parser.add_argument(
        "--drain-timeout-s", metavar="S", type=float, default=25.0, help="limit for finishing at SIGTERM"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until told to stop; return the worker's exit code."""
    from zts.workers.runtime.main import options_from_environment
    from zts.workers.runtime.main import run as run_worker

    source = args.archive or args.model_dir
    unblock()
    if source is None:
        if os.environ.get(OPTIONS_VARIABLE):
            take_defaults()
            return run_worker(options_from_environment())
        raise ConfigError("give --archive or --model-dir")
    if not args.worker_address or not args.control_address:
        raise ConfigError("give --worker-address and --control-address")
    scratch = Path(tempfile.mkdtemp(prefix="zts-worker-"))
    try:
        return run_worker(_options(args, Path(source), scratch))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _options(args: argparse.Namespace, source: Path, scratch: Path) -> WorkerOptions:
    model_dir, spec = _model(args, source, scratch)
    return WorkerOptions(
        worker_id=args.worker_id or f"{socket.gethostname()[:200]}-{os.getpid()}",
        epoch=1,
        spec=spec,
        model_dir=str(model_dir),
        worker_endpoint=args.worker_address,
        control_endpoint=args.control_address,
        gpu_id=args.gpu,
        cpu_threads=max(1, args.cpu_threads or len(os.sched_getaffinity(0))),
        drain_timeout_s=args.drain_timeout_s,
    )


def _model(args: argparse.Namespace, source: Path, scratch: Path) -> tuple[Path, ModelSpec]:
    from zts.archive import read_model, unpack

    if not source.exists():
        raise ConfigError(f"{source} does not exist")
    model_dir = unpack(source, scratch)
    given: dict[str, Any] = {
        "model_name": args.model_name,
        "handler": args.handler,
        "batch_size": args.batch_size,
        "max_batch_delay_ms": args.max_batch_delay_ms,
    }
    order = {key: value for key, value in given.items() if value is not None} | {"by_operator": True}
    in_place = source.is_dir()
    spec, _ = read_model(
        model_dir, url=str(source), args=order, model_name_hint=source.stem, is_operators_folder=in_place
    )
    if args.model_version:
        spec = ModelSpec.from_map({**spec.to_map(), "version": args.model_version})
    return model_dir, spec
