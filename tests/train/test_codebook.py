"""What codebooks of every kind have in common, and the keys of a recipe that choose among them."""

import hashlib
import itertools
import math
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from link.errors import ArgumentError, RecipeError
from link.labeling import channel_distortion
from train.bundle_check import check_bundle
from train.checkpoint import load, read
from train.evaluate import evaluate
from train.export import export
from train.fsq import FiniteScalarQuantizer
from train.loop import Trainer
from train.losses import assignment_entropy, usage_entropy
from train.quantizer import Quantizer, build_quantizer
from train.recipe import QuantizerRecipe
from train.recipe_file import load_recipe
from train.run import train
from train.schedule import plan
from train.tasks import load_task

KINDS = [{}, {"metric": "cosine"}, {"kind": "fsq"}]
IDS = ["ema", "cosine", "fsq"]


def start(quantizer, tokens, **changes):
    settings = {"temperature": 0.7, "target_entropy": 0.5, "bit_error_rates": np.full(quantizer.index_bits, 0.1)}
    quantizer.start(tokens, **settings | {"seed": 5} | changes)


def some_features(rows=600, dim=6, seed=3):
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)) + 0.5


def started(codewords=8, dim=6, **keys):
    quantizer = build_quantizer(QuantizerRecipe(**keys), codewords, dim)
    start(quantizer, quantizer.tokens(some_features(dim=dim)))
    return quantizer


@pytest.fixture(scope="module", params=KINDS, ids=IDS)
def run(request, make_signs_recipe, tmp_path_factory):
    """A run of each kind, and its bundle."""
    folder = tmp_path_factory.mktemp("run")
    train(make_signs_recipe(**{f"quantizer__{key}": value for key, value in request.param.items()}), folder / "run")
    export(folder / "run", folder / "bundle")
    return folder


def test_a_bundle_of_each_kind_agrees_with_torch(run):
    """Indices, bits, symbols, LLRs and logits, in batches of 1 to 256."""
    task = load_task("signs")
    _, model = load(run / "run")
    sample = task.load(None).validation
    check_bundle(run / "bundle", model, task, sample)


def test_the_tokens_that_are_sent_are_those_of_the_codebooks_kind(run):
    task = load_task("signs")
    _, model = load(run / "run")
    inputs = [torch.from_numpy(task.load(None).validation.inputs[spec.name]) for spec in task.inputs]
    with torch.no_grad():
        tokens, features = model.encode(*inputs), model.encoder(*inputs)
    assert torch.equal(tokens, model.quantizer.tokens(features))
    mean, length = tokens.mean(dim=-1), tokens.norm(dim=-1)
    if isinstance(model.quantizer, FiniteScalarQuantizer):
        assert float(length.max()) <= 2.0 < float(features[..., 0].abs().max())
        assert (tokens[..., 1:] == 0.0).all()
    else:
        torch.testing.assert_close(length, torch.full_like(length, 2.0), rtol=1e-3, atol=0.0)
        assert (float(mean.abs().max()) < 1e-6) == (model.quantizer.metric == "euclidean")


def test_evaluating_changes_no_buffer_of_any_kind(run, same_tensors):
    task = load_task("signs")
    described, model = load(run / "run")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for mode in (model.train, model.eval):
        mode()
        channel = described.recipe.channel
        evaluate(model, task, task.load(None).validation, channel, temperature=0.7, seed=1)
        assert same_tensors(dict(model.state_dict()), before)


def test_the_hard_and_the_soft_path_in_training_mode_change_no_buffer(run, same_tensors):
    task = load_task("signs")
    _, model = load(run / "run")
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    inputs = task.load(None).validation.inputs
    with torch.no_grad():
        tokens = model.encode(*(torch.from_numpy(inputs[spec.name]) for spec in task.inputs))
        for sent in (model.send_hard(tokens), model.send_soft(tokens, 0.5)):
            model.receive(sent.symbols, torch.full(sent.symbols.shape[:-1], 0.1))
    assert same_tensors(dict(model.state_dict()), before)


