"""The reference describes each command-line option, TOML key, variable and name of the API."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tutelage
from tests.docs.conftest import ROOT
from tutelage.core.board_profile import Hazard, ImageProfile, OverlayProfile, RailProfile
from tutelage.core.commands import COMMANDS
from tutelage.core.images.input_form import InputForm
from tutelage.core.model_package import Description
from tutelage.core.results.figure import Figure
from tutelage.core.results.run_json import RunResults
from tutelage.core.toml_file import read_toml

pytest.importorskip("typer", reason="the command line of the workstation, of the set `pc`")

REFERENCE = ROOT / "docs/reference"
PROFILES = sorted((ROOT / "core/profiles").glob("*.toml"))

_ANCHOR = re.compile(r" \{ #\S+ \}$")
_TABLE = re.compile(r"##+ \[(.+)\]$")
_TYPE = re.compile(r"\*[^*]+\*$")

Headings = dict[tuple[str, str], list[str]]
"""Lines below each heading, by the section (a table or a command) and the heading."""


@pytest.fixture(scope="module")
def generated() -> Any:
    """The hook by which MkDocs generates a part of the reference."""
    spec = importlib.util.spec_from_file_location("docs_generated", ROOT / "docs/generated.py")
    assert spec and spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # for its dataclass
    spec.loader.exec_module(module)
    return module


def _headings(page: str) -> Headings:
    """Return the headings of level 4, each of which may name several keys or options."""
    found: Headings = {}
    section = ""
    lines: list[str] = []
    for line in page.splitlines():
        if line.startswith("#### "):
            lines = []
            found[section, _ANCHOR.sub("", line[5:])] = lines
        elif line.startswith("##"):
            table = _TABLE.match(line)
            section = table[1] if table else _ANCHOR.sub("", line.lstrip("# "))
            section, lines = "" if section == "Keys" else section, []
        elif line.strip():
            lines.append(line)
    return found


# -- the command line -------------------------------------------------------------------------


def _options(name: str) -> Iterator[str]:
    """Yield the options of a command, and the arguments by their metavar."""
    if name == "classify":
        from tutelage.app.options import command_line_parser

        yield from _options_of(command_line_parser(name))
        return
    from tutelage.host.cli.command import click_command

    for parameter in click_command(name).params:
        if parameter.param_type_name == "argument":
            yield parameter.metavar or parameter.name.upper()
        else:
            yield from (*parameter.opts, *parameter.secondary_opts)


def _options_of(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if not isinstance(action, argparse._HelpAction):
            yield from action.option_strings or [str(action.metavar)]


@pytest.mark.parametrize("name", COMMANDS)
def test_each_option_has_a_heading_and_a_description(name: str, generated: Any) -> None:
    _check_options(f"tutelage {name}", list(_options(name)), generated)


def test_each_option_of_the_programs_has_a_heading_and_a_description(generated: Any) -> None:
    assert sorted(generated.PROGRAMS) == ["app-measure", "board-overlay"]
    for make_parser in generated.PROGRAMS.values():
        parser = make_parser()
        _check_options(parser.prog, list(_options_of(parser)), generated)


def _check_options(name: str, options: list[str], generated: Any) -> None:
    described = {
        heading.strip("`"): text
        for (section, heading), text in _headings(generated.command_line()).items()
        if section == name
    }
    assert options
    for option in options:
        texts = [
            text
            for heading, text in described.items()
            if option == heading or option in re.split(r"[, ]+", heading)
        ]
        assert len(texts) == 1, f"{name} {option}: {len(texts)} headings"
        assert texts[0], f"{name} {option}: has no help text"


# -- Python -----------------------------------------------------------------------------------


def _python_sections() -> dict[str, list[str]]:
    """Return the dotted names of the blocks of the Python API's page, by heading."""
    page = (REFERENCE / "python-api.md").read_text(encoding="utf-8")
    found = [re.split(r" \{ #\w+ \}\n", part, maxsplit=1) for part in page.split("\n## ")[1:]]
    return {heading: re.findall(r"(?m)^::: (\S+)$", text) for heading, text in found}


def _imported(dotted: str) -> Any:
    module, _, name = dotted.rpartition(".")
    return getattr(importlib.import_module(module), name)


def test_each_name_of_the_api_has_a_section_with_its_object() -> None:
    pytest.importorskip("torch", reason="names of the set `host`")
    sections = _python_sections()
    assert sorted(sections) == sorted(f"tutelage.{name}" for name in tutelage.__all__)
    for name in tutelage.__all__:
        assert _imported(sections[f"tutelage.{name}"][0]) is getattr(tutelage, name), name


def test_each_parameter_of_the_api_has_a_description() -> None:
    pytest.importorskip("torch", reason="names of the set `host`")
    for dotted in (path for paths in _python_sections().values() for path in paths):
        found = _imported(dotted)
        named = re.findall(r"(?m)^(\w+(?:, \w+)*) : ", inspect.getdoc(found) or "")
        described = {name for names in named for name in names.split(", ")}
        assert set(inspect.signature(found).parameters) <= described, dotted


# -- environment variables --------------------------------------------------------------------

