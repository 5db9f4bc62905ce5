"""Run the command line with ``python -m harvest``."""

from harvest.cli import main

if __name__ == "__main__":
    main()
