"""zstd, for recordings: the only importer of zstandard, which is an extra."""

from __future__ import annotations

import io
from types import ModuleType
from typing import Any, BinaryIO

from neuromodd.errors import MissingExtraError

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
ZSTD_FEED_BYTES = 1024
"""What goes into the decompressor at once.

A block of 4 bytes may stand for 128 KiB, so that this bounds what a hostile file takes of the memory.
"""


def load_zstandard() -> ModuleType:
    """The zstd library, from the extra `zstd`.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import zstandard  # noqa: PLC0415 - an extra
    except ImportError:
        raise MissingExtraError("a recording compressed with zstd", "zstd") from None
    return zstandard


class Decompressed(io.RawIOBase):
    """What zstd frames, one after the other, hold.

    Damage is an end like others, with an `error`: what came before it is to be delivered first.

    Attributes:
        consumed: bytes of the file that were taken.
        error: what is wrong with the stream, once its damage is reached.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._zstandard = load_zstandard()
        self._file = file
        self._stream: Any = None
        self._waiting = memoryview(b"")
        self._ended = False
        self.consumed = 0
        self.error: str | None = None

    @property
    def cut(self) -> bool:
        """Whether the last frame has not ended."""
        return self._stream is not None

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - as its base has it
        """Fill the buffer with what there is; 0 at the end."""
        while not self._waiting and not self._ended:
            self._feed()
        count = min(len(buffer), len(self._waiting))
        buffer[:count] = self._waiting[:count]
        self._waiting = self._waiting[count:]
        return count

    def _feed(self) -> None:
        data = self._file.read(ZSTD_FEED_BYTES)
        self.consumed += len(data)
        self._ended = not data
        parts = []
        try:
            while data:
                if self._stream is None:
                    self._stream = self._zstandard.ZstdDecompressor().decompressobj()
                parts.append(self._stream.decompress(data))
                data = self._stream.unused_data
                if self._stream.eof:
                    self._stream = None
        except self._zstandard.ZstdError as error:
            self.error = str(error)
            self._ended = True
        self._waiting = memoryview(b"".join(parts))
