"""The tasks: everything that waits."""
