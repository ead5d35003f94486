"""What a worker process is told at its start: one frozen record, passed as JSON in the environment. Layer 1.

The node agent writes it, ``zts worker`` reads it. The command line shows only what a person wants to see in ``ps``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from zts.errors import ConfigError, ZtsError
from zts.model_spec import ModelSpec

__all__ = ["OPTIONS_VARIABLE", "WorkerOptions"]

OPTIONS_VARIABLE: Final = "ZTS_WORKER_OPTIONS"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """Everything that one worker process needs.

    Attributes:
        worker_id: The broker's id of the slot, such as ``9000``; ``""`` for a worker started by hand.
        epoch: Number of this process in the slot; grows with each restart.
        node_id: The node agent that started it; ``""`` when started by hand.
        spec: The model version to serve.
        model_dir: Folder with the unpacked archive; becomes the working directory.
        worker_endpoint, control_endpoint: The broker's sockets.
        gpu_id: Index for the handler's ``gpu_id``; None on CPU. The agent has set ``CUDA_VISIBLE_DEVICES`` already.
        cpu_threads: Threads for torch and OpenMP, at least 1.
        heartbeat_s: Pause between beats.
        drain_timeout_s: Longest time to finish what is held after SIGTERM.
        orphan_timeout_s: A managed worker without a broker for so long exits; 0: never.
        parent_pid: Exit when this process is no longer the parent; 0: do not look.
        print_metrics: Print the lines of ``context.metrics`` for the node agent (TORCHSERVE.md 3.4).
        model_metrics: What metrics.yaml defines for models, each ``[name, type, unit, [dimension, …]]``.
        service_envelope: Envelope around the handler (``body``, ``json``, ``kserve``, ``kservev2``); ``""``: none.
        header_key_sequence_id, header_key_sequence_start, header_key_sequence_end: Names of the sequence headers.
        site_dir: Folder with the packages of the model's requirements file; ``""``: none.
        python: Interpreter of the model's own virtual environment; ``""``: the node agent's.
        token: Shown to the broker in HELLO (``zts.wire.worker_tokens``); ``""``: the broker wants none.
        is_other_user: It runs as another user than the node agent.
        started_at: Monotonic seconds of this host when the process was started, for its load time; 0: unknown.
    """

    worker_id: str
    epoch: int
    spec: ModelSpec
    model_dir: str
    worker_endpoint: str
    control_endpoint: str
    node_id: str = ""
    gpu_id: int | None = None
    cpu_threads: int = 1
    heartbeat_s: float = 1.0
    drain_timeout_s: float = 25.0
    orphan_timeout_s: float = 60.0
    parent_pid: int = 0
    decode_input_request: bool = True
    limit_max_image_pixels: bool = True
    max_response_bytes: int = 6_553_500
    print_metrics: bool = False
    model_metrics: Sequence[Sequence[Any]] = field(default_factory=list)
    started_at: float = 0.0
    service_envelope: str = ""
    header_key_sequence_id: str = "ts_request_sequence_id"
    header_key_sequence_start: str = "ts_request_sequence_start"
    header_key_sequence_end: str = "ts_request_sequence_end"
    site_dir: str = ""
    python: str = ""
    token: str = ""
    is_other_user: bool = False

    def to_json(self) -> str:
        """Return the record as one line of JSON."""
        out = {name: getattr(self, name) for name in self.__slots__ if name != "spec"}
        return json.dumps({**out, "spec": self.spec.to_map()})

    @classmethod
    def from_json(cls, text: str) -> WorkerOptions:
        """Undo ``to_json``.

        Raises:
            ConfigError: If the text is no such record.
        """
        try:
            raw: dict[str, Any] = json.loads(text)
            raw["spec"] = ModelSpec.from_map(raw["spec"])
            return cls(**raw)
        except (ValueError, KeyError, TypeError, ZtsError) as exc:
            raise ConfigError(f"{OPTIONS_VARIABLE} is not readable: {exc}") from None
