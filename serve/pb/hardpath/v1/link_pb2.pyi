from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DataType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DATA_TYPE_UNSPECIFIED: _ClassVar[DataType]
    DATA_TYPE_FLOAT32: _ClassVar[DataType]
    DATA_TYPE_INT64: _ClassVar[DataType]
    DATA_TYPE_UINT8: _ClassVar[DataType]
    DATA_TYPE_STRING: _ClassVar[DataType]

class TensorFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TENSOR_FORMAT_UNSPECIFIED: _ClassVar[TensorFormat]
    TENSOR_FORMAT_VALUES: _ClassVar[TensorFormat]
    TENSOR_FORMAT_RAW: _ClassVar[TensorFormat]
DATA_TYPE_UNSPECIFIED: DataType
DATA_TYPE_FLOAT32: DataType
DATA_TYPE_INT64: DataType
DATA_TYPE_UINT8: DataType
DATA_TYPE_STRING: DataType
TENSOR_FORMAT_UNSPECIFIED: TensorFormat
TENSOR_FORMAT_VALUES: TensorFormat
TENSOR_FORMAT_RAW: TensorFormat

class Tensor(_message.Message):
    __slots__ = ("data_type", "shape", "float32_values", "int64_values", "uint8_values", "raw", "string_values")
    DATA_TYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    FLOAT32_VALUES_FIELD_NUMBER: _ClassVar[int]
    INT64_VALUES_FIELD_NUMBER: _ClassVar[int]
    UINT8_VALUES_FIELD_NUMBER: _ClassVar[int]
    RAW_FIELD_NUMBER: _ClassVar[int]
    STRING_VALUES_FIELD_NUMBER: _ClassVar[int]
    data_type: DataType
    shape: _containers.RepeatedScalarFieldContainer[int]
    float32_values: _containers.RepeatedScalarFieldContainer[float]
    int64_values: _containers.RepeatedScalarFieldContainer[int]
    uint8_values: _containers.RepeatedScalarFieldContainer[int]
    raw: bytes
    string_values: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, data_type: _Optional[_Union[DataType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., float32_values: _Optional[_Iterable[float]] = ..., int64_values: _Optional[_Iterable[int]] = ..., uint8_values: _Optional[_Iterable[int]] = ..., raw: _Optional[bytes] = ..., string_values: _Optional[_Iterable[str]] = ...) -> None: ...

class Transmission(_message.Message):
    __slots__ = ("mode", "indices", "bits", "num_bits", "symbols", "num_symbols")
    MODE_FIELD_NUMBER: _ClassVar[int]
    INDICES_FIELD_NUMBER: _ClassVar[int]
    BITS_FIELD_NUMBER: _ClassVar[int]
    NUM_BITS_FIELD_NUMBER: _ClassVar[int]
    SYMBOLS_FIELD_NUMBER: _ClassVar[int]
    NUM_SYMBOLS_FIELD_NUMBER: _ClassVar[int]
    mode: _containers.RepeatedScalarFieldContainer[int]
    indices: Tensor
    bits: Tensor
    num_bits: _containers.RepeatedScalarFieldContainer[int]
    symbols: Tensor
    num_symbols: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, mode: _Optional[_Iterable[int]] = ..., indices: _Optional[_Union[Tensor, _Mapping]] = ..., bits: _Optional[_Union[Tensor, _Mapping]] = ..., num_bits: _Optional[_Iterable[int]] = ..., symbols: _Optional[_Union[Tensor, _Mapping]] = ..., num_symbols: _Optional[_Iterable[int]] = ...) -> None: ...

class Received(_message.Message):
    __slots__ = ("y", "no")
    Y_FIELD_NUMBER: _ClassVar[int]
    NO_FIELD_NUMBER: _ClassVar[int]
    y: Tensor
    no: Tensor
    def __init__(self, y: _Optional[_Union[Tensor, _Mapping]] = ..., no: _Optional[_Union[Tensor, _Mapping]] = ...) -> None: ...

class Decision(_message.Message):
    __slots__ = ("class_index", "class_name", "probability")
    CLASS_INDEX_FIELD_NUMBER: _ClassVar[int]
    CLASS_NAME_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    class_index: int
    class_name: str
    probability: float
    def __init__(self, class_index: _Optional[int] = ..., class_name: _Optional[str] = ..., probability: _Optional[float] = ...) -> None: ...

