"""The log: what it says, what it never says, and what nobody can make it say."""

import io
import json
import logging
import re
import threading
from datetime import UTC, datetime

import pytest

from link.errors import ArgumentError, BundleError
from serve.telemetry.logs import (
    BURST,
    AccessLog,
    Allowance,
    FloodFilter,
    JsonFormatter,
    Peer,
    TextFormatter,
    configure,
    request_id_of,
)

FORGERY = 'x\n2026-01-01T00:00:00.000Z ERROR serve: all is lost\r\x1b[2J\u2028\u202e\ud800"}\x00'
SECRET = "my diagnosis, in my own words"


class Clock:
    """Time that passes when it is told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=["text", "json"])
def style(request):
    return request.param


@pytest.fixture
def log(style):
    """A logger that writes into a text, and the text."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    logger = logging.Logger("serve.test", logging.DEBUG)
    logger.addHandler(handler)
    return logger, stream


@pytest.fixture
def as_json():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.Logger("serve.test", logging.DEBUG)
    logger.addHandler(handler)
    return logger, lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def raised(error, cause=None):
    try:
        raise error from cause
    except type(error) as caught:
        return caught


def test_a_record_is_one_object_with_time_level_logger_message_and_fields(as_json):
    logger, entries = as_json
    before = datetime.now(UTC)
    logger.warning(
        "%d calls", 3, extra={"request_id": "r-1", "code": "OK", "duration_ms": 1.25, "peer": "", "other": 7}
    )
    (entry,) = entries()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry["time"])
    assert abs((datetime.fromisoformat(entry.pop("time")) - before).total_seconds()) < 60
    assert entry == {
        "level": "WARNING", "logger": "serve.test", "message": "3 calls", "request_id": "r-1", "code": "OK",
        "duration_ms": 1.25,
    }  # fmt: skip


def test_text_says_the_same_on_one_line():
    record = logging.makeLogRecord(
        {"name": "serve", "levelname": "INFO", "msg": "call ended", "code": "OK", "peer": "a b", "created": 0.25}
    )
    expected = '1970-01-01T00:00:00.250Z INFO serve: call ended code=OK peer="a b"'
    assert TextFormatter().format(record) == expected


def test_nothing_that_is_logged_makes_a_second_line_or_moves_the_cursor(log, style):
    logger, stream = log
    logger.error("model %s", FORGERY, extra={"peer": FORGERY, "model": FORGERY})
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert text.removesuffix("\n").isprintable()
    if style == "json":
        assert json.loads(text)["peer"] == FORGERY, "and it can be read back"


def test_a_traceback_is_one_field_and_its_lines_are_marked(log, style):
    logger, stream = log
    logger.error("failed", exc_info=raised(BundleError(FORGERY), raised(OSError(28, "No space left on device"))))
    lines = stream.getvalue().splitlines()
    if style == "json":
        assert len(lines) == 1
        exception = json.loads(lines[0])["exception"]
    else:
        assert all(line.startswith("    | ") for line in lines[1:])
        exception = "\n".join(lines)
        assert "\n2026-01-01" not in exception
    for part in ("test_logs.py", "in raised", "raise error from cause", "OSError: No space left", "which led to"):
        assert part in exception, part


