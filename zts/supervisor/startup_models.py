"""Which models a start registers, and registering them. Layer 3."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from zts.errors import BrokerUnavailable, Conflict, ZtsError
from zts.settings import Settings

__all__ = ["Control", "ControlFor", "StartupModel", "register_models", "startup_models"]

_log = logging.getLogger(__name__)

ARCHIVE_SUFFIXES: Final = (".mar", ".model", ".tar.gz", ".tgz")
# Loading has a limit of its own in the broker; this is for fetching and unpacking beside it.
_FETCH_MARGIN_S: Final = 600.0
_ATTEMPTS: Final = 3
_MOST_AT_ONCE: Final = 16


class Control(Protocol):
    """What we need of ``zts.client.control.ControlClient``."""

    def request(self, verb: str, args: Mapping[str, Any], *, timeout_s: float) -> tuple[int, Mapping[str, Any]]:
        """Ask the broker and return status and body."""

    def close(self) -> None:
        """Close the connection."""


class ControlFor(Protocol):
    """Makes a connection to a broker; each thread has its own."""

    def __call__(self, address: str) -> Control:
        """Connect to the control endpoint ``address``."""


class StartupModel(NamedTuple):
    """One entry of ``--models``; ``name`` is empty where the archive says it."""

    name: str
    url: str


def startup_models(entries: Sequence[str], model_store: str) -> list[StartupModel]:
    """Return the models that ``load_models`` means: ``file``, ``name=file``, ``all`` or ``none`` (any case).

    ``all`` is every archive of the store and every folder of it with ``MAR-INF/MANIFEST.json``, by name.
    """
    out: list[StartupModel] = []
    for entry in (raw.strip() for raw in entries):
        if not entry or entry.lower() == "none":
            continue
        if entry.lower() == "all":
            out += [StartupModel("", name) for name in _whole_store(model_store)]
            continue
        name, equals, url = entry.partition("=")
        # An address may hold a '=' of its own: only what could be a name counts as one.
        if equals and not any(sign in name for sign in "/:?"):
            out.append(StartupModel(name.strip(), url.strip()))
        else:
            out.append(StartupModel("", entry))
    return list(dict.fromkeys(out))


def _whole_store(model_store: str) -> list[str]:
    folder = Path(model_store)
    if not model_store or not folder.is_dir():
        return []
    return sorted(
        path.name
        for path in folder.iterdir()
        if (path.is_file() and path.name.endswith(ARCHIVE_SUFFIXES)) or (path / "MAR-INF" / "MANIFEST.json").is_file()
    )


def register_models(
    models: Sequence[StartupModel], settings: Settings, control_for: ControlFor, done: Callable[[], None]
) -> None:
    """Register all models at the same time in threads and call ``done`` once, when each is up or has failed.

    A model that fails logs one warning with the reason and holds up nobody.
    """
    if not models:
        done()
        return
    left = list(reversed(models))
    lock = threading.Lock()
    running = min(len(models), _MOST_AT_ONCE)

    def work() -> None:
        nonlocal running
        while True:
            with lock:
                if not left:
                    running -= 1
                    last = running == 0
                    break
                model = left.pop()
            _register(model, settings, control_for)
        if last:
            done()

    for number in range(running):
        threading.Thread(target=work, name=f"register-{number}", daemon=True).start()


def _register(model: StartupModel, settings: Settings, control_for: ControlFor) -> None:
    shown = f"{model.name}={model.url}" if model.name else model.url
    try:
        _ask(model, settings, control_for)
    except ZtsError as exc:
        _log.warning("model %s could not be loaded: %s", shown, exc.public_message)
    except Exception:  # a thread that dies silently would leave the start waiting for ever
        _log.exception("model %s could not be loaded", shown)
    else:
        _log.info("model %s is loaded", shown)


def _ask(model: StartupModel, settings: Settings, control_for: ControlFor) -> None:
    args: dict[str, Any] = {"url": model.url, "at_startup": True, "synchronous": True}
    if model.name:
        args["model_name"] = model.name
    control = control_for(settings.endpoints.control)
    try:
        for attempt in range(_ATTEMPTS):
            try:
                timeout_s = settings.default_startup_timeout_s + _FETCH_MARGIN_S
                status, body = control.request("models.register", args, timeout_s=timeout_s)
            except BrokerUnavailable:
                if attempt + 1 == _ATTEMPTS:
                    raise
                continue  # it was restarted; what it had accepted is in its journal
            except Conflict:
                if attempt:
                    return
                raise
            if status >= 400:
                raise ZtsError(str(body.get("message", f"the broker answered {status}")), http_status=status)
            return
    finally:
        control.close()
