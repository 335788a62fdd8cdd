import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetStatisticsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatisticsResponse(_message.Message):
    __slots__ = ("statistics",)
    STATISTICS_FIELD_NUMBER: _ClassVar[int]
    statistics: Statistics
    def __init__(self, statistics: _Optional[_Union[Statistics, _Mapping]] = ...) -> None: ...

class ReloadModelRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class ReloadModelResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ReloadedModel]
    def __init__(self, models: _Optional[_Iterable[_Union[ReloadedModel, _Mapping]]] = ...) -> None: ...

class ReloadedModel(_message.Message):
    __slots__ = ("name", "previous_version", "version", "changed")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_VERSION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    name: str
    previous_version: int
    version: int
    changed: bool
    def __init__(self, name: _Optional[str] = ..., previous_version: _Optional[int] = ..., version: _Optional[int] = ..., changed: _Optional[bool] = ...) -> None: ...

class Statistics(_message.Message):
    __slots__ = ("start_time", "uptime_s", "operations", "models", "failures", "in_flight_requests", "in_flight_bytes", "loop_lag_ns", "radio")
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    UPTIME_S_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_BYTES_FIELD_NUMBER: _ClassVar[int]
    LOOP_LAG_NS_FIELD_NUMBER: _ClassVar[int]
    RADIO_FIELD_NUMBER: _ClassVar[int]
    start_time: _timestamp_pb2.Timestamp
    uptime_s: float
    operations: _containers.RepeatedCompositeFieldContainer[OperationStatistics]
    models: _containers.RepeatedCompositeFieldContainer[ModelStatistics]
    failures: FailureCounts
    in_flight_requests: int
    in_flight_bytes: int
    loop_lag_ns: Histogram
    radio: RadioStatistics
    def __init__(self, start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., uptime_s: _Optional[float] = ..., operations: _Optional[_Iterable[_Union[OperationStatistics, _Mapping]]] = ..., models: _Optional[_Iterable[_Union[ModelStatistics, _Mapping]]] = ..., failures: _Optional[_Union[FailureCounts, _Mapping]] = ..., in_flight_requests: _Optional[int] = ..., in_flight_bytes: _Optional[int] = ..., loop_lag_ns: _Optional[_Union[Histogram, _Mapping]] = ..., radio: _Optional[_Union[RadioStatistics, _Mapping]] = ...) -> None: ...

class RadioStatistics(_message.Message):
    __slots__ = ("kind", "up", "exchanges", "errors", "frames", "frames_lost", "crc_failed", "waiting")
    KIND_FIELD_NUMBER: _ClassVar[int]
    UP_FIELD_NUMBER: _ClassVar[int]
    EXCHANGES_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    FRAMES_LOST_FIELD_NUMBER: _ClassVar[int]
    CRC_FAILED_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    kind: str
    up: bool
    exchanges: int
    errors: int
    frames: int
    frames_lost: int
    crc_failed: int
    waiting: int
    def __init__(self, kind: _Optional[str] = ..., up: _Optional[bool] = ..., exchanges: _Optional[int] = ..., errors: _Optional[int] = ..., frames: _Optional[int] = ..., frames_lost: _Optional[int] = ..., crc_failed: _Optional[int] = ..., waiting: _Optional[int] = ...) -> None: ...

