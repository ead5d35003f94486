"""What a model version is: one frozen record that broker, node and worker share. Layer 1.

``ModelSpec`` is the merged result of archive, model-config.yaml, request and server defaults (docs/TORCHSERVE.md 5.3
and 6). It travels as a plain map inside REQUEST, REPLY, DESIRE and a worker's HELLO.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from zts.errors import BadRequest
from zts.wire.frames import MAX_NAME_CHARS

__all__ = ["MAX_BATCH_SIZE", "ModelSpec", "check_model_name"]

MAX_BATCH_SIZE: Final = 4096


def check_model_name(name: str) -> str:
    """Return ``name`` if it may be a model's name or version: any text, as with TorchServe, of 1 to 256 characters.

    Whoever shows it makes it safe with ``zts.visible``, and no file is called by it.

    Raises:
        BadRequest: If it is empty, too long, or holds half a character.
    """
    if not name:
        raise BadRequest("Model name or version is not valid: it is empty.")
    if len(name) > MAX_NAME_CHARS:
        raise BadRequest(
            f"Model name or version {name[:40]!r}… is not valid: it has {len(name)} characters, "
            f"at most {MAX_NAME_CHARS} are possible."
        )
    if any("\ud800" <= char <= "\udfff" for char in name):
        raise BadRequest(f"Model name or version {name!r} is not valid: it holds half a character (a lone surrogate).")
    return name


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One version of one model, ready to be run.

    Attributes:
        name, version: Checked by ``check_model_name``.
        url: What the user registered: archive name, path or URL; shown as ``modelUrl``.
        handler: ``module``, ``module.py``, ``module:function`` or a built-in name; ``""``: what the archive says.
        batch_size: Most jobs in one batch, at least 1.
        max_batch_delay_s: Longest wait of a batch's first job; None: learnt (docs/BATCHING.md).
        min_workers, max_workers: Wanted processes from model-config.yaml; 0/0: not said there.
        response_timeout_s: Run budget of one batch.
        startup_timeout_s: Budget for loading.
        max_retry_timeout_s: How long a broken worker is restarted before its circuit opens.
        client_timeout_s: Deadline for jobs that carry none; 0: none.
        job_queue_size: Most queued jobs (count).
        job_queue_bytes: Most queued body bytes.
        use_job_ticket: Refuse a job at once when no worker is idle.
        device_type: ``cpu``, ``gpu`` or ``""`` (GPU if there is one).
        device_ids: GPUs to use; empty: all.
        priority: Class of jobs that name none: ``high``, ``normal``, ``low``.
        prefetch: None: by measured run time.
        isolate_errors: Run the items one by one when the whole call raises.
        max_attempts: Workers a job may die with before it is poison.
        loaded_at_startup: Named on the command line or in the configuration.
        registration: Made by the node that prepared it; each registration has unpacked files of its own.
        by_operator: ``url`` was said on the command line, in the configuration or in a snapshot.
        user: As whom its workers run (``zts/model_rights.py``); ``""``: as the node agent does.
        user_id: That user's number on the node that prepared it; -1: none, or not known yet.
        memory_limit_bytes: Most memory of each worker; 0: no limit.
        config: The whole model-config.yaml mapping, for the handler.
    """

    name: str
    version: str
    url: str = ""
    handler: str = ""
    runtime: str = "python"
    batch_size: int = 1
    max_batch_delay_s: float | None = None
    min_workers: int = 0
    max_workers: int = 0
    response_timeout_s: float = 120.0
    startup_timeout_s: float = 120.0
    max_retry_timeout_s: float = 300.0
    client_timeout_s: float = 0.0
    job_queue_size: int = 100
    job_queue_bytes: int = 1 << 30
    use_job_ticket: bool = False
    device_type: str = ""
    device_ids: tuple[int, ...] = ()
    priority: str = "normal"
    prefetch: bool | None = None
    isolate_errors: bool = False
    max_attempts: int = 2
    loaded_at_startup: bool = False
    registration: str = ""
    by_operator: bool = False
    user: str = ""
    user_id: int = -1
    memory_limit_bytes: int = 0
    config: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_model_name(self.name)
        check_model_name(self.version)
        if not 1 <= self.batch_size <= MAX_BATCH_SIZE:
            raise BadRequest(f"batch size {self.batch_size} is not between 1 and {MAX_BATCH_SIZE}")
        if self.max_batch_delay_s is not None and self.max_batch_delay_s < 0:
            raise BadRequest("max_batch_delay must not be negative")
        if self.priority not in ("high", "normal", "low"):
            raise BadRequest(f"priority {self.priority!r} is none of high, normal, low")

    @property
    def files_id(self) -> str:
        """Under what a node keeps the unpacked files."""
        return self.registration or f"{self.name!r} {self.version!r} {self.url!r}"

    @property
    def is_async(self) -> bool:
        """Whether the handler's calls may overlap in one worker (``asyncCommunication`` of model-config.yaml)."""
        return self.config.get("asyncCommunication") is True

    def to_map(self) -> dict[str, Any]:
        """Return the record as a map of JSON-like values for the wire or the journal."""
        out: dict[str, Any] = {}
        for spec_field in fields(self):
            value = getattr(self, spec_field.name)
            out[spec_field.name] = list(value) if isinstance(value, tuple) else value
        return out

    @classmethod
    def from_map(cls, raw: Mapping[str, Any]) -> ModelSpec:
        """Rebuild a record; unknown keys (a newer peer) are ignored, missing ones are the defaults.

        Raises:
            BadRequest: If a value has the wrong type or is out of range.
        """
        known = {spec_field.name: spec_field for spec_field in fields(cls)}
        values: dict[str, Any] = {}
        for key, value in raw.items():
            if key not in known:
                continue
            kind = str(known[key].type)
            if not _fits(kind, value):
                raise BadRequest(f"model field {key!r}: {value!r} is not {kind}")
            values[key] = tuple(value) if key == "device_ids" else value
        try:
            return cls(**values)
        except TypeError as exc:
            raise BadRequest(f"model record is incomplete: {exc}") from None


_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "bool": (bool,),
    "float": (int, float),
    "float | None": (int, float, type(None)),
    "bool | None": (bool, type(None)),
    "tuple[int, ...]": (list, tuple),
    "Mapping[str, Any]": (dict,),
}


def _fits(kind: str, value: object) -> bool:
    if isinstance(value, bool) and "bool" not in kind:
        return False
    if kind == "tuple[int, ...]":
        return isinstance(value, (list, tuple)) and all(type(item) is int for item in value)
    return isinstance(value, _KINDS[kind])
