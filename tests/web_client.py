"""A client of the web view: single answers, and the stream of events."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def get(port: int, path: str, *, method: str = "GET", host: str | None = None, **headers: str) -> Answer:
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=10.0)
    try:
        link.request(method, path, headers=headers if host is None else {"Host": host, **headers})
        answer = link.getresponse()
        return Answer(answer.status, {name.lower(): of for name, of in answer.getheaders()}, answer.read())
    finally:
        link.close()


class Stream:
    """One page's stream, event by event."""

    def __init__(self, port: int) -> None:
        self._link = http.client.HTTPConnection("127.0.0.1", port, timeout=20.0)
        self._link.request("GET", "/events")
        self._answer = self._link.getresponse()
        assert self._answer.status == 200
        assert self._answer.headers["content-type"] == "text/event-stream; charset=utf-8"

    def events(self) -> Iterator[tuple[str, Any]]:
        """Each with its name; ends with the stream."""
        name = ""
        for line in self._answer:
            field, _, value = line.decode().rstrip("\n").partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                yield name, json.loads(value)

    def until(self, wanted: str, accept: Callable[[Any], bool] = lambda _: True) -> dict[str, list[Any]]:
        """All events up to one of that name, by their names."""
        found: dict[str, list[Any]] = {}
        for name, data in self.events():
            found.setdefault(name, []).append(data)
            if name == wanted and accept(data):
                return found
        raise AssertionError(f"the stream ended before {wanted}")

    def close(self) -> None:
        self._answer.close()
        self._link.close()