class Reception(_message.Message):
    __slots__ = ("decisions", "probabilities", "logits", "indices_hat", "llr", "texts", "pieces", "log_prob")
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    LOGITS_FIELD_NUMBER: _ClassVar[int]
    INDICES_HAT_FIELD_NUMBER: _ClassVar[int]
    LLR_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    PIECES_FIELD_NUMBER: _ClassVar[int]
    LOG_PROB_FIELD_NUMBER: _ClassVar[int]
    decisions: _containers.RepeatedCompositeFieldContainer[Decision]
    probabilities: Tensor
    logits: Tensor
    indices_hat: Tensor
    llr: Tensor
    texts: _containers.RepeatedScalarFieldContainer[str]
    pieces: Tensor
    log_prob: Tensor
    def __init__(self, decisions: _Optional[_Iterable[_Union[Decision, _Mapping]]] = ..., probabilities: _Optional[_Union[Tensor, _Mapping]] = ..., logits: _Optional[_Union[Tensor, _Mapping]] = ..., indices_hat: _Optional[_Union[Tensor, _Mapping]] = ..., llr: _Optional[_Union[Tensor, _Mapping]] = ..., texts: _Optional[_Iterable[str]] = ..., pieces: _Optional[_Union[Tensor, _Mapping]] = ..., log_prob: _Optional[_Union[Tensor, _Mapping]] = ...) -> None: ...

class LinkSettings(_message.Message):
    __slots__ = ("snr_db", "channel", "block_symbols", "k_factor_db", "seed", "sample_offset", "draw", "snr_error_db", "csi", "pilots", "no_offset_db")
    SNR_DB_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    BLOCK_SYMBOLS_FIELD_NUMBER: _ClassVar[int]
    K_FACTOR_DB_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    DRAW_FIELD_NUMBER: _ClassVar[int]
    SNR_ERROR_DB_FIELD_NUMBER: _ClassVar[int]
    CSI_FIELD_NUMBER: _ClassVar[int]
    PILOTS_FIELD_NUMBER: _ClassVar[int]
    NO_OFFSET_DB_FIELD_NUMBER: _ClassVar[int]
    snr_db: float
    channel: str
    block_symbols: int
    k_factor_db: float
    seed: int
    sample_offset: int
    draw: int
    snr_error_db: float
    csi: str
    pilots: int
    no_offset_db: float
    def __init__(self, snr_db: _Optional[float] = ..., channel: _Optional[str] = ..., block_symbols: _Optional[int] = ..., k_factor_db: _Optional[float] = ..., seed: _Optional[int] = ..., sample_offset: _Optional[int] = ..., draw: _Optional[int] = ..., snr_error_db: _Optional[float] = ..., csi: _Optional[str] = ..., pilots: _Optional[int] = ..., no_offset_db: _Optional[float] = ...) -> None: ...

class HeaderOutcome(_message.Message):
    __slots__ = ("mode", "lost", "wrong", "symbols", "headers", "headers_lost", "headers_wrong", "header_symbols", "pilot_symbols")
    MODE_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    WRONG_FIELD_NUMBER: _ClassVar[int]
    SYMBOLS_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    HEADERS_LOST_FIELD_NUMBER: _ClassVar[int]
    HEADERS_WRONG_FIELD_NUMBER: _ClassVar[int]
    HEADER_SYMBOLS_FIELD_NUMBER: _ClassVar[int]
    PILOT_SYMBOLS_FIELD_NUMBER: _ClassVar[int]
    mode: _containers.RepeatedScalarFieldContainer[int]
    lost: _containers.RepeatedScalarFieldContainer[bool]
    wrong: _containers.RepeatedScalarFieldContainer[bool]
    symbols: _containers.RepeatedScalarFieldContainer[float]
    headers: int
    headers_lost: int
    headers_wrong: int
    header_symbols: int
    pilot_symbols: int
    def __init__(self, mode: _Optional[_Iterable[int]] = ..., lost: _Optional[_Iterable[bool]] = ..., wrong: _Optional[_Iterable[bool]] = ..., symbols: _Optional[_Iterable[float]] = ..., headers: _Optional[int] = ..., headers_lost: _Optional[int] = ..., headers_wrong: _Optional[int] = ..., header_symbols: _Optional[int] = ..., pilot_symbols: _Optional[int] = ...) -> None: ...

