"""Which models a start registers, and registering them. Layer 3."""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
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


class Control(Protocol):
    """What we need of ``zts.client.control.ControlClient``."""

    def request(self, verb: str, args: Mapping[str, Any], *, timeout_s: float) -> tuple[int, Mapping[str, Any]]:
        """Ask the broker and return status and body."""

    def request_all(
        self, verb: str, asked: Sequence[Mapping[str, Any]], *, timeout_s: float
    ) -> Generator[tuple[int, Mapping[str, Any] | ZtsError], None, None]:
        """Ask the broker several things in one order; yield index and body or error of each as it comes."""

    def close(self) -> None:
        """Close the connection."""


class ControlFor(Protocol):
    """Makes a connection to a broker."""

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
    return startup_models(
        settings.load_models, settings.model_store, takes_bare_folders=bool(settings.default_service_handler)
    )


def restored_models(snapshot: Mapping[str, Any]) -> list[StartupModel]:
    """Return the models of a snapshot that ``zts.config.snapshots.check_model_snapshot`` has found to be whole."""
    return [
        StartupModel(name, str(entry["marName"]), str(version), entry)
        for name, versions in snapshot["models"].items()
        for version, entry in versions.items()
    ]


def startup_models(entries: Sequence[str], model_store: str, *, takes_bare_folders: bool = False) -> list[StartupModel]:
    """Return the models that ``load_models`` means: ``file``, ``name=file``, ``all`` or ``none`` (any case).

    ``all`` is every archive of the store and every folder of it with ``MAR-INF/MANIFEST.json``, by name, hidden ones
    left out; with ``takes_bare_folders`` (a default handler is configured) folders without a manifest, too.
    """
    out: list[StartupModel] = []
    for entry in (raw.strip() for raw in entries):
        if not entry or entry.lower() == "none":
            continue
        if entry.lower() == "all":
            out += [StartupModel("", name) for name in _whole_store(model_store, takes_bare_folders)]
            continue
        name, equals, url = entry.partition("=")
        # An address or a path from the root may hold a '=' of its own.
        if equals and not re.match(r"/|(https?|file)://", entry, re.IGNORECASE):
            out.append(StartupModel(name.strip(), url.strip()))
        else:
            out.append(StartupModel("", entry))
    return [model for model in dict.fromkeys(out) if model.url]


def _whole_store(model_store: str, takes_bare_folders: bool) -> list[str]:
    folder = Path(model_store)
    if not model_store or not folder.is_dir():
        return []

    def is_model(path: Path) -> bool:
        if path.is_dir():
            return takes_bare_folders or (path / "MAR-INF" / "MANIFEST.json").is_file()
        return path.is_file() and path.name.endswith(ARCHIVE_SUFFIXES)

    return sorted(path.name for path in folder.iterdir() if not path.name.startswith(".") and is_model(path))


def register_models(
    models: Sequence[StartupModel],
    settings: Settings,
    control_for: ControlFor,
    *,
    done: Callable[[], None],
    failed: Callable[[str], None],
) -> None:
    """Register all models in a thread and call ``done`` once, when each is up or has failed.

    They are prepared and loaded in parallel; the broker lets them take effect in the order of ``models``. A model that
    does not load logs one warning with the reason and holds up nobody. What makes the whole start wrong is told to
    ``failed``: two archives of one name and version, or a snapshot whose archive is gone.
    """
    if not models:
        done()
        return

    left = dict(enumerate(models))
    ended = threading.Event()

    def tell() -> None:
        while not ended.wait(_TELL_EVERY_S):
            _log.info("still being loaded: %s", ", ".join(model.label for model in list(left.values())))

    def work() -> None:
        try:
            _register_all(left, settings, control_for, failed)
        except Exception as exc:  # a thread that dies silently would leave the start waiting for ever
            text = exc.public_message if isinstance(exc, ZtsError) else f"{type(exc).__name__}: {exc}"
            _log.error("the models of the start could not be registered: %s", text, exc_info=exc)
        ended.set()
        done()

    threading.Thread(target=tell, name="register-tell", daemon=True).start()
    threading.Thread(target=work, name="register", daemon=True).start()


def _register_all(
    left: dict[int, StartupModel], settings: Settings, control_for: ControlFor, failed: Callable[[str], None]
) -> None:
    """Register what is left, and again what a broker did not answer; an answered one is taken out of ``left``."""
    attempts = _ATTEMPTS
    while left:
        before = len(left)
        control = control_for(settings.endpoints.control)
        try:
            _register_left(left, control, lambda: control_for(settings.endpoints.control), failed)
        except BrokerUnavailable as exc:
            # It was restarted; what it had accepted is in its journal.
            attempts = attempts - 1 if len(left) == before else _ATTEMPTS
            if not attempts:
                for model in left.values():
                    _log.warning("model %s could not be loaded: %s", model.label, exc.public_message)
                return
        finally:
            control.close()


def _register_left(
    left: dict[int, StartupModel],
    control: Control,
    another_control: Callable[[], Control],
    failed: Callable[[str], None],
) -> None:
    asked = list(left.items())
    requests = [_request_args(model) for _, model in asked]
    with contextlib.closing(
        control.request_all("models.register", requests, timeout_s=REGISTRATION_LIMIT_S)
    ) as answers:
        for index, answer in answers:
            number, model = asked[index]
            del left[number]
            _take_answer(model, answer, another_control, failed)


def _take_answer(
    model: StartupModel,
    answer: Mapping[str, Any] | ZtsError,
    another_control: Callable[[], Control],
    failed: Callable[[str], None],
) -> None:
    if isinstance(answer, Conflict):
        control = another_control()  # the first one waits for the rest of its replies
        try:
            text = _conflict_text(model, answer.public_message, control)
        finally:
            control.close()
        if text:
            failed(text)
    elif isinstance(answer, ModelNotFound) and model.snapshot is not None:
        text = answer.public_message
        failed(f"the snapshot cannot be continued: {text}; start with --ncs to do without it")
    elif isinstance(answer, ZtsError):
        _log.warning("model %s could not be loaded: %s", model.label, answer.public_message)
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


def _conflict_text(model: StartupModel, text: str, control: Control) -> str:
    """Return one line that names both archives of one model version, ``""`` if it is the same archive."""
    other = ""
    found = re.fullmatch(r"Model version (.+) is already registered for model (.+)", text, re.DOTALL)
    if found is not None:
        try:
            asked = {"model": found[2], "version": found[1]}
            _status, body = control.request("models.describe", asked, timeout_s=_DESCRIBE_S)
            other = str(body["versions"][0]["url"])
        except (ZtsError, KeyError, IndexError, TypeError):
            pass  # the first message is good enough
    if other == model.url:
        return ""
    both = f": {other} and {model.url} both hold it, load only one of them" if other else f" ({model.label})"
    return f"Invalid configuration: {text}{both}"
