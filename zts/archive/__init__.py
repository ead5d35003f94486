"""Model archives: pack them, unpack them safely, and read what they say into a ``ModelSpec``. Layer 3.

Nothing here runs a model's code or imports torch.
"""

from zts.archive.manifest import Manifest, read_manifest
from zts.archive.model_config import read_config_file
from zts.archive.pack import PackOrder, pack_archive
from zts.archive.spec import read_model
from zts.archive.unpack import is_archive_name, unpack
from zts.errors import BadArchive as ArchiveError

__all__ = [
    "ArchiveError",
    "Manifest",
    "PackOrder",
    "is_archive_name",
    "pack_archive",
    "read_config_file",
    "read_manifest",
    "read_model",
    "unpack",
]
