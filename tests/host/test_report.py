"""`tutelage report`: from the repository's own results, from none, and from bad files."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote

import pytest

pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")

from tests.browser import axe_faults, chromium
from tutelage.__main__ import main
from tutelage.core.files import sha256_of
from tutelage.core.results.run_json import read_run
from tutelage.host.report.content import Part, Plot, Section, Table, cell_text
from tutelage.host.report.html_page import html_page, relative
from tutelage.host.report.markdown import document
from tutelage.host.report.study_section import study_sections
from tutelage.host.report.trace_section import trace_section
from tutelage.host.report.training_run import TrainingRun
from tutelage.host.train import checkpoint
from tutelage.host.train.config import make_config

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator

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
    """Write and read a report, about the demo's model unless `more` names another."""
    model = [] if "--model" in more else ["--model", str(ROOT / "app/demo")]
    assert main(["report", "-o", str(output), *model, *more]) == 0
    text = output.with_suffix(".html").read_text()
    return _Page(text), text


def _names(page: _Page) -> list[str | None]:
    return [attributes["id"] for attributes in page.all("section")]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Measure the emulation, without watts; return the directory of the run."""
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
    assert _names(found) == [
        "headline", "training", "cost", "run", "comparison", "thesis",
        "study", "ablation", "study2", "ablation2", "prediction", "missing",
    ]  # fmt: skip
    for attributes in found.all("a"):
        link = attributes["href"] or ""
        assert link.startswith("#") or (tmp_path / unquote(link)).exists(), link
    assert not found.all("script") and not found.all("link")
    assert not re.search(r'(src|href)="https?:', text)
    ids = [a["id"] for _, a in found.tags if a.get("id")]
    assert len(ids) == len(set(ids))
    assert "Missing: no DPU." in text and "nothing here was measured on a DPU" in text
    assert "Emulated run: demo" in text and "measured on a DPU</dd>" not in text
    markdown = (tmp_path / "report.md").read_text()
    plots = re.findall(r"\]\((report/[\w-]+\.svg)\)", markdown)
    assert {"report/engines.svg", "report/loss.svg", "report/accuracy.svg"} <= {*plots}
    for plot in plots:
        assert (tmp_path / plot).read_text().startswith("<svg")
    assert "## Background: phases of QKD" in markdown and "qkd without co-studying" in markdown


def test_an_ablation_has_no_variants_and_standard_errors(tmp_path: Path) -> None:
    accuracies = {"qkd": (70.0, 71.0), "qkd, narrow": (60.0, 61.0), "qkd without co-studying":
                  (69.0, 68.0), "qkd, temperature 1": (70.0, 73.0)}  # fmt: skip
    with (tmp_path / "study.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["cell", "method", "weights", "activations", "seed", "accuracy"])
        for method, values in accuracies.items():
            for seed, value in enumerate(values):
                writer.writerow([f"{method}-s{seed}", method, 2, 2, seed, value])
    methods, ablation = study_sections(tmp_path / "study.csv")
    (table,) = (part for part in ablation.parts if isinstance(part, Table))
    assert [row[0] for row in table.rows] == [
        "qkd", "qkd without co-studying", "qkd, temperature 1",
    ]  # fmt: skip
    assert table.columns[2] == "standard deviation [points]"
    assert table.columns[-1] == "standard error [points]"
    assert table.rows[1][-2:] == [-2.0, 1.0]  # of -1 and -3
    tables = [part for part in methods.parts if isinstance(part, Table)]
    assert [row[0] for row in tables[0].rows] == ["qkd", "qkd, narrow"]


def test_the_page_has_landmarks_and_headings_in_order(tmp_path: Path) -> None:
    found, text = _report(tmp_path / "report", "--results", str(tmp_path / "none"))
    tags = [tag for tag, _ in found.tags]
    assert [tag for tag in tags if tag in ("header", "nav", "main", "footer")] == [
        "header", "nav", "main", "footer"]  # fmt: skip
    headings = [tag for tag in tags if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == "h1" and {*headings[1:]} == {"h2"}
    assert "`" not in text and "<code>tutelage " in text and "prefers-color-scheme: dark" in text
    titles = [a["aria-labelledby"] for a in found.all("section")]
    assert titles == [f"{name}-title" for name in _names(found)]
    links = [a["href"] for a in found.all("a") if (a["href"] or "").startswith("#")]
    assert links == [f"#{name}" for name in _names(found)]
    # Plots contain no fixed white or black, so that they fit light and dark pages.
    drawn = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert drawn and "#000000" not in drawn and "fill: #ffffff" not in drawn


# -- a user's own run and model ------------------------------------------------------------------

_CLASSES = ("cat", "dog", HOSTILE)


def _training(folder: Path, classes: int = 3) -> dict[str, Any]:
    """Write the files of a run of `tutelage train`, except for its weights."""
    names = [*_CLASSES, *(f"class {k}" for k in range(3, classes))]
    results = {
        "method": "qkd", "epochs": 3, "kept_epoch": 3, "images": 10 * classes, "accuracy": 70.0,
        "top5_accuracy": None, "validation_accuracy": 71.5, "teacher_accuracy": 75.0,
        "classes": [
            {"name": name, "images": 10, "correct": 7, "accuracy": 70.0 - k,
             "predicted": {name: 7, names[k - 1]: 3}}
            for k, name in enumerate(names)
        ],
    }  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "log.csv").write_text(
        "epoch,phase,loss,train_accuracy,images_per_second,validation_accuracy\n"
        "1,self-studying,1.5,40,900,41\n2,co-studying,1.25,50,910,\n3,tutoring,1.0,69,905,71.5\n"
    )
    return results


def _own_model(folder: Path, run: Path) -> Path:
    """Write a model directory that was exported from a run."""
    shutil.copytree(ROOT / "app/demo", folder, ignore=shutil.ignore_patterns("images"))
    (run / "student.safetensors").write_bytes((ROOT / _STUDENT).read_bytes())
    return folder


_STUDENT = "models/fashion-densenet/student.safetensors"  # from which the demo's model was exported


def test_a_report_opens_with_the_users_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _training(tmp_path / "runs/mine")
    _own_model(tmp_path / "models/mine", tmp_path / "runs/mine")
    assert main(["report"]) == 0
    text = (tmp_path / "results/report.html").read_text()
    found = _Page(text)
    assert _names(found) == ["headline", "training", "classes", "confusion", "cost", "missing"]
    assert "<h1>mine</h1>" in text and "newest model in models" in text
    assert '<dd class="value">92.28 → 70.00 %</dd>' in text
    assert text.count('<dd class="kind predicted">predicted</dd>') == 4
    assert "The training run in runs/mine" in text and "tutoring from epoch 3" in text
    assert "<script>alert" not in text and "&lt;script&gt;alert" in text
    markdown = (tmp_path / "results/report.md").read_text()
    assert "<script>alert" not in markdown and "![Loss by epoch" in markdown
    assert "`tutelage bench models/mine`" in markdown


def test_the_float_run_is_found_below_the_home_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    student: dict[str, Any] = {"network": "densenet-tiny"}
    before = {"config": {"method": "float", "student": student}, "accuracy": 92.5}
    checkpoint.save(tmp_path / "float.safetensors", {"student": {}}, before)
    student = {**student, "weights": "~/float.safetensors"}
    config = make_config({"method": "qat", "student": student})
    assert TrainingRun(tmp_path, None, [], config, None).float_accuracy == 92.5


def test_the_lowest_class_comes_first_and_the_matrix_is_whole(tmp_path: Path) -> None:
    _training(tmp_path / "run")
    found, text = _report(tmp_path / "report", "--training", str(tmp_path / "run"))
    classes = text[text.index('id="classes"') : text.index('id="confusion"')]
    assert classes.index("frac") < classes.index(">dog<") < classes.index(">cat<")
    assert 'style="--share: 68.0%">68</td>' in classes
    cells = [a for a in found.all("td") if "heat" in (a.get("class") or "")]
    assert len(cells) == 9
    assert [a["class"] for a in cells[:3]] == ["heat right", "heat zero", "heat wrong"]


def test_many_classes_are_bounded(tmp_path: Path) -> None:
    _training(tmp_path / "run", classes=40)
    found, text = _report(tmp_path / "report", "--training", str(tmp_path / "run"))
    assert "Only the 30 lowest of 40" in text and "A matrix of 40 classes" in text
    assert not [a for a in found.all("td") if "heat" in (a.get("class") or "")]
    confusion = text[text.index('<section id="confusion"') : text.index('<section id="cost"')]
    assert confusion.count("<tr>") == 21 and "class 39" in confusion


def test_a_run_that_is_not_exported_has_no_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _training(tmp_path / "runs/mine")
    assert main(["report"]) == 0
    text = (tmp_path / "results/report.html").read_text()
    assert _names(_Page(text)) == ["headline", "training", "classes", "confusion", "missing"]
    assert "<code>tutelage export runs/mine -o models/mine</code>" in text


def test_a_quantised_model_has_no_picture_of_engines(tmp_path: Path) -> None:
    model = str(ROOT / "app/demo/quantised.xmodel")
    _, text = _report(tmp_path / "report", "--model", model)
    assert "There is no picture of the DPU" in text and "<code>tutelage compile</code>" in text
    assert not (tmp_path / "report/engines.svg").exists()


@pytest.mark.parametrize(
    ("file", "content"),
    [("results.json", "{}"), ("results.json", "[[["), ("log.csv", "epoch,loss\n1,\n"),
     ("log.csv", "epoch,loss\n1,x\n"), ("log.csv", "epoch,loss\n1,2,3\n"),
     ("student.safetensors", "no")],
)  # fmt: skip
def test_a_damaged_run_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str, content: str
) -> None:
    _training(tmp_path / "run")
    (tmp_path / "run" / file).write_text(content)
    assert main(["report", "-o", str(tmp_path / "x"), "--training", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert "cannot be used" in error and file in error and error.count("\n") == 1


def test_a_class_that_there_is_not_leaves_out_the_matrix(tmp_path: Path) -> None:
    results = _training(tmp_path / "run")
    results["classes"][0]["predicted"] = {"bird": 3}
    (tmp_path / "run/results.json").write_text(json.dumps(results))
    found, text = _report(tmp_path / "report", "--training", str(tmp_path / "run"))
    assert "confusion" not in _names(found) and "bird" in text


@pytest.mark.slow
def test_only_runs_of_the_model_give_headline_figures(tmp_path: Path, run: Path) -> None:
    own, other = tmp_path / "results/zcu104/own", tmp_path / "results/zcu104/other"
    figures = json.loads((run / "run.json").read_text())
    for place, started, model in ((own, "2026-01-01", {}), (other, "2026-02-02", _OTHER_MODEL)):
        place.mkdir(parents=True)
        table = {**figures, "started": started, "emulation": False, "pace": None}
        table["model"] = {**figures["model"], **model}
        (place / "run.json").write_text(json.dumps(table))
    _, text = _report(tmp_path / "report", "--results", str(tmp_path / "results"))
    assert "2026-01-01" in text and "2026-02-02" not in text
    assert text.count("measured on a DPU</dd>") == 2  # latency and speed; nothing measured watts
    assert "Measured run: demo" in text
    _, text = _report(tmp_path / "report", "--results", str(tmp_path / "none"), "--run", str(other),
                      "--run", str(own))  # fmt: skip
    assert "2026-01-01" in text and "This run used a different model" in text
    _, text = _report(tmp_path / "report", "--results", str(tmp_path / "none"), "--run", str(other))
    assert "measured on a DPU</dd>" not in text and "This run used a different model" in text


_OTHER_MODEL = {"sha256": "0" * 64, "provenance": {"checkpoint_sha256": ["0"]}}


def _bench(folder: Path) -> None:
    """Write a comparison like `tutelage bench`, with untrusted text in it."""
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
        "state": "done", "started": "2026-01-01",
        "model": {"name": "net", "checkpoint_sha256": sha256_of(ROOT / _STUDENT)},
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


def test_untrusted_text_stays_text(tmp_path: Path) -> None:
    _bench(tmp_path / "results/bench/one")
    _, text = _report(tmp_path / "report", "--results", str(tmp_path / "results"))
    assert "<script>alert" not in text and "&lt;script&gt;alert" in text
    assert "<script>alert" not in (tmp_path / "report.md").read_text()


def test_reports_in_one_directory_have_their_own_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, end in (("net-0.1", ""), ("net-0.2", ".html")):
        _training(tmp_path / f"run {name}")
        arguments = ["--training", str(tmp_path / f"run {name}"), "-o", f"{tmp_path / name}{end}"]
        assert main(["report", "--results", str(tmp_path / "none"), *arguments]) == 0
        written = [Path(line) for line in capsys.readouterr().out.splitlines()]
        assert written[:2] == [tmp_path / f"{name}.html", tmp_path / f"{name}.md"]
        assert {path.parent for path in written[2:]} == {tmp_path / name}
        assert f"]({name}/loss.svg)" in (tmp_path / f"{name}.md").read_text()
        assert (tmp_path / name / "loss.svg").is_file()


def test_code_in_a_caption_has_no_backticks_in_html(tmp_path: Path) -> None:
    rows = [[number] for number in range(20)]
    parts: list[Part] = [Table(["a"], rows, None, "Difference to `qat`."),
                         Plot("p", "<svg></svg>", "Loss of `qat`.")]  # fmt: skip
    text = html_page("t", "l", [Section("s", "S", parts)], tmp_path)
    assert "`" not in text and 'aria-label="Difference to qat."' in text
    assert "<summary>20 rows: Difference to <code>qat</code>.</summary>" in text


def test_a_link_leads_to_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    assert relative(tmp_path / os.fsdecode(b"caf\xe9/a b.json"), tmp_path) == "caf%E9/a%20b.json"


def test_without_results_it_says_how_to_get_them(tmp_path: Path) -> None:
    found, text = _report(tmp_path / "report", "--results", str(tmp_path / "none"))
    assert _names(found) == ["headline", "training", "cost", "missing"]
    missing = text[text.index('<section id="missing"') :]
    for command in ("tutelage train", "tutelage study", "tutelage bench", "tutelage measure",
                    "tutelage.app.measure", "tutelage.host.latency.fit"):  # fmt: skip
        assert command in missing


def test_each_study_shows_the_accuracies_of_its_own_table(tmp_path: Path) -> None:
    head = "cell,method,weights,activations,seed,accuracy,validation_accuracy"
    for place, accuracies, judge in (("", "81.5,71.5", "test"), ("a b", "82.5,72.5", "validation"),
                                     ("old", "83.5,", "test")):  # fmt: skip
        folder = tmp_path / "results" / place
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "study.csv").write_text(f"{head}\nqat-w4a4-s0,qat,4,4,0,{accuracies}\n")
        (folder / "study.json").write_text(json.dumps({"judged_by": judge}))
    (tmp_path / "results/study.json").unlink()  # written by an older version
    found, text = _report(tmp_path / "report", "--results", str(tmp_path / "results"))
    assert _names(found) == ["headline", "training", "cost", "study", "study2", "study3", "missing"]
    titles = re.findall('<h2 id="study[23]?-title">(.*)</h2>', text)
    assert titles == [
        "Background: study of methods",
        "Background: study a b",
        "Background: study old",
    ]
    assert "81.50 (1)" in text and "72.50 (1)" in text and "83.50 (1)" in text
    assert "71.50" not in text and "82.50" not in text and "Top-1 on the validation images" in text
    assert (tmp_path / "report/study2.svg").is_file()
    (tmp_path / "results/old/study.json").write_text('{"judged_by": "luck"}')
    found, text = _report(tmp_path / "report", "--results", str(tmp_path / "results"))
    assert "study3" not in _names(found) and "is not one of test, validation" in text


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
    parts: list[Part] = [Plot("one", svg, "first"), Plot("two", svg, "second")]
    text = html_page("t", "l", [Section("s", "S", parts)], tmp_path)
    assert text.count('id="s0-a"') == text.count('"#s0-a"') == text.count("url(#s0-a)") == 1
    assert text.count('id="s1-a"') == 1


def test_cells() -> None:
    assert [cell_text(cell) for cell in (None, 0.123456, 12345.6, 12345, -1e-12, "x")] == [
        "-", "0.1235", "12,346", "12,345", "0", "x"]  # fmt: skip
    table = Table(["a|b", "c"], [["x|y", None], [1.5, 2]])
    text = document("t", "l", [Section("s", "S", [table])], Path())
    assert "| a\\|b | c |" in text and "| x\\|y | - |" in text and "| 1.5 | 2 |" in text


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Write the demo's report and one with every section; return their URLs."""
    folder = tmp_path_factory.mktemp("pages")
    _training(folder / "run", classes=20)
    results = folder / "results"
    shutil.copytree(
        ROOT / "results", results, ignore=lambda _, names: {"study", "bench"} & {*names}
    )
    _report(folder / "demo", "--results", str(results))
    _bench(results / "bench/one")
    _report(folder / "complete", "--training", str(folder / "run"), "--results", str(results))
    return {name: (folder / f"{name}.html").as_uri() for name in ("demo", "complete")}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.mark.slow