def test_a_checkpoint_says_which_labels_it_holds(run):
    described, model = load(run / "run" / "last")
    table = struct.pack(f"<{model.recipe.codewords}q", *model.quantizer.labels.tolist())
    assert described.labels_sha256 == model.quantizer.labels_sha256 == hashlib.sha256(table).hexdigest()
    assert read(run / "run" / "best").labels_sha256 == described.labels_sha256


def test_labels_that_differ_have_other_hashes():
    quantizer = Quantizer(8, 3)
    hashes = set()
    for shift in range(8):
        quantizer.set_labels(np.roll(np.arange(8), shift))
        hashes.add(quantizer.labels_sha256)
    assert len(hashes) == 8


@pytest.mark.parametrize("keys", KINDS, ids=IDS)
def test_argmax_is_the_nearest_codeword_and_softmax_sharpens_into_it(keys):
    quantizer = started(**keys)
    tokens = quantizer.tokens(some_features(200, seed=4))
    distances = (tokens[:, None].double() - quantizer.codebook.double()).square().sum(dim=-1)
    assert torch.equal(quantizer.hard(tokens), distances.argmin(dim=-1))
    expected = torch.softmax(-float(quantizer.scale) * distances / 0.7, dim=-1)
    torch.testing.assert_close(quantizer.soft(tokens, 0.7).double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("keys", KINDS, ids=IDS)
def test_usage_entropy_is_that_of_the_mean_assignment_and_reaches_the_encoder(keys):
    quantizer = started(**keys)
    features = some_features(60).reshape(12, 5, 6).requires_grad_()
    soft = quantizer.soft(quantizer.tokens(features), 0.7)
    mean = soft.detach().double().mean(dim=0)
    expected = float(-(mean * mean.log()).sum(dim=-1).mean())
    assert float(usage_entropy(soft).detach()) == pytest.approx(expected, rel=1e-5)
    assert expected < math.log(8)
    (gradient,) = torch.autograd.grad(-usage_entropy(soft), features)
    with torch.no_grad():
        stepped = quantizer.soft(quantizer.tokens(features - 0.5 * gradient), 0.7)
        assert float(usage_entropy(stepped)) > expected + 1e-5


def test_cosine_tokens_have_one_length_and_their_distance_is_the_angle():
    quantizer = started(metric="cosine")
    features = some_features(200, seed=4)
    tokens = quantizer.tokens(features)
    torch.testing.assert_close(tokens.norm(dim=-1), torch.full((200,), math.sqrt(6)))
    torch.testing.assert_close(quantizer.codebook.norm(dim=-1), torch.full((8,), math.sqrt(6)))
    cosine = torch.nn.functional.cosine_similarity(features[:, None].double(), quantizer.codebook.double(), dim=-1)
    assert torch.equal(quantizer.hard(tokens), cosine.argmax(dim=-1))
    assert torch.equal(quantizer.hard(quantizer.tokens(7.0 * features)), quantizer.hard(tokens))


def test_cosine_codewords_stay_on_the_sphere_and_take_the_direction_of_their_mean():
    quantizer = Quantizer(2, 3, ema_decay=0.9, metric="cosine")
    radius = math.sqrt(3)
    quantizer.codebook.copy_(radius * torch.eye(3)[:2])
    tokens = quantizer.tokens(torch.tensor([[1.0, 0.0, 0.5], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
    for _ in range(5):
        quantizer.update(tokens, torch.tensor([0, 0, 1]))
    mean = tokens[:2].mean(dim=0)
    torch.testing.assert_close(quantizer.codebook[0], radius * mean / mean.norm())
    torch.testing.assert_close(quantizer.codebook[1], tokens[2])


def test_cosine_codewords_whose_tokens_cancel_stay_where_they_are():
    quantizer = Quantizer(2, 3, metric="cosine")
    quantizer.codebook.copy_(math.sqrt(3) * torch.eye(3)[:2])
    before = quantizer.codebook.clone()
    token = quantizer.tokens(torch.tensor([[0.0, 0.0, 1.0]]))
    quantizer.update(torch.cat([token, -token]), torch.tensor([0, 0]))
    assert torch.equal(quantizer.codebook, before)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("placement", ["k-means", "tokens", "random"])
def test_every_start_leaves_size_sum_and_usage_consistent(metric, placement):
    quantizer = started(metric=metric, start=placement, codewords=16)
    tokens = quantizer.tokens(some_features())
    used = quantizer.ema_size > 0.0
    torch.testing.assert_close((quantizer.ema_sum / quantizer.ema_size[:, None])[used], quantizer.codebook[used])
    assert float(quantizer.ema_size.sum()) == pytest.approx(1.0, abs=1e-6)
    if (metric, placement) != ("cosine", "k-means"):  # whose centres moved outwards after the clusters were found
        counts = torch.bincount(quantizer.hard(tokens), minlength=16)
        torch.testing.assert_close(quantizer.ema_size, counts / len(tokens))


def test_a_start_at_tokens_takes_different_ones_told_by_the_seed():
    tokens = Quantizer(8, 6).tokens(some_features())
    places = {}
    for seed in (1, 1, 2):
        quantizer = Quantizer(8, 6, placement="tokens")
        start(quantizer, tokens, seed=seed)
        assert len(torch.unique(quantizer.codebook, dim=0)) == 8
        assert all(bool((tokens == codeword).all(dim=-1).any()) for codeword in quantizer.codebook)
        assert torch.equal(places.setdefault(seed, quantizer.codebook), quantizer.codebook)
    assert not torch.equal(places[1], places[2])


def test_a_random_start_knows_the_seed_and_not_the_tokens():
    places = []
    for seed, tokens in ((1, some_features()), (1, 5.0 * some_features(seed=9)), (2, some_features())):
        quantizer = Quantizer(512, 6, placement="random", labelling="identity")
        start(quantizer, tokens, seed=seed)
        places.append(quantizer.codebook)
    assert torch.equal(places[0], places[1])
    assert not torch.equal(places[0], places[2])
    # 3072 standard normals: standard errors 0.018 of the mean, 0.026 of the variance.
    assert abs(float(places[0].mean())) < 0.08
    assert abs(float(places[0].var()) - 1.0) < 0.11


@pytest.mark.parametrize("placement", ["k-means", "tokens"])
def test_a_start_with_fewer_tokens_than_codewords_is_refused(placement):
    with pytest.raises(ArgumentError, match=r"^codewords must be at most the 7 tokens to start at, got 8$"):
        start(Quantizer(8, 6, placement=placement), some_features(7))


def test_each_labelling_is_what_it_says():
    tables = {}
    for labels in ("searched", "pca-gray", "identity", "random"):
        quantizer = started(codewords=16, labels=labels)
        assert sorted(quantizer.labels.tolist()) == list(range(16))
        usage = quantizer.ema_size.double().numpy()
        tables[labels] = channel_distortion(quantizer.codebook, usage, quantizer.labels, 1e-3)
        if labels == "identity":
            assert quantizer.labels.tolist() == list(range(16))
    assert tables["searched"] < tables["pca-gray"] < min(tables["random"], tables["identity"])
    first, second = Quantizer(16, 6, labelling="random"), Quantizer(16, 6, labelling="random")
    start(first, some_features())
    start(second, some_features(), seed=6)
    assert first.labels.tolist() != second.labels.tolist()


@given(
    st.integers(0, 2**31), st.sampled_from(["searched", "identity"]), st.sampled_from(["start", "alignment", "both"])
)
def test_aligned_labels_are_never_of_more_distortion_and_only_where_asked(seed, labelling, label_search):
    quantizer = Quantizer(8, 6, labelling=labelling, label_search=label_search)
    start(quantizer, some_features(100))
    generator = torch.Generator().manual_seed(seed)
    quantizer.codebook.normal_(generator=generator)
    quantizer.ema_size.uniform_(0.01, 1.0, generator=generator)
    before = quantizer.labels.clone()
    quantizer.search_labels("alignment", np.full(3, 0.1))
    if labelling == "identity" or label_search == "start":
        assert torch.equal(quantizer.labels, before)
        return
    usage = quantizer.ema_size.double().numpy()

    def cost(labels):
        rate = 1e-7  # errors in two bits count for nothing: the objective of the search
        return channel_distortion(quantizer.codebook, usage, labels, rate)

    assert cost(quantizer.labels) <= cost(before) * (1.0 + 1e-5)
    assert torch.equal(quantizer.bits_of(torch.arange(8)), quantizer.label_bits)


def test_labels_searched_at_alignment_alone_are_gray_until_then():
    gray, late = started(codewords=16, labels="pca-gray"), started(codewords=16, label_search="alignment")
    both, early = started(codewords=16, label_search="both"), started(codewords=16)
    assert late.labels.tolist() == gray.labels.tolist()
    assert both.labels.tolist() == early.labels.tolist() != gray.labels.tolist()
    late.search_labels("alignment", np.full(4, 0.1))
    assert late.labels.tolist() == early.labels.tolist()


def test_the_recipe_chooses_the_codebook():
    quantizer = build_quantizer(QuantizerRecipe(kind="fsq", fsq_levels=(8, 2), ema_decay=0.9), 16, 6)
    assert isinstance(quantizer, FiniteScalarQuantizer)
    assert (quantizer.levels, quantizer.ema_decay, quantizer.labelling) == ((8, 2), 0.9, "axis-gray")
    recipe = QuantizerRecipe(metric="cosine", start="random", labels="identity", label_search="both")
    quantizer = build_quantizer(recipe, 16, 6)
    assert isinstance(quantizer, Quantizer)
    assert (quantizer.metric, quantizer.placement) == ("cosine", "random")
    assert (quantizer.labelling, quantizer.label_search) == ("identity", "both")
    assert QuantizerRecipe().labelling == "searched"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantizer__kind": "lfq"}, "quantizer.kind: Input should be 'ema' or 'fsq'"),
        ({"quantizer__kind": "fsq", "quantizer__metric": "cosine"}, "quantizer: metric must be euclidean for kind fsq"),
        ({"quantizer__kind": "fsq", "quantizer__start": "random"}, "quantizer: start is of kind ema, and kind fsq has"),
        ({"quantizer__fsq_levels": [2, 2]}, "quantizer: fsq_levels are of kind fsq, got [2, 2]"),
        ({"quantizer__labels": "axis-gray"}, "quantizer: labels axis-gray are of kind fsq; kind ema has pca-gray"),
        ({"quantizer__restart_epochs": [5, 3]}, "quantizer: restart_epochs must be (first, last), got (5, 3)"),
        ({"quantizer__restart_every": -1}, "quantizer.restart_every: Input should be greater than or equal to 0"),
        ({"quantizer__restart_share": 1.5}, "quantizer.restart_share: Input should be less than or equal to 1"),
    ],
)
def test_keys_that_do_not_fit_are_refused_in_one_line(make_signs_recipe, changes, message):
    with pytest.raises(RecipeError) as caught:
        make_signs_recipe(**changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, [3, 4, 5]),
        ({"restart_every": 0}, []),
        ({"restart_every": 2}, [4]),
        ({"restart_epochs": (4, 7)}, [4, 5, 6, 7]),
        ({"restart_epochs": (4, 7), "restart_every": 3}, [6]),
        ({"restart_epochs": (1, 10), "restart_every": 0}, []),
    ],
)
def test_restarts_happen_while_learning_or_in_the_epochs_named(keys, expected):
    recipe = QuantizerRecipe(**keys)
    assert [epoch for epoch in range(3, 9) if recipe.restarts_in(epoch, learning=epoch <= 5)] == expected


