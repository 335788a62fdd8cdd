"""What a sweep found, and the folder that holds it beside what was asked.

    out/  spec.json      the question: spec and provenance, written first
          points.jsonl   one line a finished point, appended and synced, in the order of the grid
          results.json   {"points", "provenance", "spec"}, at the end
          results.csv    the points as a table, at the end

An interrupted sweep loses the point it was in and nothing else: the next one with the same question goes on behind it. A
point that was not simulated is absent.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from link.errors import ResultsError
from link.grid import SweepSpec
from link.montecarlo import Proportion
from link.snr import millidecibels

SPEC_NAME: Final = "spec.json"
POINTS_NAME: Final = "points.jsonl"
RESULTS_NAME: Final = "results.json"
TABLE_NAME: Final = "results.csv"

_PROPORTIONS: Final = ("accuracy", "accuracy_noise", "ber", "index_error_rate")

_log = logging.getLogger(__name__)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SweepPoint(_Frozen):
    """What one SNR gave. Counts are over all receptions: each of the samples in each draw.

    Attributes
    ----------
    snr_db : float
        Es/N0, dB.
    samples, draws, decisions : int
        decisions = samples * draws.
    correct : int
    accuracy : Proportion
        Interval over samples and noise: the independent unit is the sample.
    accuracy_noise : Proportion
        The same value, with the interval over the noise for these samples.
    bit_errors, bits : int
        Payload bits of the receptions whose header was right (all, where there is none); padding is not judged. A bit is
        decided by the sign of its LLR.
    ber : Proportion or None
        Interval over noise; the independent unit is a reception, since its bits may share a fade. None where no header was
        right.
    index_errors, indices : int
        Codewords, of the same receptions: the receiver's most likely one against the one sent.
    index_error_rate : Proportion or None
        As for `ber`.
    symbols : int
        Complex symbols sent, headers and pilots included.
    symbols_per_sample, bits_per_sample : float
        As sent, padding, headers and pilots included; pilots carry no bits.
    es_db : float
        Mean energy of the payload symbols sent, dB. Es/N0 refers to the constellation's mean, 0 dB: what is above 0 is power
        that snr_db does not count.
    mean_abs_llr : float or None
        Mean |LLR| of the payload bits that are judged, nats, after the receiver's clipping.
    ber_theory : float or None
        BER of the constellation for equally likely bits, with gains known or estimated as here; None where none is known,
        or samples were sent in several modes. A reference and no target: a codebook does not use its labels equally often,
        and a bit's error rate depends on the amplitude it is sent with.
    mode_samples : tuple of int
        Receptions sent in each mode; empty in results of a time when there was but one.
    headers, headers_lost, headers_wrong : int
        Frames' headers sent; those that were lost; those that named another mode for any of their samples. 0 where there is
        one mode.
    header_symbols : int
        Symbols of all headers; counted in `symbols`.
    pilot_symbols : int
        Pilots of payload and headers; counted in `symbols`.
    """

    snr_db: float
    samples: int
    draws: int
    decisions: int
    correct: int
    accuracy: Proportion
    accuracy_noise: Proportion
    bit_errors: int
    bits: int
    ber: Proportion | None
    index_errors: int
    indices: int
    index_error_rate: Proportion | None
    symbols: int
    symbols_per_sample: float
    bits_per_sample: float
    es_db: float
    mean_abs_llr: float | None
    ber_theory: float | None
    mode_samples: tuple[int, ...] = ()
    headers: int = 0
    headers_lost: int = 0
    headers_wrong: int = 0
    header_symbols: int = 0
    pilot_symbols: int = 0

    @property
    def mode_shares(self) -> tuple[float, ...]:
        """Share of the receptions that were sent in each mode."""
        return tuple(count / self.decisions for count in self.mode_samples)


class SweepProvenance(_Frozen):
    """What made the figures; with the spec, enough to make them again.

    Attributes
    ----------
    hardpath : str
        Version.
    bundle : str
        Name and version of the bundle.
    transmitter_sha256, receiver_sha256, data_sha256 : str
        Of the two graphs, and of inputs and labels as they were read.
    libraries : dict of str to str
    generator, device : str
        Which normals were drawn, and where the graphs ran.
    """

    hardpath: str
    bundle: str
    transmitter_sha256: str
    receiver_sha256: str
    data_sha256: str
    libraries: dict[str, str]
    generator: Literal["philox4x32-10 numpy"] = "philox4x32-10 numpy"
    device: Literal["cpu"] = "cpu"


class SweepResult(_Frozen):
    """A finished sweep: what results.json holds, and what the command prints with --json."""

    points: tuple[SweepPoint, ...]
    provenance: SweepProvenance
    spec: SweepSpec


class ResultsFolder:
    """A folder that one question owns.

    Parameters
    ----------
    path : Path
        Made where it does not exist.
    spec, provenance
        The question. A folder of another one is refused.

    Attributes
    ----------
    finished : dict of millidecibels to SweepPoint
        Points found on disk.

    Raises
    ------
    ResultsError
        If the folder answers another question, or what it holds cannot be read. A last line of points.jsonl that a crash cut
        short is dropped, and said.
    """

    def __init__(self, path: Path, spec: SweepSpec, provenance: SweepProvenance) -> None:
        self.path = path
        question = {"provenance": provenance.model_dump(mode="json"), "spec": spec.model_dump(mode="json")}
        try:
            path.mkdir(parents=True, exist_ok=True)
            if (path / SPEC_NAME).exists():
                self._refuse_another(question)
            elif (path / POINTS_NAME).exists():
                raise ResultsError(
                    f"{path}: has {POINTS_NAME} but no {SPEC_NAME}, so whose they are is unknown; use another folder"
                )
            else:
                self._replace(SPEC_NAME, _json(question))
            self.finished = self._read_points({millidecibels(snr_db) for snr_db in spec.snr_db})
        except OSError as error:
            raise ResultsError(f"{path}: cannot be used for results: {error.strerror or error}") from None

    def append(self, point: SweepPoint) -> None:
        """Put a finished point on disk, past the operating system's buffers."""
        with (self.path / POINTS_NAME).open("ab") as stream:
            stream.write(point.model_dump_json().encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        self.finished[millidecibels(point.snr_db)] = point

    def close(self, result: SweepResult) -> None:
        """Write results.json and results.csv."""
        self._replace(RESULTS_NAME, _json(result.model_dump(mode="json")))
        self._replace(TABLE_NAME, _table(result.points))

    def _refuse_another(self, question: Mapping[str, Any]) -> None:
        try:
            found = json.loads((self.path / SPEC_NAME).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ResultsError(f"{self.path}: {SPEC_NAME} cannot be read: {error}") from None
        # A question of a time before a field has what is now its default.
        there = {**_defaults(), **_flatten(found)}
        here = _flatten(question)
        differing = [key for key in sorted({*there, *here}) if there.get(key) != here.get(key)]
        if differing:
            what = "; ".join(
                f"{key} is {_short(there.get(key))} there, {_short(here.get(key))} here" for key in differing
            )
            raise ResultsError(f"{self.path}: holds another sweep ({what}); use another folder")

    def _read_points(self, expected: set[int]) -> dict[int, SweepPoint]:
        file = self.path / POINTS_NAME
        content = file.read_bytes() if file.exists() else b""
        complete = content[: content.rfind(b"\n") + 1]
        points: dict[int, SweepPoint] = {}
        for number, line in enumerate(complete.splitlines(), start=1):
            try:
                point = SweepPoint.model_validate_json(line)
            except ValidationError as error:
                reason = error.errors()[0]["msg"]
                raise ResultsError(f"{file}: line {number} cannot be read: {reason}; use another folder") from None
            name = millidecibels(point.snr_db)
            if name not in expected or name in points:
                why = "twice" if name in points else "and is not in the grid"
                raise ResultsError(f"{file}: line {number}: {point.snr_db:g} dB is there {why}; use another folder")
            points[name] = point
        if len(complete) < len(content):
            # Only now: a file that is refused is left as it was found.
            _log.warning("%s: the last line was cut short by a crash; dropped, its point is run again", file)
            os.truncate(file, len(complete))
        return points

    def _replace(self, name: str, text: str) -> None:
        """Write a file so that a crash leaves the old one or the new one, never half of one."""
        draft = self.path / f".{name}.part"
        with draft.open("w", encoding="utf-8", newline="") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(self.path / name)


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2) + "\n"


def _table(points: tuple[SweepPoint, ...]) -> str:
    stream = io.StringIO()
    rows = [_columns(point) for point in points]
    writer = csv.DictWriter(stream, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _columns(point: SweepPoint) -> dict[str, Any]:
    """One row: a proportion becomes three columns, name, name_low and name_high; what is absent is empty."""
    row: dict[str, Any] = {}
    for name, value in point:
        if name in _PROPORTIONS:
            low, high = (None, None) if value is None else (value.low, value.high)
            row |= {name: value and value.value, f"{name}_low": low, f"{name}_high": high}
        elif isinstance(value, tuple):
            row[name] = " ".join(map(str, value))
        else:
            row[name] = value
    return row


def _defaults() -> dict[str, Any]:
    """What a spec.json may lack, because it was written before there was such a field."""
    later = ("snr_error_db", "csi", "pilots", "no_offset_db")
    return {f"spec.{name}": SweepSpec.model_fields[name].default for name in later}


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, keys joined by dots."""
    if not isinstance(value, dict):
        return {prefix: value}
    leaves: dict[str, Any] = {}
    for key, item in value.items():
        leaves |= _flatten(item, f"{prefix}.{key}" if prefix else key)
    return leaves


def _short(value: Any) -> str:
    """A value for an error message: a hash by its head."""
    text = "absent" if value is None else str(value)
    return f"{text[:12]}..." if re.fullmatch("[0-9a-f]{64}", text) else text
