"""What verification was asked, what it found, and the verdict in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

from pydantic import Field, ValidationError, model_validator

from link.errors import ArgumentError
from link.randomness import SEED_MAX
from link.sequential import Verdict
from link.snr import millidecibels
from train.agreement import Frozen, TransmitterAgreement
from train.contract import ContractAgreement
from train.equivalence import PointResult, Surrogate
from train.reception import ReceiverAgreement

EXIT_CODES: Final = {Verdict.EQUIVALENT: 0, Verdict.DIFFERENT: 1, Verdict.UNDECIDED: 3}
H_ASSIGN_MIN: Final = 0.1
"""Nats; a surrogate of less entropy is hard already."""

_ROW: Final = "{:>8} {:>8} {:>8} {:>12} {:>20} {:>6}  {:<10}  {}"


class VerifySettings(Frozen):
    """How soft and hard are compared. A field outside its range is an ArgumentError that names it.

    Attributes
    ----------
    snr_db : tuple of float
        Es/N0 of each point, dB, in [-30, 60].
    margin : float
        By how much hard may be less accurate than soft, exclusive.
    alpha : float
        Probability of calling different paths equivalent, and of calling equivalent ones different.
    max_draws : int
        Most times that all samples are sent at one SNR.
    seed : int
        Of the noise.
    """

    snr_db: Annotated[tuple[float, ...], Field(min_length=1)] = tuple(float(snr) for snr in range(-6, 19, 3))
    margin: Annotated[float, Field(ge=1e-6, lt=1)] = 0.01
    alpha: Annotated[float, Field(ge=1e-12, le=0.5)] = 0.05
    max_draws: Annotated[int, Field(ge=1, lt=2**31)] = 200
    seed: Annotated[int, Field(ge=0, le=SEED_MAX)] = 0

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            first = error.errors()[0]
            cause = first.get("ctx", {}).get("error")
            if isinstance(cause, ArgumentError):
                raise cause from None
            text = f"{first['msg'].removeprefix('Input ')}, got {first['input']!r}"
            raise ArgumentError(str(first["loc"][0]), text) from None

    @model_validator(mode="after")
    def _check(self) -> VerifySettings:
        if len({millidecibels(snr) for snr in self.snr_db}) != len(self.snr_db):
            raise ArgumentError("snr_db", f"must hold each point once (to 0.001 dB), got {list(self.snr_db)}")
        return self


class Verification(Frozen):
    """What verification found; with the settings and the hashes, enough to find it again.

    Attributes
    ----------
    verdict : Verdict
    summary : str
        The verdict in words.
    notes : tuple of str
        What qualifies it.
    bundle, checkpoint_epoch : str, int
    samples : int
    with_server : bool
    manifest, transmitter, receiver : agreements
        The last two are None where the manifest shows that nothing can be compared.
    surrogate, points : Surrogate, tuple of PointResult
        None and empty where the exact comparisons failed.
    two_sided : Verdict
        Of |delta| < margin at every SNR: hard is not better by the margin either. The verdict does not ask for it.
    """

    verdict: Verdict
    summary: str
    notes: tuple[str, ...]
    bundle: str
    transmitter_sha256: str
    receiver_sha256: str
    checkpoint_sha256: str
    checkpoint_epoch: int
    code_version: str
    libraries: dict[str, str]
    settings: VerifySettings
    samples: int
    with_server: bool
    manifest: ContractAgreement
    transmitter: TransmitterAgreement | None
    receiver: ReceiverAgreement | None
    surrogate: Surrogate | None
    points: tuple[PointResult, ...]
    two_sided: Verdict

    @property
    def exit_code(self) -> int:
        """0 equivalent, 1 different, 3 undecided."""
        return EXIT_CODES[self.verdict]


def summarise(
    verdict: Verdict,
    findings: Sequence[str],
    points: Sequence[PointResult],
    surrogate: Surrogate | None,
    settings: VerifySettings,
) -> str:
    """The verdict in words.

    Parameters
    ----------
    verdict : Verdict
    findings : sequence of str
        What the exact comparisons found different; the first is told.
    points, surrogate
        As in Verification.
    settings : VerifySettings
    """
    margin = _points(settings.margin)
    decisive = [point for point in points if point.verdict is verdict]
    if findings:
        more = f"; and {len(findings) - 1} more" if len(findings) > 1 else ""
        return f"different: {findings[0]}{more}"
    if verdict is Verdict.DIFFERENT:
        worst = max(decisive, key=lambda point: point.delta)
        return (
            f"different: at {_list(decisive)} dB the hard path is less accurate than the soft one by more than {margin}; "
            f"most at {worst.snr_db:g} dB, by {_points(worst.delta)}"
        )
    if verdict is Verdict.UNDECIDED:
        return (
            f"undecided: at {_list(decisive)} dB {settings.max_draws} draws do not settle whether the hard path is less "
            f"accurate than the soft one by {margin}; allow more draws, or a wider margin"
        )
    text = (
        "equivalent: the same decisions in all implementations, and at every SNR the hard path is less than "
        f"{margin} below the soft one"
    )
    if surrogate is not None and surrogate.h_assign < H_ASSIGN_MIN:
        text += (
            f"; but the surrogate is hard already (assignment entropy {surrogate.h_assign:.3f} nat, under "
            f"{H_ASSIGN_MIN:g}), so its agreement with the hard path proves nothing"
        )
    return text


def render(verification: Verification) -> str:
    """Verification as text for the screen: each comparison, a table by SNR, and the verdict in words."""
    lines = [
        f"bundle {verification.bundle}, checkpoint of epoch {verification.checkpoint_epoch}, {verification.samples} samples",
        "",
        *_exact_lines(verification),
    ]
    if verification.surrogate is not None:
        soft = verification.surrogate
        interval = f"{1 - verification.settings.alpha:.0%} interval"
        lines += [
            f"paths        soft: T = {soft.temperature:g}, assignment entropy {soft.h_assign:.3f} nat, "
            f"energy of a symbol {soft.soft_es_db:+.2f} dB soft, {soft.hard_es_db:+.2f} dB hard",
            "",
            _ROW.format("Es/N0 dB", "soft", "hard", "soft - hard", interval, "draws", "not worse", "two-sided"),
            *(_point_line(point) for point in verification.points),
        ]
    return "\n".join([*lines, "", verification.summary, *(f"note: {note}" for note in verification.notes)])


def _point_line(point: PointResult) -> str:
    return _ROW.format(
        f"{point.snr_db:g}",
        f"{point.acc_soft:.4f}",
        f"{point.acc_hard:.4f}",
        f"{point.delta:+.4f}",
        f"[{point.low:+.4f}, {point.high:+.4f}]",
        f"{point.draws}",
        point.verdict.value,
        point.two_sided.value,
    )


def _exact_lines(verification: Verification) -> list[str]:
    manifest, sent, received = verification.manifest, verification.transmitter, verification.receiver
    lines = [f"manifest     {_agrees(manifest.findings)}, {len(manifest.constants)} constants read from the graphs"]
    if sent is not None:
        lines.append(
            f"transmitter  {_agrees(sent.findings)}: {sent.tokens} tokens in torch, {', '.join(sent.implementations)}; "
            f"{sent.near_ties} near-ties, {sent.allowed} allowed; float32 moves a token by {sent.latent_error:.1e}"
        )
    if received is not None:
        lines.append(
            f"receiver     {_agrees(received.findings)}: {received.receptions} receptions in torch, "
            f"{', '.join(received.implementations)}; {received.near_ties} near-ties, {received.allowed} allowed; "
            f"LLRs differ by up to {received.llr_difference:.1e} ({received.llr_tolerance:.1e} allowed), "
            f"logits by {received.logit_difference:.1e} ({received.logit_tolerance:.1e} allowed)"
        )
    for agreement in (manifest, sent, received):
        lines += [f"  - {text}" for text in (agreement.findings if agreement is not None else ())]
    return lines


def _agrees(findings: Sequence[str]) -> str:
    return "differs" if findings else "agrees"


def _points(share: float) -> str:
    """A difference of accuracies in percentage points."""
    return f"{100.0 * share:.3g} point{'' if share == 0.01 else 's'}"


def _list(points: Sequence[PointResult]) -> str:
    return ", ".join(f"{point.snr_db:g}" for point in points)