@given(st.floats(0.0, 1.0), st.sampled_from([4, 64, 512]))
def test_a_restart_share_is_a_share_of_all_tokens(share, codewords):
    """Dead by the recipe's share, recomputed from usage alone."""
    threshold = QuantizerRecipe(restart_share=share, restart_threshold=0.3).fair_threshold(codewords)
    assert threshold / codewords == pytest.approx(share, rel=1e-12)
    assert QuantizerRecipe(restart_threshold=0.3).fair_threshold(codewords) == 0.3


def test_codewords_below_the_share_restart_and_no_others():
    recipe = QuantizerRecipe(restart_share=0.1)
    quantizer = Quantizer(4, 3)
    quantizer.ema_size.copy_(torch.tensor([0.6, 0.2, 0.11, 0.09]))
    before = quantizer.codebook.clone()
    assert quantizer.restart(torch.ones(5, 3), recipe.fair_threshold(4), seed=0, draw=1) == 1
    assert (quantizer.codebook != before).any(dim=-1).tolist() == [False, False, False, True]


def trainer_of(recipe):
    task = load_task(recipe.task)
    return Trainer(recipe, task, task.load(None))


def test_the_loop_restarts_by_the_share_and_in_the_epochs_of_the_recipe(make_signs_recipe):
    recipe = make_signs_recipe(quantizer__restart_share=0.2, quantizer__restart_epochs=[4, 4])
    trainer = trainer_of(recipe)
    restarted = {}
    for epoch in (3, 4, 5):
        trainer.model.quantizer.ema_size.copy_(torch.tensor([0.5, 0.24, 0.16, 0.1]))  # 0.2 is 0.8 of a fair share
        restarted[epoch] = trainer.upkeep.restart(torch.randn(3, 3, 4), plan(recipe.schedule, epoch))
    assert restarted == {3: 0, 4: 2, 5: 0}


