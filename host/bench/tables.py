"""Files of a comparison: bench.json has everything, bench.csv a line per row, bench.md tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tutelage.core.digits import digits, with_range
from tutelage.core.files import write_file
from tutelage.core.results.bench_json import (
    ABSENT,
    BENCH_FILE,
    DONE,
    BenchResults,
    BenchRow,
    Gain,
    ThesisTable,
    bench_text,
)
from tutelage.core.results.figure import PREDICTED, Figure
from tutelage.core.results.percentiles import PERCENTS
from tutelage.core.text import counted, csv_cells, markdown_table, markdown_text

CSV_FILE, MD_FILE = "bench.csv", "bench.md"

_PLAIN = ("id", "title", "family", "kind", "state", "reason", "by", "when", "where", "device",
          "threads", "batch", "accuracy_by", "model_file", "model_bytes", "memory_mib",
          "power_source", "power_scope", "power_reason")  # fmt: skip
_PERCENTAGES = ("accuracy", "same_class")
_FIGURES = ("fps", "network_fps", "watts", "idle_watts", "watts_above_idle", "joules_per_frame")
_LATENCIES = ("latency_ms", "network_latency_ms")


def write(folder: Path, results: BenchResults) -> str:
    """Write the three files to a directory; return the text of bench.md."""
    folder.mkdir(parents=True, exist_ok=True)
    text = markdown(results)
    for name, content in (
        (BENCH_FILE, bench_text(results)), (CSV_FILE, comma_separated(results)), (MD_FILE, text),
    ):  # fmt: skip
        write_file(folder / name, content)
    return text


def comma_separated(results: BenchResults) -> str:
    """Return bench.csv: a line per row, with empty cells for figures that were not measured."""
    rows = [_flat(row) for row in results.rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(csv_cells, rows))
    return text.getvalue()


def _flat(row: BenchRow) -> dict[str, Any]:
    flat = {name: getattr(row, name) for name in _PLAIN}
    flat |= {f"{name}_percent": getattr(row, name) for name in _PERCENTAGES}
    figures = {name: getattr(row, name) for name in _FIGURES}
    figures |= {f"{name}_p{percent}": getattr(getattr(row, name), f"p{percent}")
                for name in _LATENCIES for percent in PERCENTS}  # fmt: skip
    for name, figure in figures.items():
        columns = name, f"{name}_low", f"{name}_high"
        flat |= dict(zip(columns, figure.ends, strict=True))
    return flat | {"concerns": "; ".join(row.concerns)}


# -- Markdown, also shown in the terminal ------------------------------------------------------


def markdown(results: BenchResults) -> str:
    """Return bench.md: tables, notes and the provenance of each row."""
    rows = [row for row in results.rows if row.state != ABSENT]
    parts = [
        _head(results),
        markdown_table(_SPEED_COLUMNS, [_speed(row) for row in rows]),
        markdown_table(_COST_COLUMNS, [_cost(row) for row in rows]),
        list(_reading(results)),
        ["## The DPU against the others", "", *_thesis(results.thesis)],
        ["## Where each row comes from", "", *_origins(results.rows)],
    ]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _head(results: BenchResults) -> list[str]:
    machine, setting, images = results.environment, results.setting, results.images
    packages = ", ".join(f"{k} {v}" for k, v in machine.packages.items() if v)
    virtual = " (virtual machine)" if machine.virtual_machine else ""
    return [
        f"# {markdown_text(results.model.name)} compared",
        "",
        f"{results.started}, {results.state}. {markdown_text(machine.cpu)}{virtual}, "
        f"{machine.logical_cpus} CPUs, {counted(machine.threads, 'thread')} pinned to "
        f"{machine.pinned_to}; governor {machine.governor or 'not known'}; "
        f"load before {machine.load_before}.",
        f"{machine.system}, Python {machine.python}, {packages}.",
        f"{counted(images.count, 'image')} ({markdown_text(images.source)}), "
        f"{images.labelled} labelled; "
        f"{counted(setting.repetitions, 'repetition')} in turn, windows of "
        f"{setting.seconds:g} s after {setting.warm_up:g} s of warm-up.",
    ]


_SPEED_COLUMNS = ("row", "kind", "latency p50 [ms]", "p90 [ms]", "p99 [ms]", "network p50 [ms]",
                  "Offline [fps]", "network [fps]", "batch")  # fmt: skip
_COST_COLUMNS = ("row", "power [W]", "above idle [W]", "energy [mJ/frame]", "top-1 [%]",
                 "same class [%]", "model [KiB]", "memory [MiB]")  # fmt: skip


def _name(row: BenchRow) -> str:
    state = "" if row.state == DONE else f" [{row.state}]"
    return markdown_text(row.id) + state + (" [!]" if row.concerns else "")


def _speed(row: BenchRow) -> tuple[str, ...]:
    latency = row.latency_ms
    return (_name(row), row.kind, *map(_ranged, (latency.p50, latency.p90, latency.p99)),
            _ranged(row.network_latency_ms.p50), _ranged(row.fps), _ranged(row.network_fps),
            digits(row.batch))  # fmt: skip


def _cost(row: BenchRow) -> tuple[str, ...]:
    size = row.model_bytes
    return (_name(row), _ranged(row.watts), _ranged(row.watts_above_idle),
            _ranged(row.joules_per_frame.scaled(1000, "mJ")),
            digits(row.accuracy), digits(row.same_class), digits(size and size / 1024),
            digits(row.memory_mib, 3))  # fmt: skip


def _ranged(figure: Figure) -> str:
    return with_range(*figure.ends)


_HOW = """\
p50, p90 and p99 are latencies of SingleStream (batch 1); fps is the speed of Offline, with the
batch size that was fastest in a trial. Both include preprocessing, network and top-1 of an image in
memory; the columns "network" are for the network alone. In Offline all threads preprocess if that
is faster than one: on a GPU the next batch while the network runs, on a CPU in turn with it. Each
figure is the median of the repetitions.
Same class: the share of images with the same class as the quantised student in the DPU's
arithmetic. The int8 forms differ from it only in rounding halves: ONNX to even, the DPU up."""


_PREDICTED = """\
A predicted row has computed figures, without percentiles: in brackets is the range by the errors of
the networks that were left out of the fit, which is not a confidence interval."""


def _reading(results: BenchResults) -> Iterator[str]:
    yield _HOW
    found = [row.latency_ms.p50.coverage for row in results.rows if row.repetitions]
    known = [coverage for coverage in found if coverage]
    if known:
        percent = f"{100 * min(known):.1f} %"
        yield f"In brackets: two of the repetitions that enclose the true median with {percent}"
        yield "(David and Nagaraja, Order Statistics, 7.1)."
    if any(row.kind == PREDICTED and row.state == DONE for row in results.rows):
        yield _PREDICTED
    yield ""
    yield from _watts([row for row in results.rows if row.state != ABSENT])
    for row in results.rows:
        for concern in row.concerns:
            yield f"- {markdown_text(row.id)}: {markdown_text(concern)}"
    for note in results.notes:
        yield f"- {markdown_text(note)}"


def _watts(rows: Sequence[BenchRow]) -> Iterator[str]:
    """Yield the sources of watts, or reasons why there are none, with the rows they apply to."""
    ids: dict[str, list[str]] = {}
    for row in rows:
        if row.watts.value is None:
            text = f"no watts: {row.power_reason or 'not measured'}"
        else:
            text = f"watts: {row.power_source}: {row.power_scope}{_reading_error(row.watts)}"
        ids.setdefault(text, []).append(row.id)
    for text, names in ids.items():
        yield f"- {markdown_text(', '.join(names))}: {markdown_text(text)}"


def _reading_error(figure: Figure) -> str:
    """Return the bound of the readings' error, which is not part of the interval, as text."""
    if not figure.value or not figure.sensor_error:
        return ""
    return f"; readings within {digits(100 * figure.sensor_error / figure.value, 2)} %"


