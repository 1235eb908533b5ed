"""Optuna storages, through which the workers of a search or a study share its state.

    study = open_study("journal:/nfs/search.journal", "explore", ["minimize", "maximize"])

A journal is a file with a line of JSON for each operation, and is safe on a network file system.
Any other storage is a URL of SQLAlchemy, such as sqlite:///FILE (for one machine) or
mysql://USER@HOST/DATABASE, in whose tables Optuna stores JSON too. Redis is refused, because Optuna
unpickles the data that it reads from it.
"""

from __future__ import annotations

import json
import math
import os
import random
import sys
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
"""Largest accepted journal. A study of thousands of runs takes some tens of MB."""

_LOCK_SECONDS = 60
_ATTEMPTS = 3
_LONGEST_LINE = 1 << 16
_CONTRADICTIONS = (ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError,
                   TypeError, ValueError)  # fmt: skip


DEFAULT_LEASE_SECONDS = 120.0
"""Longer than NFS clients cache the attributes of a directory (60 s by default)."""


@dataclass(frozen=True)
class Shared:
    """A storage that several workers share.

    Attributes
    ----------
    url : in one of the forms of `FORMS`
    lease_seconds : time without a heartbeat after which a worker counts as dead and its work is
        repeated, s
    """

    url: str
    lease_seconds: float = DEFAULT_LEASE_SECONDS

    def __post_init__(self) -> None:
        if not 0 < self.lease_seconds < math.inf:
            raise StorageUsageError(f"lease is {self.lease_seconds} s; it must be positive")


class StorageError(TutelageError):
    """A storage cannot be opened or used, or its content is damaged; the message is one line."""

    status = FAILED


class StorageUsageError(StorageError):
    """The storage given is not a valid one; the message is one line."""

    status = TutelageError.status


def open_study(
    url: str, name: str, directions: Sequence[Direction], sampler: BaseSampler | None = None
) -> Study:
    """Return the study `name` of a storage, created if it does not exist yet.

    Parameters
    ----------
    url : in one of the forms of `FORMS`; "": in memory
    name : of the study
    directions : one for each objective
    sampler : draws the trials; None: Optuna's default

    Raises
    ------
    MissingPackage
        Optuna is not installed.
    StorageError
        The storage cannot be opened, or the existing study has other directions.
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
    """Open a storage, created if it does not exist yet.

    Parameters
    ----------
    url : in one of the forms of `FORMS`

    Raises
    ------
    StorageUsageError
        The URL has another form, the journal's directory does not exist, or the database's driver
        is not installed.
    StorageError
        The file is not a journal, or too large.
    """
    if url.startswith(JOURNAL):
        return _open_journal(Path(url.removeprefix(JOURNAL)).expanduser())
    if url.startswith("redis"):
        raise StorageUsageError(
            f"{without_password(url)}: Redis is not allowed, because Optuna unpickles its content, "
            f"which can run any code; use {FORMS}"
        )
    if "://" not in url:
        raise StorageUsageError(f"{url!r} is not a storage; use {FORMS}")
    return _open_database(url)


def _open_journal(path: Path) -> BaseStorage:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

    lock = JournalFileSymlinkLock(str(path))

    class File(JournalFileBackend):  # type: ignore[misc, unused-ignore]
        """Optuna's file, whose last line may be incomplete after a writer was killed."""

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
        """Optuna's journal, whose lines are untrusted: other writers may have damaged them."""

        def _sync_with_backend(self) -> None:
            if path.stat().st_size > MAX_JOURNAL_BYTES:
                raise StorageError(f"{path}: over {MAX_JOURNAL_BYTES:,} bytes; use a new file")
            try:
                super()._sync_with_backend()
            except _CONTRADICTIONS as error:
                raise StorageError(
                    f"{path}: not a journal of Optuna, or damaged: {one_line(error)}; restore it "
                    "from a copy or use another file"
                ) from error

    if not path.parent.is_dir():
        raise StorageUsageError(f"{path.parent}: no such directory; create it for the journal")
    _check_beginning(path)
    return Journal(File(str(path), lock_obj=lock))


def _check_beginning(path: Path) -> None:
    """Raise StorageError for a file that is not a journal, before anything is written to it."""
    if not path.exists():
        return
    with path.open("rb") as file:
        line = file.readline(_LONGEST_LINE)
    try:
        begins = not line or (line.endswith(b"\n") and "op_code" in json.loads(line))
    except (RecursionError, TypeError, ValueError):
        begins = False
    if not begins:
        raise StorageError(f"{path}: not a journal of Optuna; use another file")


def _to_last_line(file: BinaryIO) -> None:
    """Seek to the end of a file, having cut off an incomplete last line, which nobody has read."""
    end = file.seek(0, os.SEEK_END)
    start = max(end - _LONGEST_LINE, 0)
    file.seek(start)
    rest = file.read()
    if rest and not rest.endswith(b"\n"):
        kept = rest.rfind(b"\n") + 1
        if not kept and start:
            raise StorageError(f"{file.name}: not a journal of Optuna: its last line does not end")
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
        except DBAPIError:  # another worker may be creating Optuna's tables at the same time
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(1 + random.random())
    if url.startswith("sqlite"):
        _lock_whole_transactions(storage)
    return storage


def _lock_whole_transactions(storage: Any) -> None:
    """Make SQLite's transactions exclusive from their first read on.

    Optuna relies on SELECT ... FOR UPDATE, which SQLite ignores, so that two processes could take
    the same trial.
    """
    from sqlalchemy import event

    def without_own_begin(connection: Any, _record: Any) -> None:
        connection.isolation_level = None

    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    event.listen(storage.engine, "connect", without_own_begin)
    event.listen(storage.engine, "begin", begin)
    storage.engine.dispose()  # close the connections made without these listeners


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Convert the errors of Optuna and SQLAlchemy to `StorageError`; do nothing if `url` is ""."""
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
        raise StorageError(f"{without_password(url)}: the storage failed: {text}") from error


def without_password(url: str) -> str:
    """Return a URL with its password replaced by ***."""
    scheme, separator, rest = url.partition("://")
    login, at, place = rest.rpartition("@")
    user, colon, _ = login.partition(":")
    return f"{scheme}{separator}{user}{colon}{'***' * bool(colon)}{at}{place}"


def trials_of(study: Study) -> list[FrozenTrial]:
    """Return the study's trials in the order of their numbers; they must not be changed.

    Raises
    ------
    StorageError
        The attributes of a trial are not a table.
    """
    trials = study.get_trials(deepcopy=False)
    for trial in trials:
        if not isinstance(trial.user_attrs, dict):
            raise StorageError(f"trial {trial.number} of {study.study_name}: damaged attributes")
    return trials


def number_in(attributes: Mapping[str, Any], key: str) -> float | None:
    """Return a number that a worker stored; None if it is missing or not a finite number."""
    value = attributes.get(key)
    # Comparisons of Python's integers, which have no limit, with floats are exact.
    if isinstance(value, (int, float)) and abs(value) <= sys.float_info.max:
        return float(value)
    return None
