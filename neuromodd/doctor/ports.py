"""Ports that the daemon would listen on, and the page behind one of them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from neuromodd.config import Settings
from neuromodd.doctor.findings import Finding
from neuromodd.doctor.presence import Presence
from neuromodd.processes import listening_process

AREA = "web"

_found = partial(Finding, area=AREA)


def judge_port(host: str, port: int) -> str | None:
    """Why a port can't be listened on; None if it can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # As servers do: a connection that was just closed does not hold the port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            probe.listen(1)
    except OSError as error:
        return os.strerror(error.errno) if error.errno else str(error)
    return None


def holder_of(port: int) -> str:
    """` (by process 4711 (nginx))`; nothing where that can't be told."""
    holder = listening_process(port)
    return "" if holder is None else f" (by {holder})"


def _judged_by_the_daemon(report: Mapping[str, Any], in_use: str, place: str) -> Finding:
    """Whether a port in use is the daemon's own: it knows what it serves."""
    served = (report["health"] or {}).get("web")
    if served is None:
        return _found(
            name="port",
            verdict="failure",
            finding=f"{in_use}, and the daemon that runs serves no page",
            remedy="restart the daemon if web.enabled is new; else set web.port to a port that is free",
        )
    if served["error"] is not None:
        return _found(
            name="port",
            verdict="failure",
            finding=f"the daemon can't serve its page: {served['error']}",
            remedy="set web.port to one that is free, above 1023, and web.host to an address of this host",
        )
    return _found(name="port", verdict="ok", finding=f"{in_use}: the daemon's http://{place}/")


def examine_web(settings: Settings, presence: Presence) -> Iterator[Finding]:
    """Look at the page's port, if there is to be a page."""
    web = settings.web
    if not web.enabled:
        yield _found(
            name="page",
            verdict="note",
            finding="switched off",
            remedy="to see the host in a browser: web.enabled = true, with the extra `web`",
        )
        return
    taken = judge_port(web.host, web.port)
    if taken is None:
        yield _found(name="port", verdict="ok", finding=f"{web.place} is free")
        return
    holder = holder_of(web.port)
    if presence.ticking and "Address already in use" in taken:
        yield _judged_by_the_daemon(presence.answer.report, f"{web.place} is in use{holder}", web.place)
        return
    if presence.here and "Address already in use" in taken:
        yield _found(
            name="port",
            verdict="note",
            finding=f"{web.place} is in use{holder}, by the daemon's page, it seems",
            remedy="ask as root, or as the daemon's user: sudo neuromodd doctor",
        )
        return
    yield _found(
        name="port",
        verdict="failure",
        finding=f"{web.place} can't be had: {taken}{holder}",
        remedy="set web.port to one that is free, above 1023, and web.host to an address of this host",
    )
