"""Which version a user gets: 2.0 for a fifth of them, 1.0 for the others."""

import zlib

SHARE_OF_B = 20  # percent; 0 ends the test, 100 gives 2.0 to everybody


def version_for(user):
    # By the user and not by chance, so that each always meets the same version, from every server and after restarts.
    return "2.0" if zlib.crc32(user.encode()) % 100 < SHARE_OF_B else "1.0"