class Timing(_message.Message):
    __slots__ = ("transmitter_us", "channel_us", "receiver_us", "queue_us")
    TRANSMITTER_US_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_US_FIELD_NUMBER: _ClassVar[int]
    RECEIVER_US_FIELD_NUMBER: _ClassVar[int]
    QUEUE_US_FIELD_NUMBER: _ClassVar[int]
    transmitter_us: float
    channel_us: float
    receiver_us: float
    queue_us: float
    def __init__(self, transmitter_us: _Optional[float] = ..., channel_us: _Optional[float] = ..., receiver_us: _Optional[float] = ..., queue_us: _Optional[float] = ...) -> None: ...

class EncodeRequest(_message.Message):
    __slots__ = ("inputs", "tensor_format", "snr_db", "model", "mode")
    class InputsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Tensor
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Tensor, _Mapping]] = ...) -> None: ...
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    TENSOR_FORMAT_FIELD_NUMBER: _ClassVar[int]
    SNR_DB_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    inputs: _containers.MessageMap[str, Tensor]
    tensor_format: TensorFormat
    snr_db: float
    model: str
    mode: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, inputs: _Optional[_Mapping[str, Tensor]] = ..., tensor_format: _Optional[_Union[TensorFormat, str]] = ..., snr_db: _Optional[float] = ..., model: _Optional[str] = ..., mode: _Optional[_Iterable[int]] = ...) -> None: ...

class EncodeResponse(_message.Message):
    __slots__ = ("sent", "truncated", "timing", "model_version", "unknown", "model_digest")
    SENT_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    sent: Transmission
    truncated: _containers.RepeatedScalarFieldContainer[bool]
    timing: Timing
    model_version: int
    unknown: _containers.RepeatedScalarFieldContainer[bool]
    model_digest: str
    def __init__(self, sent: _Optional[_Union[Transmission, _Mapping]] = ..., truncated: _Optional[_Iterable[bool]] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ..., model_version: _Optional[int] = ..., unknown: _Optional[_Iterable[bool]] = ..., model_digest: _Optional[str] = ...) -> None: ...

class DecodeRequest(_message.Message):
    __slots__ = ("symbols", "no", "mode", "llr_in", "tensor_format", "include_llr", "bits", "model", "inputs")
    class InputsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Tensor
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Tensor, _Mapping]] = ...) -> None: ...
    SYMBOLS_FIELD_NUMBER: _ClassVar[int]
    NO_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    LLR_IN_FIELD_NUMBER: _ClassVar[int]
    TENSOR_FORMAT_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_LLR_FIELD_NUMBER: _ClassVar[int]
    BITS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    symbols: Tensor
    no: Tensor
    mode: _containers.RepeatedScalarFieldContainer[int]
    llr_in: Tensor
    tensor_format: TensorFormat
    include_llr: bool
    bits: Tensor
    model: str
    inputs: _containers.MessageMap[str, Tensor]
    def __init__(self, symbols: _Optional[_Union[Tensor, _Mapping]] = ..., no: _Optional[_Union[Tensor, _Mapping]] = ..., mode: _Optional[_Iterable[int]] = ..., llr_in: _Optional[_Union[Tensor, _Mapping]] = ..., tensor_format: _Optional[_Union[TensorFormat, str]] = ..., include_llr: _Optional[bool] = ..., bits: _Optional[_Union[Tensor, _Mapping]] = ..., model: _Optional[str] = ..., inputs: _Optional[_Mapping[str, Tensor]] = ...) -> None: ...

class DecodeResponse(_message.Message):
    __slots__ = ("decoded", "timing", "model_version", "model_digest", "truncated", "unknown")
    DECODED_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    decoded: Reception
    timing: Timing
    model_version: int
    model_digest: str
    truncated: _containers.RepeatedScalarFieldContainer[bool]
    unknown: _containers.RepeatedScalarFieldContainer[bool]
    def __init__(self, decoded: _Optional[_Union[Reception, _Mapping]] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ..., model_version: _Optional[int] = ..., model_digest: _Optional[str] = ..., truncated: _Optional[_Iterable[bool]] = ..., unknown: _Optional[_Iterable[bool]] = ...) -> None: ...