class OperationStatistics(_message.Message):
    __slots__ = ("name", "version", "successes", "failures", "rows", "executions", "executed_requests", "executed_rows", "wasted_executions", "wasted_requests", "queue_ns", "input_ns", "infer_ns", "output_ns", "durations_ns", "failed_durations_ns", "batch_rows", "bits", "symbols", "snr_db", "channels", "pending_requests", "streams", "sweeps")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SUCCESSES_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    EXECUTIONS_FIELD_NUMBER: _ClassVar[int]
    EXECUTED_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    EXECUTED_ROWS_FIELD_NUMBER: _ClassVar[int]
    WASTED_EXECUTIONS_FIELD_NUMBER: _ClassVar[int]
    WASTED_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_NS_FIELD_NUMBER: _ClassVar[int]
    INPUT_NS_FIELD_NUMBER: _ClassVar[int]
    INFER_NS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_NS_FIELD_NUMBER: _ClassVar[int]
    DURATIONS_NS_FIELD_NUMBER: _ClassVar[int]
    FAILED_DURATIONS_NS_FIELD_NUMBER: _ClassVar[int]
    BATCH_ROWS_FIELD_NUMBER: _ClassVar[int]
    BITS_FIELD_NUMBER: _ClassVar[int]
    SYMBOLS_FIELD_NUMBER: _ClassVar[int]
    SNR_DB_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    PENDING_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    SWEEPS_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    successes: int
    failures: FailureCounts
    rows: int
    executions: int
    executed_requests: int
    executed_rows: int
    wasted_executions: int
    wasted_requests: int
    queue_ns: int
    input_ns: int
    infer_ns: int
    output_ns: int
    durations_ns: Histogram
    failed_durations_ns: Histogram
    batch_rows: Histogram
    bits: int
    symbols: int
    snr_db: Histogram
    channels: _containers.RepeatedCompositeFieldContainer[ChannelSamples]
    pending_requests: int
    streams: int
    sweeps: int
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., successes: _Optional[int] = ..., failures: _Optional[_Union[FailureCounts, _Mapping]] = ..., rows: _Optional[int] = ..., executions: _Optional[int] = ..., executed_requests: _Optional[int] = ..., executed_rows: _Optional[int] = ..., wasted_executions: _Optional[int] = ..., wasted_requests: _Optional[int] = ..., queue_ns: _Optional[int] = ..., input_ns: _Optional[int] = ..., infer_ns: _Optional[int] = ..., output_ns: _Optional[int] = ..., durations_ns: _Optional[_Union[Histogram, _Mapping]] = ..., failed_durations_ns: _Optional[_Union[Histogram, _Mapping]] = ..., batch_rows: _Optional[_Union[Histogram, _Mapping]] = ..., bits: _Optional[int] = ..., symbols: _Optional[int] = ..., snr_db: _Optional[_Union[Histogram, _Mapping]] = ..., channels: _Optional[_Iterable[_Union[ChannelSamples, _Mapping]]] = ..., pending_requests: _Optional[int] = ..., streams: _Optional[int] = ..., sweeps: _Optional[int] = ...) -> None: ...

class FailureCounts(_message.Message):
    __slots__ = ("invalid", "overload", "expired", "cancelled", "internal", "denied")
    INVALID_FIELD_NUMBER: _ClassVar[int]
    OVERLOAD_FIELD_NUMBER: _ClassVar[int]
    EXPIRED_FIELD_NUMBER: _ClassVar[int]
    CANCELLED_FIELD_NUMBER: _ClassVar[int]
    INTERNAL_FIELD_NUMBER: _ClassVar[int]
    DENIED_FIELD_NUMBER: _ClassVar[int]
    invalid: int
    overload: int
    expired: int
    cancelled: int
    internal: int
    denied: int
    def __init__(self, invalid: _Optional[int] = ..., overload: _Optional[int] = ..., expired: _Optional[int] = ..., cancelled: _Optional[int] = ..., internal: _Optional[int] = ..., denied: _Optional[int] = ...) -> None: ...

class ChannelSamples(_message.Message):
    __slots__ = ("channel", "samples")
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    channel: str
    samples: int
    def __init__(self, channel: _Optional[str] = ..., samples: _Optional[int] = ...) -> None: ...

class ModelStatistics(_message.Message):
    __slots__ = ("name", "version", "swaps", "refusals")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SWAPS_FIELD_NUMBER: _ClassVar[int]
    REFUSALS_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    swaps: int
    refusals: int
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., swaps: _Optional[int] = ..., refusals: _Optional[int] = ...) -> None: ...

class Histogram(_message.Message):
    __slots__ = ("bounds", "counts", "total")
    BOUNDS_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    bounds: _containers.RepeatedScalarFieldContainer[float]
    counts: _containers.RepeatedScalarFieldContainer[int]
    total: float
    def __init__(self, bounds: _Optional[_Iterable[float]] = ..., counts: _Optional[_Iterable[int]] = ..., total: _Optional[float] = ...) -> None: ...
