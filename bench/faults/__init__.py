"""Faults on purpose: crashes at every call, kills under load, full and slow disks; each ends with ``harvest verify``."""
