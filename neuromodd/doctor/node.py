"""Who publishes at the broker as this node, and whether it may."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from neuromodd import __version__
from neuromodd.doctor.answers import BROKER
from neuromodd.doctor.findings import Finding
from neuromodd.doctor.presence import Presence

ONLINE = b"online"

_found = partial(Finding, area=BROKER)


class Kept(NamedTuple):
    """What the broker keeps of this node: `status`, and `info`; None for what it does not."""

    status: bytes | None
    info: Mapping[str, Any] | None


def judge_node(
    kept: Kept, refused: Mapping[str, str], node: str, presence: Presence, boot: str | None
) -> Finding:
    """Who publishes as this node."""
    found = partial(_found, name="node")
    online = kept.status == ONLINE
    elsewhere = kept.info is not None and kept.info.get("boot_id") not in (None, boot)
    if refused:
        reason = next(iter(refused.values()))
        return found(verdict="note", finding=f"what the broker keeps of {node} may not be read: {reason}")
    if online and elsewhere:
        host = kept.info.get("host") if kept.info else None
        which = f", kernel {host.get('kernel')}" if isinstance(host, dict) else ""
        return found(
            verdict="failure",
            finding=f"another host is online as {node}{which}: two would speak for each other",
            remedy='give each host a name of its own: node = "..."; one that is gone shows until the '
            "broker has noticed",
        )
    if online and not presence.here:
        return found(
            verdict="warning",
            finding=f"{node} is online there, by a daemon of this host that does not show here",
            remedy="it may run in a container, as another user or with another state directory; one that was "
            "just killed shows for up to a minute",
        )
    if presence.ticking and not online:
        connected = presence.mqtt is not None and presence.mqtt["connected"]
        if connected:
            return found(
                verdict="note",
                finding=f"the daemon is connected, and what it keeps of {node} does not show to this login",
            )
    version = kept.info.get("version") if online and kept.info is not None else None
    if version not in (None, __version__):
        return found(
            verdict="note",
            finding=f"{node} is online: this host's daemon, of version {version}; installed is {__version__}",
            remedy="systemctl restart neuromodd, so that the upgrade takes effect",
        )
    return found(verdict="ok", finding=f"{node} is {'online' if online else 'not online'}: {_who(online)}")


def _who(online: bool) -> str:  # noqa: FBT001 - private
    return "this host's daemon" if online else "its name is free"


def judge_publishing(presence: Presence) -> Finding:
    """Whether the daemon may publish, by its own word."""
    found = partial(_found, name="publishing")
    if presence.mqtt is None:
        return found(
            verdict="note",
            finding="not tried, as subscribers would see it; a running daemon tells what it is denied",
        )
    if presence.mqtt["error"] is not None:
        return found(
            verdict="failure",
            finding=f"the daemon says: {presence.mqtt['error']}",
            remedy="let its user write below its node in the broker's ACL (config/mosquitto/acl); "
            "journalctl -u neuromodd tells more",
        )
    return found(
        verdict="ok", finding=f"{presence.mqtt['published']} messages by the daemon so far, none denied"
    )
