"""MkDocs hook: pages and parts of pages that are generated from the code.

`reference/command-line.md` has every command, program and option of the parsers. A line

    {{ keys tutelage.host.train.config.Config }}
    {{ keys tutelage.core.board_profile.Hazard below [hazards] }}
    {{ fields tutelage.core.results.run_json.RunResults }}

in a page becomes a heading for each TOML key, or each field in JSON, of a dataclass and of those
inside it, with its type, its default and its description from the docstring's Attributes; "below"
names the table.
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
from tutelage.core.results.figure import Figure
from tutelage.host.cli.command import click_command

PROGRAMS = {"app-measure": measure_parser, "board-overlay": overlay_parser}
"""Parsers of the programs that are not commands of `tutelage`, by the anchor of their section."""

ROOT = Path(__file__).resolve().parents[1]
_KEYS = re.compile(r"(?m)^\{\{ (keys|fields) ([\w.]+)(?: below (\S+))? \}\}$")
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
    for name in ("latency.svg", "cifar10/study.svg"):
        picture = str(ROOT / "results" / name)
        files.append(File.generated(config, f"results/{name}", abs_src_path=picture))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the `keys` lines, and adjust links to the plots that `on_files` adds."""
    return expand(markdown.replace("](../../results/", "](../results/"))


# -- TOML keys and JSON fields ----------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Key:
    """A key of a TOML file, or a field of an object in JSON.

    Attributes
    ----------
    table : dotted name of its table or object; "" for the top level
    name : name of the key
    type : its type in TOML's or JSON's terms
    default : its default; None if the key is required, "" if it has no value by default
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
        module, _, name = match[2].rpartition(".")
        cls = getattr(import_module(module), name)
        if match[1] == "fields":
            return "\n".join(_sections(json_fields(cls), "`{}`"))
        return "\n".join(_sections(toml_keys(cls, match[3] or ""), "[{}]"))

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


def json_fields(cls: type[Any], place: str = "") -> Iterator[Key]:
    """Yield the fields of a dataclass, then those of the objects inside it.

    A `Figure` is a single field, since its own fields are the same everywhere.
    """
    hints, texts = get_type_hints(cls), _attributes(cls)
    objects = []
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        inner, suffix = _inside(hint)
        if dataclasses.is_dataclass(inner) and inner is not Figure:
            path = f"{place}.{field.name}" if place else field.name
            objects.append((inner, path + suffix))
        text = re.sub(r"\bNone\b", "null", texts.get(field.name, ""))
        kind = _type(hint).replace("table", "object")
        yield Key(place, field.name, kind, _default(field), text)
    for inner, path in objects:
        yield from json_fields(inner, path)  # type: ignore[arg-type]


def _inside(hint: Any, suffix: str = "") -> tuple[Any, str]:
    """Return the innermost type of optional values, lists and dicts, and its place in them."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType) and type(None) in arguments:
        return _inside(arguments[0], suffix)
    if origin is list:
        return _inside(arguments[0], f"{suffix}[]")
    if origin is dict:
        return _inside(arguments[1], f"{suffix}.NAME")
    return hint, suffix


def _sections(keys: Iterator[Key], heading: str) -> Iterator[str]:
    table = ""
    for key in keys:
        if key.table != table:
            table = key.table
            yield f"### {heading.format(table)}\n"
        yield f"#### {key.name} {{ #{re.sub(r'[][]', '', key.path)} }}\n"
        given = f"default `{key.default}`" if key.default else "optional"
        given = "required" if key.default is None else given
        yield f"*{key.type}, {given}*\n"
        yield f"{key.text}\n"


def _attributes(cls: type[Any]) -> dict[str, str]:
    """Return the descriptions in the Attributes of a class and its bases, by name."""
    found = {}
    for base in reversed(cls.__mro__):
        _, _, block = inspect.cleandoc(base.__doc__ or "").partition("Attributes\n----------\n")
        block = re.split(r"\n\n(?=\w+\n-+\n)", block)[0]
        parts = _ATTRIBUTE.split(block)[1:]
        for names, text in zip(parts[::2], parts[1::2], strict=True):
            found.update(dict.fromkeys(names.split(", "), _sentence(text)))
    return found


def _sentence(text: str) -> str:
    """Return a text in one line, with a full stop, and a capital unless a literal begins it."""
    words = " ".join(text.split()).rstrip(".")
    first = words.partition(" ")[0]
    if first.rstrip(",;:").isalpha():
        words = words[:1].upper() + words[1:]
    return f"{words}." if words else ""


_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", dict: "table"}


def _type(hint: Any) -> str:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_type(part) for part in get_args(hint) if part is not type(None))
    if origin in (list, tuple):
        return f"array of {_type(get_args(hint)[0])}s"
    if dataclasses.is_dataclass(hint):
        return "figure" if hint is Figure else "object"
    return _TYPES.get(origin or hint, "value")


def _default(field: dataclasses.Field[Any]) -> str | None:
    if field.default_factory is not dataclasses.MISSING:
        made = field.default_factory()
        return "" if dataclasses.is_dataclass(made) else str(made)
    if field.default is dataclasses.MISSING:
        return None
    if field.default is None:
        return ""
    if field.default == ():
        return "[]"
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
        text = getattr(parameter, "help", "") or ""
        if isinstance(parameter.default, (str, int, float)) and parameter.default not in (
            "",
            False,
        ):
            text += f"; default: {parameter.default}"
        yield from _option(name, names, metavar, text)


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
    yield _sentence(text).replace("<", "&lt;").replace("*", "\\*") + "\n"
