"""The summary of a run, as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tutelage.core.digits import digits
from tutelage.core.text import counted, shown


def summary_lines(report: Mapping[str, Any]) -> list[str]:
    """Return the summary of a run's report, one string per line."""
    parts = (_counts, _speed, _latencies, _machine, _power, _end)
    return [shown(line) for part in parts for line in part(report)]


def _counts(report: Mapping[str, Any]) -> Iterator[str]:
    frames, accuracy = report["frames"], report["accuracy"]
    yield f"runs on    {report['provider']}"
    yield f"model      {report['model']['name']}, compiled for {report['model']['target']}"
    parts = "{in} in, {classified} classified, {failed} failed".format(**frames)
    if frames.get("dropped"):
        parts += f", {frames['dropped']} dropped"
    yield f"frames     {parts}"
    if accuracy:
        yield (
            f"accuracy   {accuracy['top1']:.2%}: {accuracy['correct']} of "
            f"{counted(accuracy['labelled'], 'frame')} with a known label"
        )


def _speed(report: Mapping[str, Any]) -> Iterator[str]:
    yield f"speed      {report['fps']:.1f} fps, {counted(report['threads'], 'thread')}"
    pace = report.get("realtime")
    if pace:
        late = f"; the emulation took longer in {pace['late']} of {pace['jobs']}"
        yield (
            f"paced as   {pace['board']}: {pace['job_ms']:.3f} ms per job, predicted"
            f"{late if pace['late'] else ''}; not a measurement of a DPU"
        )
    elif not report.get("pace", {"measured": True})["measured"]:
        yield f"pace       {report['pace']['text']}; not a measurement of a DPU"
    scenario = report.get("scenario")
    if not scenario:
        return
    text = f"scenario   {scenario['name']}: {scenario['metric']} = {scenario['value']}"
    if scenario["name"] == "server":
        text += f" at {scenario['qps']:g} arrivals/s"
        if scenario["bound_kept"] is not None:
            within = "within" if scenario["bound_kept"] else "ABOVE"
            text += f", {within} the bound of {scenario['bound_ms']:g} ms"
    yield text


def _latencies(report: Mapping[str, Any]) -> Iterator[str]:
    if not report["latency_ms"]:
        return
    yield f"{'latency ms':16}{'p50':>9}{'p90':>9}{'p99':>9}"
    for stage, row in report["latency_ms"].items():
        yield f"  {stage:14}{row['p50']:9.3f}{row['p90']:9.3f}{row['p99']:9.3f}"


def _machine(report: Mapping[str, Any]) -> Iterator[str]:
    system, dpu = report.get("system"), report.get("dpu")
    if not system or not dpu:
        return
    parts = [f"DPU {dpu['utilisation']:.0%} of {dpu['cores']} cores"]
    if system.get("cpu_percent_mean") is not None:
        parts.append(f"CPU {system['cpu_percent_mean']:.0f}% of one core")
    if system.get("memory_peak_bytes"):
        parts.append(f"memory {system['memory_peak_bytes'] / 1e6:.0f} MB")
    if system.get("temperature_max_c") is not None:
        parts.append(f"{system['temperature_max_c']:.0f} °C at most")
    yield f"load       {', '.join(parts)}"
    runners = report["runners"]
    if runners["restarts"] or runners["retried_frames"]:
        text = runners_text(runners["restarts"], runners["hangs"], runners["retried_frames"])
        yield f"runners    {text}"
    if runners["given_up"]:
        yield f"threads    {runners['given_up']} given up, since their runners only failed"


def runners_text(restarts: int, hangs: int, retried: int) -> str:
    """Return the faults of a pipeline's runners, see `Pipeline`, as text."""
    return (f"{restarts} replaced, {hangs} of them did not answer; {counted(retried, 'frame')} "
            "tried once more")  # fmt: skip


def _power(report: Mapping[str, Any]) -> Iterator[str]:
    power = report.get("power")
    if power is None:
        return
    if power["watts"] is None:
        yield f"power      not measured: {power['reason'].removeprefix('power is not measured: ')}"
        return
    text = f"power      {digits(power['watts'])} W ({power['source']}, {power['total_rail']})"
    if power["joules"] is None:
        text += ", only of the part with readings: too many are missing for joules"
    if power["joules_per_frame"] is not None:
        text += f", {digits(1e3 * power['joules_per_frame'])} mJ per frame"
    if power["joules_per_frame_above_idle"] is not None:
        text += f", {digits(1e3 * power['joules_per_frame_above_idle'])} mJ above idle"
    yield text
    for warning in power.get("doubts") or ():
        yield f"sensor     {warning['text']}"


def _end(report: Mapping[str, Any]) -> Iterator[str]:
    for line in report.get("warnings", []):
        yield f"note       {line}"
    for output in report.get("outputs", []):
        if output["error"]:
            yield f"output     {output['uri']} failed after {output['results']}: {output['error']}"
    if report["error"]:
        yield f"stopped by an error: {report['error']}"
    elif report["interrupted"]:
        yield "stopped on request"
