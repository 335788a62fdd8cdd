"""A bundle on disk: its manifest, its files, and whether they are what the manifest says.

    bundle/  manifest.json  transmitter.onnx  receiver.onnx  [receiver-NAME.onnx ...]  [tokenizer.json]  [sequence.npz]
             [verification.json]

`load_bundle` checks the schema version, every field, that paths stay inside the folder, and the sha256 of every file. Hashes
find accidents, not attackers: who can change a graph can change its hash.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from link.errors import ArgumentError, BundleError
from link.manifest import SCHEMA_VERSION, GraphSpec, Manifest, TokenizerSpec
from link.task import SequenceSpec

if TYPE_CHECKING:
    from link.sequence import SequenceTables
    from link.tokenizer import Tokenizer

MANIFEST_NAME: Final = "manifest.json"


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files were found to be what its manifest says."""

    path: Path
    manifest: Manifest

    def for_receiver(self, name: str) -> Bundle:
        """The same bundle with another of its receivers looked at: link, sweep, server and verification are then that one's.

        Raises
        ------
        ArgumentError
            If there is none of that name.
        """
        return Bundle(self.path, self.manifest.for_receiver(name))

    def file(self, spec: GraphSpec | TokenizerSpec | SequenceSpec) -> Path:
        """Path of a file inside the bundle."""
        return _inside(self.path, spec.file)

    def read(self, spec: GraphSpec | SequenceSpec) -> bytes:
        """A graph or tables, the hash checked anew: it may have been replaced since the bundle was looked at.

        Raises
        ------
        BundleError
            If it cannot be read, or is another one by now.
        """
        try:
            graph = self.file(spec).read_bytes()
        except OSError as error:
            raise BundleError(f"{self.path}: {spec.file} cannot be read: {error.strerror}") from None
        if hashlib.sha256(graph).hexdigest() != spec.sha256:
            raise BundleError(f"{self.path}: {spec.file} was replaced while the bundle was being loaded; load it again")
        return graph

    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer; None where the bundle carries none.

        Raises
        ------
        BundleError
            If its file is no tokenizer, or not one that agrees with the manifest.
        MissingExtra
            If `tokenizers` is not installed.
        """
        from link.tokenizer import Tokenizer

        spec = self.manifest.tokenizer
        if spec is None:
            return None
        try:
            return Tokenizer(self.file(spec), length=spec.length, pad_id=spec.pad_id, pad_token=spec.pad_token)
        except ArgumentError as error:
            raise BundleError(f"{self.path}: {error}; export the bundle again") from None

    def sequence(self) -> SequenceTables | None:
        """The tables by which windows of a recording are decided together; None where the task has none.

        Raises
        ------
        BundleError
            If its file holds no such tables, or they are of other codes than the bundle's.
        """
        from link.hdp import Hdp
        from link.sequence_file import read_sequence

        spec = self.manifest.task.sequence
        if spec is None:
            return None
        tables, mode = read_sequence(self.file(spec), len(self.manifest.task.classes)), self.manifest.modes[0]
        expected = (mode.tokens, mode.codewords)
        if isinstance(tables.hdp, Hdp) and tables.hdp.log_codes.shape[1:] != expected:
            found = tables.hdp.log_codes.shape[1:]
            raise BundleError(f"{self.path}: {spec.file} is of {found} tokens and codes, the link of {expected}")
        return tables


def load_bundle(path: Path | str, receiver: str | None = None) -> Bundle:
    """Read a bundle and check it against its manifest, all receivers' graphs included.

    Parameters
    ----------
    path : Path or str
    receiver : str, optional
        Which receiver to look at, where there are several; the first where absent.

    Raises
    ------
    BundleError
        If a file is missing, is no regular file, is not what the manifest says, lies outside the folder, or has another
        schema version.
    ArgumentError
        If there is no receiver of that name.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    tokenizer = () if manifest.tokenizer is None else (manifest.tokenizer,)
    others = (spec.graph for spec in manifest.receivers)
    tasks = (manifest.task, *(spec.task for spec in manifest.receivers))
    sequences = (task.sequence for task in tasks if task.sequence is not None)
    for spec in (manifest.transmitter, manifest.receiver, *others, *tokenizer, *sequences):
        file = _inside(folder, spec.file)
        try:
            _require_regular(folder, spec.file, file)
            found = sha256(file)
        except FileNotFoundError:
            raise BundleError(f"{folder}: {spec.file} is missing; export the bundle again") from None
        except OSError as error:
            raise BundleError(f"{folder}: {spec.file} cannot be read: {error.strerror}") from None
        if found != spec.sha256:
            raise BundleError(
                f"{folder}: {spec.file} is not the file that {MANIFEST_NAME} describes (sha256 differs): truncated or "
                "changed after export; export the bundle again"
            )
    bundle = Bundle(folder, manifest)
    return bundle if receiver is None else bundle.for_receiver(receiver)


def read_manifest(folder: Path) -> Manifest:
    """Read and check manifest.json alone.

    Raises
    ------
    BundleError
        If it is missing, is no regular file, is no JSON, has another schema version, or a field is wrong.
    """
    file = folder / MANIFEST_NAME
    try:
        _require_regular(folder, MANIFEST_NAME, file)
        text = file.read_text(encoding="utf-8")
        raw = json.loads(text)
    except FileNotFoundError:
        raise BundleError(f"{folder} is no bundle: it has no {MANIFEST_NAME}") from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{file} cannot be read: {error}") from None
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if version != SCHEMA_VERSION:
        raise BundleError(
            f"{folder}: schema_version is {version!r}, this hardpath reads {SCHEMA_VERSION}; export the bundle again"
        )
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "manifest"
        raise BundleError(f"{file}: {where}: {first['msg']}") from None


def sha256(file: Path) -> str:
    """Hash of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _require_regular(folder: Path, name: str, file: Path) -> None:
    """Refuse what would block whoever opens it, or never end: a pipe, a device."""
    mode = file.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # a folder cannot be opened at all
        raise BundleError(f"{folder}: {name} is no file but a pipe or a device; export the bundle again")


def _inside(folder: Path, name: str) -> Path:
    try:
        file = (folder / name).resolve()
    except (OSError, RuntimeError):  # a loop of links, up to Python 3.12; later it shows when the file is opened
        raise BundleError(f"{folder}: {name} cannot be read: {os.strerror(errno.ELOOP)}") from None
    if not file.is_relative_to(folder.resolve()):
        raise BundleError(f"{folder}: {name!r} lies outside the bundle")
    return file
