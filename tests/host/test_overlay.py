"""`tutelage overlay`, with files of our own and servers on this machine.

These tests never used AMD's files and AMD's address.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer", reason="host/ needs typer, which is not installed")

from tutelage.__main__ import main
from tutelage.core.errors import OverlayError, OverlayUsageError
from tutelage.host.deploy import overlay_manifest as overlay
from tutelage.host.deploy.overlay_fetch import Fetcher
from tutelage.host.deploy.overlay_files import place_overlay, sums_of
from tutelage.host.deploy.overlay_manifest import read_manifest
from tutelage.host.train.config import read_toml

FILES = {"dpu.bit": b"bits" * 50_000, "dpu.hwh": b"<xml/>", "dpu.xclbin": b"xclbin2"}
MOST = 1_000_000


def _quiet(text: str) -> None:
    """Collects the messages to the user."""


@pytest.fixture
def overlays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create a board "mine" with three files; return its folder."""
    folder = tmp_path / "overlays" / "mine"
    folder.mkdir(parents=True)
    text = f'board = "Mine"\nrelease = "Mine 1"\nurl = "https://localhost:9/"\nmax_bytes = {MOST}\n'
    for name, content in FILES.items():
        md5 = hashlib.md5(content).hexdigest()
        text += f'[[files]]\nname = "{name}"\nremote = "mine 1.{name}"\nmd5 = "{md5}"\n'
    (folder / "overlay.toml").write_text(text)
    monkeypatch.setattr(overlay, "OVERLAYS", folder.parent)
    monkeypatch.setenv("no_proxy", "*")
    return folder


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A directory with the right files."""
    folder = tmp_path / "local"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    return folder


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


# -- local files ------------------------------------------------------------------------------


def test_local_files_are_verified_pinned_and_placed(
    overlays: Path, local: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["overlay", "mine", "--from", str(local)]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "Mine 1, dpu.bit, dpu.hwh, dpu.xclbin" in out and "recorded in" in out
    output = overlays / "files"
    pins = read_toml(overlays / "sha256.toml")["files"]
    assert pins == {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}
    assert (output / "sha256.toml").read_bytes() == (overlays / "sha256.toml").read_bytes()
    before = _contents(output)
    assert set(before) == {*FILES, "sha256.toml"}
    assert main([*command, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["output"] == str(output) and figures["pins"].startswith("as in ")
    assert _contents(output) == before
    assert main(["overlay", "mine"]) == 0  # nothing is downloaded: all files exist


def test_files_under_their_makers_names(overlays: Path, local: Path, tmp_path: Path) -> None:
    for name in FILES:
        (local / name).rename(local / f"mine 1.{name}")
    output = tmp_path / "a" / "b"
    assert main(["overlay", "mine", "--from", str(local), "-o", str(output)]) == 0
    assert {name: _contents(output)[name] for name in FILES} == FILES


def test_the_board_accepts_the_installed_overlay(overlays: Path, local: Path) -> None:
    """board/overlay reads the copy of the pins; both sides use the same form."""
    assert main(["overlay", "mine", "--from", str(local)]) == 0
    pins = read_toml(overlays / "files" / "sha256.toml")["files"]
    assert {name: sums_of(overlays / "files" / name).sha256 for name in FILES} == pins


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_wrong_file_leaves_the_old_one(
    overlays: Path, local: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = overlays / "files"
    assert main(["overlay", "mine", "--from", str(local)]) == 0
    before, pins = _contents(output), (overlays / "sha256.toml").read_bytes()
    for content, words in ((b"corrupt", "the published one"), (b"x" * (MOST + 1), "more than")):
        (local / name).write_bytes(content)
        capsys.readouterr()
        assert main(["overlay", "mine", "--from", str(local)]) == 1
        error = capsys.readouterr().err
        assert name in error and words in error and error.count("\n") == 1
        assert _contents(output) == before and (overlays / "sha256.toml").read_bytes() == pins


def test_nothing_is_pinned_before_all_is_right(overlays: Path, local: Path) -> None:
    (local / "dpu.xclbin").write_bytes(b"wrong")
    assert main(["overlay", "mine", "--from", str(local)]) == 1
    assert not (overlays / "sha256.toml").exists() and not _contents(overlays / "files")


def test_a_changed_sha256_is_refused(
    overlays: Path, local: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["overlay", "mine", "--from", str(local)]) == 0
    pins = overlays / "sha256.toml"
    before = _contents(overlays / "files")
    pins.write_text(re.sub(r'"dpu.hwh" = "."?', '"dpu.hwh" = "z', pins.read_text()))
    capsys.readouterr()
    assert main(["overlay", "mine", "--from", str(local)]) == 1
    error = capsys.readouterr().err
    assert "dpu.hwh" in error and "forged" in error and error.count("\n") == 1
    assert _contents(overlays / "files") == before
    pins.write_text("files = 3")
    assert main(["overlay", "mine", "--from", str(local)]) == 2
    assert "no table [files]" in capsys.readouterr().err


def test_places_that_cannot_be_written(
    overlays: Path, local: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    for output in (blocked, blocked / "below", Path("/proc/none")):
        assert main(["overlay", "mine", "--from", str(local), "--output", str(output)]) == 1
        error = capsys.readouterr().err
        assert str(output) in error and error.count("\n") == 1
    assert not (overlays / "sha256.toml").exists() and blocked.read_text() == "in the way"


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["kv999"], "no overlay for 'kv999'; choose from mine"),
        (["../mine"], "no overlay for '../mine'"),
        (["mine", "--from", "/none"], "has neither dpu.bit nor mine 1.dpu.bit"),
        (["mine", "--from", ".", "--url", "https://a/"], "cannot be used together"),
        (["mine", "--url", "http://localhost/"], "not an https address"),
        (["mine", "--url", "file:///etc/"], "not an https address"),
        (["mine", "--url", "https://[x/"], "not an address"),
        ([], "Missing argument"),
    ],
)
def test_wrong_use(
    overlays: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["overlay", *arguments]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert words in error


@pytest.mark.parametrize("text", ["", "files = 1", "x", '[[files]]\nname = "../x"'])
def test_a_bad_manifest(overlays: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    (overlays / "overlay.toml").write_text(text)
    assert main(["overlay", "mine"]) == 2
    error = capsys.readouterr().err
    assert "overlay.toml" in error and error.count("\n") == 1


def test_the_zcu104s_manifest() -> None:
    manifest = read_manifest("zcu104")
    assert [file.name for file in manifest.files] == ["dpu.bit", "dpu.hwh", "dpu.xclbin"]
    bit = manifest.files[0]
    assert bit.md5 == "4e987212ddead50896bd658bc66bc265"
    assert bit.remote == "pynqdpu.dpu.zcu104.2.5.0.bit"
    assert manifest.url.startswith("https://www.xilinx.com/")


# -- downloads --------------------------------------------------------------------------------


class _Server(ThreadingHTTPServer):
    """Server of FILES; `fault` selects a failure, `asked` records the paths."""

    daemon_threads = True
    fault = ""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that disconnects is not reported."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        fault = self.server.fault
        content = FILES.get(self.path.rpartition("mine%201.")[2], b"")
        if fault == "404" or not content:
            return self.send_error(404)
        if fault.startswith("redirect "):
            self.send_response(302)
            self.send_header("Location", fault.removeprefix("redirect "))
            return self.end_headers()
        self.send_response(200)
        page = fault == "page"
        self.send_header("Content-Type", "text/html" if page else "application/octet-stream")
        if fault != "endless":
            length = 2 * MOST if fault == "large" else len(content)
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if fault == "corrupt":
            content = b"X" + content[1:]
        self._send(content[: len(content) // 2] if fault == "truncated" else content)
        return None

    def _send(self, content: bytes) -> None:
        fault = self.server.fault
        while fault == "endless":
            self.wfile.write(bytes(100_000))
        if fault == "slow":
            for byte in content:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(0.05)
        if fault == "silent":
            time.sleep(3)
        self.wfile.write(content)


@contextmanager
def _serving(context: ssl.SSLContext | None = None) -> Iterator[_Server]:
    with _Server() as made:
        if context:
            made.socket = context.wrap_socket(made.socket, server_side=True)
        thread = threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield made
        finally:
            made.shutdown()
            thread.join()


@pytest.fixture
def server() -> Iterator[_Server]:
    with _serving() as made:
        yield made


def _place(server: _Server, fetcher: Fetcher | None = None) -> dict[str, Any]:
    fetcher = fetcher or Fetcher(allow_local_http=True, seconds=10)
    return place_overlay("mine", None, None, f"http://{server.address}", _quiet, fetcher)


def test_downloads_are_verified_and_placed_once(overlays: Path, server: _Server) -> None:
    assert _place(server)["placed"]
    assert {name: _contents(overlays / "files")[name] for name in FILES} == FILES
    assert server.asked[0] == "/mine%201.dpu.bit" and len(server.asked) == 3
    assert not _place(server)["placed"] and len(server.asked) == 3
    (overlays / "files" / "dpu.hwh").write_bytes(b"damaged")
    assert _place(server)["placed"] and len(server.asked) == 6
    assert (overlays / "files" / "dpu.hwh").read_bytes() == FILES["dpu.hwh"]


@pytest.mark.parametrize(
    "fault, words",
    [
        ("corrupt", "dpu.bit: md5 is "),
        ("truncated", "truncated after 100,000 of 200,000 bytes"),
        ("large", "2,000,000 bytes are more than the limit of 1,000,000"),
        ("endless", "more than 1,000,000 bytes"),
        ("page", "sends a web page, not the file: download the files with a browser"),
        ("404", "answers 404"),
        (
            "redirect http://example.invalid/x",
            r"redirects to http://example\.invalid/x: not an https",
        ),
        ("redirect file:///etc/passwd", "is not allowed"),
        ("redirect /mine%201.dpu.bit", "cannot be downloaded|answers 302"),
        ("silent", "cannot be downloaded: .*timed out"),
        ("slow", "took longer than 1 s"),
    ],
)
def test_downloads_that_fail(overlays: Path, server: _Server, fault: str, words: str) -> None:
    folder = overlays / "files"
    folder.mkdir()
    (folder / "dpu.bit").write_bytes(b"of before")
    server.fault = fault
    with pytest.raises(OverlayError, match=words) as caught:
        _place(server, Fetcher(allow_local_http=True, seconds=1))
    assert "\n" not in str(caught.value)
    assert _contents(folder) == {"dpu.bit": b"of before"}
    assert not (overlays / "sha256.toml").exists()


def test_nobody_there(overlays: Path) -> None:
    with _Server() as closed:
        pass
    with pytest.raises(OverlayError, match=r"cannot be downloaded: .*refused"):
        _place(closed)


def test_http_is_for_tests_only(overlays: Path, server: _Server) -> None:
    with pytest.raises(OverlayUsageError, match="not an https address"):
        _place(server, Fetcher())
    with pytest.raises(OverlayUsageError, match="not an https address"):
        Fetcher(allow_local_http=True).fetch("http://example.invalid/", overlays / "x", 1)
    assert not server.asked


def test_https(overlays: Path, tmp_path: Path) -> None:
    """An untrusted certificate is refused; a trusted one gives the files."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl, to make a certificate")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "3650", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with _serving(context) as server:
        url = f"https://{server.address}"
        with pytest.raises(OverlayError, match="certificate verify failed"):
            place_overlay("mine", None, None, url, _quiet, Fetcher())
        trusting = Fetcher(context=ssl.create_default_context(cafile=str(certificate)))
        assert place_overlay("mine", None, None, url, _quiet, trusting)["placed"]
        server.fault = "redirect http://127.0.0.1:9/"
        with pytest.raises(OverlayError, match="the server redirects to"):
            trusting.fetch(url + "mine%201.dpu.bit", tmp_path / "x", MOST)