class TransmitRequest(_message.Message):
    __slots__ = ("inputs", "settings", "tensor_format", "include_llr", "include_symbols", "model", "mode")
    class InputsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Tensor
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Tensor, _Mapping]] = ...) -> None: ...
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    TENSOR_FORMAT_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_LLR_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_SYMBOLS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    inputs: _containers.MessageMap[str, Tensor]
    settings: LinkSettings
    tensor_format: TensorFormat
    include_llr: bool
    include_symbols: bool
    model: str
    mode: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, inputs: _Optional[_Mapping[str, Tensor]] = ..., settings: _Optional[_Union[LinkSettings, _Mapping]] = ..., tensor_format: _Optional[_Union[TensorFormat, str]] = ..., include_llr: _Optional[bool] = ..., include_symbols: _Optional[bool] = ..., model: _Optional[str] = ..., mode: _Optional[_Iterable[int]] = ...) -> None: ...

class TransmitResponse(_message.Message):
    __slots__ = ("sent", "received", "decoded", "bit_errors", "settings", "timing", "header", "truncated", "model_version", "unknown", "num_pilots", "model_digest", "radio")
    SENT_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    DECODED_FIELD_NUMBER: _ClassVar[int]
    BIT_ERRORS_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    NUM_PILOTS_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    RADIO_FIELD_NUMBER: _ClassVar[int]
    sent: Transmission
    received: Received
    decoded: Reception
    bit_errors: _containers.RepeatedScalarFieldContainer[int]
    settings: LinkSettings
    timing: Timing
    header: HeaderOutcome
    truncated: _containers.RepeatedScalarFieldContainer[bool]
    model_version: int
    unknown: _containers.RepeatedScalarFieldContainer[bool]
    num_pilots: _containers.RepeatedScalarFieldContainer[int]
    model_digest: str
    radio: RadioFrames
    def __init__(self, sent: _Optional[_Union[Transmission, _Mapping]] = ..., received: _Optional[_Union[Received, _Mapping]] = ..., decoded: _Optional[_Union[Reception, _Mapping]] = ..., bit_errors: _Optional[_Iterable[int]] = ..., settings: _Optional[_Union[LinkSettings, _Mapping]] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ..., header: _Optional[_Union[HeaderOutcome, _Mapping]] = ..., truncated: _Optional[_Iterable[bool]] = ..., model_version: _Optional[int] = ..., unknown: _Optional[_Iterable[bool]] = ..., num_pilots: _Optional[_Iterable[int]] = ..., model_digest: _Optional[str] = ..., radio: _Optional[_Union[RadioFrames, _Mapping]] = ...) -> None: ...

class RadioFrames(_message.Message):
    __slots__ = ("frames", "frames_lost", "crc_failed", "gaps", "clipped", "measured_snr_db", "evm", "papr_db")
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    FRAMES_LOST_FIELD_NUMBER: _ClassVar[int]
    CRC_FAILED_FIELD_NUMBER: _ClassVar[int]
    GAPS_FIELD_NUMBER: _ClassVar[int]
    CLIPPED_FIELD_NUMBER: _ClassVar[int]
    MEASURED_SNR_DB_FIELD_NUMBER: _ClassVar[int]
    EVM_FIELD_NUMBER: _ClassVar[int]
    PAPR_DB_FIELD_NUMBER: _ClassVar[int]
    frames: int
    frames_lost: int
    crc_failed: int
    gaps: int
    clipped: int
    measured_snr_db: float
    evm: float
    papr_db: float
    def __init__(self, frames: _Optional[int] = ..., frames_lost: _Optional[int] = ..., crc_failed: _Optional[int] = ..., gaps: _Optional[int] = ..., clipped: _Optional[int] = ..., measured_snr_db: _Optional[float] = ..., evm: _Optional[float] = ..., papr_db: _Optional[float] = ...) -> None: ...

