"""Shell scripts about the service that run on a board, in the home directory."""

from __future__ import annotations

UNIT = "/etc/systemd/system/tutelage.service"
TOKEN_FILE = "tutelage/web.env"  # noqa: S105 (its name)
"""File with the service's environment, from the home directory on a board: the live page's token,
and the source where the user has put one there."""

# The application's variables, see app/options.py.
SOURCE_VARIABLE, TOKEN_VARIABLE = "TUTELAGE_SOURCE", "TUTELAGE_WEB_TOKEN"

# Root needs no sudo; others need one that asks for no password.
AS_ROOT = 's="sudo -n"; [ "$(id -u)" != 0 ] || s=; '
MAY_SUDO = (
    '[ "$(id -u)" = 0 ] || sudo -n true 2> /dev/null || { '
    "echo 'sudo there asks for a password, which cannot be typed here: allow it without one "
    "(NOPASSWD in /etc/sudoers.d), or deploy as root with --service-user' >&2; exit 1; }"
)
_STAYS_UP = (
    "sleep 2; $s systemctl is-active --quiet tutelage.service || "
    "{ echo it does not stay up, see journalctl -u tutelage >&2; exit 1; }"
)
RESTART = (
    f"{AS_ROOT}test -e {UNIT} || exit 0; systemctl is-active --quiet tutelage.service; r=$?; "
    "$s systemctl try-restart tutelage.service || exit 1; [ $r != 0 ] || "
    f"{{ {_STAYS_UP}; }}"
)
"""Restart the service where there is one; what ran before must run afterwards."""

REMOVE = (
    f"{AS_ROOT}$s systemctl disable --now tutelage.service || true; "
    f"$s rm -f {UNIT} {UNIT}.before; $s systemctl daemon-reload || true; rm -f tutelage/current"
)
"""Remove the first release's service: nothing is left that would be started at the next boot."""

UNIT_BACK = (
    f"{AS_ROOT}test ! -e {UNIT}.before || {{ $s mv {UNIT}.before {UNIT}; "
    "$s systemctl daemon-reload; }"
)
"""Put the unit file from before `INSTALL` back."""

MAKE_TOKEN = (
    f"set -e; umask 077; grep -qs '^{TOKEN_VARIABLE}=.' {TOKEN_FILE} || {{ "
    "t=$(head -c 18 /dev/urandom | base64 | tr +/ -_); "
    f"{{ grep -sv '^{TOKEN_VARIABLE}=' {TOKEN_FILE} || true; echo \"{TOKEN_VARIABLE}=$t\"; }} "
    f"> {TOKEN_FILE}.new; mv -T {TOKEN_FILE}.new {TOKEN_FILE}; }}; chmod 600 {TOKEN_FILE}"
)
"""Make the live page's token, once for all releases; other lines of the file stay."""

INSTALL = (
    f"set -e; {AS_ROOT}test ! -e {UNIT} || $s cp {UNIT} {UNIT}.before; "
    f"$s tee {UNIT} > /dev/null; $s systemctl daemon-reload; "
    f"$s systemctl enable tutelage.service; $s systemctl restart tutelage.service; {_STAYS_UP}"
)
"""Write the unit file, which comes on standard input, and start the service."""

STATE = (
    f'w=$(cat); test -n "$w" || test -e {UNIT} || {{ echo right; exit; }}; '
    f'test -z "$w" || test "$w" = "$(cat {UNIT} 2>/dev/null)" || {{ echo unit; exit; }}; '
    "p=$(systemctl show -p MainPID --value tutelage.service); "
    'if [ "${p:-0}" = 0 ]; then test -n "$w" && echo down || echo right; exit; fi; '
    "s=; [ \"$(id -u)\" = 0 ] || s='sudo -n'; "
    'if [ "$($s readlink /proc/$p/cwd)" = "$(readlink -f tutelage/current)" ]; '
    "then echo right; else echo old; fi"
)
"""Print "right" where the unit is the one on standard input (any, if that is empty) and its process
runs from the current release; also where there is neither."""
