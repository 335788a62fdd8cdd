"""Bundles in service: loaded, warmed, watched, and swapped for newer ones.

    folder ──> read, hashes checked ──> sessions opened, warmed ──> in service, from one request to the next
                     └── not a good bundle: said once in the log; the one in service goes on

A new version is made ready in a thread of low priority beside the old one, which meanwhile answers; then the name stands
for the new one. Requests that the old one has begun it finishes, and it is freed when the last of them is answered.

A bundle is changed by replacing its folder (or a symbolic link to it), or by exporting into it: the manifest is written
last, and it is the manifest that is watched.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

from link.bundle import MANIFEST_NAME, load_bundle
from link.errors import ArgumentError, BundleError, HardpathError
from serve.engine.aside import yield_to_others
from serve.engine.engine import Engine
from serve.engine.errors import ModelNotFound
from serve.engine.model import Means, Model

logger = logging.getLogger(__name__)

WATCH_S: Final = 1.0

_Signature = tuple[int, int, int, str]


class Swap(NamedTuple):
    """What a reload did to one model.

    Attributes
    ----------
    name : str
    before, after : int
        Versions that answered before and answer now.
    changed : bool
        Whether the bundle was another one than before.
    """

    name: str
    before: int
    after: int
    changed: bool


class _Source:
    """A bundle's folder, and what of it is in service."""

    def __init__(self, path: Path, receiver: str | None) -> None:
        self.path = path
        self.receiver = receiver
        self.name = ""
        self.signature: _Signature | None = None
        self.manifest = b""

    def look(self) -> _Signature | None:
        """What tells that the manifest was written anew; None where it cannot be read."""
        try:
            file = (self.path / MANIFEST_NAME).resolve()
            found = file.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino, str(file)


class Repository:
    """The bundles of a server.

    Parameters
    ----------
    paths : sequence of Path
        Folders; their models' names must differ.
    receiver : str, optional
        Which of each bundle's receivers answers, where it has several; the first where absent.
    means : Means

    Attributes
    ----------
    engine : Engine

    Raises
    ------
    BundleError
        If a bundle cannot be loaded, or two have one name.
    ArgumentError
        If there is no bundle, or one has no receiver of that name.
    """

    def __init__(self, paths: Sequence[Path | str], receiver: str | None, means: Means) -> None:
        if not paths:
            raise ArgumentError("bundle", "must be given at least once")
        self.engine = Engine(means)
        self.swapped: Callable[[Model], None] = lambda model: None
        """Called with each model that takes the place of another."""
        self.refused: Callable[[str], None] = lambda name: None
        """Called with the name of each model whose new bundle is not good."""
        self._means = means
        self._sources = [_Source(Path(path), receiver) for path in paths]
        self._lock = asyncio.Lock()
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="hardpath-load", initializer=yield_to_others)
        for source in self._sources:
            model = self._load(source)
            if (other := self.engine.put(model)) is not None:
                raise BundleError(f"{source.path}: a model named {other.name} is served already, from another folder")

    async def reload(self, name: str = "") -> list[Swap]:
        """Load a model's bundle again, or all; where the folder holds what is in service, nothing changes.

        Raises
        ------
        ModelNotFound
            If there is no model of that name.
        BundleError
            If a bundle is not good; the old one goes on.
        """
        chosen = [source for source in self._sources if not name or source.name == name]
        if not chosen:
            raise ModelNotFound(name, [source.name for source in self._sources])
        async with self._lock:
            return [await self._reload(source) for source in chosen]

    async def watch(self, interval_s: float = WATCH_S) -> None:
        """Reload whatever changes on disk, until cancelled."""
        seen = {source.path: source.signature for source in self._sources}
        while True:
            await asyncio.sleep(interval_s)
            for source in self._sources:
                found = source.look()
                # Twice the same, so that nothing is read while it is being written.
                if found is None or found == source.signature or found != seen[source.path]:
                    seen[source.path] = found
                    continue
                async with self._lock:
                    source.signature = found
                    try:
                        await self._reload(source)
                    except HardpathError as error:
                        logger.error("%s goes on as it was: %s", source.name, error)

    def close(self) -> None:
        """Load nothing any more."""
        self._loader.shutdown(wait=False, cancel_futures=True)

    async def _reload(self, source: _Source) -> Swap:
        before = self.engine.model(source.name)
        try:
            model = await asyncio.get_running_loop().run_in_executor(self._loader, self._load_changed, source)
        except Exception:
            self.refused(source.name)
            raise
        if model is None:
            return Swap(source.name, before.version, before.version, changed=False)
        self.engine.put(model)
        self.swapped(model)
        logger.info("%s: version %d answers in place of %d", model.name, model.version, before.version)
        return Swap(source.name, before.version, model.version, changed=True)

    def _load_changed(self, source: _Source) -> Model | None:
        try:
            if (source.path / MANIFEST_NAME).read_bytes() == source.manifest:
                source.signature = source.look()
                return None
        except OSError:
            pass  # loading says what is wrong
        return self._load(source)

    def _load(self, source: _Source) -> Model:
        signature = source.look()
        try:
            manifest = (source.path / MANIFEST_NAME).read_bytes()
        except OSError:
            manifest = b""  # loading says what is wrong
        bundle = load_bundle(source.path, source.receiver)
        if source.name and bundle.manifest.name != source.name:
            raise BundleError(f"{source.path}: holds {bundle.manifest.name}, where {source.name} is served")
        model = Model(bundle, self._means)
        source.name, source.signature, source.manifest = model.name, signature, manifest
        return model
