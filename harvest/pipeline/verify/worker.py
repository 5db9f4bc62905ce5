"""A child of ``verify``: the series to verify come over the standard input; bytes read, and results, go to the standard output."""

from __future__ import annotations

import pickle
import sys

from harvest.pipeline.verify.series import verify_series
from harvest.pipeline.verify.sharing import send


def main() -> None:
    """Say that it is up, then verify one series after the other, until there are no more."""
    take, give = sys.stdin.buffer, sys.stdout.buffer
    root = pickle.load(take)
    send(give, None)
    while True:
        try:
            series = pickle.load(take)
        except EOFError:
            return
        send(give, verify_series(root, series, lambda size_bytes: send(give, size_bytes)))


if __name__ == "__main__":
    main()