_THESIS_COLUMNS = ("DPU over platform", "latency [×]", "from [ms]", "fps/W [×]", "from [fps/W]",
                   "lower power [×]", "from [W]")  # fmt: skip


def _thesis(thesis: ThesisTable) -> Iterator[str]:
    reference, comparisons = thesis.reference, thesis.comparisons
    yield from (f"- Missing: {markdown_text(text)}." for text in thesis.missing)
    yield ""
    rows: list[tuple[str, ...]] = []
    missing: dict[str, int] = {}
    for one in comparisons:
        cells = [
            cell
            for gain in (one.speed_up, one.efficiency, one.power)
            for cell in _gain(gain, missing)
        ]
        name = markdown_text(f"{one.dpu} ({one.kind}) over {one.platform}")
        rows.append((name, *cells))
    gains = reference.speed_up, reference.efficiency, reference.power
    reported = [cell for gain in gains for cell in (f"at least {gain:g}" if gain else "", "")]
    rows.append(("reported, other platforms and models", *reported))
    yield from markdown_table(_THESIS_COLUMNS, rows)
    yield ""
    stages = sorted({one.stages for one in comparisons})
    yield ("Latency: the platform's p50 of SingleStream divided by the DPU's. fps/W: the DPU's "
           "frames per second and watt in Offline divided by the platform's. Lower power: the "
           f"platform's watts divided by the DPU's. Work covered: {'; '.join(stages)}. "
           "bench.json has the rows and figures of each cell.")  # fmt: skip
    yield f"Reported: {reference.text} ({reference.source})."
    for number, text in enumerate(missing, start=1):
        yield f"- [{number}] missing: {markdown_text(text)}"


def _gain(gain: Gain, missing: dict[str, int]) -> tuple[str, str]:
    """Return the ratio, and the two values that it is made of, the DPU's last."""
    if gain.missing:
        needed = gain.needs_watts.value
        text = "" if needed is None else f"holds from {digits(needed, 3)} W"
        return f"- [{missing.setdefault(gain.missing, len(missing) + 1)}]", text
    values = [digits(gain.inputs[name].value) for name in ("platform", "dpu")]
    return _ranged(gain.figure), " and ".join(values)


def _origins(rows: Sequence[BenchRow]) -> Iterator[str]:
    for row in rows:
        if row.state == ABSENT:
            yield f"- {markdown_text(row.id)}: absent: {markdown_text(row.reason)}"
            continue
        text = markdown_text(f"{row.id}: {row.title}: {row.provenance}")
        state = "" if row.state == DONE else f"; {row.state}: {markdown_text(row.reason)}"
        yield f"- {text}{state}"