def test_labels_are_searched_again_once_where_alignment_begins(make_signs_recipe, tmp_path, monkeypatch):
    trainer = trainer_of(make_signs_recipe(quantizer__label_search="both", quantizer__restart_threshold=1.0))
    searched = []
    search = Quantizer.search_labels

    def record(self, moment, rates):
        searched.append((moment, trainer.epoch_now, len(rates)))
        search(self, moment, rates)

    monkeypatch.setattr(Quantizer, "search_labels", record)
    for trainer.epoch_now in range(1, 6):
        trainer.run_epoch(trainer.epoch_now, tmp_path)
    assert [found for found in searched if found[0] == "alignment"] == [("alignment", 4, 2)]
    assert {epoch for moment, epoch, _ in searched if moment == "restart"} <= {2, 3}


@pytest.mark.parametrize(("label_search", "moves"), [("restarts", True), ("start", False), ("both", False)])
def test_labels_follow_codewords_that_restart_where_the_recipe_says_so(make_signs_recipe, label_search, moves):
    """Two at the ends of a line move between the others, where their labels are of more distortion than they need be."""
    recipe = make_signs_recipe(quantizer__restart_share=0.2, quantizer__label_search=label_search)
    trainer = trainer_of(recipe)
    quantizer = trainer.model.quantizer
    quantizer.codebook.copy_(torch.tensor([[0.0], [1.0], [2.0], [3.0]]) * torch.ones(4))
    quantizer.set_labels(np.array([0, 1, 3, 2]))
    quantizer.ema_size.copy_(torch.tensor([0.05, 0.4, 0.4, 0.15]))
    tokens = torch.tensor([1.4, 1.6]).reshape(2, 1, 1).expand(2, 3, 4)
    assert trainer.upkeep.restart(tokens, plan(recipe.schedule, 3)) == 2
    least = min(
        channel_distortion(quantizer.codebook, quantizer.ema_size.double().numpy(), np.array(labels), 1e-7)
        for labels in itertools.permutations(range(4))
    )
    cost = channel_distortion(quantizer.codebook, quantizer.ema_size.double().numpy(), quantizer.labels.numpy(), 1e-7)
    assert (cost <= least * (1.0 + 1e-5)) == moves
    assert (quantizer.labels.tolist() != [0, 1, 3, 2]) == moves
    assert torch.equal(quantizer.bits_of(torch.arange(4)), quantizer.label_bits)


