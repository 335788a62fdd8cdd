import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import link
from link.channel.awgn import add_noise
from link.channel.fec import CHECK_NODES, Ldpc, _coder, coded_bits
from link.channel.fence import import_sionna
from link.constellation import map_bits, max_log_llr
from link.errors import ArgumentError
from link.randomness import Draws, Stream
from link.snr import esn0_db_from_ebn0_db, no_from_esn0_db

ROOT = Path(link.__file__).parent.parent


def frames(code, count, seed=0):
    return Draws(seed, np.arange(count)).bits(Stream.BITS, 0, code.k)


def over_qpsk(code, bits, ebn0_db):
    """LLRs of coded bits that went over QPSK and white noise, (B, n) float32."""
    no = no_from_esn0_db(esn0_db_from_ebn0_db(ebn0_db, 2, code.rate))
    x = map_bits(code.encode(bits).reshape(len(bits), -1, 2).astype(np.float64))
    y = add_noise(x, no, Draws(1, np.arange(len(bits))).normals(Stream.NOISE, 0, code.n // 2))
    return max_log_llr(y, np.full(y.shape[:-1], no), 4).reshape(len(bits), code.n).astype(np.float32)


@pytest.fixture(scope="module")
def ldpc():
    import_sionna()
    from sionna.phy.fec import ldpc

    return ldpc


@pytest.mark.parametrize(
    ("k", "n"), [(12, 60), (12, 24), (100, 110), (512, 1024), (640, 700), (3824, 4132), (4000, 12000)]
)
@pytest.mark.parametrize("check_node", CHECK_NODES)
def test_what_was_encoded_is_decoded(k, n, check_node):
    code = Ldpc(k, n, check_node=check_node)
    bits = frames(code, 3)
    coded = code.encode(bits)
    assert coded.shape == (3, n)
    np.testing.assert_array_equal(code.decode(coded * np.float32(12.0) - np.float32(6.0)), bits)


def test_codewords_are_those_of_sionna_and_satisfy_the_parity_checks(ldpc):
    code = Ldpc(512, 1024)
    bits = frames(code, 20)
    encoder = ldpc.LDPC5GEncoder(512, 1024, device="cpu")
    coded = code.encode(bits)
    np.testing.assert_array_equal(coded, encoder(torch.from_numpy(bits).float()).numpy())
    # Sent are the code's bits behind the first 2 Z, which are punctured, without the fillers; those behind the n-th follow.
    z, k_ldpc = encoder.z, encoder.k_ldpc
    sent = k_ldpc - code.k + 2 * z + code.n
    checks = encoder.pcm.toarray()[: sent - k_ldpc, :sent]
    full = np.concatenate([bits, np.zeros((20, k_ldpc - code.k)), coded[:, code.k - 2 * z :]], axis=1)
    assert not (checks @ full.T % 2).any()
    full[:, 7] = 1 - full[:, 7]
    assert (checks @ full.T % 2).any(axis=0).all()


@pytest.mark.parametrize("ebn0_db", [1.0, 1.75])
@pytest.mark.parametrize("check_node", ["boxplus-phi", "offset-minsum"])
def test_stopping_early_decides_as_sionnas_decoder_does_in_the_end(ldpc, ebn0_db, check_node):
    code = Ldpc(128, 256, iterations=20, check_node=check_node)
    bits = frames(code, 150)
    llr = over_qpsk(code, bits, ebn0_db)
    encoder = ldpc.LDPC5GEncoder(128, 256, device="cpu")
    plain = ldpc.LDPC5GDecoder(encoder, num_iter=20, cn_update=check_node, device="cpu")
    with torch.inference_mode():
        expected = plain(torch.from_numpy(llr)).numpy()
    decided = code.decode(llr)
    np.testing.assert_array_equal(decided, expected)
    lost = (decided != bits).any(axis=1)
    assert 0 < lost.sum() < 120  # frames that fail and frames that converge


def test_a_frame_that_satisfies_its_checks_is_not_iterated_further():
    code = Ldpc(64, 128, iterations=999)
    bits = frames(code, 64)
    looks = []
    coder = _coder(code)
    update = coder.decoder._vn_update
    coder.decoder._vn_update = lambda *arguments: (looks.append(0), update(*arguments))[1]
    np.testing.assert_array_equal(code.decode(code.encode(bits) * np.float32(12.0) - np.float32(6.0)), bits)
    assert 1 <= len(looks) <= 8  # the punctured bits are known after a few


@pytest.mark.parametrize(("k", "n"), [(53, 112), (128, 256)])
@pytest.mark.parametrize("check_node", CHECK_NODES)
def test_a_frame_is_decoded_alike_in_any_company(k, n, check_node):
    code = Ldpc(k, n, check_node=check_node)
    llr = over_qpsk(code, frames(code, 90), 1.0)
    together = code.decode(llr)
    for rows in (np.arange(1), np.arange(5, 7), np.arange(89, 60, -1), np.arange(30, 90)):
        np.testing.assert_array_equal(code.decode(llr[rows]), together[rows])


def test_an_erased_bit_and_a_certain_one_are_understood():
    code = Ldpc(64, 256)
    bits = frames(code, 4)
    coded = code.encode(bits)
    llr = np.where(coded == 1, np.float32(np.inf), np.float32(-np.inf))
    llr[:, ::3] = 0.0
    np.testing.assert_array_equal(code.decode(llr), bits)


def test_no_frames_are_no_frames():
    code = Ldpc(64, 128)
    assert code.encode(np.zeros((0, 64), dtype=np.uint8)).shape == (0, 128)
    assert code.decode(np.zeros((0, 128), dtype=np.float32)).shape == (0, 64)


@pytest.mark.parametrize("k", [12, 20, 292, 3824, 3825, 8448])
def test_the_fewest_and_the_most_coded_bits_make_a_code(k):
    for n in coded_bits(k):
        assert Ldpc(k, n).encode(np.zeros((1, k), dtype=np.uint8)).shape == (1, n)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Ldpc(11, 22), r"k must be in \[12, 8448\], got 11"),
        (lambda: Ldpc(8449, 16898), r"k must be in \[12, 8448\], got 8449"),
        (lambda: Ldpc(512, 553), r"n must be in \[554, 2560\] for k = 512, got 553"),
        (lambda: Ldpc(512, 2561), r"n must be in \[554, 2560\] for k = 512, got 2561"),
        (lambda: Ldpc(4000, 12001), r"n must be in \[4321, 12000\] for k = 4000, got 12001"),
        (lambda: Ldpc(64, 128, iterations=0), r"iterations must be in \[1, 1000\], got 0"),
        (lambda: Ldpc(64, 128, check_node="sum"), "check_node must be one of boxplus-phi, .*, got 'sum'"),
        (lambda: Ldpc(64, 128).encode(np.zeros((2, 63), np.uint8)), r"bits must be \(B, 64\) of 0 and 1"),
        (lambda: Ldpc(64, 128).encode(np.full((2, 64), 2, np.uint8)), r"bits must be \(B, 64\) of 0 and 1"),
        (lambda: Ldpc(64, 128).decode(np.zeros((2, 127), np.float32)), r"llr must be \(B, 128\) without NaN"),
        (lambda: Ldpc(64, 128).decode(np.full((2, 128), np.nan, np.float32)), r"llr must be \(B, 128\) without NaN"),
    ],
)
def test_what_5g_does_not_code_is_refused(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()


def test_without_sionna_the_answer_is_one_line_that_names_the_extra():
    code = "import sys; sys.modules['sionna'] = None; from link.channel.fec import Ldpc; Ldpc(64, 128)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 1
    assert "pip install 'hardpath[sim]'" in done.stderr.strip().splitlines()[-1]
