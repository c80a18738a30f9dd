"""`python -m apps.cli` is `saelab`."""

import sys

from . import main

sys.exit(main())