class TransmitStreamRequest(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: TransmitRequest
    def __init__(self, request: _Optional[_Union[TransmitRequest, _Mapping]] = ...) -> None: ...

class TransmitStreamResponse(_message.Message):
    __slots__ = ("index", "response", "failure")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    index: int
    response: TransmitResponse
    failure: Failure
    def __init__(self, index: _Optional[int] = ..., response: _Optional[_Union[TransmitResponse, _Mapping]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("code", "message", "field", "retry_after_ms", "request_id")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    field: str
    retry_after_ms: float
    request_id: str
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., field: _Optional[str] = ..., retry_after_ms: _Optional[float] = ..., request_id: _Optional[str] = ...) -> None: ...

class SweepRequest(_message.Message):
    __slots__ = ("model", "inputs", "labels", "settings", "snr_db", "draws", "target_errors", "rel_width", "confidence")
    class InputsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Tensor
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Tensor, _Mapping]] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    SNR_DB_FIELD_NUMBER: _ClassVar[int]
    DRAWS_FIELD_NUMBER: _ClassVar[int]
    TARGET_ERRORS_FIELD_NUMBER: _ClassVar[int]
    REL_WIDTH_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    model: str
    inputs: _containers.MessageMap[str, Tensor]
    labels: _containers.RepeatedScalarFieldContainer[int]
    settings: LinkSettings
    snr_db: _containers.RepeatedScalarFieldContainer[float]
    draws: int
    target_errors: int
    rel_width: float
    confidence: float
    def __init__(self, model: _Optional[str] = ..., inputs: _Optional[_Mapping[str, Tensor]] = ..., labels: _Optional[_Iterable[int]] = ..., settings: _Optional[_Union[LinkSettings, _Mapping]] = ..., snr_db: _Optional[_Iterable[float]] = ..., draws: _Optional[int] = ..., target_errors: _Optional[int] = ..., rel_width: _Optional[float] = ..., confidence: _Optional[float] = ...) -> None: ...

class SweepResponse(_message.Message):
    __slots__ = ("point", "points_done", "points", "model_version", "model_digest")
    POINT_FIELD_NUMBER: _ClassVar[int]
    POINTS_DONE_FIELD_NUMBER: _ClassVar[int]
    POINTS_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    point: SweepPoint
    points_done: int
    points: int
    model_version: int
    model_digest: str
    def __init__(self, point: _Optional[_Union[SweepPoint, _Mapping]] = ..., points_done: _Optional[int] = ..., points: _Optional[int] = ..., model_version: _Optional[int] = ..., model_digest: _Optional[str] = ...) -> None: ...

class Rate(_message.Message):
    __slots__ = ("value", "low", "high")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    value: float
    low: float
    high: float
    def __init__(self, value: _Optional[float] = ..., low: _Optional[float] = ..., high: _Optional[float] = ...) -> None: ...

