"""``python -m zts``: the same as the ``zts`` command."""

import sys

from zts.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
