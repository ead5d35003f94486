"""zts: serve PyTorch models from plain Python processes that talk ZeroMQ; a successor for TorchServe.

Importing this package is cheap and has no effects: the public names are loaded when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from zts.client.aio import AsyncClient as AsyncClient
    from zts.client.direct import DirectClient as DirectClient
    from zts.client.sync import Client as Client
    from zts.handler import Handler as Handler

__all__ = ["AsyncClient", "Client", "DirectClient", "Handler", "__version__", "errors"]

_LAZY = {
    "AsyncClient": ("zts.client.aio", "AsyncClient"),
    "Client": ("zts.client.sync", "Client"),
    "DirectClient": ("zts.client.direct", "DirectClient"),
    "Handler": ("zts.handler", "Handler"),
}


def __getattr__(name: str) -> Any:
    if name == "errors" or name in _LAZY:
        import importlib

        if name == "errors":
            return importlib.import_module("zts.errors")
        module, attribute = _LAZY[name]
        return getattr(importlib.import_module(module), attribute)
    raise AttributeError(f"module 'zts' has no attribute {name!r}")
