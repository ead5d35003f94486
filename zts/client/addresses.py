"""Where the broker of this user's instance listens when nobody gave an address."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping

from zts.errors import BrokerUnavailable
from zts.settings import Endpoints

__all__ = ["default_endpoints", "no_broker"]


def default_endpoints(environ: Mapping[str, str] | None = None) -> Endpoints:
    """Return the ipc endpoints in the runtime folder of the default instance (or of ``ZTS_RUNTIME_DIR``)."""
    from zts.config import default_runtime_dir  # reads configuration files too, so it is loaded only when needed

    runtime_dir = default_runtime_dir(os.environ if environ is None else environ, os.getuid(), tempfile.gettempdir())
    return Endpoints.in_folder(runtime_dir)


def no_broker(address: str) -> BrokerUnavailable:
    """Return the error that says that nobody answers at ``address``, and what to do."""
    return BrokerUnavailable(
        f"No broker answers at {address}: is zts running? Start it with 'zts start', or give another address "
        "(or ZTS_RUNTIME_DIR of another instance)."
    )
