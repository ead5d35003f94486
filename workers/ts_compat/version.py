"""``ts.version``: the TorchServe version whose names these are."""

import os

from zts.workers.handler.context import SERVER_VERSION as __version__
from zts.workers.handler.import_path import TS_FOLDER

__all__ = ["__version__", "version_path"]

version_path = os.path.join(TS_FOLDER, "ts", "version.txt")
