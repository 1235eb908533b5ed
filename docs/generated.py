"""MkDocs hook: pages and parts of pages that are generated from the code.

`reference/command-line.md` has every command, program and option of the parsers. A line

    {{ keys tutelage.host.train.config.Config }}
    {{ keys tutelage.core.board_profile.Hazard below [hazards] }}

in a page becomes a heading for each TOML key of a dataclass and of those inside it, with its type,
its default and its description from the docstring's Attributes; "below" names the table.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import types
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from tutelage.app.measure.__main__ import command_line_parser as measure_parser
from tutelage.app.options import command_line_parser
from tutelage.board.overlay.__main__ import command_line_parser as overlay_parser
from tutelage.core.commands import COMMANDS, PROGRAM
from tutelage.host.cli.command import click_command

PROGRAMS = {"app-measure": measure_parser, "board-overlay": overlay_parser}
"""Parsers of the programs that are not commands of `tutelage`, by the anchor of their section."""

ROOT = Path(__file__).resolve().parents[1]
_KEYS = re.compile(r"(?m)^\{\{ keys ([\w.]+)(?: below (\S+))? \}\}$")
_ATTRIBUTE = re.compile(r"(?m)^(\w+(?:, \w+)*) : ")


# -- MkDocs' hooks ----------------------------------------------------------------------------


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages and the plots."""
    from mkdocs.structure.files import File

    pages = {
        "reference/command-line.md": command_line(),
        "project/changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
        "project/contributing.md": (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"),
    }
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    for name in ("latency.svg", "study.svg"):
        picture = str(ROOT / "results" / name)
        files.append(File.generated(config, f"results/{name}", abs_src_path=picture))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the `keys` lines, and adjust links to the plots that `on_files` adds."""
    return expand(markdown.replace("](../../results/", "](../results/"))


# -- TOML keys --------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Key:
    """A key of a TOML file.

    Attributes
    ----------
    table : dotted name of its table; "" for the top level
    name : name of the key
    type : its type in TOML's terms
    default : its default as TOML; None if the key is required, "" if it has no value by default
    text : its description
    """

    table: str
    name: str
    type: str
    default: str | None
    text: str

    @property
    def path(self) -> str:
        """The dotted name."""
        return f"{self.table}.{self.name}" if self.table else self.name


def expand(markdown: str) -> str:
    """Return a page with each `keys` line replaced by headings."""

    def headings(match: re.Match[str]) -> str:
        module, _, name = match[1].rpartition(".")
        found = toml_keys(getattr(import_module(module), name), match[2] or "")
        return "\n".join(_sections(found))

    return _KEYS.sub(headings, markdown)


def toml_keys(cls: type[Any], table: str = "") -> Iterator[Key]:
    """Yield the keys of a dataclass, then those of its nested tables."""
    hints = get_type_hints(cls)
    texts = _attributes(cls)
    tables = []
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        inner = get_args(hint)[0] if get_origin(hint) is list else hint
        path = f"{table}.{field.name}" if table else field.name
        if dataclasses.is_dataclass(inner):
            tables.append((inner, f"[{path}]" if inner is not hint else path))
            continue
        yield Key(table, field.name, _type(hint), _default(field), texts.get(field.name, ""))
    for inner, path in tables:
        yield from toml_keys(inner, path)  # type: ignore[arg-type]


def _sections(keys: Iterator[Key]) -> Iterator[str]:
    table = ""
    for key in keys:
        if key.table != table:
            table = key.table
            yield f"### [{table}]\n"
        yield f"#### {key.name} {{ #{key.path.strip('[]').replace(']', '')} }}\n"
        given = f"default `{key.default}`" if key.default else "optional"
        given = "required" if key.default is None else given
        yield f"*{key.type}, {given}*\n"
        yield f"{key.text}\n"


def _attributes(cls: type[Any]) -> dict[str, str]:
    """Return the descriptions in the Attributes section of a class's docstring, by name."""
    _, _, block = (inspect.getdoc(cls) or "").partition("Attributes\n----------\n")
    block = re.split(r"\n\n(?=\w+\n-+\n)", block)[0]
    parts = _ATTRIBUTE.split(block)[1:]
    found = {}
    for names, text in zip(parts[::2], parts[1::2], strict=True):
        words = " ".join(text.split())
        sentence = words[:1].upper() + words[1:]
        for name in names.split(", "):
            found[name] = sentence if sentence.endswith(".") else f"{sentence}."
    return found


_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", dict: "table"}


def _type(hint: Any) -> str:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_type(part) for part in get_args(hint) if part is not type(None))
    if origin in (list, tuple):
        return f"array of {_type(get_args(hint)[0])}s"
    return _TYPES.get(origin or hint, "value")


def _default(field: dataclasses.Field[Any]) -> str | None:
    if field.default_factory is not dataclasses.MISSING:
        made = field.default_factory()
        return "{}" if made == {} else str(made)
    if field.default is dataclasses.MISSING:
        return None
    if field.default is None:
        return ""
    if isinstance(field.default, bool):
        return str(field.default).lower()
    return f'"{field.default}"' if isinstance(field.default, str) else str(field.default)


# -- the command line -------------------------------------------------------------------------


def command_line() -> str:
    """Return the page of all commands and their options, in Markdown."""
    lines = ["# Command line\n", "Exit status: 0 done, 1 failed, 2 wrong use.\n"]
    for name, command in COMMANDS.items():
        lines += [f"## tutelage {name} {{ #{name} }}\n", f"{command.summary}\n"]
        if name == "classify":
            lines += _by_argparse(name, command_line_parser(f"{PROGRAM} {name}"))
        else:
            lines += _by_click(name)
    for name, make_parser in PROGRAMS.items():
        parser = make_parser()
        lines += [f"## {parser.prog} {{ #{name} }}\n", f"{parser.description}\n"]
        lines += _by_argparse(name, parser)
    return "\n".join(lines)


def _by_click(name: str) -> Iterator[str]:
    command = click_command(name)
    _, *paragraphs = (command.help or "").split("\n\n")
    yield from (f"{' '.join(text.split())}\n" for text in paragraphs)
    examples = (command.epilog or "").splitlines()[2:]
    yield "\n".join(["```sh", *(line.strip() for line in examples), "```\n"])
    for parameter in command.params:
        names = [*parameter.opts, *parameter.secondary_opts]
        if parameter.param_type_name == "argument":
            names = [parameter.metavar or parameter.name.upper()]
        metavar = "" if parameter.param_type_name == "argument" else parameter.metavar or ""
        yield from _option(name, names, metavar, getattr(parameter, "help", "") or "")


def _by_argparse(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        text = (action.help or "") % {**vars(action), "prog": parser.prog}
        metavar = action.metavar if isinstance(action.metavar, str) else ""
        if not action.option_strings:
            yield from _option(name, [metavar], "", text)
            continue
        if action.choices and not metavar:
            metavar = "|".join(map(str, action.choices))
        yield from _option(name, list(action.option_strings), metavar, text)
    epilog = (parser.epilog or "").strip()
    yield f"```text\n{epilog}\n```\n"


def _option(command: str, names: list[str], metavar: str, text: str) -> Iterator[str]:
    anchor = names[-1].strip("-").lower()
    anchor = re.sub(r"[^\w-]+", "-", anchor).strip("-")
    shown = f"{', '.join(names)} {metavar}".strip()
    yield f"#### `{shown}` {{ #{command}-{anchor} }}\n"
    sentence = " ".join(text.split())
    sentence = sentence.replace("<", "&lt;").replace("*", "\\*")
    yield f"{sentence[:1].upper()}{sentence[1:]}.\n" if sentence else ""
