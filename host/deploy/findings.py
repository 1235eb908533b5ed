"""Facts about a board, and findings among them that prevent a deployment."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tutelage.core.board_profile import Profile
from tutelage.core.locations import CODE
from tutelage.core.results.typed_json import MismatchError, json_value
from tutelage.host.deploy.packages import CARRIED
from tutelage.host.deploy.plan import DeployError, Report
from tutelage.host.ssh.advice import NOISE
from tutelage.host.ssh.remote import Remote

_PYNQ_PYTHON = "/usr/local/share/pynq-venv/bin/python3"
_SPARE_BYTES = 32 << 20
_MOST_CLOCK_SECONDS = 86400.0

# Types of the fields of board/check.py's answer that are used; a board may send anything.
_TEXT = (str, type(None))
_FACTS: dict[str, Any] = {
    "model": _TEXT, "image": _TEXT, "config": _TEXT, "extra_path": _TEXT, "python": str,
    "machine": str, "glibc": str, "executable": str, "home": str, "modules": dict, "paths": dict,
    "rsync": bool, "free_bytes": int, "time": (int, float), "fingerprint": (int, type(None)),
}  # fmt: skip
_IN_COMMANDS = ("python", "machine", "glibc", "executable", "extra_path", "home")
_LAST_TIME = 1e12  # s since 1970; Python's integers have no limit
_MODULES = {"numpy", "cv2", "vart", "xir", "pynq", "tomli", *CARRIED}


@dataclass(frozen=True)
class Finding:
    """A problem of a board.

    Attributes
    ----------
    name : by which --accept refers to it
    text : for the user
    fatal : whether it prevents a deployment
    """

    name: str
    text: str
    fatal: bool


def check_command(profile: Profile) -> str:
    """Return a shell command that runs check.py, from standard input, by the image's Python."""
    arguments = []
    if profile.overlay:
        arguments += ["--config", profile.overlay.config, "--firmware", profile.overlay.firmware]
    for hazard in profile.hazards:
        arguments += ["--path", hazard.where] if hazard.where else []
    return (f"p={_PYNQ_PYTHON}; [ -x $p ] || p=python3; "
            f"exec $p - {shlex.join(arguments)}")  # fmt: skip


def ask(remote: Remote, profile: Profile) -> dict[str, Any]:
    """Return the facts that board/check.py finds on a board, with `clock_off`, s, and `noise`.

    Raises
    ------
    ConnectionLost, RemoteError
        As for `Remote.sh`.
    DeployError
        The answer is not that of board/check.py.
    """
    script = (CODE / "board" / "check.py").read_text(encoding="utf-8")
    try:
        facts = json_value(remote.sh(check_command(profile), script))
    except MismatchError as error:
        raise DeployError(f"{remote.host}: the answer to the check is not JSON") from error
    if not _is_complete(facts):
        raise DeployError(f"{remote.host}: the answer to the check is not that of board/check.py")
    facts["clock_off"] = facts["time"] - time.time()
    facts["noise"] = remote.noise
    return facts


def _is_complete(facts: Any) -> bool:
    """Whether an answer has all fields that are used, with usable values of the right types."""
    return (
        isinstance(facts, dict)
        and all(isinstance(facts.get(name), kinds) for name, kinds in _FACTS.items())
        and all(isinstance(facts["modules"].get(name), str | None) for name in facts["modules"])
        and facts["modules"].keys() >= _MODULES
        # Commands cannot have zero bytes or lone surrogates, units no line breaks.
        and all((facts[name] or "").isprintable() for name in _IN_COMMANDS)
        and abs(facts["time"]) < _LAST_TIME  # NaN is not
        and re.fullmatch(r"[0-9]{1,3}\.[0-9]{1,3}[\w.+]*", facts["python"]) is not None
    )


def judge(report: Report, profile: Profile, size: int, accepted: tuple[str, ...]) -> None:
    """Add findings about a board to its report as warnings; raise DeployError for fatal ones.

    Parameters
    ----------
    size : of the release, bytes
    accepted : names of fatal findings that count as warnings
    """
    findings = list(findings_of(report.facts, profile, size))
    fatal = [f for f in findings if f.fatal and f.name not in accepted]
    report.warnings += [f"{f.name}: {f.text}" for f in findings if f not in fatal]
    if fatal:
        raise DeployError("; ".join(f"{f.name}: {f.text}" for f in fatal))


def findings_of(facts: dict[str, Any], profile: Profile, size: int) -> Iterator[Finding]:
    """Yield the problems of a board for a release of `size` bytes.

    Parameters
    ----------
    facts : result of `ask`
    """
    modules, version = facts["modules"], tuple(map(int, facts["python"].split(".")[:2]))
    if profile.name.lower() not in (facts["model"] or "").lower():
        yield Finding("model", f"is {facts['model'] or 'unknown'}, not a {profile.name}", True)
    if version < (3, 10):
        yield Finding("python", f"is {facts['python']}; 3.10 or newer is needed", True)
    if facts.get("noise"):
        yield Finding("login", f"{NOISE}; it prints {facts['noise'][:60]!r}", True)
    if not facts["rsync"]:
        yield Finding("rsync", "is not installed on the board: apt install rsync", True)
    for names, group in ((("numpy", "cv2"), "packages"), (("vart", "xir"), "vart"),
                         (("pynq",), "pynq")):  # fmt: skip
        missing = [name for name in names if modules[name] is None]
        if missing:
            yield Finding(group, f"{' and '.join(missing)} cannot be imported on the board", True)
    if facts["free_bytes"] < 2 * size + _SPARE_BYTES:
        yield Finding("disk", f"{facts['free_bytes']:,} bytes are free in {facts['home']}; "
                      f"{2 * size + _SPARE_BYTES:,} are needed", True)  # fmt: skip
    yield from _image_findings(facts, profile)
    if abs(facts["clock_off"]) > _MOST_CLOCK_SECONDS:
        yield Finding("clock", f"is {facts['clock_off'] / 86400:+.0f} days off: set it", True)
    yield from _dpu_findings(facts, profile)


def _image_findings(facts: dict[str, Any], profile: Profile) -> Iterator[Finding]:
    """Yield a finding if the image is not the one that the profile is for."""
    known = profile.image
    if not known:
        return
    own = facts["modules"]["pynq"], facts["python"], facts["image"] or "no os-release"
    right = own[0] == known.pynq and own[1].startswith(f"{known.python}.")
    if not right or known.system not in own[2]:
        installed = f"{own[2]}, Python {own[1]}, pynq {own[0] or 'unknown'}"
        yield Finding("image", f"{installed}; the board's profile is for {known.name}", False)


def _dpu_findings(facts: dict[str, Any], profile: Profile) -> Iterator[Finding]:
    overlay = profile.overlay
    if overlay:
        wanted, expected = overlay.config_line, overlay.fingerprint
        if facts["config"] != wanted:
            yield Finding("config", f"{overlay.config} does not have the line {wanted!r}; any "
                          "other can crash the board; see board/overlay", True)  # fmt: skip
        if facts["fingerprint"] is None:
            yield Finding("dpu", "the DPU's fingerprint cannot be read", False)
        elif expected and facts["fingerprint"] != expected:
            yield Finding("fingerprint", f"the DPU has {facts['fingerprint']:#x}, "
                          f"{overlay.release} {expected:#x}", True)  # fmt: skip
    for hazard in profile.hazards:
        if not hazard.where or facts["paths"].get(hazard.where):
            yield Finding(hazard.name, f"{hazard.text}; {hazard.remedy}", False)
