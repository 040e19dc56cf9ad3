"""The outbox on disk: what must not be lost waits here until the broker has acknowledged it.

One SQLite file in the state directory, in write-ahead mode, synced at each commit: what `add` returned from
survives a kill and a power cut. Beside the outbox proper it holds what came in and was not yet lived through,
the ids that came in lately, and notes. Not for two threads at once: whoever holds it has one for it; only
`health` and `waiting` may be read from any.

A disk that fails is no reason to lose anything either. All that waits is then taken into memory, if the file
can still be read, goes out from there, and reaches the file as soon as it can be written again. A row keeps
its number on both ways, so that what is under way to the broker meanwhile is still known when it arrives.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import structlog

from neuromodd.core.messages import Event
from neuromodd.core.payloads import OutboxHealth
from neuromodd.errors import NotKeptError

FILE_NAME = "outbox.sqlite3"
VERSION = 1
BUSY_S = 1.0

RETRY_S = 5.0
"""A file that failed is tried again after so long."""

CACHE_KIBIBYTES = 256
"""Of the file in memory: SQLite would keep 2 MB, which the ids that were seen fill within weeks."""

SEEN_LIMIT = 10_000
"""Ids of requests that are remembered, so that a repeat is recognised."""

SPARED_FIRST = "telemetry"
"""What gives way first at a bound: frames are many, and worth less than rewards and faults."""

LAST_NUMBER = 2**62

# The payload comes last: whoever looks for the other columns need not read through it.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS outbox (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL, name TEXT NOT NULL, session TEXT, boot TEXT NOT NULL, at_s REAL NOT NULL,
    crc INTEGER NOT NULL, payload BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS telemetry ON outbox (number) WHERE name = 'telemetry';
CREATE TABLE IF NOT EXISTS inbox (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT UNIQUE NOT NULL, crc INTEGER NOT NULL, event TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS seen (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL);
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""

# As SQLite writes them down.
_TABLES = frozenset(
    {
        b"CREATE TABLE sqlite_sequence(name,seq)",
        *(of.strip().replace("IF NOT EXISTS ", "").encode() for of in _SCHEMA.split(";")),
    }
)

_MEASURE = "SELECT count(*), coalesce(sum(length(payload)), 0) FROM outbox"
_FIRST = "SELECT number, length(payload) FROM outbox ORDER BY number LIMIT 1"
# The index serves this constant only, not a parameter.
_FIRST_SPARED = "SELECT number, length(payload) FROM outbox WHERE name = 'telemetry' ORDER BY number LIMIT 1"

_DAMAGE = frozenset(
    {
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_FORMAT,
        # The statements are ours: if they don't fit the tables, these are not.
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH,
    }
)

# The last: what SQLite says of a damaged file need not be UTF-8.
_TROUBLE = (sqlite3.Error, OSError, UnicodeDecodeError)

WRITABLE_HEADERS = (b"\1\1", b"\2\2")

log = structlog.get_logger()


class Entry(NamedTuple):
    """One row of the outbox.

    Attributes:
        number: grows from row to row; no other row has it for as long as this process lives.
        event: what to publish.
        session: the connection during which it was put here; None if there was none.
    """

    number: int
    event: Event
    session: str | None


class _Row(NamedTuple):
    """A row but for its number."""

    id: str
    name: str
    payload: bytes
    session: str | None
    at_s: float

    @property
    def crc(self) -> int:
        return _crc(self.id, self.name, self.session or "", data=self.payload)

    def entry(self, number: int) -> Entry:
        return Entry(number, Event(self.id, self.name, json.loads(self.payload)), self.session)


class _Total(NamedTuple):
    rows: int = 0
    size: int = 0
    oldest_s: float | None = None


class Outbox:
    """Rows in the order in which they were put there, bounded by count, bytes and age.

    Args:
        path: the file; made if it is missing, set aside if it is damaged or of a newer format.
        max_events: rows; beyond, the oldest give way, telemetry before anything else.
        max_bytes: of their payloads together.
        max_age_s: of a row. Counted on the clock of this boot: the wall clock may be a year off, and a row of
            an earlier boot counts as new.
        boot: names this boot.
        clock: its seconds.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_events: int,
        max_bytes: int,
        max_age_s: float,
        boot: str | None,
        clock: Callable[[], float],
    ) -> None:
        self.path = path
        self.max_events = max_events
        self.max_bytes = max_bytes
        self.max_age_s = max_age_s
        self._boot = boot or "unknown"
        self._clock = clock
        self._file: sqlite3.Connection | None = None
        self._place: os.stat_result | None = None
        self._retry_s = -math.inf
        self._number = 0
        self._filed = _Total()
        self._dropped = 0
        self._say_dropped = 1
        self._error: str | None = None
        # What the file is to be told when it can be written again. `_whole`: `_kept` is all that waits.
        self._was_open = False
        self._whole = False
        self._kept: dict[int, _Row] = {}
        self._gone: set[int] = set()
        self._done: set[str] = set()
        self._came: dict[str, str] = {}
        self._seen: dict[str, None] = {}
        # Of the requests: those in memory only, and those refused whose commit, which failed, may be found
        # done when the file is opened again.
        self._fleeting: set[str] = set()
        self._denied: set[str] = set()
        self._noted: dict[str, str | None] = {}
        # Read by other threads, so never changed but replaced.
        self._total = _Total()

    # What goes out

    def add(self, events: Sequence[Event], *, session: str | None, done: Iterable[str] = ()) -> None:
        """Put events at the end; the requests named in `done` have been lived through."""
        now_s = self._clock()
        new = [row for event in events if (row := _row_of(event, session, now_s)) is not None]
        self._done.update(done)
        for identity in self._done:
            self._came.pop(identity, None)
        rows: dict[int, _Row] = {}
        stored = False
        with self._attempt() as file:
            if file is not None:
                rows = self._numbered(new)
                self._insert(file, rows)
                _forget_requests(file, self._done)
                total = self._filed._replace(
                    rows=self._filed.rows + len(rows),
                    size=self._filed.size + sum(len(row.payload) for row in rows.values()),
                )
                bounded = self._bound(file, total, now_s)
                file.commit()
                stored = True
                self._done.clear()
                self._drop(total.rows - bounded.rows)
                self._take_stock(file, bounded)
                return
        if not stored:
            self._kept.update(rows or self._numbered(new))
        self._bound_kept(now_s)

    def oldest(self, limit: int, *, without: Sequence[str] = ()) -> list[Entry]:
        """The rows at the head, at most `limit`, those of the topics `without` left out."""
        with self._attempt() as file:
            if file is not None:
                marks = ",".join("?" * len(without))
                tail = f"WHERE name NOT IN ({marks}) ORDER BY number LIMIT ?"
                rows, damaged = _read(file, tail, (*without, limit))
                while damaged:
                    self._forget_damaged(file, damaged)
                    rows, damaged = _read(file, tail, (*without, limit))
                return [row.entry(number) for number, row in rows.items()]
        waiting = ((number, row) for number, row in self._kept.items() if row.name not in without)
        return [row.entry(number) for (number, row), _ in zip(waiting, range(limit), strict=False)]

    def remove(self, numbers: Sequence[int]) -> None:
        """Forget rows that the broker has acknowledged."""
        self._gone.update(number for number in numbers if self._kept.pop(number, None) is None)
        with self._attempt() as file:
            if file is not None:
                count, size, _ = self._filed
                for number in self._gone:
                    found = file.execute(
                        "SELECT length(payload) FROM outbox WHERE number = ?", (number,)
                    ).fetchone()
                    if found is not None:
                        file.execute("DELETE FROM outbox WHERE number = ?", (number,))
                        count, size = count - 1, size - found[0]
                file.commit()
                self._gone.clear()
                self._take_stock(file, _Total(count, size))
                return
        self._take_stock(None, self._filed)

    def expire(self) -> None:
        """Drop what is too old; try the file again if it failed."""
        now_s = self._clock()
        with self._attempt() as file:
            if file is not None:
                total = self._filed
                bounded = self._bound(file, total, now_s)
                file.commit()
                self._drop(total.rows - bounded.rows)
                self._take_stock(file, bounded)
                return
        self._bound_kept(now_s)

    @property
    def waiting(self) -> int:
        """Rows that wait."""
        return self._total.rows

    @property
    def error(self) -> str | None:
        """Why all is kept in memory only; None if it is on the disk."""
        return self._error

    @property
    def health(self) -> OutboxHealth:
        """What waits, and how."""
        total = self._total
        return OutboxHealth(
            waiting=total.rows,
            waiting_bytes=total.size,
            oldest_age_s=None if total.oldest_s is None else max(self._clock() - total.oldest_s, 0.0),
            dropped=self._dropped,
            error=self._error,
        )

    # What came in

    def take_in(self, identity: str, event: str, *, durable: bool = False) -> bool:
        """Keep a request until it has been lived through; False if its id came before.

        Raises:
            NotKeptError: it is to be `durable`, and the disk fails; it is forgotten.
        """
        written = False
        with self._attempt() as file:
            if file is not None:
                if file.execute("SELECT 1 FROM seen WHERE id = ?", (identity,)).fetchone() is not None:
                    return False
                written = True
                _remember(file, (identity,))
                _keep_requests(file, {identity: event})
                file.commit()
                return True
        if written:
            # Not seen before: found here, its commit was done and failed to all appearances.
            self._seen.pop(identity, None)
            self._came.pop(identity, None)
            if durable:
                self._denied.add(identity)
        elif identity in self._seen and not (durable and identity in self._fleeting):
            return False
        if durable:
            raise NotKeptError(f"it can't be kept: {self._error}")
        self._fleeting.add(identity)
        self._seen[identity] = None
        self._came[identity] = event
        while len(self._seen) > SEEN_LIMIT:
            first = next(iter(self._seen))
            del self._seen[first]
            self._came.pop(first, None)
            self._fleeting.discard(first)
        return True

    def left_over(self) -> list[tuple[str, str]]:
        """Requests that were kept and not lived through: ids and events, in their order."""
        with self._attempt() as file:
            if file is not None:
                return list(_requests(file).items())
        return list(self._came.items())

    # Notes

    def note(self, name: str) -> Any:  # noqa: ANN401 - parsed JSON
        """What was noted under `name`; None if nothing was, or it can't be read."""
        value: str | bytes | None = None
        with self._attempt() as file:
            if file is not None:
                row = file.execute("SELECT value FROM notes WHERE name = ?", (name,)).fetchone()
                value = None if row is None else row[0]
        value = self._noted.get(name, value)
        with contextlib.suppress(ValueError):
            return None if value is None else json.loads(value)
        return None

    def take_note(self, name: str, value: object) -> None:
        """Note a JSON value under `name`; None forgets it."""
        self._noted[name] = None if value is None else json.dumps(value)
        with self._attempt() as file:
            if file is not None:
                _write_notes(file, self._noted)
                file.commit()
                self._noted.clear()

    def close(self) -> None:
        """Let go of the file; what is in memory only has one more try."""
        untold = (self._kept, self._gone, self._done, self._came, self._denied, self._noted)
        if self._file is None and any(untold):
            self._retry_s = -math.inf
            self._opened()
        if self._kept:
            # Those that the file has from before are in it still.
            log.warning("outbox_not_saved", messages=len(self._kept), error=self._error)
        self._let_go()

    # The file

    @contextlib.contextmanager
    def _attempt(self) -> Iterator[sqlite3.Connection | None]:
        """Hand over the file, or None where it can't be opened; a failure within is noted, not raised.

        What follows the block is the way without a file: it is reached after a failure too, with what the
        file held in memory.
        """
        file = self._opened()
        try:
            yield file
        except _TROUBLE as error:
            self._fail(error)
        except BaseException:
            if file is not None:
                with contextlib.suppress(sqlite3.Error):
                    file.rollback()
            raise

    def _opened(self) -> sqlite3.Connection | None:
        if self._file is not None:
            if self._is_in_place():
                return self._file
            # SQLite would go on writing to a file that nobody finds again.
            self._fail(FileNotFoundError("the file is not there any more"))
        elif self._clock() < self._retry_s:
            return None
        for _ in range(2):
            try:
                self._file = self._open()
            except _TROUBLE as error:
                self._fail(error)
                if not _is_damage(error):
                    break
            else:
                if self._error is not None:
                    log.info("outbox_back", path=str(self.path))
                    self._error = None
                return self._file
        return None

    def _open(self) -> sqlite3.Connection:
        if self.path.exists() and not self.path.is_file():
            raise sqlite3.DatabaseError("malformed: no file")
        # For its owner alone: SQLite gives the files beside it the same mode.
        self.path.touch(mode=0o600)
        with self.path.open("rb") as header:
            versions = header.read(20)[18:]
        if versions and versions not in WRITABLE_HEADERS:
            # SQLite takes it for one that may only be read.
            raise sqlite3.DatabaseError(f"malformed: header {versions!r}")
        file = sqlite3.connect(self.path, timeout=BUSY_S, check_same_thread=False)
        try:
            self._place = self.path.stat()
            # What was damaged may not be UTF-8.
            file.text_factory = bytes
            _check(file)
            file.execute("PRAGMA auto_vacuum = FULL")
            file.execute("PRAGMA journal_mode = WAL")
            file.execute("PRAGMA synchronous = FULL")
            file.execute("PRAGMA journal_size_limit = 1048576")
            file.execute(f"PRAGMA cache_size = -{CACHE_KIBIBYTES}")
            # The version is written each time, so that a file that can be read only counts as failed.
            file.executescript(f"{_SCHEMA} PRAGMA user_version = {VERSION};")
            self._catch_up(file)
        except BaseException:
            file.close()
            raise
        return file

    def _catch_up(self, file: sqlite3.Connection) -> None:
        """Tell the file what happened without it."""
        now_s = self._clock()
        low, high = file.execute(
            "SELECT coalesce(min(number), 0), coalesce(max(number), 0) FROM outbox"
        ).fetchone()
        if not -LAST_NUMBER < low <= high < LAST_NUMBER:
            raise sqlite3.DatabaseError(f"malformed: row {high}")
        if self._kept and not self._was_open:
            # Rows that came before the file could be opened have the numbers from 1 on: older ones go below.
            shift = max(high, high - low + 1)
            file.execute("UPDATE outbox SET number = number - ?", (shift,))
            high -= shift
        stale: Iterable[int] = self._gone
        if self._whole:
            stale = [number for (number,) in file.execute("SELECT number FROM outbox")]
            stale = [number for number in stale if number not in self._kept]
        file.executemany("DELETE FROM outbox WHERE number = ?", ((number,) for number in stale))
        self._insert(file, self._kept)
        file.execute(
            "UPDATE outbox SET boot = ?, at_s = ? WHERE boot IS NOT ? OR (at_s BETWEEN 0 AND ?) IS NOT TRUE",
            (self._boot, now_s, self._boot, now_s),
        )
        _deny_requests(file, self._denied)
        _keep_requests(file, self._came)
        _forget_requests(file, self._done)
        _remember(file, self._seen)
        _write_notes(file, self._noted)
        found = _Total(*file.execute(_MEASURE).fetchone())
        bounded = self._bound(file, found, now_s)
        file.commit()
        self._number = max(self._number, high)
        self._was_open, self._whole = True, False
        for told in (self._kept, self._gone, self._done, self._came, self._seen, self._noted):
            told.clear()
        self._fleeting.clear()
        self._denied.clear()
        self._drop(found.rows - bounded.rows)
        self._take_stock(file, bounded)

    def _is_in_place(self) -> bool:
        try:
            return self._place is not None and os.path.samestat(self.path.stat(), self._place)
        except OSError:
            return False

    def _fail(self, error: Exception) -> None:
        """Go on in memory, with whatever the file still tells."""
        self._retry_s = self._clock() + RETRY_S
        if self._file is not None:
            with contextlib.suppress(*_TROUBLE):
                self._file.rollback()
                self._rescue(self._file)
            self._let_go()
        self._take_stock(None, self._filed)
        reason = f"{self.path}: {error}"
        if _is_damage(error) and (aside := self._set_aside()) is not None:
            log.warning("outbox_damaged", path=str(self.path), reason=str(error), moved_to=str(aside))
        elif self._error is None:
            log.warning("outbox_failed", error=reason)
        self._error = reason

    def _rescue(self, file: sqlite3.Connection) -> None:
        """Take all that waits into memory.

        Raises:
            sqlite3.Error: it can't be read; nothing has changed.
        """
        rows, damaged = _read(file, "ORDER BY number", ())
        came = _requests(file)
        seen = [identity for (identity,) in file.execute("SELECT id FROM seen ORDER BY number")]
        self._kept = {number: row for number, row in rows.items() if number not in self._gone}
        self._came = {identity: event for identity, event in came.items() if identity not in self._done}
        self._seen = dict.fromkeys(identity.decode(errors="replace") for identity in seen)
        self._gone.clear()
        self._whole, self._filed = True, _Total()
        self._tell_damaged(damaged)

    def _let_go(self) -> None:
        if self._file is not None:
            with contextlib.suppress(sqlite3.Error):
                self._file.close()
            self._file = None

    def _set_aside(self) -> Path | None:
        """Make room for a new file; the old one stays, at the path returned, for whoever looks into it."""
        aside = self.path.with_suffix(".damaged")
        if self.path.is_dir() or aside.is_dir():
            # The one does not replace the other.
            others = (aside.with_name(f"{aside.name}-{count}") for count in itertools.count(1))
            aside = next(path for path in itertools.chain((aside,), others) if not path.exists())
        try:
            for suffix in ("-wal", "-shm"):
                beside = aside.with_name(aside.name + suffix)
                beside.unlink(missing_ok=True)
                with contextlib.suppress(FileNotFoundError):
                    self.path.with_name(self.path.name + suffix).replace(beside)
            self.path.replace(aside)
        except OSError:
            return None
        self._gone.clear()
        self._filed = _Total()
        self._retry_s = -math.inf
        return aside

    def _numbered(self, new: Sequence[_Row]) -> dict[int, _Row]:
        first = self._number + 1
        self._number += len(new)
        return dict(enumerate(new, first))

    def _insert(self, file: sqlite3.Connection, rows: Mapping[int, _Row]) -> None:
        # What is there already was written by a commit that had failed to all appearances.
        file.executemany(
            "INSERT OR IGNORE INTO outbox (number, id, name, session, boot, at_s, crc, payload) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                (number, row.id, row.name, row.session, self._boot, row.at_s, row.crc, row.payload)
                for number, row in rows.items()
            ),
        )

    def _bound(self, file: sqlite3.Connection, total: _Total, now_s: float) -> _Total:
        """Let give way what is too old or too much, of `total`; what is left."""
        count, size, _ = total
        # Times grow with numbers, so this ends at the first row as a rule.
        fresh = file.execute(
            "SELECT number FROM outbox WHERE at_s >= ? ORDER BY number LIMIT 1", (now_s - self.max_age_s,)
        ).fetchone()
        upto = LAST_NUMBER if fresh is None else fresh[0]
        stale = file.execute(f"{_MEASURE} WHERE number < ?", (upto,)).fetchone()
        if stale[0]:
            file.execute("DELETE FROM outbox WHERE number < ?", (upto,))
            count, size = count - stale[0], size - stale[1]
        while count > self.max_events or size > self.max_bytes:
            first = file.execute(_FIRST_SPARED).fetchone() or file.execute(_FIRST).fetchone()
            if first is None:
                break
            file.execute("DELETE FROM outbox WHERE number = ?", (first[0],))
            count, size = count - 1, size - first[1]
        return _Total(count, size)

    def _bound_kept(self, now_s: float) -> None:
        """The same for what is in memory only."""
        before, oldest_s = len(self._kept), now_s - self.max_age_s
        self._kept = {number: row for number, row in self._kept.items() if row.at_s >= oldest_s}
        size = sum(len(row.payload) for row in self._kept.values())
        for spared in (True, False):
            for number in [of for of, row in self._kept.items() if (row.name == SPARED_FIRST) is spared]:
                if len(self._kept) <= self.max_events and size <= self.max_bytes:
                    break
                size -= len(self._kept.pop(number).payload)
        self._take_stock(None, self._filed)
        self._drop(before - len(self._kept))

    def _forget_damaged(self, file: sqlite3.Connection, numbers: Sequence[int]) -> None:
        file.executemany("DELETE FROM outbox WHERE number = ?", ((number,) for number in numbers))
        total = _Total(*file.execute(_MEASURE).fetchone())
        file.commit()
        self._take_stock(file, total)
        self._tell_damaged(numbers)

    def _tell_damaged(self, numbers: Sequence[int]) -> None:
        if numbers:
            log.warning("outbox_rows_damaged", path=str(self.path), rows=len(numbers))
            self._drop(len(numbers))

    def _drop(self, count: int) -> None:
        """Count what gave way; said at first, and then as often as the count has doubled."""
        self._dropped += count
        if self._dropped >= self._say_dropped:
            log.warning("outbox_dropped", messages=self._dropped, waiting=self.waiting)
            self._say_dropped = 2 * self._dropped

    def _take_stock(self, file: sqlite3.Connection | None, filed: _Total) -> None:
        """Note how much waits: `filed` in the file, whose head is looked up if there is one, and the rest."""
        if file is not None:
            head = file.execute("SELECT at_s FROM outbox ORDER BY number LIMIT 1").fetchone()
            filed = filed._replace(oldest_s=head[0] if head is not None else None)
        self._filed = filed
        sizes = [len(row.payload) for row in self._kept.values()]
        ages = (filed.oldest_s, *(row.at_s for row in self._kept.values()))
        self._total = _Total(
            filed.rows + len(sizes),
            filed.size + sum(sizes),
            min((at_s for at_s in ages if at_s is not None), default=None),
        )


