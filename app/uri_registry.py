"""Registry of functions that open sources or outputs by the form of their URI."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from tutelage.core.discovery import import_modules

Opener = TypeVar("Opener")


@dataclass(frozen=True)
class UriForm(Generic[Opener]):
    """One form of a URI and its opener; see `UriRegistry.register`."""

    matches: Callable[[str], bool]
    examples: Mapping[str, str]
    place: int
    open: Opener


class UriRegistry(Generic[Opener]):
    """The forms that the modules of a package register.

    The first look-up, and --help, import all these modules. A module should therefore import
    packages that only it needs, such as a network library, in its functions.

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
        """Register the decorated function as the opener of a form of URI.

        Parameters
        ----------
        matches : predicate for URIs of this form
        examples : lines for --help: example of a URI -> its meaning, up to 70 characters
        place : position in --help. Forms are tried in reverse order, so a form that matches any
            path has the lowest place
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
        """Return the opener of a URI; None if no form matches."""
        return next((form.open for form in reversed(self._all()) if form.matches(uri)), None)

    def help_text(self) -> str:
        """Return the lines of --help, one for each example."""
        lines = [line for form in self._all() for line in form.examples.items()]
        return "\n".join(help_line(example, text) for example, text in lines)


def help_line(example: str, text: str) -> str:
    """Return an aligned line of --help."""
    return f"  {example:24} {text}"
