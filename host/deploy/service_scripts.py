"""Shell scripts for the service, which run on a board in the home directory."""

from __future__ import annotations

UNIT = "/etc/systemd/system/tutelage.service"
TOKEN_FILE = "tutelage/web.env"  # noqa: S105 (a file's name)
"""File with the service's environment, relative to the home directory on a board: the live page's
token, and the source if the user has added one."""

# Variables of the application, see app/options.py.
SOURCE_VARIABLE, TOKEN_VARIABLE = "TUTELAGE_SOURCE", "TUTELAGE_WEB_TOKEN"

# Root needs no sudo; for other users sudo must not ask for a password.
AS_ROOT = 's="sudo -n"; [ "$(id -u)" != 0 ] || s=; '
MAY_SUDO = (
    '[ "$(id -u)" = 0 ] || sudo -n true 2> /dev/null || { '
    "echo 'sudo on the board asks for a password, which cannot be entered here: allow sudo without "
    "one (NOPASSWD in /etc/sudoers.d), or deploy as root with --service-user' >&2; exit 1; }"
)
_STAYS_UP = (
    "sleep 2; $s systemctl is-active --quiet tutelage.service || "
    "{ echo it does not keep running, see journalctl -u tutelage >&2; exit 1; }"
)
RESTART = (
    f"{AS_ROOT}test -e {UNIT} || exit 0; systemctl is-active --quiet tutelage.service; r=$?; "
    "$s systemctl try-restart tutelage.service || exit 1; [ $r != 0 ] || "
    f"{{ {_STAYS_UP}; }}"
)
"""Restart the service, if there is one; fail if it was running and is not running afterwards."""

_NO_UNIT = (
    "$s systemctl disable --now tutelage.service || true; "
    f"$s rm -f {UNIT} {UNIT}.before; $s systemctl daemon-reload || true"
)
REMOVE = f"{AS_ROOT}{_NO_UNIT}; rm -f tutelage/current"
"""Remove the service of the first release, so that nothing is started at the next boot."""

UNIT_BACK = (
    f"{AS_ROOT}if test -e {UNIT}.before; then $s mv {UNIT}.before {UNIT}; "
    f"$s systemctl daemon-reload; else {_NO_UNIT}; fi"
)
"""Restore the unit file from before a failed `INSTALL`; if there was none, remove the service."""

MAKE_TOKEN = (
    f"set -e; umask 077; grep -qs '^{TOKEN_VARIABLE}=.' {TOKEN_FILE} || {{ "
    "t=$(head -c 18 /dev/urandom | base64 | tr +/ -_); "
    f"{{ grep -sv '^{TOKEN_VARIABLE}=' {TOKEN_FILE} || true; echo \"{TOKEN_VARIABLE}=$t\"; }} "
    f"> {TOKEN_FILE}.new; mv -T {TOKEN_FILE}.new {TOKEN_FILE}; }}; chmod 600 {TOKEN_FILE}"
)
"""Create the live page's token, unless there is one; keep other lines of the file."""

UNIT_END = "WantedBy=multi-user.target"
"""Last line of a unit file, by which an incomplete one is recognised."""

INSTALL = (
    f"set -e; {AS_ROOT}u=$(cat); case $u in *{UNIT_END}) ;; "
    "*) echo the unit file arrived incomplete >&2; exit 1 ;; esac; "
    f"$s rm -f {UNIT}.before; test ! -e {UNIT} || $s cp {UNIT} {UNIT}.before; "
    f"printf '%s\\n' \"$u\" | $s tee {UNIT} > /dev/null; $s systemctl daemon-reload; "
    f"$s systemctl enable tutelage.service; $s systemctl restart tutelage.service; {_STAYS_UP}; "
    f"$s rm -f {UNIT}.before"
)
"""Write the unit file from standard input, and start the service."""

STATE = (
    f'w=$(cat); test -n "$w" || test -e {UNIT} || {{ echo right; exit; }}; '
    f'test -z "$w" || test "$w" = "$(cat {UNIT} 2>/dev/null)" || {{ echo unit; exit; }}; '
    "p=$(systemctl show -p MainPID --value tutelage.service); "
    'if [ "${p:-0}" = 0 ]; then test -n "$w" && echo down || echo right; exit; fi; '
    "s=; [ \"$(id -u)\" = 0 ] || s='sudo -n'; "
    'if [ "$($s readlink /proc/$p/cwd)" = "$(readlink -f tutelage/current)" ]; '
    "then echo right; else echo old; fi"
)
"""Print "right" if the unit is that on standard input (any unit, if it is empty) and its process
runs from the current release, or if there is neither; else "unit", "down" or "old"."""
