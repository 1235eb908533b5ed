"""Forms of a URI, and which function opens each: of sources and of outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from tutelage.core.discovery import import_modules

Opener = TypeVar("Opener")


@dataclass(frozen=True)
class UriForm(Generic[Opener]):
    """What one opener takes, see `UriRegistry.register`."""

    matches: Callable[[str], bool]
    examples: Mapping[str, str]
    place: int
    open: Opener


class UriRegistry(Generic[Opener]):
    """The forms that the modules of a package register.

    All these modules are imported before the first form is looked up, by --help too: what only one
    of them needs (a network library, say) is imported within its functions.

    Parameters
    ----------
    package : full name of the package
    """

    def __init__(self, package: str) -> None:
        self._package = package
        self._forms: list[UriForm[Opener]] = []
        self._complete = False

    def register(
        self, matches: Callable[[str], bool], examples: Mapping[str, str], place: int = 100
    ) -> Callable[[Opener], Opener]:
        """Register a function that opens what a URI names.

        Parameters
        ----------
        matches : says whether a URI is of this form
        examples : lines for --help: an example of the URI -> what it is, up to 70 characters
        place : order in --help. A URI is tried in the reverse order: what takes any path has the
            lowest place and comes last
        """

        def register(opener: Opener) -> Opener:
            self._forms.append(UriForm(matches, examples, place, opener))
            return opener

        return register

    def _all(self) -> list[UriForm[Opener]]:
        if not self._complete:
            import_modules(self._package)
            self._forms.sort(key=lambda form: form.place)
            self._complete = True
        return self._forms

    def opener_of(self, uri: str) -> Opener | None:
        """Return what opens a URI, None where it is of no form."""
        return next((form.open for form in reversed(self._all()) if form.matches(uri)), None)

    def help_text(self) -> str:
        """Return a line for each example, for --help."""
        lines = [line for form in self._all() for line in form.examples.items()]
        return "\n".join(help_line(example, text) for example, text in lines)


def help_line(example: str, text: str) -> str:
    """Return a line of --help."""
    return f"  {example:24} {text}"
