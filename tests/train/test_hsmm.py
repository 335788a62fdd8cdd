import numpy as np
import pytest
import torch

from link.durations import log_mean, residual
from link.errors import ArgumentError
from link.hsmm import forward_backward, log_conditional, log_joint
from link.viterbi import viterbi
from train.hsmm import HsmmTables

LAWS = ("negative-binomial", "categorical")
STARTS = ("boundary", "middle")
MEAN, SHAPE = np.array([2.0, 6.0, 15.0]), np.array([1.0, 4.0, 2.0])
FOLLOWS = np.array([[0.0, 0.7, 0.3], [0.5, 0.0, 0.5], [0.9, 0.1, 0.0]])


def stays(generator, windows):
    """Labels of a recording whose first stay begins with it."""
    path, label = [], 2
    while len(path) < windows:
        q = (MEAN[label] - 1.0) / (MEAN[label] - 1.0 + SHAPE[label])
        path += [label] * int(1 + generator.negative_binomial(SHAPE[label], 1.0 - q))
        label = generator.choice(3, p=FOLLOWS[label])
    return np.array(path[:windows])


def recordings(start, number=150, windows=60):
    """Labels of recordings; in the middle, from windows of a long one far apart."""
    generator = np.random.default_rng(0)
    if start == "boundary":
        return [stays(generator, windows) for _ in range(number)]
    return list(stays(generator, 200 + 4 * windows * number)[200:].reshape(number, 4 * windows)[:, :windows])


def log_likelihood(module, labels):
    """Of recordings of one length, without emissions."""
    paths = torch.from_numpy(np.stack(labels))
    return log_joint(module.tables(), torch.zeros((*paths.shape, 3)), paths).sum()


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("start", STARTS)
def test_tables_are_normalised_and_gradients_reach_all_parameters(law, start):
    module = HsmmTables(3, 7, law, start)
    module.tables().check()
    labels = torch.tensor([0, 0, *[1] * 12, 2, 0])
    log_conditional(module.tables(), torch.zeros(16, 3), labels).backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 1e-4, name


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("start", STARTS)
def test_tables_of_recordings_are_those_of_the_process_that_they_come_from(law, start):
    """Recordings cut off many of the long stays, which would seem too short where that was not counted."""
    model = HsmmTables(3, 20, law, start).fit(recordings(start)).arrays()
    mean = np.exp(log_mean(model.durations))
    # Some 400 stays of the rarest class, of deviation up to its mean: 1 / sqrt(400) a deviation, and three of them.
    np.testing.assert_allclose(mean, MEAN, rtol=0.15)
    np.testing.assert_allclose(np.exp(model.transition), FOLLOWS, atol=3 * 0.5 / 400**0.5)


def test_the_shape_of_durations_is_found():
    module = HsmmTables(3, 60).fit(recordings("boundary", number=300, windows=120))
    np.testing.assert_allclose(module.laws.log_excess.exp().detach() + 1.0, MEAN, rtol=0.1)
    np.testing.assert_allclose(module.laws.log_shape.exp().detach(), SHAPE, rtol=0.3)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("start", STARTS)
def test_fitted_tables_are_a_maximum_of_the_likelihood_that_the_receiver_computes(law, start):
    labels = recordings(start, number=40, windows=40)
    module = HsmmTables(3, 6, law, start).fit(labels, smoothing=1e-3).double()
    log_likelihood(module, labels).backward()
    runs = sum(1 + np.count_nonzero(np.diff(path)) for path in labels)
    for name, parameter in module.named_parameters():
        # In stays, of which there are hundreds: what the prior and parameters in float32 leave.
        slope = parameter.grad.abs().max()
        assert slope < 1e-4 * runs, (name, slope, runs)


def test_recordings_of_one_behaviour_have_long_stays_of_it():
    walks = [np.full(50, label) for label in (0, 1, 2, 0)]
    for law in LAWS:
        module = HsmmTables(3, 30, law).fit(walks)
        model = module.arrays()
        mean = np.exp(log_mean(model.durations))
        assert (mean > 50.0).all()
        joint = log_joint(model, np.zeros((4, 50, 3)), np.stack(walks))
        assert (joint - model.initial[[0, 1, 2, 0]] > np.log(0.8)).all()


