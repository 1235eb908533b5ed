"""Commands from functions whose options are a dataclass.

    @dataclass(frozen=True, kw_only=True)
    class DiffOptions(JsonOptions):
        a: Annotated[Path, typer.Argument(metavar="A.xmodel")]
        layers: Annotated[bool, typer.Option("--layers", help="compare layers, not ops")] = False

    @command("diff", "a.xmodel b.xmodel")
    def diff(options: DiffOptions) -> int: ...

Typer derives the parameters of a command from a function's signature; this module makes one that
has the dataclass's fields. A group of options that several commands share is a base class of their
dataclasses. The first line of help is that of `tutelage.core.commands`; further paragraphs are
those of the function's docstring.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from importlib import import_module
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import typer

from tutelage.core.commands import COMMANDS, PROGRAM
from tutelage.core.errors import TutelageError

SEVERAL = object()
"""Marks, within Annotated, a field `mean` of a list that may also be given as `--mean 1 2 3`."""

Function = TypeVar("Function", bound=Callable[[Any], int])


@dataclass(frozen=True)
class _Entry:
    function: Callable[[Any], int]
    examples: tuple[str, ...]
    settings: Mapping[str, Any]


_ENTRIES: dict[str, _Entry] = {}


def command(name: str, *examples: str, **settings: Any) -> Callable[[Function], Function]:
    """Register a function, whose argument is a dataclass of options, as a command.

    Parameters
    ----------
    name : of the command, in `tutelage.core.commands.COMMANDS`
    examples : arguments of the command, for its --help
    settings : of Click's context, such as allow_interspersed_args
    """

    def register(function: Function) -> Function:
        _ENTRIES[name] = _Entry(function, examples, settings)
        return function

    return register


def run(name: str, arguments: Sequence[str]) -> int:
    """Run a command of `tutelage.core.commands.COMMANDS` and return its exit status.

    Raises
    ------
    TutelageError
        The command was used wrongly, or failed.
    """
    parser, options = click_command(name), _options(name)
    try:
        with parser.make_context(
            f"{PROGRAM} {name}", repeated(arguments, _several(options))
        ) as context:
            return int(parser.invoke(context))
    except typer.Exit as stop:  # raised by --help
        return stop.exit_code
    except typer.TyperException as error:
        text = " ".join(error.format_message().split()).rstrip(".")
        raise TutelageError(f"{text}; see {PROGRAM} {name} --help") from error


def click_command(name: str) -> Any:
    """Return the Click command of a name in `tutelage.core.commands.COMMANDS`, except classify."""
    import_module(COMMANDS[name].module)
    entry = _ENTRIES[name]
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(
        name,
        help="\n\n".join(_help(name, entry)),
        epilog=_examples(name, entry),
        context_settings={"help_option_names": ["-h", "--help"], **entry.settings},
    )(_with_fields(entry.function, _options(name)))
    return typer.main.get_command(app)


def _options(name: str) -> type[Any]:
    """Return the dataclass of a command's options."""
    return get_type_hints(_ENTRIES[name].function)["options"]


def _help(name: str, entry: _Entry) -> list[str]:
    _, *more = (inspect.getdoc(entry.function) or "").split("\n\n")
    return [COMMANDS[name].summary, *more]


def _examples(name: str, entry: _Entry) -> str:
    lines = [f"  {PROGRAM} {name} {example}" for example in entry.examples]
    return "\n".join(["\b", f"Example{'s' * (len(lines) > 1)}:", *lines])


def _with_fields(function: Callable[[Any], int], options: type[Any]) -> Callable[..., int]:
    """Return a function that has a keyword argument for each field and calls `function`."""
    hints = get_type_hints(options, include_extras=True)

    def call(**values: Any) -> int:
        return function(options(**values))

    parameters = [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=_default(field),
            annotation=hints[field.name],
        )
        for field in _in_order(options)
    ]  # fmt: skip
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call


def _default(field: Field[Any]) -> Any:
    if field.default is not MISSING:
        return field.default
    if field.default_factory is not MISSING:
        return field.default_factory()
    return inspect.Parameter.empty


def _in_order(options: type[Any]) -> list[Field[Any]]:
    """Return the fields, the command's own before those of its groups."""
    places = {name: place for place, kind in enumerate(reversed(options.__mro__))
              for name in inspect.get_annotations(kind)}  # fmt: skip
    return sorted(fields(options), key=lambda field: -places[field.name])


def _several(options: type[Any]) -> dict[str, Callable[[str], Any]]:
    """Return the options marked SEVERAL, each with the type of its values."""
    found = {}
    for name, hint in get_type_hints(options, include_extras=True).items():
        if get_origin(hint) is Annotated and SEVERAL in hint.__metadata__:
            (kind,) = get_args(get_args(hint)[0])
            found[f"--{name.replace('_', '-')}"] = kind
    return found


def repeated(arguments: Sequence[str], several: Mapping[str, Callable[[str], Any]]) -> list[str]:
    """Rewrite each `--mean 1 2 3` as `--mean 1 --mean 2 --mean 3`, which Click can parse.

    The values of an option are the words up to the next option, or, if the values are numbers, up
    to the first word that is not a number.

    Parameters
    ----------
    several : option -> type of its values
    """
    words: list[str] = []
    taking, given = "", 0
    for place, word in enumerate(arguments):
        if word == "--":
            return [*words, *arguments[place:]]
        if word in several:
            taking, given = word, 0
        elif taking and _is_value(word, several[taking]):
            words += [taking] * (given > 0)
            given += 1
        else:
            taking = ""
        words.append(word)
    return words


def _is_value(word: str, kind: Callable[[str], Any]) -> bool:
    if kind not in (int, float):
        return not word.startswith("-") or word == "-"
    try:
        kind(word)
    except ValueError:
        return False
    return True
