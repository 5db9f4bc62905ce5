"""Run a simulator with ``python -m harvest.simulator``."""

from __future__ import annotations

import sys

from harvest.errors import HarvestError
from harvest.simulator import main
from harvest.simulator.arguments import from_arguments

if __name__ == "__main__":
    try:
        main(from_arguments(sys.argv[1:]))
    except HarvestError as error:
        sys.exit(f"simulator: {error}")