@pytest.mark.parametrize(("codewords", "kept"), [(2, 1), (6, 1), (7, 2), (12, 2), (13, 3), (99, 4)])
def test_restarts_draw_from_as_many_steps_as_it_takes_to_have_a_token_for_each_codeword(
    make_signs_recipe, codewords, kept
):
    """Steps of 2 rows of 3 tokens; of four steps the last `kept` are drawn from."""
    trainer = trainer_of(make_signs_recipe())
    trainer.upkeep.start()
    for codebook in trainer.model.codebooks:
        codebook.codewords = codewords
    drawn = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Quantizer, "update", lambda self, tokens, indices: None)
        patch.setattr(trainer.upkeep, "restart", lambda tokens, settings: drawn.append(tokens) or 0)
        patch.setattr(Quantizer, "refresh_prior", lambda self: None)
        for step in range(4):
            trainer.upkeep.update(torch.full((2, 3, 4), float(step)))
        trainer.upkeep.end_epoch(plan(trainer.recipe.schedule, 3))
        trainer.upkeep.update(torch.full((1, 3, 4), 9.0))
        trainer.upkeep.end_epoch(plan(trainer.recipe.schedule, 4))
    assert drawn[0][:, 0, 0].unique().tolist() == [float(step) for step in range(4 - kept, 4)]
    assert drawn[0].shape == (2 * kept, 3, 4)
    assert drawn[1].unique().tolist() == [9.0]  # an epoch begins with none: it can be resumed


