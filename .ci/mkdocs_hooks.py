"""Links of the documentation to files outside docs/, which the site has not: their text stays, without the link.

In the repository such links work as they are. One that leads nowhere is a warning, which ends a strict build.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

log = logging.getLogger("mkdocs.hooks")
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#:\s]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Return a page's text as the site should have it; called by mkdocs for each page."""
    folder, docs = Path(page.file.abs_src_path).parent, Path(config["docs_dir"]).resolve()

    def inside(match: re.Match[str]) -> str:
        target = (folder / match[2]).resolve()
        if target.is_relative_to(docs):
            return match[0]  # mkdocs checks it
        if not target.exists():
            log.warning("%s links to %s, which is not there", page.file.src_path, match[2])
        return match[1]

    return _LINK.sub(inside, markdown)
