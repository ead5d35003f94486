"""What a file is that should have been an archive, in words for the log and for whoever asked. Layer 3: disk.

Nothing of its content is quoted: whoever may register ``file://`` addresses would read the host's files by it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from zts.regular_file import open_regular

__all__ = ["what_it_is"]

_HEAD_BYTES: Final = 512
# A comment ends at its first end mark: a pattern with ".*?" tries every way to share many of them out.
_PAGE: Final = re.compile(
    rb"\s*(<!--(?:(?!-->).)*-->\s*)*<(!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL
)
# How a file of a known kind begins, and what to say of it.
_KINDS: Final = (
    (b"PK\x03\x04", "it is a zip that was cut off: the list of its members, which stands at its end, is missing"),
    (b"PK", "it is a zip without members, or a damaged one"),
    (b"version https://git-lfs", "it is a Git LFS pointer, not the file itself: fetch it with 'git lfs pull'"),
    (b"\xfd7zXZ\x00", "it is packed with xz; an archive is a zip (.mar) or a gzipped tar (.tar.gz)"),
    (b"BZh", "it is packed with bzip2; an archive is a zip (.mar) or a gzipped tar (.tar.gz)"),
    (b"\x28\xb5\x2f\xfd", "it is packed with zstd; an archive is a zip (.mar) or a gzipped tar (.tar.gz)"),
    (b"7z\xbc\xaf\x27\x1c", "it is packed with 7-Zip; an archive is a zip (.mar) or a gzipped tar (.tar.gz)"),
    (b"Rar!", "it is packed with RAR; an archive is a zip (.mar) or a gzipped tar (.tar.gz)"),
    (b"\x80\x02", "it is a pickle, such as weights; pack it into an archive with 'zts archive'"),
)
_TEXTS: Final = {
    b"{": "a JSON text (such as an error of a storage service)",
    b"<": "an XML text (such as an error of a storage service)",
}


def what_it_is(path: Path) -> str:
    """Return why ``path``, which is neither a zip nor gzipped, is no archive.

    Raises:
        OSError: If it cannot be read.
    """
    size = path.stat().st_size
    if not size:
        return "it is empty (0 bytes)"
    with open_regular(path) as file:
        head = file.read(_HEAD_BYTES)
    if _PAGE.match(head):
        return "it is a web page (HTML): the address may want a login, or is that of a page about the file"
    for begin, words in _KINDS:
        if head.startswith(begin):
            return words
    if head[257:262] == b"ustar":
        return "it is a tar that is not compressed; an archive is a zip (.mar) or a gzipped tar (.tar.gz)"
    if _is_text(head):
        kind = _TEXTS.get(head.lstrip()[:1], "a text")
        return f"it is {kind} of {size} bytes"
    return f"it is neither a zip (.mar) nor a gzipped tar (.tar.gz), of {size} bytes"


def _is_text(head: bytes) -> bool:
    # The last character may be cut off.
    text = head.decode("utf-8", "ignore")
    return len(text.encode()) >= len(head) - 3 and all(char.isprintable() or char in "\n\r\t" for char in text)
