"""``ts.version``: the TorchServe version whose names these are."""

from zts.workers.context import SERVER_VERSION as __version__

__all__ = ["__version__"]
