"""Which code and which libraries made a result."""

from __future__ import annotations

from importlib import metadata


def code_version() -> str:
    """Version of the installed hardpath."""
    return metadata.version("hardpath")


def library_versions(*names: str) -> dict[str, str]:
    """Versions of the named distributions, those absent left out."""
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