def _check(file: sqlite3.Connection) -> None:
    """Refuse a file of a newer format, or one whose pages do not agree.

    Raises:
        sqlite3.DatabaseError: it is one.
    """
    (version,) = file.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise sqlite3.DatabaseError(f"malformed: format {version}, expected {VERSION} at most")
    if any(sql not in _TABLES for (sql,) in file.execute("SELECT sql FROM sqlite_master") if sql is not None):
        raise sqlite3.DatabaseError("malformed: tables of something else")
    (whole,) = file.execute("PRAGMA quick_check(1)").fetchone()
    if whole != b"ok":
        raise sqlite3.DatabaseError(f"malformed: {whole.decode(errors='replace')}")


def _row_of(event: Event, session: str | None, now_s: float) -> _Row | None:
    """The row of an event; None for one that can't be written, which must not hold up the others."""
    try:
        payload = json.dumps(event.payload, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        row = _Row(event.id, event.name, payload.encode(), session, now_s)
        _ = row.crc
    except (TypeError, ValueError) as error:
        log.error("outbox_refused", topic=event.name, error=str(error))  # noqa: TRY400 - no fault of ours
        return None
    return row


def _read(
    file: sqlite3.Connection, tail: str, parameters: Sequence[object]
) -> tuple[dict[int, _Row], list[int]]:
    """The rows that `tail` selects by number, and the numbers of those that are not as they were written."""
    sound, damaged = {}, []
    columns = "number, id, name, payload, session, at_s, crc"
    for number, *columns_, crc in file.execute(f"SELECT {columns} FROM outbox {tail}", parameters):  # noqa: S608
        row = _checked(columns_, crc)
        if row is None:
            damaged.append(number)
        else:
            sound[number] = row
    return sound, damaged


def _checked(columns: Sequence[Any], crc: object) -> _Row | None:
    identity, name, payload, session, at_s = columns
    try:
        session = None if session is None else session.decode()
        row = _Row(identity.decode(), name.decode(), payload, session, float(at_s))
        found = row.crc
    except (AttributeError, TypeError, ValueError):
        return None
    return row if found == crc else None


def _keep_requests(file: sqlite3.Connection, requests: Mapping[str, str]) -> None:
    file.executemany(
        "INSERT OR REPLACE INTO inbox (id, crc, event) VALUES (?, ?, ?)",
        ((identity, _crc(identity, event), event) for identity, event in requests.items()),
    )


def _forget_requests(file: sqlite3.Connection, identities: Iterable[str]) -> None:
    file.executemany("DELETE FROM inbox WHERE id = ?", ((identity,) for identity in identities))


def _deny_requests(file: sqlite3.Connection, identities: Iterable[str]) -> None:
    for identity in identities:
        file.execute("DELETE FROM inbox WHERE id = ?", (identity,))
        file.execute("DELETE FROM seen WHERE id = ?", (identity,))


def _requests(file: sqlite3.Connection) -> dict[str, str]:
    """Those that wait, in their order, but for what is not as it was written."""
    found = {}
    for identity, crc, event in file.execute("SELECT id, crc, event FROM inbox ORDER BY number"):
        with contextlib.suppress(AttributeError, ValueError):
            if crc == _crc(identity.decode(), event.decode()):
                found[identity.decode()] = event.decode()
    return found


def _remember(file: sqlite3.Connection, identities: Iterable[str]) -> None:
    file.executemany("INSERT OR IGNORE INTO seen (id) VALUES (?)", ((of,) for of in identities))
    file.execute("DELETE FROM seen WHERE number <= (SELECT max(number) FROM seen) - ?", (SEEN_LIMIT,))


def _write_notes(file: sqlite3.Connection, notes: Mapping[str, str | None]) -> None:
    for name, value in notes.items():
        if value is None:
            file.execute("DELETE FROM notes WHERE name = ?", (name,))
        else:
            file.execute("INSERT OR REPLACE INTO notes (name, value) VALUES (?, ?)", (name, value))


def _crc(*texts: str, data: bytes = b"") -> int:
    return zlib.crc32("\0".join(texts).encode() + b"\0" + data)


def _is_damage(error: Exception) -> bool:
    """Whether the file itself is at fault, rather than the disk under it."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in _DAMAGE
    return isinstance(error, UnicodeDecodeError) or (
        isinstance(error, sqlite3.DatabaseError) and "malformed" in str(error)
    )
