"""What a server can be told, as frozen models. `serve.config.layers` reads them from file, environment and flags."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from link.device import cuda_number
from link.manifest import ReceiverName

MIB: Final = 2**20
SAMPLE_RATIO: Final = 0.01
TOKENS_NEED_TLS: Final = (
    "auth.tokens must have tls.certificate and tls.key beside them where listen.host is beyond loopback, since they would "
    "travel readable (or auth.allow_plaintext, where a proxy in front ends TLS)"
)
_WIRE_BYTES_MAX: Final = 2**31 - 1
_LOOPBACK: Final = re.compile(r"localhost|127(\.\d{1,3}){3}|::1|\[::1\]")


def _named(path: object) -> object:
    """An empty path would mean the folder that one is in."""
    if path == "" or (isinstance(path, str) and "\0" in path):
        raise ValueError("is empty")
    return path


def _device(name: str) -> str:
    if name != "cpu" and cuda_number(name) is None:
        raise ValueError("is no device")
    return name


def _without_secret(url: str) -> str:
    """A URL whose authority holds no user and password, since the configuration is shown."""
    if "@" in url.partition("://")[2].partition("/")[0]:
        raise ValueError("holds a password")
    return url


def _allowed(text: str) -> WithJsonSchema:
    """What is allowed, in words, where a type and its bounds do not say it; `serve.config.fields` reads it."""
    return WithJsonSchema({"allowed": text})


FilePath = Annotated[Path, BeforeValidator(_named), _allowed("a path")]
Host = Annotated[str, Field(pattern=r"^[^\s/]+$"), _allowed("a host name or an IP address")]
Receiver = Annotated[ReceiverName, _allowed("a name of at most 64 letters, digits, - and _")]
Device = Annotated[str, AfterValidator(_device), _allowed("cpu, cuda or cuda:N")]
Url = Annotated[
    str,
    Field(pattern=r"^https?://[^\s/]+(/\S*)?$"),
    AfterValidator(_without_secret),
    _allowed("a URL http(s)://HOST:PORT without a password"),
]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ListenConfig(_Section):
    """Where the server can be reached, and what it tells about itself there."""

    host: Host = Field(
        default="127.0.0.1", description="Address of gRPC; the default is reachable from this machine only."
    )
    port: int = Field(default=50051, ge=0, le=65535, description="TCP port of gRPC; 0 takes a free one.")
    metrics_host: Host | None = Field(default=None, description="Address of the metrics; absent: that of gRPC.")
    metrics_port: int | None = Field(
        default=None, ge=0, le=65535, description="TCP port of the metrics over HTTP; 0 takes a free one; absent: off."
    )
    reflection: Literal["free", "infer", "off"] = Field(
        default="free", description="Who may ask for the API's description: anyone, who may infer, or nobody."
    )

    @property
    def is_loopback(self) -> bool:
        """Whether gRPC is reachable from this machine only."""
        return _LOOPBACK.fullmatch(self.host) is not None


class LimitsConfig(_Section):
    """What one peer, and all of them together, may ask for."""

    message_bytes: int = Field(default=16 * MIB, ge=4096, le=_WIRE_BYTES_MAX, description="Largest request, bytes.")
    max_batch: int = Field(default=4096, ge=1, le=65536, description="Most samples in one message.")
    queue_requests: int = Field(
        default=1024,
        ge=1,
        le=1_000_000,
        description="Most requests that are not answered yet, all models together; more are refused at once.",
    )
    queue_bytes: int = Field(
        default=256 * MIB,
        ge=4096,
        le=2**40,
        description="Most bytes of the requests that are not answered yet, all models together.",
    )
    concurrent_calls: int = Field(
        default=4096, ge=1, le=1_000_000, description="Most calls in flight, streams included; more are refused."
    )
    streams_per_connection: int = Field(
        default=65536,
        ge=1,
        le=_WIRE_BYTES_MAX,
        description="Most calls in flight on one connection; it refuses more as UNAVAILABLE, and some clients wait instead.",
    )
    samples_per_stream: int | None = Field(
        default=None, ge=1, le=2**53, description="Most samples over the life of one stream; absent: no limit."
    )
    receive_s: float = Field(
        default=60.0, ge=0.1, le=3600, description="Seconds within which a call's request has to be there as a whole."
    )
    stall_s: float = Field(
        default=30.0,
        ge=0.1,
        le=3600,
        description="Seconds that a stream's peer may leave replies unread before it is dropped.",
    )
    idle_s: float = Field(
        default=300.0,
        ge=1,
        le=86400,
        description="Seconds without a call after which a connection is closed, and without a request a stream.",
    )
    connection_age_s: float | None = Field(
        default=None,
        ge=1,
        le=86400,
        description="Seconds after which a connection is asked to come anew, so that balancers can move it; absent: never.",
    )

    @model_validator(mode="after")
    def _check(self) -> LimitsConfig:
        if self.queue_bytes < self.message_bytes:
            raise ValueError(
                f"queue_bytes must be at least message_bytes ({self.message_bytes}), or the largest message could never "
                f"wait, got {self.queue_bytes}"
            )
        if self.concurrent_calls < self.queue_requests:
            raise ValueError(
                f"concurrent_calls must be at least queue_requests ({self.queue_requests}), or the queue could never "
                f"fill, got {self.concurrent_calls}"
            )
        if self.samples_per_stream is not None and self.samples_per_stream < self.max_batch:
            raise ValueError(
                f"samples_per_stream must be at least max_batch ({self.max_batch}), or the largest message could never "
                f"be streamed, got {self.samples_per_stream}"
            )
        return self


class BatchingConfig(_Section):
    """How rows of several requests are joined into one run of a graph."""

    auto: bool = Field(
        default=True,
        description="Whether batching decides by itself from measured cost; else rows and wait are as given here.",
    )
    max_rows: int | None = Field(
        default=None, ge=1, le=65536, description="Most rows in one run; absent: decided by cost, or one request a run."
    )
    max_wait_us: int | None = Field(
        default=None,
        ge=0,
        le=1_000_000,
        description="Microseconds that a row may wait for others; absent: decided, or 0.",
    )
    workers: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="Threads that run graphs; absent: whole cores that affinity and cgroup grant, less one for the event "
        "loop, but at least 1.",
    )


class RunConfig(_Section):
    """Where graphs are computed."""

    device: Device = Field(default="cpu", description="What computes.")
    threads: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="Threads inside one run of a graph; absent: 1, since runs share the cores.",
    )
    gpu_mem_bytes: int | None = Field(
        default=None,
        ge=64 * MIB,
        le=2**40,
        description="Most bytes that one graph takes of a GPU's memory for tensors; absent: all that is free.",
    )


class RadioConfig(_Section):
    """A radio for Transmit over the channel `radio`."""

    file: FilePath | None = Field(default=None, description="What the radio is, TOML; absent: there is none.")
    wait_s: float = Field(
        default=5.0,
        ge=0,
        le=3600,
        description="Seconds that a call waits for its turn on the radio before it is refused.",
    )


class LifecycleConfig(_Section):
    """How the server ends, and how it takes up what is new."""

    grace_s: float = Field(
        default=10.0, ge=0, le=3600, description="Seconds that calls in flight have to finish at the end."
    )
    drain_delay_s: float = Field(
        default=0.0,
        ge=0,
        le=600,
        description="Seconds between saying NOT_SERVING and refusing new calls, for balancers to notice.",
    )
    watch: bool = Field(default=False, description="Whether a bundle whose files change is loaded anew and swapped in.")
    watch_interval_s: float = Field(
        default=5.0, ge=0.1, le=3600, description="Seconds between looks at the files of bundles and tokens."
    )


class TlsConfig(_Section):
    """Encryption, and who the peer is; looked at anew at each handshake."""

    certificate: FilePath | None = Field(
        default=None, description="The server's certificate chain, PEM, its own first; absent: no TLS."
    )
    key: FilePath | None = Field(default=None, description="Its private key, PEM without a password.")
    client_ca: FilePath | None = Field(
        default=None,
        description="Authorities whose clients are let in (mTLS), PEM; absent: clients show no certificate.",
    )

    @model_validator(mode="after")
    def _check(self) -> TlsConfig:
        if (self.certificate is None) != (self.key is None):
            missing, there = ("certificate", "key") if self.certificate is None else ("key", "certificate")
            raise ValueError(f"{missing} must be given beside {there}, got none")
        if self.client_ca is not None and self.certificate is None:
            raise ValueError("client_ca must be absent without certificate and key, got " + str(self.client_ca))
        return self


class AuthConfig(_Section):
    """Who may call what."""

    tokens: FilePath | None = Field(
        default=None,
        description="File of bearer tokens' hashes, TOML; absent: whoever reaches the server may call everything.",
    )
    allow_plaintext: bool = Field(
        default=False,
        description="Whether tokens may be asked for without TLS beyond loopback: a proxy in front ends TLS.",
    )


class LogConfig(_Section):
    """What is logged, to standard error."""

    format: Literal["text", "json"] = Field(default="text", description="Lines for people, or one JSON object a line.")
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severity that is logged."
    )


class TraceConfig(_Section):
    """OpenTelemetry, of the extra `otel`."""

    otlp_endpoint: Url | None = Field(default=None, description="Collector that spans are sent to, OTLP; absent: off.")
    sample_ratio: float = Field(
        default=SAMPLE_RATIO,
        ge=0,
        le=1,
        description="Share of the calls without a `traceparent` that is traced; of the others the caller decides.",
    )


class ServerConfig(_Section):
    """Everything that a server can be told.

    Raises
    ------
    ValidationError
        If a field is out of range, or fields do not fit each other. `serve.config.layers` makes one line of it.
    """

    bundles: tuple[FilePath, ...] = Field(
        default=(), max_length=64, description="Folders of the bundles to serve; in a variable, apart by a colon."
    )
    receiver: Receiver | None = Field(
        default=None, description="Which of a bundle's receivers answers, where it has several; absent: the first."
    )
    listen: ListenConfig = ListenConfig()
    limits: LimitsConfig = LimitsConfig()
    batching: BatchingConfig = BatchingConfig()
    run: RunConfig = RunConfig()
    radio: RadioConfig = RadioConfig()
    lifecycle: LifecycleConfig = LifecycleConfig()
    tls: TlsConfig = TlsConfig()
    auth: AuthConfig = AuthConfig()
    log: LogConfig = LogConfig()
    trace: TraceConfig = TraceConfig()

    @property
    def tokens_readable(self) -> bool:
        """Whether tokens would travel beyond this machine without TLS."""
        return self.auth.tokens is not None and self.tls.certificate is None and not self.listen.is_loopback

    @model_validator(mode="after")
    def _check(self) -> ServerConfig:
        if len(set(self.bundles)) != len(self.bundles):
            raise ValueError("bundles must be named once each, got " + ", ".join(map(str, self.bundles)))
        if self.tokens_readable and not self.auth.allow_plaintext:
            raise ValueError(f"{TOKENS_NEED_TLS}, got {self.listen.host} without TLS")
        return self
