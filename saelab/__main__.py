"""`python -m saelab` is the `saelab` command."""

import sys

from saelab.door import main

if __name__ == "__main__":
    sys.exit(main())
