"""The reference describes each command-line option, TOML key, variable and name of the API."""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tutelage
from tests.docs.conftest import ROOT
from tutelage.core.commands import COMMANDS
from tutelage.core.images.input_form import InputForm
from tutelage.core.model_package import Description
from tutelage.core.toml_file import parse_toml, read_toml

pytest.importorskip("typer", reason="the command line of the workstation, of the set `pc`")

REFERENCE = ROOT / "docs/reference"
STUDIES = sorted((ROOT / "host/train").glob("*study.toml"))
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

        for action in command_line_parser(name)._actions:
            if not isinstance(action, argparse._HelpAction):
                yield from action.option_strings
        return
    from tutelage.host.cli.command import click_command

    for parameter in click_command(name).params:
        if parameter.param_type_name == "argument":
            yield parameter.metavar or parameter.name.upper()
        else:
            yield from (*parameter.opts, *parameter.secondary_opts)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_option_has_a_heading_and_a_description(name: str, generated: Any) -> None:
    described = {
        heading.strip("`"): text
        for (section, heading), text in _headings(generated.command_line()).items()
        if section == f"tutelage {name}"
    }
    options = list(_options(name))
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


def test_each_key_of_a_run_has_a_heading(generated: Any) -> None:
    pytest.importorskip("torch", reason="configurations of training, of the set `host`")
    from tutelage.host.train.config import Config

    headings = _keys(generated, "run-toml.md")
    for key in generated.toml_keys(Config):
        assert (key.table, key.name) in headings and key.text, key.path
    assert ("training", "lr") in headings and ("[phases]", "share") in headings


def test_each_key_of_a_search_has_a_heading(generated: Any) -> None:
    pytest.importorskip("torch", reason="configurations of training, of the set `host`")
    from tutelage.host.explore import space

    _, title, block = (space.__doc__ or "").partition("    [explore]\n")
    block = textwrap.dedent(title + re.split(r"\n\n(?=\S)", block)[0])
    used = {("explore", key) for key in parse_toml(block)["explore"]}
    assert ("explore", "growth_rate") in used
    assert used <= _keys(generated, "run-toml.md")


def test_each_key_of_a_model_directory_has_a_heading(generated: Any) -> None:
    tables = Description(InputForm(28, 28, "grey"), ("coat",)).tables()
    used = {pair for pair in _used(tables) if pair[0] in ("input", "output")}
    assert ("output", "labels") in used
    assert used <= _keys(generated, "model-toml.md")


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_each_key_of_a_board_profile_has_a_heading(path: Path, generated: Any) -> None:
    used = {pair for pair in _used(read_toml(path)) if pair[0] != "dpu.fingerprints"}
    assert ("dpu", "cores") in used
    assert used <= _keys(generated, "board-profile.md")


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_each_key_of_a_study_has_a_heading(path: Path, generated: Any) -> None:
    table = read_toml(path)
    variants = table.pop("variants", {})
    used = {("ablation", key) for key in table.pop("ablation", {})} | {("", key) for key in table}
    # A variant's tables, and its phases, replace those of its run.
    used |= {
        ("variants.TITLE", key)
        for variant in variants.values()
        for key, value in variant.items()
        if not isinstance(value, dict) and key != "phases"
    }
    assert ("", "methods") in used
    assert used <= _keys(generated, "study-toml.md")
