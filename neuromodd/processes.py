"""Who holds what we wanted: names of other processes, for messages to a person.

psutil is imported when a message needs it, not by a daemon that runs well.
"""

from __future__ import annotations


def describe_process(pid: int) -> str:
    """`process 123 (mosquitto)`; without the name where it can't be told."""
    import psutil  # noqa: PLC0415 - see above

    try:
        return f"process {pid} ({psutil.Process(pid).name()})"
    except psutil.Error:
        return f"process {pid}"


def listening_process(port: int) -> str | None:
    """The process that listens on a TCP port; None where that can't be told, as without privilege."""
    import psutil  # noqa: PLC0415

    try:
        connections = psutil.net_connections(kind="tcp")
    except (psutil.Error, OSError):
        return None
    for connection in connections:
        listens = (
            connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
        )
        if listens and connection.pid is not None:
            return describe_process(connection.pid)
    return None
