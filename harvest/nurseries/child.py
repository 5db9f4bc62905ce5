"""A child process that works for the run: it ends with it, and its output is taken as it comes."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


async def run_child(command: Sequence[str], take: Callable[[bytes], None]) -> int:
    """Run ``command`` to its end, and return its exit code; ``take`` gets its output in pieces. Cancelled, it is killed.

    The other end of its standard input is ours: by its end the child learns of ours (see ``harvest.parent``).

    Raises:
        OSError: it could not be started.
    """
    child = await trio.lowlevel.open_process(
        list(command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # A Ctrl-C at the terminal is the parent's to judge.
        start_new_session=os.name == "posix",
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        while more := await child.stdout.receive_some():
            take(bytes(more))
        return await child.wait()
    finally:
        with trio.CancelScope(shield=True):
            if child.poll() is None:
                child.kill()
            await child.wait()
            await trio.aclose_forcefully(child.stdin)
            await trio.aclose_forcefully(child.stdout)