@pytest.mark.parametrize(
    "error",
    [
        ValueError(f"could not convert string to float: {SECRET!r}"),
        ArgumentError("inputs.text", f"must be short, got {SECRET!r}"),
        KeyError(SECRET),
        UnicodeEncodeError("utf-8", SECRET, 0, 1, "odd"),
        ExceptionGroup("several", [ValueError(SECRET)]),
        raised(RuntimeError("outer"), raised(ValueError(SECRET))),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_an_exception_quotes_of_a_request_is_not_logged_but_its_type_and_place_are(log, error):
    logger, stream = log
    logger.error("TransmitRequest failed", exc_info=raised(error))
    assert SECRET not in stream.getvalue()
    assert type(error).__name__ in stream.getvalue()
    assert "message withheld" in stream.getvalue()
    assert "test_logs.py" in stream.getvalue()


@pytest.mark.parametrize("error", [BundleError("digits: model.onnx is missing"), FileNotFoundError(2, "No such file")])
def test_what_hardpath_and_the_system_say_is_logged(log, error):
    logger, stream = log
    logger.error("failed", exc_info=raised(error))
    assert (getattr(error, "strerror", None) or str(error)) in stream.getvalue()


def test_an_exception_that_is_its_own_cause_and_one_as_deep_as_the_stack_end(log):
    logger, stream = log
    endless = ValueError("a")
    endless.__cause__ = endless

    def deep():
        deep()

    logger.error("failed", exc_info=raised(endless))
    with pytest.raises(RecursionError) as caught:
        deep()
    logger.error("failed", exc_info=caught.value)
    assert len(stream.getvalue()) < 100_000


def test_a_burst_is_let_through_then_a_rate_and_what_was_left_out_is_counted(clock):
    allowance = Allowance(burst=3, per_second=2.0, clock=clock)
    assert [allowance.take(("a",)) for _ in range(5)] == [0, 0, 0, None, None]
    assert allowance.take(("b",)) == 0, "another kind"
    clock.now = 0.4
    assert allowance.take(("a",)) is None
    clock.now = 0.6
    assert allowance.take(("a",)) == 3
    assert allowance.take(("a",)) is None
    clock.now = 1000.0
    assert [allowance.take(("a",)) for _ in range(4)] == [1, 0, 0, None], "a rest gives back no more than the burst"


def test_what_is_owed_is_said_once(clock):
    allowance = Allowance(burst=1, per_second=1.0, clock=clock)
    for _ in range(4):
        allowance.take(("a",))
    allowance.take(("b",))
    assert list(allowance.owed()) == [(("a",), 3)]
    assert list(allowance.owed()) == []
    clock.now = 1.0
    assert allowance.take(("a",)) == 0


def test_kinds_without_end_take_room_that_has_one(clock):
    allowance = Allowance(clock=clock)
    for number in range(5000):
        allowance.take((number,))
    assert len(allowance._left) <= 1025


def test_a_flood_of_one_record_is_thinned_and_others_are_not(as_json, clock):
    logger, entries = as_json
    logger.handlers[0].addFilter(FloodFilter(Allowance(clock=clock)))
    for number in range(1000):
        logger.error("request %d failed", number)
    logger.error("disk is full")
    clock.now = 1.0
    logger.error("request %d failed", 1000)
    found = entries()
    assert len(found) == BURST + 2
    assert found[-1]["left_out"] == 1000 - BURST
    for _ in range(100):
        logger.debug("step")
    assert len(entries()) == BURST + 102, "who asks for everything gets it"


def test_a_call_that_failed_is_logged_with_who_when_and_how_and_a_good_one_is_not(as_json):
    logger, entries = as_json
    access = AccessLog(logger)
    logger.setLevel(logging.INFO)
    access.ended("hardpath.v1.LinkService/Transmit", "OK", 1_000_000, peer=pytest.fail)
    assert entries() == []
    access.ended(
        "hardpath.v1.LinkService/Transmit", "INVALID_ARGUMENT", 1_234_567,
        model="digits.link", peer=lambda: Peer("ipv4:10.0.0.1:5000", "abc"),
    )  # fmt: skip
    access.ended("hardpath.v1.LinkService/Transmit", "INTERNAL", 1_000_000)
    refused, fault = entries()
    del refused["time"]
    assert refused == {
        "level": "INFO", "logger": "serve.test", "message": "call ended", "request_id": "abc", "model": "digits.link",
        "method": "hardpath.v1.LinkService/Transmit", "code": "INVALID_ARGUMENT", "duration_ms": 1.235,
        "peer": "ipv4:10.0.0.1:5000",
    }  # fmt: skip
    assert fault["level"] == "ERROR"


def test_every_call_is_logged_at_debug(as_json):
    logger, entries = as_json
    for _ in range(100):
        AccessLog(logger).ended("hardpath.v1.LinkService/Transmit", "OK", 1_000_000)
    assert [(entry["level"], entry["code"]) for entry in entries()] == [("DEBUG", "OK")] * 100


def test_a_flood_of_refusals_costs_a_few_lines_and_their_number_is_told_in_the_end(as_json, clock):
    logger, entries = as_json
    logger.handlers[0].addFilter(FloodFilter(Allowance(clock=clock)))
    access = AccessLog(logger, Allowance(clock=clock))
    for _ in range(100_000):
        access.ended("m", "RESOURCE_EXHAUSTED", 1000)
    access.ended("m", "INVALID_ARGUMENT", 1000)
    assert len(entries()) == BURST + 1
    access.report()
    access.report()
    last = entries()[-1]
    assert len(entries()) == BURST + 2
    assert (last["code"], last["left_out"]) == ("RESOURCE_EXHAUSTED", 100_000 - BURST)


def test_configuring_replaces_what_was_there_and_catches_warnings(style):
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    stream = io.StringIO()
    try:
        configure(style, "warning", stream)
        configure(style, "warning", stream)
        logging.getLogger("serve.any").info("quiet")
        logging.getLogger("serve.any").warning("loud")
    finally:
        root.handlers[:], root.level = before, level
        logging.captureWarnings(False)
    (line,) = stream.getvalue().splitlines()
    assert (json.loads(line)["message"] == "loud") if style == "json" else line.endswith("WARNING serve.any: loud")


def test_at_debug_other_packages_are_heard_from_info_on(style):
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    stream = io.StringIO()
    try:
        configure(style, "debug", stream)
        for name in ("asyncio", "grpc._cython.cygrpc", "server"):
            logging.getLogger(name).debug("flood")
            logging.getLogger(name).info("news")
        for name in ("serve.access", "hardpath.servers", "link"):
            logging.getLogger(name).debug("detail")
    finally:
        root.handlers[:], root.level = before, level
        logging.captureWarnings(False)
    assert [word for word in ("flood", "news", "detail") for _ in range(stream.getvalue().count(word))] == [
        *["news"] * 3,
        *["detail"] * 3,
    ]


@pytest.mark.parametrize("given", ["a", "A-b_c.9", "0" * 64])
def test_a_caller_may_name_its_request(given):
    assert request_id_of([("user-agent", "x"), ("x-request-id", given)]) == given


@pytest.mark.parametrize("given", ["", "a b", "a\nb", "0" * 65, "ü", b"abc"])
def test_a_name_that_is_none_is_replaced(given):
    found = request_id_of([("x-request-id", given)])
    assert re.fullmatch("[0-9a-f]{32}", found)
    assert found != request_id_of(None)


def test_threads_share_an_allowance(clock):
    allowance, taken = Allowance(burst=100, clock=clock), []
    threads = [
        threading.Thread(target=lambda: taken.extend(allowance.take(("a",)) for _ in range(500))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([number for number in taken if number is not None]) == 100
    assert list(allowance.owed()) == [(("a",), 1900)]
