"""Checks of the names of hosts that users give."""

from __future__ import annotations

import ipaddress
import re
import shutil
from collections.abc import Sequence

from tutelage.host.ssh.errors import RemoteUsageError


def check_hosts(hosts: Sequence[str]) -> None:
    """Check the names of hosts, and that ssh and rsync are installed.

    Raises
    ------
    RemoteUsageError
        A name is not valid or occurs twice, or ssh or rsync is not installed.
    """
    for host in hosts:
        # No "@-": rsync and older versions of ssh take a name that begins with - as an option.
        if not re.fullmatch(r"\w(?:[\w.-]|@(?!-))*", host) and not _is_ipv6(host):
            raise RemoteUsageError(f"{host!r}: neither user@host nor a name in ~/.ssh/config")
    if len(set(hosts)) != len(hosts):
        raise RemoteUsageError("a host is named twice")
    for tool in ("ssh", "rsync"):
        if shutil.which(tool) is None:
            raise RemoteUsageError(f"{tool} is not installed on this machine")


def _is_ipv6(host: str) -> bool:
    """Return whether a host is an IPv6 address, as in xilinx@fe80::1%eth0."""
    found = re.fullmatch(r"(?:\w[\w.-]*@)?([0-9A-Fa-f:.]+)(?:%\w[\w.-]*)?", host)
    try:
        return found is not None and ipaddress.ip_address(found[1]).version == 6
    except ValueError:
        return False
