"""The address of the live page: HOST:PORT, its socket, and whether it needs a token."""

from __future__ import annotations

import ipaddress
import socket
from typing import cast

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8080

_ANY_HOST = {"0.0.0.0", "::"}  # noqa: S104 (asked for with --web HOST, and then with a token)
_ELSEWHERE = ("192.0.2.1", 9)  # reserved for documentation (RFC 5737), so never in use
_SEND_BUFFER = 1 << 18  # bytes per connection: bounds how far a slow viewer lags behind
_SILENCE_MS = 20_000  # a peer that acknowledges nothing for this long is disconnected


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of "", "8080", ":8080", "host", "host:8080" or "[::1]:8080".

    Raises
    ------
    ValueError
        The text has none of these forms; the message is one line for the user.
    """
    text = text.strip()
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        if not closed or not _is_ipv6(host) or (rest and not rest.startswith(":")):
            raise ValueError(f"{text}: write an IPv6 address as in [::1]:{DEFAULT_PORT}")
        return host, _port(text, rest[1:])
    if text.count(":") > 1:
        raise ValueError(f"{text}: write an IPv6 address in brackets, as in [::1]:{DEFAULT_PORT}")
    if text.isdigit():
        return DEFAULT_HOST, _port(text, text)
    host, _, port = text.partition(":")
    if any(mark in host for mark in "/@?# \t"):
        raise ValueError(f"{text}: expected HOST:PORT, as in {DEFAULT_HOST}:{DEFAULT_PORT}")
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
        raise ValueError(f"{text}: a port is a number from 0 (any free port) to 65535")
    return int(port)


def needs_token(host: str) -> bool:
    """Return whether a host can be reached from other machines, that is, is not loopback."""
    if host.lower() == "localhost":
        return False
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 selects any free port.

    Raises
    ------
    OSError
        The host has no such address, or the port is taken or not allowed.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)  # IPv4 first, as for "localhost"
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections inherit these two options.
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
    """Return a host for use in a URL: IPv6 in brackets, and "any" as this machine's address."""
    if host in _ANY_HOST:
        host = _own_address()
    return f"[{host}]" if ":" in host else host


def _own_address() -> str:
    """Return the address that this machine uses to reach others. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_ELSEWHERE)
            return cast(str, probe.getsockname()[0])
        except OSError:
            return DEFAULT_HOST
