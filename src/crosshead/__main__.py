"""``python -m crosshead``: the command line."""

import sys

from crosshead.cli import main

if __name__ == "__main__":
    sys.exit(main())
