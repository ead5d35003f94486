"""The unit level is pure: a test that sleeps, opens a socket or starts a process fails at once."""

from __future__ import annotations

import socket
import ssl  # noqa: F401  # derives a class from socket.socket, so it must be here before that is replaced
import subprocess
import time
from typing import Any

import pytest
import zmq


def _forbidden(*_args: Any, **_kwargs: Any) -> Any:
    raise AssertionError("a unit test must not sleep, open sockets or start processes")


@pytest.fixture(autouse=True)
def _pure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", _forbidden)
    monkeypatch.setattr(socket, "socket", _forbidden)
    monkeypatch.setattr(subprocess, "Popen", _forbidden)
    monkeypatch.setattr(zmq.Context, "socket", _forbidden)
