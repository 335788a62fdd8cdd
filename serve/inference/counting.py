"""Requests as `serve.statistics` counts them, and what it has counted as Triton's statistics."""

from __future__ import annotations

from asyncio import CancelledError
from typing import TYPE_CHECKING, Final

from link.errors import ArgumentError
from serve.errors import Expired, Overloaded, ShuttingDown
from serve.inference.models import Answer, InferenceModel
from serve.pb.inference import grpc_service_pb2 as pb

if TYPE_CHECKING:
    from serve.snapshot import OperationSnapshot, Reason
    from serve.statistics import Operation

_NS_PER_US: Final = 1000.0
_REASONS: Final[tuple[tuple[type[BaseException], Reason], ...]] = (
    (ArgumentError, "invalid"),
    (Overloaded, "overload"),
    (ShuttingDown, "overload"),
    (Expired, "expired"),
    (CancelledError, "cancelled"),
)


def reason_of(error: BaseException) -> Reason:
    """Why a request failed."""
    return next((reason for kind, reason in _REASONS if isinstance(error, kind)), "internal")


def count(counters: Operation, answer: Answer, times: tuple[int, int, int, int]) -> None:
    """Count a request that was answered.

    Parameters
    ----------
    counters : Operation
    answer : Answer
    times : tuple of 4 int
        When it came, was read, was answered by the data plane, and was written; ns.
    """
    came, read, answered, written = times
    timing = answer.result.timing
    spent = answered - read
    queue = 0 if timing is None else min(round(_NS_PER_US * timing.queue_us), spent)
    counters.succeeded(answer.rows, queue, read - came, spent - queue, written - answered, written - came)


def statistics_of(model: InferenceModel, counted: OperationSnapshot) -> pb.ModelStatistics:
    """Triton's statistics of a model. Sizes of batches are counted up to the next power of two, and their times are not."""

    def mean(ns: int) -> pb.StatisticDuration:
        return pb.StatisticDuration(count=counted.successes, ns=ns)

    sizes = zip(counted.batch_rows.bounds, counted.batch_rows.counts, strict=False)
    return pb.ModelStatistics(
        name=model.name,
        version=model.version,
        inference_count=counted.rows,
        execution_count=counted.executions,
        inference_stats=pb.InferStatistics(
            success=mean(int(counted.durations_ns.total)),
            fail=pb.StatisticDuration(count=sum(counted.failures), ns=int(counted.failed_durations_ns.total)),
            queue=mean(counted.queue_ns),
            compute_input=mean(counted.input_ns),
            compute_infer=mean(counted.infer_ns),
            compute_output=mean(counted.output_ns),
        ),
        batch_stats=[
            pb.InferBatchStatistics(batch_size=int(size), compute_infer=pb.StatisticDuration(count=runs))
            for size, runs in sizes
            if runs
        ],
    )
