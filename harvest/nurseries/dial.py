"""From a WebSocket URL to a stream to its server: address, name, TCP, TLS, and what can go wrong on the way."""

from __future__ import annotations

import socket
import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote, urlsplit

import attrs
import trio

from harvest.errors import HarvestError
from harvest.nurseries.coalesce import CoalescingStream
from harvest.nurseries.tls import TlsStream, default_context
from harvest.settings.checks import is_loopback

if TYPE_CHECKING:
    from collections.abc import Iterator

Phase = Literal["dns", "tcp", "tls", "handshake", "open", "ping"]
"""Where a connection was when it was lost."""


class AddressError(HarvestError):
    """A URL that is not connected to, however often one tries."""

    def __init__(self, url: str, why: str) -> None:
        self.url = url
        self.why = why
        super().__init__(f"{url}: {why}")


class ConnectionLostError(HarvestError):
    """A connection that did not open, or that ended: ``phase`` says where, ``cause`` why.

    ``code`` and ``reason`` are those of the WebSocket's close (1006: it ended without one), None elsewhere.
    ``host`` is the host of the URL, with the port where it names one.
    """

    def __init__(
        self, url: str, phase: Phase, cause: str, *, code: int | None = None, reason: str | None = None
    ) -> None:
        self.url = url
        self.phase: Phase = phase
        self.cause = cause
        self.code = code
        self.reason = reason
        parts = urlsplit(url)
        self.host = parts.netloc
        # Without the query, which may name hundreds of streams.
        super().__init__(f"{parts.netloc}{parts.path}: {cause} ({phase})")


class ConnectionRejectedError(ConnectionLostError):
    """A WebSocket that the server refused with an HTTP ``status``; ``retry_after`` is its header, as sent."""

    def __init__(self, url: str, status: int, retry_after: str | None, body: str) -> None:
        self.status = status
        self.retry_after = retry_after
        text = f"the server answered HTTP {status}" + (f": {body}" if body else "")
        super().__init__(url, "handshake", text)


@attrs.frozen
class Address:
    """Where a URL leads: ``target`` and ``host_header`` are what the HTTP request says."""

    url: str
    is_secure: bool
    host: str
    port: int
    target: str
    host_header: str

    @classmethod
    def parse(cls, url: str, *, allow_insecure: bool = False) -> Address:
        """Take a URL apart; plain ``ws://`` leads to this machine only, unless ``allow_insecure``.

        Raises:
            AddressError: with what is wrong, and what to do.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise AddressError(url, str(error)) from None
        if parts.scheme not in ("ws", "wss") or not host:
            raise AddressError(url, "expected a URL such as wss://host/path")
        if parts.username is not None or parts.password is not None:
            raise AddressError(url, "market data is public: take the credentials out of the URL")
        is_secure = parts.scheme == "wss"
        if not is_secure and not allow_insecure and not is_loopback(host):
            raise AddressError(url, "not encrypted: use wss:// (ws:// is for this machine only)")
        default_port = 443 if is_secure else 80
        name = f"[{host}]" if ":" in host else host
        # What is percent-encoded stays so; a symbol in another script becomes so.
        target = quote(parts.path or "/", safe="/%@!$&'()*+,;=:~")
        if parts.query:
            target += "?" + quote(parts.query, safe="/%@!$&'()*+,;=:~?")
        return cls(
            url=url,
            is_secure=is_secure,
            host=host,
            port=port or default_port,
            target=target,
            host_header=name if port in (None, default_port) else f"{name}:{port}",
        )


async def dial(
    address: Address,
    *,
    deadline: float,
    timeout_s: float,
    ssl_context: ssl.SSLContext | None = None,
    close_timeout_s: float = 2.0,
    receive_bytes: int = 256 * 1024,
    coalesce_s: float = 0.0,
) -> trio.abc.Stream:
    """Return a stream to the server, over verified TLS where the address asks for it; the caller closes it.

    With ``coalesce_s`` it rests so long between two reads (``CoalescingStream``). ``deadline`` is on Trio's clock and
    bounds all phases together; ``timeout_s`` is what errors call it. Failed or cancelled, nothing is left open.

    Raises:
        ConnectionLostError: in phase ``dns``, ``tcp`` or ``tls``.
        ValueError: ``ssl_context`` does not verify certificates and host names.
    """
    context = (ssl_context or default_context()) if address.is_secure else None
    if context is not None and not (context.check_hostname and context.verify_mode is ssl.CERT_REQUIRED):
        raise ValueError("this TLS context does not verify the server: use a default one, with your own CA")
    # open_tcp_stream resolves names too, but does not say what it was waiting for when its time was over.
    with phase(address.url, "dns", deadline, timeout_s):
        await trio.socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    with phase(address.url, "tcp", deadline, timeout_s):
        transport: trio.abc.Stream = await trio.open_tcp_stream(address.host, address.port)
    if coalesce_s:
        transport = CoalescingStream(transport, coalesce_s)
    if context is None:
        return transport
    try:
        stream = TlsStream(
            transport, context, address.host, close_timeout_s=close_timeout_s, receive_bytes=receive_bytes
        )
        with phase(address.url, "tls", deadline, timeout_s):
            await stream.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(transport)
        raise
    return stream


@contextmanager
def phase(url: str, name: Phase, deadline: float, timeout_s: float) -> Iterator[None]:
    """Run a phase of opening under its deadline, and give what fails in it its name.

    Raises:
        ConnectionLostError: of this phase.
    """
    try:
        with trio.fail_at(deadline):
            yield
    except trio.TooSlowError:
        raise ConnectionLostError(url, name, f"no answer within {timeout_s:g} s") from None
    except (OSError, trio.BrokenResourceError, UnicodeError) as error:
        raise ConnectionLostError(url, name, describe(error)) from error


def describe(error: BaseException) -> str:
    """Say in a few words why a connection failed: the innermost cause, which is the system's own."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not accepted: {error.verify_message}"
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(dict.fromkeys(describe(each) for each in error.exceptions))
    if isinstance(error, OSError | trio.BrokenResourceError) and error.__cause__ is not None:
        return describe(error.__cause__)
    return str(error) or type(error).__name__
