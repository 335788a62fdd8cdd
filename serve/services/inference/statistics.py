"""What the server has counted of a model, in the form that Triton gives it."""

from __future__ import annotations

from serve.pb.inference import grpc_service_pb2 as pb
from serve.services.inference.models import InferenceModel
from serve.telemetry.snapshot import OperationSnapshot


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
