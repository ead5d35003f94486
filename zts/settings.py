"""All settings of a zts instance as one frozen record. Values only: ``zts/config/resolve.py`` reads files, flags and
the environment. Times in seconds, sizes in bytes. Layer 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from zts.errors import ConfigError

__all__ = ["DEFAULT_ALLOWED_URLS", "DEFAULT_DOWNLOAD_RATE", "Endpoints", "Settings", "default_http_processes"]

# Regular expressions, matched against the whole address, whatever the case: every address.
DEFAULT_ALLOWED_URLS: Final = ("file://.*", "http(s)?://.*")
# Bytes per second below which a host that archives are fetched from is given up.
DEFAULT_DOWNLOAD_RATE: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """The broker's four ZeroMQ addresses (``ipc://…`` or ``tcp://host:port``)."""

    client: str
    worker: str
    control: str
    event: str

    @classmethod
    def in_folder(cls, runtime_dir: str) -> Endpoints:
        """Return ipc endpoints inside ``runtime_dir``."""
        return cls(
            client=f"ipc://{runtime_dir}/client.ipc",
            worker=f"ipc://{runtime_dir}/worker.ipc",
            control=f"ipc://{runtime_dir}/control.ipc",
            event=f"ipc://{runtime_dir}/event.ipc",
        )


