"""Certificates for tests: an authority of one's own, and what it signs, as PEM files."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme


class Authority:
    """A certificate authority.

    Attributes:
        file: its certificate, for those who are to trust it.
    """

    def __init__(self, directory: Path, name: str = "authority") -> None:
        self._authority = trustme.CA(organization_name=name)
        self._directory = directory
        self.file = directory / f"{name}.pem"
        self._authority.cert_pem.write_to_path(str(self.file))

    def issue(self, file: str, *names: str, common_name: str | None = None, expired: bool = False) -> Path:
        """A key and its certificate for `names` in one file, in place of an older one at once."""
        ends = datetime.now(UTC) - timedelta(days=1) if expired else None
        leaf = self._authority.issue_cert(*names, common_name=common_name, not_after=ends)
        new = self._directory / f"{file}.new"
        leaf.private_key_and_cert_chain_pem.write_to_path(str(new))
        return new.replace(self._directory / file)
