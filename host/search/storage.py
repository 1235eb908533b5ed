"""Storages of Optuna: where the workers of a search or a study meet.

    study = open_study("journal:/nfs/search.journal", "explore", ["minimize", "maximize"])

A journal is a file with a line of JSON for each operation, safe on a file system that machines
share. Everything else is a URL of SQLAlchemy, such as sqlite:///FILE (of one machine) or
mysql://USER@HOST/DATABASE, in whose tables Optuna keeps JSON too. Storages in Redis are refused:
Optuna unpickles what it finds there.
"""

from __future__ import annotations

import json
import math
import os
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from tutelage.core.commands import needs
from tutelage.core.errors import FAILED, TutelageError, one_line

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.study import Study
    from optuna.trial import FrozenTrial

Direction = Literal["minimize", "maximize"]
JOURNAL = "journal:"
FORMS = "journal:FILE, sqlite:///FILE, mysql://... or postgresql://..."
MAX_JOURNAL_BYTES = 1 << 30
"""A study of thousands of runs over weeks takes some tens of MB."""

_LOCK_SECONDS = 60
_ATTEMPTS = 3
_LONGEST_LINE = 1 << 16
_CONTRADICTIONS = (ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError,
                   TypeError, ValueError)  # fmt: skip


DEFAULT_LEASE_SECONDS = 120.0
"""Longer than a file server's clients keep what they know of a directory (60 s by default)."""


@dataclass(frozen=True)
class Shared:
    """A storage that several workers share.

    Attributes
    ----------
    url : as FORMS says
    lease_seconds : a worker that was silent for so long counts as dead, and its work is done again
    """

    url: str
    lease_seconds: float = DEFAULT_LEASE_SECONDS

    def __post_init__(self) -> None:
        if not 0 < self.lease_seconds < math.inf:
            raise StorageUsageError(f"lease is {self.lease_seconds} s; it must be positive")


class StorageError(TutelageError):
    """The storage cannot be opened or used, or what is in it is damaged; one line."""

    status = FAILED


class StorageUsageError(StorageError):
    """What was given is not a storage; one line."""

    status = TutelageError.status


def open_study(
    url: str, name: str, directions: Sequence[Direction], sampler: BaseSampler | None = None
) -> Study:
    """Return the study `name` of a storage; it is created where it is not there yet.

    Parameters
    ----------
    url : as FORMS says; "" for one in memory
    directions : of each objective

    Raises
    ------
    MissingPackage
        Optuna is not installed.
    StorageError
        The storage cannot be opened, or the study has other objectives.
    """
    with needs("search"):
        import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with storage_errors(url):
        return optuna.create_study(
            storage=open_storage(url) if url else None, study_name=name, sampler=sampler,
            directions=list(directions), load_if_exists=True,
        )  # fmt: skip


def open_storage(url: str) -> BaseStorage:
    """Return a storage; see `open_study`."""
    if url.startswith(JOURNAL):
        return _open_journal(Path(url.removeprefix(JOURNAL)).expanduser())
    if url.startswith("redis"):
        raise StorageUsageError(
            f"{without_password(url)}: Optuna unpickles what it finds in Redis, which runs any "
            f"code; take {FORMS}"
        )
    if "://" not in url:
        raise StorageUsageError(f"{url!r} is not a storage; it must be {FORMS}")
    return _open_database(url)


def _open_journal(path: Path) -> BaseStorage:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

    lock = JournalFileSymlinkLock(str(path))

    class File(JournalFileBackend):  # type: ignore[misc, unused-ignore]
        """Optuna's file, of which a writer that died may have left the last line incomplete."""

        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            lock.acquire()
            try:
                with path.open("r+b") as file:
                    _to_last_line(file)
                    file.writelines(json.dumps(log).encode() + b"\n" for log in logs)
                    file.flush()
                    os.fsync(file.fileno())
            finally:
                lock.release()

    class Journal(JournalStorage):  # type: ignore[misc, unused-ignore]
        """Optuna's journal, whose lines may be damaged by whoever can write the file."""

        def _sync_with_backend(self) -> None:
            if path.stat().st_size > MAX_JOURNAL_BYTES:
                raise StorageError(f"{path}: larger than {MAX_JOURNAL_BYTES:,} bytes, refused")
            try:
                super()._sync_with_backend()
            except _CONTRADICTIONS as error:
                raise StorageError(
                    f"{path}: not a journal of Optuna, or damaged: {one_line(error)}; take a copy "
                    "of it or another file"
                ) from error

    if not path.parent.is_dir():
        raise StorageUsageError(f"{path.parent}: no such directory; make it for the journal")
    _check_beginning(path)
    return Journal(File(str(path), lock_obj=lock))


