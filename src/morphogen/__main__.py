"""``python -m morphogen``: the command line."""

import sys

from morphogen.cli import main

if __name__ == "__main__":
    sys.exit(main())