class SweepPoint(_message.Message):
    __slots__ = ("snr_db", "samples", "draws", "correct", "accuracy", "accuracy_noise", "bit_errors", "bits", "ber", "symbols_per_sample", "bits_per_sample", "mean_abs_llr", "stopped_by")
    SNR_DB_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    DRAWS_FIELD_NUMBER: _ClassVar[int]
    CORRECT_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_NOISE_FIELD_NUMBER: _ClassVar[int]
    BIT_ERRORS_FIELD_NUMBER: _ClassVar[int]
    BITS_FIELD_NUMBER: _ClassVar[int]
    BER_FIELD_NUMBER: _ClassVar[int]
    SYMBOLS_PER_SAMPLE_FIELD_NUMBER: _ClassVar[int]
    BITS_PER_SAMPLE_FIELD_NUMBER: _ClassVar[int]
    MEAN_ABS_LLR_FIELD_NUMBER: _ClassVar[int]
    STOPPED_BY_FIELD_NUMBER: _ClassVar[int]
    snr_db: float
    samples: int
    draws: int
    correct: int
    accuracy: Rate
    accuracy_noise: Rate
    bit_errors: int
    bits: int
    ber: Rate
    symbols_per_sample: float
    bits_per_sample: float
    mean_abs_llr: float
    stopped_by: str
    def __init__(self, snr_db: _Optional[float] = ..., samples: _Optional[int] = ..., draws: _Optional[int] = ..., correct: _Optional[int] = ..., accuracy: _Optional[_Union[Rate, _Mapping]] = ..., accuracy_noise: _Optional[_Union[Rate, _Mapping]] = ..., bit_errors: _Optional[int] = ..., bits: _Optional[int] = ..., ber: _Optional[_Union[Rate, _Mapping]] = ..., symbols_per_sample: _Optional[float] = ..., bits_per_sample: _Optional[float] = ..., mean_abs_llr: _Optional[float] = ..., stopped_by: _Optional[str] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("model", "include_sequence")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    model: str
    include_sequence: bool
    def __init__(self, model: _Optional[str] = ..., include_sequence: _Optional[bool] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model", "code_version", "channels", "max_batch", "model_digest", "sequence")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CODE_VERSION_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    model: Model
    code_version: str
    channels: _containers.RepeatedScalarFieldContainer[str]
    max_batch: int
    model_digest: str
    sequence: bytes
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ..., code_version: _Optional[str] = ..., channels: _Optional[_Iterable[str]] = ..., max_batch: _Optional[int] = ..., model_digest: _Optional[str] = ..., sequence: _Optional[bytes] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelSummary]
    def __init__(self, models: _Optional[_Iterable[_Union[ModelSummary, _Mapping]]] = ...) -> None: ...

class ModelSummary(_message.Message):
    __slots__ = ("name", "version", "task", "receiver_name", "digest")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    RECEIVER_NAME_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    task: str
    receiver_name: str
    digest: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., task: _Optional[str] = ..., receiver_name: _Optional[str] = ..., digest: _Optional[str] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("schema_version", "name", "version", "task", "modes", "default_mode", "llr", "transmitter", "receiver", "provenance_json", "header", "tokenizer", "receiver_name", "takes_mode")
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    MODES_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_MODE_FIELD_NUMBER: _ClassVar[int]
    LLR_FIELD_NUMBER: _ClassVar[int]
    TRANSMITTER_FIELD_NUMBER: _ClassVar[int]
    RECEIVER_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_JSON_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    TOKENIZER_FIELD_NUMBER: _ClassVar[int]
    RECEIVER_NAME_FIELD_NUMBER: _ClassVar[int]
    TAKES_MODE_FIELD_NUMBER: _ClassVar[int]
    schema_version: int
    name: str
    version: int
    task: Task
    modes: _containers.RepeatedCompositeFieldContainer[Mode]
    default_mode: int
    llr: LlrConvention
    transmitter: Graph
    receiver: Graph
    provenance_json: str
    header: Header
    tokenizer: Tokenizer
    receiver_name: str
    takes_mode: bool
    def __init__(self, schema_version: _Optional[int] = ..., name: _Optional[str] = ..., version: _Optional[int] = ..., task: _Optional[_Union[Task, _Mapping]] = ..., modes: _Optional[_Iterable[_Union[Mode, _Mapping]]] = ..., default_mode: _Optional[int] = ..., llr: _Optional[_Union[LlrConvention, _Mapping]] = ..., transmitter: _Optional[_Union[Graph, _Mapping]] = ..., receiver: _Optional[_Union[Graph, _Mapping]] = ..., provenance_json: _Optional[str] = ..., header: _Optional[_Union[Header, _Mapping]] = ..., tokenizer: _Optional[_Union[Tokenizer, _Mapping]] = ..., receiver_name: _Optional[str] = ..., takes_mode: _Optional[bool] = ...) -> None: ...

class Tokenizer(_message.Message):
    __slots__ = ("file", "sha256", "length", "pad_id", "pad_token", "text", "input_ids", "attention_mask")
    FILE_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    PAD_ID_FIELD_NUMBER: _ClassVar[int]
    PAD_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    INPUT_IDS_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_MASK_FIELD_NUMBER: _ClassVar[int]
    file: str
    sha256: str
    length: int
    pad_id: int
    pad_token: str
    text: str
    input_ids: str
    attention_mask: str
    def __init__(self, file: _Optional[str] = ..., sha256: _Optional[str] = ..., length: _Optional[int] = ..., pad_id: _Optional[int] = ..., pad_token: _Optional[str] = ..., text: _Optional[str] = ..., input_ids: _Optional[str] = ..., attention_mask: _Optional[str] = ...) -> None: ...

class Header(_message.Message):
    __slots__ = ("code", "repeats", "frame_samples", "threshold")
    CODE_FIELD_NUMBER: _ClassVar[int]
    REPEATS_FIELD_NUMBER: _ClassVar[int]
    FRAME_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    code: str
    repeats: int
    frame_samples: int
    threshold: float
    def __init__(self, code: _Optional[str] = ..., repeats: _Optional[int] = ..., frame_samples: _Optional[int] = ..., threshold: _Optional[float] = ...) -> None: ...

class Task(_message.Message):
    __slots__ = ("name", "classes", "question", "text", "receiver_inputs", "sequence")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    RECEIVER_INPUTS_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    classes: _containers.RepeatedScalarFieldContainer[str]
    question: str
    text: TextAnswer
    receiver_inputs: _containers.RepeatedScalarFieldContainer[str]
    sequence: SequenceStage
    def __init__(self, name: _Optional[str] = ..., classes: _Optional[_Iterable[str]] = ..., question: _Optional[str] = ..., text: _Optional[_Union[TextAnswer, _Mapping]] = ..., receiver_inputs: _Optional[_Iterable[str]] = ..., sequence: _Optional[_Union[SequenceStage, _Mapping]] = ...) -> None: ...

class SequenceStage(_message.Message):
    __slots__ = ("file", "sha256", "parts")
    FILE_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    file: str
    sha256: str
    parts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, file: _Optional[str] = ..., sha256: _Optional[str] = ..., parts: _Optional[_Iterable[str]] = ...) -> None: ...

