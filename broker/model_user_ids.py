"""Which users of this host may run models, as the configuration names them. Layer 3: asks the user database."""

from __future__ import annotations

import pwd
from collections.abc import Iterator, Mapping

from zts.settings import Settings

__all__ = ["model_user_ids"]


def model_user_ids(settings: Settings) -> frozenset[int]:
    """Return the ids of all users as whom workers may run beside the server's own.

    A name that this host does not know is left out: a registration that wants it is refused with the reason.
    """
    found = set()
    for text in _named(settings):
        user = text.partition(":")[0]
        if user.isdecimal():
            found.add(int(user))
            continue
        try:
            found.add(pwd.getpwnam(user).pw_uid)
        except KeyError:
            continue
    return frozenset(found)


def _named(settings: Settings) -> Iterator[str]:
    yield from filter(None, (settings.model_user, *settings.model_users))
    for versions in settings.models.values():
        for entry in versions.values() if isinstance(versions, Mapping) else ():
            user = entry.get("user") if isinstance(entry, Mapping) else None
            if isinstance(user, (str, int)) and not isinstance(user, bool):
                yield str(user).strip()
