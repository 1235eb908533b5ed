"""`tutelage report`: from the repository's own results, from none, and from bad files."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")

from tutelage.__main__ import main
from tutelage.host.report.content import Plot, Section, Table, cell_text
from tutelage.host.report.html_page import html_page
from tutelage.host.report.markdown import document
from tutelage.host.report.trace_section import trace_section

ROOT = Path(__file__).resolve().parent.parent.parent
HOSTILE = "<script>alert(1)</script>\"'|&$\\frac$"


class _Page(HTMLParser):
    """Collector of a page's relevant elements, which fails on mismatched tags."""

    VOID = frozenset({"meta", "link", "br", "image", "use", "path"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def _report(output: Path, *more: str) -> tuple[_Page, str]:
    assert main(["report", "-o", str(output), "--model", str(ROOT / "app/demo/model.xmodel"),
                 *more]) == 0  # fmt: skip
    text = output.with_suffix(".html").read_text()
    return _Page(text), text


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real measurement of the emulation, without watts."""
    folder = tmp_path_factory.mktemp("here") / "first"
    done = subprocess.run(
        [sys.executable, "-m", "tutelage.app.measure", "--output", str(folder), "--seconds", "0.5",
         "--warm-up", "0.2", "--idle", "0.3", "--cool-down", "0.1", "--threads", "1",
         "--accept", "disturbed", "--power", "none"], cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0
    return folder


@pytest.mark.slow
def test_a_report_of_the_repositorys_own_results(tmp_path: Path, run: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(
        ROOT / "results", results, ignore=lambda _, names: {"study", "bench"} & {*names}
    )
    shutil.copytree(run, results / "here" / "first")
    _bench(results / "bench" / "one")
    found, text = _report(tmp_path / "report", "--results", str(results))
    names = [attributes["id"] for attributes in found.all("section")]
    assert names == ["study", "ablation", "comparison", "thesis", "layers", "trace", "prediction"]
    for attributes in found.all("a"):
        link = attributes["href"] or ""
        assert link.startswith("#") or (tmp_path / unquote(link)).exists(), link
    assert not [a for a in found.all("script") if a.get("src")] and not found.all("link")
    assert not re.search(r'(src|href)="https?:', text)
    ids = [a["id"] for _, a in found.tags if a.get("id")]
    assert len(ids) == len(set(ids))
    assert "no power meter here" in text and "nothing here was measured on a DPU" in text
    markdown = (tmp_path / "report.md").read_text()
    for plot in re.findall(r"\]\((report/\w+\.svg)\)", markdown):
        assert (tmp_path / plot).read_text().startswith("<svg")
    assert "## Phases of QKD" in markdown and "qkd without co-studying" in markdown


def _bench(folder: Path) -> None:
    """A comparison as written by `tutelage bench`, with untrusted text in it."""
    figure = {"value": 1.5, "low": 1.4, "high": 1.6}
    none = dict.fromkeys(figure)
    row: dict[str, Any] = {
        "title": f"CPU {HOSTILE}", "id": "cpu", "family": "cpu", "kind": "measured",
        "state": "done", "reason": "",
        "latency_ms": {"p50": figure, "p99": figure}, "network_latency_ms": {"p50": figure},
        "fps": figure, "network_fps": none, "watts": none, "joules_per_frame": none,
        "accuracy": 93.5, "model_bytes": 2048, "by": "a test", "concerns": ["disturbed"],
    }  # fmt: skip
    inputs = {side: {"row": side, "figure": "x", "value": None} for side in ("dpu", "platform")}
    cell = {"figure": none, "missing": "no power meter here", "inputs": inputs}
    report = {
        "state": "done", "started": "2026-01-01", "model": {"name": "net"},
        "environment": {"cpu": "a CPU", "threads": 2},
        "images": {"source": "photos", "count": 10, "labelled": 0},
        "setting": {"platforms": ["cpu"], "repetitions": 3, "seconds": 1, "warm_up": 0,
                    "threads": 2, "board": "zcu104"},
        "rows": [row, {**row, "state": "absent", "reason": "no GPU"}],
        "thesis": {
            "reference": {"speed_up": 9.0, "efficiency": 4.0, "text": "much", "source": "it"},
            "missing": ["no DPU"],
            "comparisons": [{"dpu": "dpu", "kind": "predicted", "platform": "cpu",
                             "stages": "network alone", "speed_up": cell, "efficiency": cell}],
        },
    }  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "bench.json").write_text(json.dumps(report))


def test_text_of_strangers_stays_text(tmp_path: Path) -> None:
    _bench(tmp_path / "results/bench/one")
    _, text = _report(tmp_path / "report", "--results", str(tmp_path / "results"))
    assert "<script>alert" not in text and "&lt;script&gt;alert" in text
    assert "<script>alert" not in (tmp_path / "report.md").read_text()


def test_without_results_it_says_how_to_get_them(tmp_path: Path) -> None:
    found, text = _report(tmp_path / "report", "--results", str(tmp_path / "none"))
    assert [a["id"] for a in found.all("section")] == [
        "study", "comparison", "layers", "trace", "prediction"]  # fmt: skip
    for command in ("make study", "tutelage bench", "make measure", "tutelage.host.latency.fit"):
        assert command in text


def test_torn_files_are_passed_over_unless_they_are_named(tmp_path: Path, capsys: Any) -> None:
    results = tmp_path / "results"
    for place in ("here/a/run.json", "bench/b/bench.json"):
        (results / place).parent.mkdir(parents=True)
        (results / place).write_text('{"state": "done", "started": "2026", "steps": [1]}')
    _, text = _report(tmp_path / "report", "--results", str(results))
    assert text.count("cannot be used") == 2
    assert re.search(r"cannot be used: \S+: not a [^<]+: it lacks (&#x27;|&#39;|')\w+", text)
    for option, place in (("--run", "here/a"), ("--bench", "bench/b"), ("--model", "here/a")):
        arguments = ["report", "-o", str(tmp_path / "x"), "--results", str(results)]
        assert main([*arguments, option, str(results / place)]) == 2
        assert "cannot be used" in capsys.readouterr().err


def test_plots_of_one_page_keep_their_names_apart(tmp_path: Path) -> None:
    svg = '<svg><path id="a"/><use xlink:href="#a"/><g clip-path="url(#a)"/></svg>'
    parts: list[str | Table | Plot] = [Plot("one", svg, "first"), Plot("two", svg, "second")]
    text = html_page("t", "l", [Section("s", "S", parts)], tmp_path)
    assert text.count('id="s0-a"') == text.count('"#s0-a"') == text.count("url(#s0-a)") == 1
    assert text.count('id="s1-a"') == 1


def test_cells() -> None:
    assert [cell_text(cell) for cell in (None, 0.123456, 12345.6, 12345, -1e-12, "x")] == [
        "-", "0.1235", "12,346", "12,345", "0", "x"]  # fmt: skip
    table = Table(["a|b", "c"], [["x|y", None], [1.5, 2]])
    text = document("t", "l", [Section("s", "S", [table])], Path())
    assert "| a\\|b | c |" in text and "| x\\|y | - |" in text and "| 1.5 | 2 |" in text


@pytest.mark.slow
def test_tables_sort_in_a_browser(tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium here")
    rows: list[list[Any]] = [["b", 10.0], ["a", 9.0], ["c", None], ["d", 100.0]]
    text = html_page("t", "l", [Section("s", "S", [Table(["name", "value"], rows)])], tmp_path)
    (tmp_path / "page.html").write_text(text)
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page()
        errors: list[str] = []
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.goto((tmp_path / "page.html").as_uri())
        order = []
        for name in ("value", "value", "name"):
            tab.click(f"th button:text('{name}')")
            order.append("".join(tab.locator("tbody td:first-child").all_inner_texts()))
        browser.close()
    assert order == ["abdc", "dbac", "abcd"] and errors == []


@pytest.mark.slow
@pytest.mark.parametrize("column", ["12V", "12V_W"])
def test_a_trace_of_an_older_version_is_read_too(tmp_path: Path, run: Path, column: str) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    figures = json.loads((folder / "run.json").read_text())
    figures["power"] |= {"source": "hwmon", "total_rail": "12V"}
    if column == "12V":
        del figures["pace"]
    (folder / "run.json").write_text(json.dumps(figures))
    (folder / "power.csv").write_text(f"time_s,{column}\n0.1,14.05\n0.2,\n0.3,15\n")
    section = trace_section(folder)
    (plot,) = (part for part in section.parts if isinstance(part, Plot))
    assert "Rail 12V" in plot.caption
    what = str(section.parts[0])
    assert "nothing here was measured on a DPU" in what
    assert ("as fast as this machine computes" in what) == (column == "12V_W")
