"""Where the page is served: what HOST:PORT means, and who can reach it there."""

from __future__ import annotations

import ipaddress
import socket
from typing import cast

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8080

_ANY_HOST = {"0.0.0.0", "::"}  # noqa: S104 (asked for with --web HOST, and then with a token)
_ELSEWHERE = ("192.0.2.1", 9)  # of the block kept for documentation (RFC 5737): nobody is there
_SEND_BUFFER = 1 << 18  # bytes per connection: a slow viewer sees old frames no longer than that
_SILENCE_MS = 20_000  # after which a peer that takes nothing counts as gone


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of "", "8080", ":8080", "host", "host:8080" or "[::1]:8080".

    Raises
    ------
    ValueError
        It is none of these; the text is one line for the user.
    """
    text = text.strip()
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        if not closed or not _is_ipv6(host) or (rest and not rest.startswith(":")):
            raise ValueError(f"{text}: an IPv6 address is written as in [::1]:{DEFAULT_PORT}")
        return host, _port(text, rest[1:])
    if text.count(":") > 1:
        raise ValueError(f"{text}: an IPv6 address goes into brackets, as in [::1]:{DEFAULT_PORT}")
    if text.isdigit():
        return DEFAULT_HOST, _port(text, text)
    host, _, port = text.partition(":")
    if any(mark in host for mark in "/@?# \t"):
        raise ValueError(f"{text}: HOST:PORT is wanted, as in {DEFAULT_HOST}:{DEFAULT_PORT}")
    return host or DEFAULT_HOST, _port(text, port)


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False


def _port(text: str, port: str) -> int:
    if not port:
        return DEFAULT_PORT
    if not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ValueError(f"{text}: a port is a number from 0 (any free one) to 65535")
    return int(port)


def needs_token(host: str) -> bool:
    """Tell whether others than this machine's own users can reach a host: all but loopback."""
    if host.lower() == "localhost":
        return False
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes any free one.

    Raises
    ------
    OSError
        The host has no such address, or the port is taken or not allowed.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)  # "localhost" is both: IPv4 then
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections inherit both.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _SILENCE_MS)
        listener.bind(address)
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def reachable_host(host: str) -> str:
    """Return a host as it stands in a URL: in brackets where needed, and one's own for "any"."""
    if host in _ANY_HOST:
        host = _own_address()
    return f"[{host}]" if ":" in host else host


def _own_address() -> str:
    """Return the address from which this machine would talk to others. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_ELSEWHERE)
            return cast(str, probe.getsockname()[0])
        except OSError:
            return DEFAULT_HOST