class TextAnswer(_message.Message):
    __slots__ = ("positions", "pieces", "end_id")
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    PIECES_FIELD_NUMBER: _ClassVar[int]
    END_ID_FIELD_NUMBER: _ClassVar[int]
    positions: int
    pieces: int
    end_id: int
    def __init__(self, positions: _Optional[int] = ..., pieces: _Optional[int] = ..., end_id: _Optional[int] = ...) -> None: ...

class Mode(_message.Message):
    __slots__ = ("tokens", "codewords", "order", "index_bits", "num_bits", "num_symbols", "labels", "log_prior")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    CODEWORDS_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    INDEX_BITS_FIELD_NUMBER: _ClassVar[int]
    NUM_BITS_FIELD_NUMBER: _ClassVar[int]
    NUM_SYMBOLS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    LOG_PRIOR_FIELD_NUMBER: _ClassVar[int]
    tokens: int
    codewords: int
    order: int
    index_bits: int
    num_bits: int
    num_symbols: int
    labels: _containers.RepeatedScalarFieldContainer[int]
    log_prior: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, tokens: _Optional[int] = ..., codewords: _Optional[int] = ..., order: _Optional[int] = ..., index_bits: _Optional[int] = ..., num_bits: _Optional[int] = ..., num_symbols: _Optional[int] = ..., labels: _Optional[_Iterable[int]] = ..., log_prior: _Optional[_Iterable[float]] = ...) -> None: ...

class LlrConvention(_message.Message):
    __slots__ = ("convention", "demapper", "clip")
    CONVENTION_FIELD_NUMBER: _ClassVar[int]
    DEMAPPER_FIELD_NUMBER: _ClassVar[int]
    CLIP_FIELD_NUMBER: _ClassVar[int]
    convention: str
    demapper: str
    clip: float
    def __init__(self, convention: _Optional[str] = ..., demapper: _Optional[str] = ..., clip: _Optional[float] = ...) -> None: ...

class Graph(_message.Message):
    __slots__ = ("file", "sha256", "inputs", "outputs")
    FILE_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    file: str
    sha256: str
    inputs: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    outputs: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    def __init__(self, file: _Optional[str] = ..., sha256: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ..., outputs: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ...) -> None: ...

class TensorSpec(_message.Message):
    __slots__ = ("name", "data_type", "shape", "low", "high", "description")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATA_TYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    name: str
    data_type: DataType
    shape: _containers.RepeatedScalarFieldContainer[int]
    low: float
    high: float
    description: str
    def __init__(self, name: _Optional[str] = ..., data_type: _Optional[_Union[DataType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., low: _Optional[float] = ..., high: _Optional[float] = ..., description: _Optional[str] = ...) -> None: ...
