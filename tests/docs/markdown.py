"""Parser of a Markdown page's blocks: commands, files, patches, outputs."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

_PROGRAMS = (
    "make",
    "python",
    "python3",
    "sudo",
    "ffmpeg",
    "accelerate",
    "tensorboard",
    "tutelage",
    "cp",
    ".",
)
_COMMAND = re.compile(rf"(?:{'|'.join(map(re.escape, _PROGRAMS))}) +\S")
_COMMENT = re.compile(r"\s{2,}#\s.*$")
_INLINE = re.compile(r"`((?:make|python3?|sudo|tutelage) [^`]+)`")
_FILE = re.compile(r"# ([\w./-]+\.(?:toml|py))(?::.*)?$")


@dataclass(frozen=True)
class Command:
    """A command line of a page, without the comment after it."""

    page: str
    line: int
    text: str
    inline: bool = False

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


@dataclass
class Block:
    """The lines of a block, starting at line `start`, without their indentation."""

    start: int
    language: str = ""
    lines: list[str] = field(default_factory=list)

    @property
    def file(self) -> str | None:
        """The file that the block shows: its first line is a comment with the name."""
        match = _FILE.match(self.lines[0])
        return match[1] if match else None

    @property
    def commands(self) -> list[tuple[int, str]]:
        """Number and text of each command line; backslashes at line ends join lines."""
        found, whole, first = [], "", self.start
        for number, line in enumerate(self.lines, self.start):
            first = first if whole else number
            whole += line.removesuffix("\\").strip() + " "
            if not line.endswith("\\"):
                text = _COMMENT.sub("", whole.strip())
                if _COMMAND.match(text):
                    found.append((first, re.sub(r"\s+", " ", text)))
                whole = ""
        return found

    @property
    def is_output(self) -> bool:
        """Whether it is the output of a program rather than a file, patch, command or code."""
        return not (self.file or self.language not in ("", "text") or self.commands)


def blocks(page: Path) -> list[Block]:
    """Return the indented blocks, which follow an empty line, and the fenced ones."""
    found: list[Block] = []
    fenced, before = False, ""
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        goes_on = bool(found) and found[-1].start + len(found[-1].lines) == number
        if line.lstrip().startswith("```"):
            fenced = not fenced
            if fenced:
                found.append(Block(number + 1, line.strip("` ")))
        elif fenced:
            found[-1].lines.append(line)
        elif line.startswith("    ") and (goes_on or not before.strip()):
            if not goes_on:
                found.append(Block(number))
            found[-1].lines.append(line[4:])
        elif not line.strip() and goes_on:
            found[-1].lines.append("")
        before = line
    for block in found:
        block.lines = _trimmed(block.lines)
    return [block for block in found if block.lines]


def _trimmed(lines: list[str]) -> list[str]:
    text = "\n".join(lines).rstrip().splitlines()
    margin = min((len(line) - len(line.lstrip()) for line in text if line.strip()), default=0)
    return [line[margin:] for line in text]


def commands(page: Path, root: Path) -> list[Command]:
    """Return all commands of a page: those in blocks, then those in its sentences."""
    name = page.relative_to(root).as_posix()
    found = [Command(name, number, text) for block in blocks(page) if not block.file
             for number, text in block.commands]  # fmt: skip
    text = re.sub(r"(?m)^    .*$", "", page.read_text(encoding="utf-8"))
    for match in _INLINE.finditer(text):
        at = text[: match.start()].count("\n") + 1
        found.append(Command(name, at, re.sub(r"\s+", " ", match[1]), inline=True))
    return found


def files(page: Path) -> dict[str, str]:
    """Return the files that a page shows completely."""
    return {b.file: "\n".join(b.lines) + "\n" for b in blocks(page) if b.file}


def apply_patch(block: Block, root: Path) -> None:
    """Apply a diff whose hunks have no line numbers; each must fit in exactly one place.

    Raises
    ------
    ValueError : a hunk fits nowhere, or in several places
    """
    path, before, after = root, "", ""
    for line in [*block.lines, "@@"]:
        if line.startswith(("---", "+++", "@@")):
            if before:
                text = path.read_text(encoding="utf-8")
                if text.count(before) != 1:
                    raise ValueError(f"{path.name}: fits in {text.count(before)} places:\n{before}")
                path.write_text(text.replace(before, after), encoding="utf-8")
            before = after = ""
            if line.startswith("+++ b/"):
                path = root / line.removeprefix("+++ b/")
            continue
        before += line[1:] + "\n" if line[:1] in (" ", "-", "") else ""
        after += line[1:] + "\n" if line[:1] in (" ", "+", "") else ""