@pytest.mark.parametrize("name", ["demo", "complete"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_no_fault(
    browser: Browser, pages: dict[str, str], width: int, scheme: Literal["light", "dark"], name: str
) -> None:
    tab = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    tab.goto(pages[name])
    for summary in tab.locator("summary").all():
        summary.click()
    assert axe_faults(tab) == []
    tab.close()


@pytest.mark.slow
def test_nothing_is_clipped_on_a_phone_and_on_paper(
    browser: Browser, pages: dict[str, str]
) -> None:
    tab = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
    errors: list[str] = []
    tab.on("console", lambda message: errors.append(message.text))
    tab.goto(pages["complete"])
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    assert tab.evaluate("document.documentElement.scrollHeight") < 9_000
    folded = tab.locator("details table, details figure")
    assert folded.count() >= 8 and not any(map(_is_visible, folded.all()))
    dark = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    tab.emulate_media(media="print")
    # The width of A4 less two margins of 14 mm, at 96 pixels per inch.
    tab.set_viewport_size({"width": 687, "height": 900})
    assert tab.evaluate("document.documentElement.scrollWidth") == 687
    assert tab.evaluate(_CLIPPED) == [] and all(map(_is_visible, folded.all()))
    paper = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    tab.close()
    assert dark == "rgb(20, 23, 27)" and paper == "rgb(255, 255, 255)" and errors == []


def _is_visible(table: Locator) -> bool:
    return bool(table.evaluate("e => e.checkVisibility() && e.getBoundingClientRect().height > 0"))


_CLIPPED = """[...document.querySelectorAll("table, svg, p, dd, h1, h2")]
    .filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML)"""


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
    section = trace_section(folder, read_run(folder))
    (plot,) = (part for part in section.parts if isinstance(part, Plot))
    assert "Rail 12V" in plot.caption
    what = str(section.parts[0])
    assert "nothing here was measured on a DPU" in what
    assert ("as fast as this machine computes" in what) == (column == "12V_W")
