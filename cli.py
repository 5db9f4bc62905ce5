"""Run harvest from a checkout: ``python cli.py run --symbols BTCUSDT,ETHUSDT``."""

from harvest.cli import main

if __name__ == "__main__":
    main()