def _check_beginning(path: Path) -> None:
    """Raise StorageError for a file that is something else: it would be written to."""
    if not path.exists():
        return
    with path.open("rb") as file:
        line = file.readline(_LONGEST_LINE)
    try:
        begins = not line or (line.endswith(b"\n") and "op_code" in json.loads(line))
    except (RecursionError, TypeError, ValueError):
        begins = False
    if not begins:
        raise StorageError(f"{path}: not a journal of Optuna; take another file")


def _to_last_line(file: BinaryIO) -> None:
    """Go to the end of a file, without what is behind its last newline: nobody has read that."""
    end = file.seek(0, os.SEEK_END)
    start = max(end - _LONGEST_LINE, 0)
    file.seek(start)
    rest = file.read()
    if rest and not rest.endswith(b"\n"):
        kept = rest.rfind(b"\n") + 1
        if not kept and start:
            raise StorageError(f"{file.name}: not a journal of Optuna: its last line has no end")
        end = start + kept
        file.truncate(end)
    file.seek(end)


def _open_database(url: str) -> BaseStorage:
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import DBAPIError

    options = {"connect_args": {"timeout": _LOCK_SECONDS}} if url.startswith("sqlite") else {}
    for attempt in range(_ATTEMPTS):
        try:
            storage = RDBStorage(url, engine_kwargs=options)
            break
        except ImportError as error:
            missing = one_line(error.__cause__ or error)
            raise StorageUsageError(
                f"{without_password(url)}: its database driver is not installed: {missing}"
            ) from error
        except DBAPIError:  # Optuna's tables are just being made by a worker that starts as well
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(1 + random.random())
    if url.startswith("sqlite"):
        _lock_whole_transactions(storage)
    return storage


def _lock_whole_transactions(storage: Any) -> None:
    """Let SQLite's transactions exclude each other from their first read on.

    Optuna relies on SELECT ... FOR UPDATE, which SQLite ignores: two processes take the same trial.
    """
    from sqlalchemy import event

    def without_own_begin(connection: Any, _record: Any) -> None:
        connection.isolation_level = None

    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    event.listen(storage.engine, "connect", without_own_begin)
    event.listen(storage.engine, "begin", begin)
    storage.engine.dispose()  # connections that were made before


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Turn what Optuna and SQLAlchemy raise where a storage fails into `StorageError`."""
    if not url:
        yield
        return
    with needs("search"):
        from optuna.exceptions import OptunaError
        from sqlalchemy.exc import SQLAlchemyError
    try:
        yield
    except (OptunaError, SQLAlchemyError) as error:
        text = one_line(error.__cause__ or error)
        raise StorageError(f"{without_password(url)}: the storage fails: {text}") from error


def without_password(url: str) -> str:
    """Return a URL with *** for its password."""
    scheme, separator, rest = url.partition("://")
    login, at, place = rest.rpartition("@")
    user, colon, _ = login.partition(":")
    return f"{scheme}{separator}{user}{colon}{'***' * bool(colon)}{at}{place}"


def trials_of(study: Study) -> list[FrozenTrial]:
    """Return the study's trials by number, without copying them: they are not to be changed.

    Raises
    ------
    StorageError
        The attributes of one are not a table.
    """
    trials = study.get_trials(deepcopy=False)
    for trial in trials:
        if not isinstance(trial.user_attrs, dict):
            raise StorageError(f"trial {trial.number} of {study.study_name}: damaged attributes")
    return trials


def number_in(attributes: Mapping[str, Any], key: str) -> float | None:
    """Return a number that a worker stored; None where it is absent or something else."""
    value = attributes.get(key)
    return float(value) if isinstance(value, (int, float)) else None
