"""Exit codes of a worker process: the runtime ends with them, the node agent reads them. Layer 1."""

from typing import Final

__all__ = [
    "EXIT_DONE",
    "EXIT_DRAIN_LIMIT",
    "EXIT_KILLED",
    "EXIT_LOAD_FAILED",
    "EXIT_ORPHAN",
    "EXIT_OUT_OF_MEMORY",
    "EXIT_REFUSED",
    "MAX_REASON_CHARS",
]

EXIT_DONE: Final = 0
EXIT_LOAD_FAILED: Final = 3
EXIT_OUT_OF_MEMORY: Final = 4  # while loading
EXIT_DRAIN_LIMIT: Final = 5  # drain_timeout_s was over before the held jobs were
EXIT_ORPHAN: Final = 6  # no broker for orphan_timeout_s
EXIT_REFUSED: Final = 7  # the broker does not want this worker
EXIT_KILLED: Final = 143  # second SIGTERM, as a shell shows one

# Of a cause that travels and is shown; an exception's text may be of any length.
MAX_REASON_CHARS: Final = 2000
