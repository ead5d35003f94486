"""``ts.model_service_worker``: a worker that speaks TorchServe's messages, for one connection at a time.

zts starts no such workers; this one is for code that drives a handler by itself, or for TorchServe's own front end.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
from typing import Any, Final

from zts.workers.ts_compat.arg_parser import ArgParser
from zts.workers.ts_compat.async_service import AsyncService
from zts.workers.ts_compat.model_loader import MetricsCacheYamlImpl, ModelLoaderFactory
from zts.workers.ts_compat.otf_message_handler import (
    LOAD_MSG,
    PREDICT_MSG,
    create_load_model_response,
    retrieve_msg,
)
from zts.workers.ts_compat.service import Service

__all__ = [
    "BENCHMARK",
    "DEBUG",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MAX_FAILURE_THRESHOLD",
    "SOCKET_ACCEPT_TIMEOUT",
    "WORLD_RANK",
    "WORLD_SIZE",
    "ArgParser",
    "AsyncService",
    "MetricsCacheYamlImpl",
    "ModelLoaderFactory",
    "TorchModelServiceWorker",
    "create_load_model_response",
    "main",
    "retrieve_msg",
]


MAX_FAILURE_THRESHOLD: Final = 5
SOCKET_ACCEPT_TIMEOUT: Final = 30.0
DEBUG: Final = False
BENCHMARK: Final = os.environ.get("TS_BENCHMARK") in ("True", "true", "TRUE")
LOCAL_RANK: Final = int(os.environ.get("LOCAL_RANK", "0"))
WORLD_SIZE: Final = int(os.environ.get("WORLD_SIZE", "0"))
WORLD_RANK: Final = int(os.environ.get("RANK", "0"))
LOCAL_WORLD_SIZE: Final = int(os.environ.get("LOCAL_WORLD_SIZE", "0"))


class TorchModelServiceWorker:
    """Listens on a socket, loads the model that it is told to, and answers batches.

    Args:
        s_type: ``unix`` or ``tcp``.
        s_name: Path of the Unix socket; what is there is replaced.
        host_addr, port_num: Where to listen with ``tcp``.
        metrics_config: The metrics.yaml.
        async_comm: The handler is a coroutine.

    Raises:
        ValueError: If something is missing.
    """

    def __init__(
        self,
        s_type: str | None = None,
        s_name: str | None = None,
        host_addr: str | None = None,
        port_num: str | int | None = None,
        metrics_config: str | None = None,
        async_comm: bool = False,
    ) -> None:
        if s_type == "unix":
            if not s_name:
                raise ValueError("a unix socket needs a name: give s_name")
            with contextlib.suppress(FileNotFoundError):
                os.unlink(s_name)
            family, self.address = socket.AF_UNIX, s_name
        elif s_type == "tcp":
            if not port_num:
                raise ValueError("a tcp socket needs a port: give port_num")
            family, self.address = socket.AF_INET, (host_addr or "127.0.0.1", int(port_num))  # type: ignore[assignment]
        else:
            raise ValueError(f"s_type is 'unix' or 'tcp', not {s_type!r}")
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.async_comm = async_comm
        self.service: Service | None = None
        self.metrics_cache: MetricsCacheYamlImpl | None = None
        if metrics_config:
            self.metrics_cache = MetricsCacheYamlImpl(metrics_config)
            self.metrics_cache.initialize_cache()

    def load_model(self, load_model_request: dict[str, Any]) -> tuple[Service | None, str, int]:
        """Load a model.

        Args:
            load_model_request: What came with a load message.

        Returns:
            The model, and what to answer: a text and a status. Without memory there is no model.
        """
        order = {key: _str(value) for key, value in load_model_request.items()}
        try:
            service = ModelLoaderFactory.get_model_loader().load(
                order["modelName"],
                order["modelPath"],
                order.get("handler"),
                order.get("gpu"),
                order.get("batchSize"),
                order.get("envelope") or None,
                order.get("limitMaxImagePixels", True),
                self.metrics_cache,
            )
        except MemoryError:
            return None, "System out of memory", 507
        return service, f"loaded model {order['modelName']}", 200

    def handle_connection(self, cl_socket: socket.socket) -> None:
        """Answer one connection's messages until the front end closes it.

        Raises:
            RuntimeError: If the model cannot be loaded for want of memory.
            Exception: What the handler raises while it is loaded.
        """
        while True:
            try:
                command, message = retrieve_msg(cl_socket)
            except ConnectionError:
                return
            if command == LOAD_MSG:
                self._load(cl_socket, message)
            elif command == PREDICT_MSG and self.service is not None:
                cl_socket.sendall(self.service.predict(message))
            else:
                raise ValueError("a batch came before a model was loaded")

    def handle_connection_async(self, cl_socket: socket.socket) -> None:
        """Do as ``handle_connection`` for a handler that is a coroutine."""
        command, message = retrieve_msg(cl_socket)
        if command != LOAD_MSG:
            raise ValueError("a batch came before a model was loaded")
        self._load(cl_socket, message)
        assert self.service is not None
        AsyncService(self.service).run()

    def run_server(self) -> None:
        """Listen, say so on standard output, and serve the first connection that comes."""
        with self.sock:
            self.sock.settimeout(SOCKET_ACCEPT_TIMEOUT)
            self.sock.bind(self.address)
            self.sock.listen(1)
            print(f"[PID]{os.getpid()}\nTorch worker started.\nPython runtime: {sys.version.split()[0]}", flush=True)
            cl_socket, _ = self.sock.accept()
            with cl_socket:
                cl_socket.settimeout(None)
                (self.handle_connection_async if self.async_comm else self.handle_connection)(cl_socket)

    def _load(self, cl_socket: socket.socket, message: dict[str, Any]) -> None:
        self.service, text, code = self.load_model(message)
        if self.service is not None:
            self.service.set_cl_socket(cl_socket)
        cl_socket.sendall(create_load_model_response(code, text))
        if code != 200:
            raise RuntimeError(f"{code} - {text}")


def main() -> None:
    """Run a worker by its command line."""
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
    args = ArgParser.model_service_worker_args().parse_args()
    TorchModelServiceWorker(
        args.sock_type, args.sock_name, args.host, args.port, args.metrics_config, args.async_comm
    ).run_server()


def _str(value: Any) -> Any:
    return bytes(value).decode() if isinstance(value, (bytes, bytearray)) else value


if __name__ == "__main__":
    main()
