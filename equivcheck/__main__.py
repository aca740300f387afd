"""`python -m equivcheck` is the command `equivcheck`."""

import sys

from equivcheck.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
