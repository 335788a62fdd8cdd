"""Against vector-quantize-pytorch, an implementation of other people, where its settings can be matched to ours.

Its traps are switched off: no replacement of codewords by a count, no smoothing; decay and start are said aloud. It counts
tokens where we count shares of a batch, so sizes and sums differ by the factor n, which all batches here have in common.
"""

import numpy as np
import pytest
import torch
from vector_quantize_pytorch import FSQ, VectorQuantize

from train.fsq import FiniteScalarQuantizer
from train.quantizer import Quantizer

CODEWORDS, DIM, BATCH, DECAY = 16, 6, 200, 0.9


def a_pair(metric):
    """The oracle and ours with one codebook, each codeword weighing one token."""
    oracle = VectorQuantize(
        dim=DIM,
        codebook_size=CODEWORDS,
        decay=DECAY,
        eps=0.0,
        threshold_ema_dead_code=0,
        kmeans_init=False,
        use_cosine_sim=metric == "cosine",
        rotation_trick=False,
    )
    start = torch.randn(CODEWORDS, DIM, generator=torch.Generator().manual_seed(1))
    ours = Quantizer(CODEWORDS, DIM, DECAY, metric=metric)
    if metric == "cosine":
        start = torch.nn.functional.normalize(start, dim=-1)
    radius = DIM**0.5 if metric == "cosine" else 1.0
    inner = oracle._codebook
    inner.embed.copy_(start[None])
    inner.embed_avg.copy_(start[None])
    inner.cluster_size.fill_(1.0)
    ours.codebook.copy_(radius * start)
    ours.ema_size.fill_(1.0 / BATCH)
    ours._gather()
    return oracle.train(), ours, radius


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_the_same_tokens_give_the_same_indices_and_codebook_over_many_steps(metric):
    oracle, ours, radius = a_pair(metric)
    generator = torch.Generator().manual_seed(2)
    start = ours.codebook.clone()
    for _ in range(25):
        features = torch.randn(BATCH, DIM, generator=generator)
        tokens = ours.tokens(features) if metric == "cosine" else features
        indices = ours.hard(tokens)
        assert torch.equal(oracle(features[None])[1][0], indices)
        ours.update(tokens, indices)
        # Sums of some 13 tokens in another order: a few rounding errors of a float32 of size 3.
        torch.testing.assert_close(oracle._codebook.embed[0] * radius, ours.codebook, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(oracle._codebook.cluster_size[0] / BATCH, ours.ema_size, rtol=1e-5, atol=1e-7)
    assert float((ours.codebook - start).norm(dim=-1).min()) > 0.1


@pytest.mark.parametrize("levels", [(4, 4), (8, 2), (2, 4, 8), (16,)])
def test_the_lattice_and_its_rounding_are_those_of_the_oracle(levels):
    """The oracle's first axis runs fastest and ours last; its lattice ends at +-1, ours at +-r."""
    oracle = FSQ(levels=list(levels[::-1]), preserve_symmetry=True)
    codewords, axes = int(np.prod(levels)), len(levels)
    ours = FiniteScalarQuantizer(codewords, 6, levels=levels)
    lattice = ours.codebook[:, :axes] / ours.radius
    torch.testing.assert_close(oracle.implicit_codebook.flip(-1), lattice, rtol=0.0, atol=1e-6)
    assert (ours.codebook[:, axes:] == 0.0).all()

    features = 1.5 * torch.randn(2000, 6, generator=torch.Generator().manual_seed(3))
    points, indices = oracle(features[None, :, :axes].flip(-1))
    tokens = ours.tokens(features)
    found = ours.hard(tokens)
    # Where a token lies halfway between two levels, both are right.
    halfway = (tokens - ours.codewords_of(indices[0].long())).norm(dim=-1)
    nearest = (tokens - ours.codewords_of(found)).norm(dim=-1)
    assert int((found != indices[0]).sum()) <= 1
    torch.testing.assert_close(nearest, halfway, rtol=0.0, atol=1e-5)
    assert len(torch.unique(found)) == codewords
    torch.testing.assert_close(points[0].flip(-1), lattice[indices[0].long()], rtol=0.0, atol=1e-6)
