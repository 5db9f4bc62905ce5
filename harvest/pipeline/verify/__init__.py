"""Re-reads a data directory, and says of every id whether it is stored, or missing and why."""

from harvest.pipeline.verify.report import Report
from harvest.pipeline.verify.verification import NothingToVerifyError, verify

__all__ = ["NothingToVerifyError", "Report", "verify"]
