"""`python -m tests.support.broken_start BREAKAGE COMMAND...`: runs a `postrail` command of a deliberately broken build.

Its neighbours: `chaos_broken` has the breakages, `kafka_world` starts services with it where a test asks for one.
"""

from __future__ import annotations

import sys

from postrail.cli.main import main
from tests.support import chaos_broken

if __name__ == "__main__":
    chaos_broken.apply(sys.argv[1])
    sys.exit(main(sys.argv[2:]))
