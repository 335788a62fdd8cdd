"""Who chooses a mode: the transmitter, or whoever asks for one; and bundles in which nobody can."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from link.bundle import load_bundle
from link.chain import Link
from link.channel import Awgn
from link.errors import ArgumentError, BundleError
from link.interface import mode_input
from link.randomness import Draws

ROWS = 8
NUM_BITS, NUM_SYMBOLS = np.array([9, 9, 4]), np.array([3, 5, 2])


@pytest.fixture(scope="module")
def link(steered_bundle):
    return Link(load_bundle(steered_bundle))


@pytest.fixture(scope="module")
def older(routed_bundle):
    """The same transmitter, exported when there was no choice."""
    return Link(load_bundle(routed_bundle))


@pytest.fixture(scope="module")
def latents(latents_of):
    return latents_of(np.arange(ROWS) % 3).inputs


def assert_same(left, right):
    for name, expected in left._asdict().items():
        np.testing.assert_array_equal(getattr(right, name), expected, err_msg=name)


modes_asked = st.lists(st.integers(-1, 2), min_size=ROWS, max_size=ROWS)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=modes_asked, snr_db=st.sampled_from([-9.0, 4.0, 15.0]))
def test_each_sample_is_sent_in_the_mode_asked_for_or_in_the_transmitters_own(link, older, latents, asked, snr_db):
    """A row's bits are those of a batch whose samples all have its mode, and of the older graph where that chooses."""
    own = older.transmitter(latents, snr_db)
    sent = link.transmitter(latents, snr_db, asked)
    expected = np.where(np.array(asked) < 0, own.mode, asked)
    np.testing.assert_array_equal(sent.mode, expected)
    np.testing.assert_array_equal(sent.num_bits, NUM_BITS[expected])
    np.testing.assert_array_equal(sent.num_symbols, NUM_SYMBOLS[expected])
    for mode in set(asked):
        rows = np.array(asked) == mode
        alone = own if mode < 0 else link.transmitter(latents, snr_db, mode)
        for name in ("indices", "bits", "symbols"):
            np.testing.assert_array_equal(getattr(sent, name)[rows], getattr(alone, name)[rows])


@pytest.mark.parametrize("mode", [None, -1, [-1] * ROWS])
def test_where_nobody_asks_the_transmitter_chooses_as_before(link, older, latents, mode):
    for snr_db in (-9.0, 4.0, 15.0):
        assert_same(older.transmitter(latents, snr_db), link.transmitter(latents, snr_db, mode))
        assert_same(older.transmitter(latents, snr_db), older.transmitter(latents, snr_db, mode))


def test_a_mode_that_is_asked_for_is_what_is_transmitted_and_named_in_the_header(link, latents):
    for mode in range(3):
        result = link.transmit(latents, Awgn(), 50.0, Draws(1, np.arange(ROWS)), mode=mode)
        assert (result.sent.mode == mode).all()
        np.testing.assert_array_equal(result.header.mode, result.sent.mode)
        np.testing.assert_array_equal(result.decoded.indices_hat, result.sent.indices)
        # Frames of one mode have a header of one block of 16 symbols for 4 samples, whatever the samples are.
        assert result.header.header_symbols == 16 * ROWS // 4


def test_an_estimate_is_needed_only_where_the_router_is_left_a_choice(link, latents):
    assert_same(link.transmitter(latents, 4.0, [2] * ROWS), link.transmitter(latents, mode=2))
    for mode in (None, -1, [2] * (ROWS - 1) + [-1]):
        with pytest.raises(ArgumentError, match="snr_db is missing: this bundle's router chooses by Es/N0"):
            link.transmitter(latents, mode=mode)


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        (3, r"mode must be in \[0, 3\), or -1 for the transmitter's own choice, got 3$"),
        ([0, 1, -2, 5, 0, 0, 0, 0], r"mode must be in \[0, 3\), or -1 for the transmitter's own choice, got -2$"),
        ([1], r"mode must have shape \(8\), got \(1\)"),
        ([[1] * ROWS], r"mode must have shape \(8\), got \(1, 8\)"),
        (1.0, "mode must hold integers"),
        ("robust", "mode must hold numbers"),
        (2**70, "mode must hold numbers"),
    ],
)
def test_a_wrong_mode_is_named_before_any_graph_runs(link, latents, monkeypatch, mode, message):
    monkeypatch.setattr(link.transmitter, "_session", None)
    with pytest.raises(ArgumentError, match=message) as caught:
        link.transmitter(latents, 4.0, mode)
    assert caught.value.field == "mode"


def test_a_bundle_of_before_there_was_a_choice_says_so_and_works_as_it_did(older, latents):
    assert not older.manifest.takes_mode
    for mode in (0, [-1] * (ROWS - 1) + [1]):
        with pytest.raises(
            ArgumentError, match=r"^mode must be absent: this bundle was exported without an input for it"
        ):
            older.transmitter(latents, 4.0, mode)


def test_a_bundle_of_one_mode_takes_that_one(bundle):
    link, latents = Link(bundle), {"latent": np.zeros((2, 3, 2))}
    for mode in (0, -1, [0, -1]):
        assert_same(link.transmitter(latents), link.transmitter(latents, mode=mode))
    with pytest.raises(
        ArgumentError, match=r"^mode must be in \[0, 1\), or -1 for the transmitter's own choice, got 1$"
    ):
        link.transmitter(latents, mode=1)


def test_a_graph_that_leaves_a_mode_alone_is_refused(link, older, latents, monkeypatch):
    """As a graph does whose input decides nothing."""
    deaf = type(
        "", (), {"run": lambda _, names, fed: older.transmitter._session.run(names, dict(list(fed.items())[:-1]))}
    )
    monkeypatch.setattr(link.transmitter, "_session", deaf())
    link.transmitter(latents, 15.0)
    with pytest.raises(BundleError, match=r"mode of transmitter\.onnx is not the one that was asked for"):
        link.transmitter(latents, 15.0, 2)


def test_the_choice_is_no_input_of_the_task(link, latents):
    assert [spec.name for spec in link.manifest.transmitter.inputs] == ["latent", "snr_db", "mode_in"]
    assert [spec.name for spec in link.manifest.task_inputs] == ["latent"]
    assert link.manifest.transmitter.inputs[-1] == mode_input(3)
    with pytest.raises(ArgumentError, match=r"inputs\.mode is unknown; this bundle takes latent"):
        link.transmitter({**latents, "mode": [0] * ROWS}, 4.0)
    with pytest.raises(ArgumentError, match=r"inputs\.mode_in is unknown; this bundle takes latent"):
        link.transmitter({**latents, "mode_in": [0] * ROWS}, 4.0)
