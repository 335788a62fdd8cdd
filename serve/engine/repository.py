"""Bundles in service: loaded, warmed, watched, and swapped for newer ones.

    folder ──> read, hashes checked ──> sessions opened, warmed ──> in service, from one request to the next
                     └── not a good bundle: said once in the log; the one in service goes on

A new version is made ready in a thread of low priority beside the old one, which meanwhile answers; then the name stands
for the new one. Requests that the old one has begun it finishes, and it is freed when the last of them is answered.

A bundle is changed by replacing its folder (or a symbolic link to it), or by exporting into it. It is loaded once its files
have stopped changing; whether it is another bundle, its manifest tells, which has the hashes of all.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from link.bundle import MANIFEST_NAME, load_bundle
from link.errors import ArgumentError, BundleError, HardpathError
from serve.engine.aside import yield_to_others
from serve.engine.engine import Engine
from serve.engine.errors import ModelNotFound
from serve.engine.means import Means
from serve.engine.model import Model

logger = logging.getLogger(__name__)

WATCH_S: Final = 1.0

T = TypeVar("T")
_Signature = tuple[tuple[str, int, int, int], ...]


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

    def look(self) -> _Signature:
        """What tells that a file was written anew; empty where there is no bundle."""
        try:
            with os.scandir(self.path) as files:
                found = [(file.path, file.stat()) for file in files]
        except OSError:
            return ()
        return tuple(sorted((path, stat.st_mtime_ns, stat.st_size, stat.st_ino) for path, stat in found))

    def told(self, text: str) -> str:
        """A text with the model's name in place of where its folder is, which is no caller's business."""
        begin = str(self.path)
        if text.startswith(begin):
            text = self.name + text[len(begin) :]
        places = {begin, os.path.abspath(self.path), os.path.realpath(self.path)}
        for place in sorted(places, key=len, reverse=True):
            if os.sep in place.strip(os.sep):  # not a name alone, which a sentence may hold by chance
                text = text.replace(place, self.name)
        return text


class _Loaded(NamedTuple):
    """A bundle that is ready, and what of its folder was read."""

    model: Model
    manifest: bytes
    signature: _Signature


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
            if (other := self._serve(source, self._load(source))) is not None:
                raise BundleError(f"{source.path}: a model named {other.name} is served already, from another folder")

    async def reload(self, name: str = "") -> list[Swap]:
        """Load a model's bundle again, or all; where the folder holds what is in service, nothing changes.

        Raises
        ------
        ModelNotFound
            If there is no model of that name.
        BundleError
            If a bundle is not good; the old one goes on. It names the model, and the log has the folder as well.
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
                found = await self._apart(source.look)
                # Twice the same, so that nothing is read while it is being written.
                if found == source.signature or found != seen[source.path]:
                    seen[source.path] = found
                    continue
                async with self._lock:
                    with suppress(BundleError):  # which the log has
                        await self._reload(source)

    def close(self) -> None:
        """Wait for what is being loaded; nothing is any more."""
        self._loader.shutdown(cancel_futures=True)

    async def _reload(self, source: _Source) -> Swap:
        before = self.engine.model(source.name).version
        signature = await self._apart(source.look)
        try:
            loaded = await self._apart(lambda: self._load_changed(source))
        except BundleError:
            source.signature = signature  # once is enough
            self.refused(source.name)
            raise
        if loaded is None:
            source.signature = signature
            return Swap(source.name, before, before, changed=False)
        model = loaded.model
        self._serve(source, loaded)
        self.swapped(model)
        logger.info("%s: version %d answers in place of %d", model.name, model.version, before)
        return Swap(source.name, before, model.version, changed=True)

    async def _apart(self, call: Callable[[], T]) -> T:
        """Whatever touches a folder: where its file system does not answer, it holds up nothing but loading."""
        return await asyncio.get_running_loop().run_in_executor(self._loader, call)

    def _serve(self, source: _Source, loaded: _Loaded) -> Model | None:
        source.name, source.manifest, source.signature = loaded.model.name, loaded.manifest, loaded.signature
        return self.engine.put(loaded.model)

    def _load_changed(self, source: _Source) -> _Loaded | None:
        try:
            if source.manifest and _manifest(source.path) == source.manifest:
                load_bundle(source.path, source.receiver)  # its files are held to it: the next start reads them
                return None
            return self._load(source)
        except Exception as error:  # whatever it is, the one in service goes on
            if not isinstance(error, HardpathError):
                logger.exception("%s cannot be served", source.path)
            reason = str(error)
            if not isinstance(error, BundleError):
                reason = f"{source.path}: cannot be served: {(reason.splitlines() or [''])[0]}"
            logger.error("%s goes on as it was: %s", source.name, reason)
            raise BundleError(source.told(reason)) from None

    def _load(self, source: _Source) -> _Loaded:
        signature = source.look()
        manifest = _manifest(source.path)
        bundle = load_bundle(source.path, source.receiver)
        if source.name and bundle.manifest.name != source.name:
            raise BundleError(f"{source.path}: holds {bundle.manifest.name}, where {source.name} is served")
        return _Loaded(Model(bundle, self._means), manifest, signature)


def _manifest(folder: Path) -> bytes:
    """What the manifest holds; empty where it cannot be read, or is a pipe, which would hold its reader up for ever."""
    file = folder / MANIFEST_NAME
    try:
        return file.read_bytes() if file.is_file() else b""
    except OSError:
        return b""  # loading says what is wrong