# Fetching, unpacking, packages and loading together may take so long: a bound for what hangs, not for what is slow. Who
# does the work beats, so that its end is noticed long before.
REGISTRATION_LIMIT_S: Final = 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything a role needs to know; made by ``zts/config/resolve.py``, handed down, never changed.

    ``load_models`` holds entries as ``--models`` takes them (``file``, ``name=file``, ``all``); ``models`` is
    TorchServe's JSON of section 5.3 as a mapping; ``properties`` keeps the raw configuration file for display.
    """

    runtime_dir: str
    endpoints: Endpoints
    model_store: str = ""
    workflow_store: str = ""
    load_models: tuple[str, ...] = ()
    models: Mapping[str, Any] = field(default_factory=dict)
    inference_address: str = "http://127.0.0.1:8080"
    management_address: str = "http://127.0.0.1:8081"
    metrics_address: str = "http://127.0.0.1:8082"
    http_processes: int = 1
    broker: str = "separate"  # a process of its own; or embedded, in the one HTTP server's
    http_wire: str = "fast"  # of the inference address; or tornado
    max_request_bytes: int = 6_553_500
    max_response_bytes: int = 6_553_500
    job_queue_size: int = 100
    job_queue_bytes: int = 1 << 30
    finished_jobs: int = 32_768  # answers that the broker keeps for clients that send a job again
    finished_bytes: int = 32 << 20  # about the most bytes of them
    default_workers_per_model: int = 0
    default_response_timeout_s: float = 120.0
    default_startup_timeout_s: float = 120.0
    unregister_timeout_s: float = 120.0
    number_of_gpu: int = -1  # -1: all that are there
    initial_worker_id: int = 9000
    decode_input_request: bool = True
    limit_max_image_pixels: bool = True
    default_service_handler: str = ""
    blacklist_env_vars: str = ""
    enable_model_api: bool = False
    enable_metrics_api: bool = True
    allowed_urls: tuple[str, ...] = DEFAULT_ALLOWED_URLS
    use_env_allowed_urls: bool = False
    download_min_rate: int = DEFAULT_DOWNLOAD_RATE  # bytes per second, over a minute; 0: no bound
    cors_allowed_origin: str = ""
    cors_allowed_methods: str = ""
    cors_allowed_headers: str = ""
    token_auth: bool = False  # 'zts start' turns it on unless told otherwise; a role alone has no tokens
    token_expiration_min: float = 60.0
    auth_failure_status: int = 400
    private_key_file: str = ""
    certificate_file: str = ""
    keystore: str = ""
    keystore_pass: str = "changeit"  # noqa: S105 - TorchServe's public default
    keystore_type: str = "PKCS12"
    open_inference_protocol: bool = False
    service_envelope: str = ""
    install_py_dep_per_model: bool = False
    requirements: str = "any"  # of archives: any, wheels (of named projects only) or refuse
    model_user: str = ""  # as whom workers run: a name or number, with :group; "": as the node agent does
    model_users: tuple[str, ...] = ()  # those that an archive may choose
    memory_limit_bytes: int = 0  # of each worker; 0: none
    worker_environment: tuple[str, ...] = ()  # all, or minimal and names; (): all, minimal for other users
    metrics_config: str = ""  # metrics.yaml; "": the packaged one
    metrics_mode: str = "log"  # log, prometheus or legacy
    metrics_auto_detect: bool = False
    disable_system_metrics: bool = False
    system_metrics_cmd: str = ""
    metric_time_interval_s: float = 60.0
    metrics_dir: str = ""  # folder of ts_metrics.log and model_metrics.log; "": log_dir
    header_key_sequence_id: str = "ts_request_sequence_id"
    header_key_sequence_start: str = "ts_request_sequence_start"
    header_key_sequence_end: str = "ts_request_sequence_end"
    config_snapshots: bool = True  # written by 'zts start'; off with --ncs
    model_snapshot: Mapping[str, Any] = field(default_factory=dict)  # what a snapshot says to load (5.5)
    heartbeat_s: float = 1.0
    heartbeat_misses: int = 4
    drain_timeout_s: float = 25.0  # budget of a whole stop; Kubernetes kills after 30
    cpu_threads: int = 0  # of one worker; 0: cores / workers on this host
    log_dir: str = ""  # "": stderr only
    log_format: str = "text"  # or json
    log_level: str = "info"
    access_log: bool = True
    max_connections: int = 0  # of one HTTP server, in all; 0: as many as its descriptors allow
    max_connections_per_address: int = 0  # 0: no bound
    model_uids: tuple[int, ...] = ()  # users whose processes may be workers, and nothing else, beside the server's own
    properties: Mapping[str, str] = field(default_factory=dict)

    def to_map(self) -> dict[str, Any]:
        """Return the settings as JSON-like values; ``from_map`` undoes it."""
        out: dict[str, Any] = {}
        for setting in fields(self):
            value = getattr(self, setting.name)
            if isinstance(value, Endpoints):
                value = {part.name: getattr(value, part.name) for part in fields(value)}
            out[setting.name] = list(value) if isinstance(value, tuple) else value
        return out

    @classmethod
    def from_map(cls, raw: Mapping[str, Any]) -> Settings:
        """Rebuild settings from ``to_map``'s form.

        Raises:
            ConfigError: If a key is unknown or missing.
        """
        values = dict(raw)
        try:
            values["endpoints"] = Endpoints(**values["endpoints"])
            for name in ("load_models", "allowed_urls", "model_uids", "model_users", "worker_environment"):
                if name in values:
                    values[name] = tuple(values[name])
            return cls(**values)
        except (KeyError, TypeError) as exc:
            raise ConfigError(f"settings are not of this zts version: {exc}") from None


def default_http_processes(settings: Settings, cores: int) -> int:
    """Return how many HTTP servers an instance with ``cores`` cores starts unless somebody says.

    An HTTP server spends three times what the broker does on a request, so it is full first, and three are as much as
    one broker can use. On two cores, which broker, worker and clients share, a second one only makes smaller batches
    (docs/PERFORMANCE.md). A port that is not chosen yet, a Unix socket and a broker inside the HTTP server allow one.

    >>> settings = Settings(runtime_dir="", endpoints=Endpoints.in_folder("/r"))
    >>> [default_http_processes(settings, cores) for cores in (1, 2, 4, 8, 64)]
    [1, 1, 2, 3, 3]
    """
    addresses = (settings.inference_address, settings.management_address, settings.metrics_address)
    is_shareable = not any(row.startswith("unix:") or row.rstrip("/").endswith(":0") for row in addresses)
    if settings.broker == "embedded" or not is_shareable:
        return 1
    return 1 if cores < 4 else 2 if cores < 8 else 3