def test_a_class_without_a_recording_has_the_mean_of_all_stays():
    module = HsmmTables(3, 20).fit([[0] * 5 + [1] * 5 + [0] * 5] * 50)
    means = module.laws.log_excess.exp() + 1.0
    # 750 windows, of which 100 ended a stay, and one end more.
    assert means[2].item() == pytest.approx(750 / 101, rel=1e-4)
    model = module.arrays()
    np.testing.assert_allclose(np.exp(model.transition[2]), [0.5, 0.5, 0.0])
    np.testing.assert_allclose(np.exp(model.transition[1]), [50.5 / 51, 0.0, 0.5 / 51], rtol=1e-6)
    np.testing.assert_allclose(np.exp(model.initial), np.array([50 + 1 / 3, 1 / 3, 1 / 3]) / 51, rtol=1e-6)


def test_arrays_are_the_tables_in_float64():
    module = HsmmTables(4, 9, "categorical", "middle").fit([[0, 0, 1, 3, 3, 2]])
    model = module.arrays()
    model.check()
    for table, array in zip(module.tables(), model, strict=True):
        assert array.dtype == np.float64
        np.testing.assert_array_equal(array, table.detach().double().numpy())
    np.testing.assert_allclose(model.first, residual(model.durations).table, rtol=1e-5)


def test_gradient_steps_teach_durations_to_windows_that_say_little():
    """Two behaviours that look alike but for how long they last."""
    generator = np.random.default_rng(1)
    label = np.tile(np.repeat([0, 1], [2, 6]), 8)
    labels = torch.from_numpy(np.stack([np.roll(label, shift) for shift in generator.integers(0, 8, 16)]))
    emissions = torch.nn.functional.one_hot(labels, 2) + 1.5 * torch.from_numpy(
        generator.normal(size=(*labels.shape, 2))
    )
    module = HsmmTables(2, 8, "categorical", "middle").double()
    optimiser = torch.optim.Adam(module.parameters(), lr=0.2)
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        loss = -log_conditional(module.tables(), emissions, labels).mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    model = module.arrays()
    assert model.duration.argmax(axis=1).tolist() == [1, 5]
    alone = (emissions.numpy().argmax(axis=-1) == labels.numpy()).mean()
    path = (viterbi(model, emissions.numpy()).labels == labels.numpy()).mean()
    marginals = forward_backward(model, emissions.numpy()).log_marginals
    smoothed = (marginals.argmax(axis=-1) == labels.numpy()).mean()
    assert min(path, smoothed) > alone + 0.2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: HsmmTables(1, 5), "classes must be at least 2, got 1"),
        (lambda: HsmmTables(3, 0), "longest must be at least 1, got 0"),
        (lambda: HsmmTables(3, 5, "poisson"), "durations must be negative-binomial or categorical, got poisson"),
        (lambda: HsmmTables(3, 5, start="end"), "start must be boundary or middle, got end"),
        (lambda: HsmmTables(3, 5).fit([]), "recordings must hold at least one recording"),
        (
            lambda: HsmmTables(3, 5).fit([[0], []]),
            "recordings must be integers, one a window, got float64 of shape (0,)",
        ),
        (lambda: HsmmTables(3, 5).fit([[0, 3]]), "recordings must hold labels below 3, got 0 to 3"),
        (lambda: HsmmTables(3, 5).fit([[0, -1]]), "recordings must hold labels below 3, got -1 to 0"),
        (lambda: HsmmTables(3, 5).fit([[0]], smoothing=0.0), "smoothing must be finite and above 0, got 0"),
    ],
)
def test_what_cannot_be_fitted_is_refused(call, message):
    with pytest.raises(ArgumentError) as error:
        call()
    assert str(error.value) == message
