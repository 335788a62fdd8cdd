"""Curves of finished sweeps: what was measured, with theory and bounds where they apply."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from link.ber_results import BerPoint, BerResult
from link.errors import ArgumentError
from link.modem_spec import ModemSpec
from link.plot import METRICS, Curve
from link.reference import ber_theory, bler_normal
from link.results import SweepPoint, SweepResult

_STEP_DB: Final = 0.1

Swept = SweepResult | BerResult


def default_metric(results: Sequence[Swept]) -> str:
    """Accuracy where all are sweeps of bundles; otherwise what they share, the bit error rate."""
    return "accuracy" if all(isinstance(result, SweepResult) for result in results) else "ber"


def curves_of(result: Swept, label: str, metric: str, over_ebn0: bool = False) -> list[Curve]:
    """The curve of a metric, and theory of the same channel beside it.

    Parameters
    ----------
    result : SweepResult or BerResult
    label : str
    metric : str
        One of link.plot.METRICS.
    over_ebn0 : bool
        Against Eb/N0 by information bit, which a bundle's sweep has none of.

    Raises
    ------
    ArgumentError
        If the result has no such metric, or no point that has it.
    """
    if metric not in METRICS:
        raise ArgumentError("metric", f"must be one of {', '.join(METRICS)}, got {metric!r}")
    points: list[SweepPoint | BerPoint] = sorted(result.points, key=lambda point: point.snr_db)
    if over_ebn0 and isinstance(result, SweepResult):
        raise ArgumentError("ebn0", f"is of modems: {label} is a bundle, whose bits are not information bits")
    measured = _along(points, metric, over_ebn0)
    if not measured[0]:
        raise ArgumentError("metric", f"{metric} was not measured for {label}")
    curves = [Curve(label, *measured)]
    beside = {"ber": ("ber_theory", "theory"), "bler": ("bler_normal", "best code, normal approximation")}
    if metric in beside:
        field, name = beside[metric]
        known = _along(points, field, over_ebn0)
        if known[0] and isinstance(result, BerResult):
            known = _smooth(result.spec, field, points[0].snr_db, points[-1].snr_db, over_ebn0)
        if known[0]:
            of_bundle = isinstance(result, SweepResult)
            curves.append(Curve(f"{name}, equally likely bits" if of_bundle else name, *known, kind="theory"))
    return curves


def labels_of(results: Sequence[Swept], names: Sequence[str], given: Sequence[str]) -> list[str]:
    """What to call each: as given, or by what differs between their specs, or by their folders.

    Raises
    ------
    ArgumentError
        If labels are given, but not one for each.
    """
    if given:
        if len(given) != len(results):
            raise ArgumentError("label", f"must be given once for each of {len(results)} folders, got {len(given)}")
        return list(given)
    if len({type(result) for result in results}) > 1:
        return list(names)
    titles = [result.spec.title if isinstance(result, BerResult) else _title(result) for result in results]
    return _differing(titles) if len(set(titles)) == len(titles) else list(names)


def _differing(titles: Sequence[str]) -> list[str]:
    """Titles without the parts that all have; whole, where one would be left without any.

    Examples
    --------
    >>> _differing(["4-QAM, awgn", "16-QAM, awgn"]), _differing(["4-QAM, awgn", "4-QAM, awgn, exact LLRs"])
    (['4-QAM', '16-QAM'], ['4-QAM, awgn', '4-QAM, awgn, exact LLRs'])
    """
    parts = [title.split(", ") for title in titles]
    shared = set.intersection(*map(set, parts)) if len(parts) > 1 else set()
    short = [", ".join(part for part in own if part not in shared) for own in parts]
    return short if all(short) else list(titles)


def _title(result: SweepResult) -> str:
    spec = result.spec
    return ", ".join(filter(None, (result.provenance.bundle, spec.channel, spec.knowledge)))


def _smooth(
    spec: ModemSpec, field: str, first_db: float, last_db: float, over_ebn0: bool
) -> tuple[list[float], list[Any]]:
    """Theory between the points too: its curve bends where their straight connections do not."""
    grid = np.linspace(first_db, last_db, 1 + round((last_db - first_db) / _STEP_DB))
    formula = ber_theory if field == "ber_theory" else bler_normal
    offset = spec.ebn0_offset_db if over_ebn0 else 0.0
    return (grid - offset).tolist(), [formula(spec, float(snr_db)) for snr_db in grid]


def _along(points: Sequence[SweepPoint | BerPoint], field: str, over_ebn0: bool) -> tuple[list[float], list[Any]]:
    """SNRs and values of the points that have a field."""
    found = [(_x(point, over_ebn0), _value(point, field)) for point in points]
    having = [(x, value) for x, value in found if value is not None]
    return [x for x, _ in having], [value for _, value in having]


def _value(point: SweepPoint | BerPoint, field: str) -> Any:
    """A field of a point, or of its texts; None where it has none. BLEU without an order is BLEU-4."""
    if field.startswith("bleu"):
        return getattr(getattr(point, "text", None), "bleu_4" if field == "bleu" else field.replace("-", "_"), None)
    return getattr(point, field, None)


def _x(point: SweepPoint | BerPoint, over_ebn0: bool) -> float:
    return point.ebn0_db if over_ebn0 and isinstance(point, BerPoint) else point.snr_db