def test_the_published_preset_resolves_to_the_published_settings():
    """512 codewords of 64 dimensions, decay 0.95, dead below a usage of 0.001, commitment 0.1 x 0.4 within 10 epochs."""
    recipe = load_recipe("digits", {}, ["published-vq"])
    assert (recipe.link.codewords, recipe.link.dim) == (512, 64)
    quantizer = recipe.quantizer
    assert (quantizer.kind, quantizer.metric, quantizer.start, quantizer.ema_decay) == ("ema", "cosine", "tokens", 0.95)
    assert quantizer.fair_threshold(512) / 512 == pytest.approx(0.001)
    assert all(quantizer.restarts_in(epoch, learning=False) for epoch in range(1, recipe.schedule.epochs + 1))
    for epoch in range(0, 31):
        assert recipe.loss.at(epoch).lambda_vq == pytest.approx(0.4 * 0.1 * min(1.0, epoch / 10))
    assert recipe.optimizer.freeze_encoder_epochs == 0
    assert (quantizer.gradient, quantizer.label_search) == ("straight-through", "restarts")


def test_normalisation_off_and_the_encoder_frozen_first_are_one_setting_each_over_the_preset():
    preset = load_recipe("digits", {}, ["published-vq"])
    other = load_recipe("digits", {"metric": "euclidean", "freeze_encoder_epochs": "10"}, ["published-vq"])
    assert (other.quantizer.metric, other.optimizer.freeze_encoder_epochs) == ("euclidean", 10)
    for section in ("link", "schedule", "loss", "channel"):
        assert getattr(other, section) == getattr(preset, section)
    assert other.quantizer.model_copy(update={"metric": "cosine"}) == preset.quantizer
    features = 3.0 * torch.randn(5, 64, generator=torch.Generator().manual_seed(1)) + 1.0
    for recipe in (preset, other):  # of one length in either: a weight of the loss means the same
        tokens = build_quantizer(recipe.quantizer, 512, 64).tokens(features)
        torch.testing.assert_close(tokens.norm(dim=-1), torch.full((5,), 8.0), rtol=1e-4, atol=0)


def test_every_kind_gives_the_surrogate_its_target_entropy():
    for keys in KINDS:
        quantizer = started(**keys)
        soft = quantizer.soft(quantizer.tokens(some_features()), 0.7)
        assert float(assignment_entropy(soft)) == pytest.approx(0.5, abs=1e-4)
