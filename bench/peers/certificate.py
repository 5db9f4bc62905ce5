"""A certificate for the blast server, made anew for each run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def make_certificate(directory: Path) -> Path:
    """Write ``server.pem`` (key and chain) and return the authority's certificate, which sides are told to trust."""
    import trustme

    authority = trustme.CA()
    authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
        str(directory / "server.pem")
    )
    path = directory / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    return path