_ATTRIBUTES = {"TUTELAGE_EMULATION", "TUTELAGE_EMULATOR", "TUTELAGE_PACE"}
"""Names in the code that are not variables: attributes of modules, and a DPU's name."""


def test_each_environment_variable_is_in_the_table() -> None:
    pattern = re.compile(r"[\"'$]((?:TUTELAGE|XDG)_[A-Z_0-9]+)\b")
    read = {
        name
        for folder in ("app", "board", "core", "dpu", "host")
        for path in (ROOT / folder).rglob("*.py")
        for name in pattern.findall(path.read_text(encoding="utf-8"))
    }
    page = (REFERENCE / "environment.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"(?m)^\| `((?:TUTELAGE|XDG)_\w+)` \|", page))
    assert "TUTELAGE_ENGINE" in read
    assert listed == read - _ATTRIBUTES


# -- TOML -------------------------------------------------------------------------------------


def _pages() -> list[Path]:
    return [*REFERENCE.glob("*-toml.md"), REFERENCE / "board-profile.md"]


def _keys(generated: Any, page: str) -> set[tuple[str, str]]:
    """Return table and key of each heading of a page, whose text must have a description."""
    if "keys tutelage.host." in (REFERENCE / page).read_text(encoding="utf-8"):
        pytest.importorskip("torch", reason="configurations of training, of the set `host`")
    found = set()
    text = generated.expand((REFERENCE / page).read_text(encoding="utf-8"))
    for (table, heading), lines in _headings(text).items():
        description = [line for line in lines if not _TYPE.match(line)]
        assert description, f"{page}: [{table}] {heading}: has no description"
        found |= {(table, key) for key in heading.split(", ")}
    return found


def _used(table: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Yield table and key of each value in a TOML file; arrays of tables are [[double]]."""
    for key, value in table.items():
        below = f"{path}.{key}" if path else key
        if isinstance(value, dict):
            yield from _used(value, below)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for item in value:
                yield from _used(item, f"[{below}]")
        else:
            yield path, key


@pytest.mark.parametrize("page", sorted(path.name for path in _pages()))
def test_each_key_of_a_page_has_a_description(page: str, generated: Any) -> None:
    assert _keys(generated, page)


def test_the_keys_of_a_run_and_a_search_have_headings(generated: Any) -> None:
    pytest.importorskip("torch", reason="configurations of training, of the set `host`")
    from tutelage.host.explore.space import SEARCHED
    from tutelage.host.train.config import Config

    keys = {(key.table, key.name) for key in generated.toml_keys(Config)}
    assert ("training", "lr") in keys and ("[phases]", "share") in keys
    keys |= {("explore", key) for key in (*SEARCHED, "float_training")}
    assert _keys(generated, "run-toml.md") == keys


def test_the_keys_of_a_model_directory_have_headings(generated: Any) -> None:
    tables = Description(InputForm(28, 28, "grey"), ("coat",)).tables()
    keys = {pair for pair in _used(tables) if pair[0] in ("input", "output")}
    assert ("output", "labels") in keys
    assert _keys(generated, "model-toml.md") == keys


def test_the_keys_of_a_board_profile_have_headings(generated: Any) -> None:
    """Those of the profiles, and all of the classes that a table is passed to."""
    keys = {pair for path in PROFILES for pair in _used(read_toml(path))}
    keys = {(table, key) for table, key in keys if table != "dpu.fingerprints"}
    assert ("dpu", "cores") in keys
    for cls, table in (
        (OverlayProfile, "overlay"), (ImageProfile, "image"), (Hazard, "[hazards]"),
        (RailProfile, "[power.rails]"),
    ):  # fmt: skip
        keys |= {(table, field.name) for field in dataclasses.fields(cls)}
    assert _keys(generated, "board-profile.md") == keys


def test_each_field_of_a_run_has_a_description(generated: Any) -> None:
    fields = [*generated.json_fields(RunResults), *generated.json_fields(Figure)]
    assert ("steps[].power", "watts") in {(field.table, field.name) for field in fields}
    for field in fields:
        assert field.text and "value" not in field.type, field.path


def test_a_description_that_begins_with_a_literal_keeps_its_case(generated: Any) -> None:
    assert generated._sentence("user@host, or an alias") == "user@host, or an alias."
    assert generated._sentence("path of\n  the file") == "Path of the file."


def test_the_keys_of_an_overlay_have_headings(generated: Any) -> None:
    paths = sorted((ROOT / "overlays").glob("*/overlay.toml"))
    keys = {pair for path in paths for pair in _used(read_toml(path))}
    assert ("[files]", "md5") in keys
    assert _keys(generated, "overlay-toml.md") == keys


def test_the_keys_of_a_study_have_headings(generated: Any) -> None:
    pytest.importorskip("torch", reason="configurations of training, of the set `host`")
    from tutelage.host.train.study_cells import ABLATION_KEYS, STUDY_KEYS, VARIANT_KEYS

    keys = {("", key) for key in STUDY_KEYS if key not in ("ablation", "variants")}
    keys |= {("ablation", key) for key in ABLATION_KEYS}
    keys |= {("variants.TITLE", key) for key in VARIANT_KEYS}
    assert _keys(generated, "study-toml.md") == keys
