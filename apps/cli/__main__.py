"""`python -m apps.cli` is `saelab`."""

import sys

from apps.cli import main

sys.exit(main())
