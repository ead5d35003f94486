"""Where the broker of this user's instance listens when nobody gave an address."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from zts.errors import BrokerUnavailable
from zts.ownership import check_ours
from zts.settings import Endpoints

__all__ = ["default_endpoints", "no_broker"]


def default_endpoints(environ: Mapping[str, str] | None = None, runtime_dir: str | None = None) -> Endpoints:
    """Return the endpoints of the instance that ``runtime_dir`` or the environment names, or of the default one.

    ``ZTS_CLIENT_ADDRESS`` and ``ZTS_CONTROL_ADDRESS`` name single sockets, ``ZTS_RUNTIME_DIR`` the folder of all.

    Raises:
        ConfigError: If the folder's name is too long for a socket in it, or other users could have made the folder.
    """
    from zts.config.resolve import (  # reads configuration files too: loaded only when needed
        check_ipc_path,
        instance_dir,
    )

    environ = os.environ if environ is None else environ
    folder = instance_dir(argparse.Namespace(runtime_dir=runtime_dir), environ)
    endpoints = Endpoints.in_folder(folder)
    if runtime_dir is None:
        endpoints = replace(
            endpoints,
            client=environ.get("ZTS_CLIENT_ADDRESS") or endpoints.client,
            control=environ.get("ZTS_CONTROL_ADDRESS") or endpoints.control,
        )
    if any(getattr(endpoints, name).startswith(f"ipc://{folder}/") for name in ("client", "control")):
        check_ours(Path(folder))
    check_ipc_path(endpoints.client)
    check_ipc_path(endpoints.control)
    return endpoints


def no_broker(address: str) -> BrokerUnavailable:
    """Return the error that says that nobody answers at ``address``, and what to do."""
    return BrokerUnavailable(
        f"No broker answers at {address}: is zts running? Start it with 'zts start', or give another address "
        "(or ZTS_RUNTIME_DIR of another instance)."
    )
