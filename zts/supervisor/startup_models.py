"""Which models a start registers, and registering them. Layer 3."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from zts.errors import BrokerUnavailable, Conflict, ModelNotFound, ZtsError
from zts.settings import REGISTRATION_LIMIT_S, Settings

__all__ = [
    "Control",
    "ControlFor",
    "StartupModel",
    "models_of_start",
    "register_models",
    "restored_models",
    "startup_models",
]

_log = logging.getLogger(__name__)

ARCHIVE_SUFFIXES: Final = (".mar", ".model", ".tar.gz", ".tgz")
_ATTEMPTS: Final = 3
_TELL_EVERY_S: Final = 60.0
_DESCRIBE_S: Final = 5.0
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
    """One model of a start.

    Attributes:
        name: Its name; empty where the archive says it.
        url: As a registration takes it.
        version: What a snapshot says; empty in an entry of ``--models``.
        snapshot: The snapshot's fields (TORCHSERVE.md 5.5); None for an entry of ``--models``.
    """

    name: str
    url: str
    version: str = ""
    snapshot: Mapping[str, Any] | None = None

    @property
    def label(self) -> str:
        """For messages."""
        return f"{self.name}={self.url}" if self.name else self.url


def models_of_start(settings: Settings) -> list[StartupModel]:
    """Return what a start registers: the models of the snapshot if there is one, else ``load_models``."""
    if settings.model_snapshot:
        return restored_models(settings.model_snapshot)
    return startup_models(settings.load_models, settings.model_store)


def restored_models(snapshot: Mapping[str, Any]) -> list[StartupModel]:
    """Return the models of a snapshot that ``zts.snapshots.check_model_snapshot`` has found to be whole."""
    return [
        StartupModel(name, str(entry["marName"]), str(version), entry)
        for name, versions in snapshot["models"].items()
        for version, entry in versions.items()
    ]


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


class _StartImpossible(ZtsError):
    """A model of the start cannot be there as the user wished; the message is for the user."""


def register_models(
    models: Sequence[StartupModel],
    settings: Settings,
    control_for: ControlFor,
    *,
    done: Callable[[], None],
    failed: Callable[[str], None],
) -> None:
    """Register all models at the same time in threads and call ``done`` once, when each is up or has failed.

    A model that does not load logs one warning with the reason and holds up nobody. What makes the whole start
    wrong is told to ``failed``: two archives of one name and version, or a snapshot whose archive is gone.
    """
    if not models:
        done()
        return
    left = list(reversed(models))
    in_work = list(models)
    lock = threading.Lock()
    ended = threading.Event()
    running = min(len(models), _MOST_AT_ONCE)

    def tell() -> None:
        while not ended.wait(_TELL_EVERY_S):
            _log.info("still being loaded: %s", ", ".join(model.label for model in in_work))

    def work() -> None:
        nonlocal running
        while True:
            with lock:
                if not left:
                    running -= 1
                    last = running == 0
                    break
                model = left.pop()
            _register(model, settings, control_for, failed)
            in_work.remove(model)
        if last:
            ended.set()
            _set_defaults(models, settings, control_for)
            done()

    threading.Thread(target=tell, name="register-tell", daemon=True).start()
    for number in range(running):
        threading.Thread(target=work, name=f"register-{number}", daemon=True).start()


def _register(model: StartupModel, settings: Settings, control_for: ControlFor, failed: Callable[[str], None]) -> None:
    try:
        _ask(model, settings, control_for)
    except _StartImpossible as exc:
        failed(exc.public_message)
    except ZtsError as exc:
        _log.warning("model %s could not be loaded: %s", model.label, exc.public_message)
    except Exception:  # a thread that dies silently would leave the start waiting for ever
        _log.exception("model %s could not be loaded", model.label)
    else:
        _log.info("model %s is loaded", model.label)


def _request_args(model: StartupModel) -> dict[str, Any]:
    args: dict[str, Any] = {"url": model.url, "at_startup": True, "synchronous": True}
    if model.name:
        args["model_name"] = model.name
    if model.snapshot is not None:
        args["snapshot"] = {**model.snapshot, "modelVersion": model.version}
        if model.snapshot.get("handler"):
            args["handler"] = model.snapshot["handler"]
        args["runtime"] = str(model.snapshot.get("runtimeType") or "python").lower()
    return args


def _ask(model: StartupModel, settings: Settings, control_for: ControlFor) -> None:
    args = _request_args(model)
    control = control_for(settings.endpoints.control)
    try:
        for attempt in range(_ATTEMPTS):
            try:
                status, body = control.request("models.register", args, timeout_s=REGISTRATION_LIMIT_S)
            except BrokerUnavailable:
                if attempt + 1 == _ATTEMPTS:
                    raise
                continue  # it was restarted; what it had accepted is in its journal
            except Conflict as exc:
                if attempt:
                    return
                raise _StartImpossible(_conflict_text(model, exc.public_message, control)) from None
            except ModelNotFound as exc:
                if model.snapshot is None:
                    raise
                raise _StartImpossible(
                    f"the snapshot cannot be continued: {exc.public_message}; start with --ncs to do without it"
                ) from None
            if status >= 400:
                raise ZtsError(str(body.get("message", f"the broker answered {status}")), http_status=status)
            return
    finally:
        control.close()


def _conflict_text(model: StartupModel, text: str, control: Control) -> str:
    """Return one line that names both archives of one model version."""
    found = re.fullmatch(r"Model version (\S+) is already registered for model (\S+)", text)
    other = ""
    if found is not None:
        try:
            asked = {"model": found[2], "version": found[1]}
            _status, body = control.request("models.describe", asked, timeout_s=_DESCRIBE_S)
            other = str(body["versions"][0]["url"])
        except (ZtsError, KeyError, IndexError, TypeError):
            pass  # the first message is good enough
    both = f": {other} and {model.url} both hold it, load only one of them" if other else f" ({model.label})"
    return f"Invalid configuration: {text}{both}"


def _set_defaults(models: Sequence[StartupModel], settings: Settings, control_for: ControlFor) -> None:
    """Make those versions the default that a snapshot says; the first one registered is it anyway."""
    wanted = [model for model in models if model.snapshot is not None and model.snapshot.get("defaultVersion") is True]
    if not wanted:
        return
    control = control_for(settings.endpoints.control)
    try:
        for model in wanted:
            asked = {"model": model.name, "version": model.version}
            try:
                control.request("models.set_default", asked, timeout_s=_DESCRIBE_S)
            except ZtsError as exc:
                _log.warning("%s %s is not the default: %s", model.name, model.version, exc.public_message)
    finally:
        control.close()
