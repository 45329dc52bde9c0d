"""`python -m lifecycle_engine` is `lifecycle-engine`."""

import sys

from lifecycle_engine.cli import main

sys.exit(main())
