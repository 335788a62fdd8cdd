"""Several modes trained together: rows go their own ways, the router learns, and one mode is what it was."""

import numpy as np
import pytest
import torch

from link.bundle import load_bundle
from link.chain import Link
from link.channel import Awgn
from link.errors import BundleError, RecipeError
from link.header_theory import uniform_rates
from link.manifest import HeaderSpec
from link.randomness import Draws
from train import checkpoint as checkpoints
from train.bundle_check import check_bundle
from train.evaluate import encode, evaluate, tensors
from train.graphs import ReceiverGraph, TransmitterGraph
from train.loop import Trainer
from train.losses import expected_symbols, load_balance
from train.objective import send, terms_of
from train.recipe import LinkRecipe, LossRecipe
from train.router import choose
from train.routing import ModeChoice, symbols_of_modes
from train.schedule import plan
from train.tasks import load_task

ROWS = 40


def model_and_tokens(make_routed_recipe, **changes):
    """An untrained model whose codebooks were started, and tokens of its data."""
    recipe = make_routed_recipe(**changes)
    task = load_task(recipe.task)
    trainer = Trainer(recipe, task, task.load(None))
    trainer.upkeep.start()
    model = trainer.model.eval()
    split = trainer.data.validation
    return trainer, model, encode(model, tensors(task, split))[:ROWS].detach()


def test_each_row_of_a_mixed_batch_is_sent_and_decoded_as_in_a_batch_of_its_mode_alone(make_routed_recipe):
    _, model, tokens = model_and_tokens(make_routed_recipe)
    mode = torch.arange(len(tokens)) % 3
    mixed, soft = model.send_hard(tokens, mode), model.send_soft(tokens, 0.7, mode=mode)
    no = torch.full(mixed.symbols.shape[:2], 0.1)
    heard = model.receive(mixed.symbols, no, mode=mode)
    for number, codec in enumerate(model.modes):
        rows, link = mode == number, codec.recipe
        alone = codec.send_hard(tokens[rows])
        assert torch.equal(mixed.indices[rows][:, : link.tokens], alone.indices)
        assert torch.equal(mixed.bits[rows][:, : link.num_bits], alone.bits)
        assert torch.equal(mixed.symbols[rows][:, : link.num_symbols], alone.symbols)
        for padded, size in (
            (mixed.indices, link.tokens),
            (mixed.bits, link.num_bits),
            (mixed.symbols, link.num_symbols),
        ):
            assert not padded[rows][:, size:].any()
        torch.testing.assert_close(
            soft.symbols[rows][:, : link.num_symbols], codec.send_soft(tokens[rows], 0.7).symbols
        )
        _, llr, _, embedding = codec.decode(alone.symbols, no[rows], None)
        torch.testing.assert_close(heard.llr[rows][:, : link.num_bits], llr)
        torch.testing.assert_close(heard.embedding[rows], embedding)
        torch.testing.assert_close(heard.logits[rows], model.head(embedding))


def test_tokens_that_are_not_sent_are_received_as_the_mean_of_the_prior(make_routed_recipe):
    _, model, tokens = model_and_tokens(make_routed_recipe)
    codec = model.modes[2]
    sent = codec.send_hard(tokens)
    embedding = codec.decode(sent.symbols, torch.full(sent.symbols.shape[:2], 0.1), None)[-1]
    expected = torch.exp(codec.quantizer.log_prior) @ codec.quantizer.codebook
    torch.testing.assert_close(embedding[:, 2], expected.expand(len(tokens), -1), rtol=1e-5, atol=1e-6)


def test_modes_of_as_many_codewords_share_a_codebook_and_others_do_not(make_routed_recipe):
    _, model, _ = model_and_tokens(make_routed_recipe)
    assert [codebook.codewords for codebook in model.codebooks] == [4, 8]
    assert model.modes[0].quantizer is model.modes[2].quantizer
    assert model.modes[0].quantizer is not model.modes[1].quantizer


@pytest.mark.parametrize("routed", [True, False])
def test_the_graphs_send_and_decode_what_the_model_does(make_routed_recipe, routed):
    _, model, tokens = model_and_tokens(make_routed_recipe, router__enabled=routed)
    mode = torch.arange(len(tokens)) % 3
    sent = model.send_hard(tokens, mode)
    graph = TransmitterGraph(model).send(tokens, mode)
    for found, wanted in zip(graph, (mode, sent.indices, sent.bits.to(torch.uint8), None, sent.symbols), strict=False):
        assert wanted is None or torch.equal(found, wanted)
    assert graph[3].tolist() == [model.recipe.rates[number].num_bits for number in mode]
    assert graph[5].tolist() == [model.recipe.rates[number].num_symbols for number in mode]
    y = sent.symbols + 0.2 * torch.randn(sent.symbols.shape, generator=torch.Generator().manual_seed(1))
    no, llr_in = torch.full(y.shape[:2], 0.08), torch.ones(len(y), model.recipe.num_bits)
    heard = model.receive(y, no, llr_in, mode)
    for found, wanted in zip(
        ReceiverGraph(model)(y, no, mode, llr_in), (heard.llr, heard.indices_hat, heard.logits), strict=True
    ):
        torch.testing.assert_close(found, wanted)


@torch.no_grad()
@pytest.mark.parametrize("routed", [True, False])
def test_the_graph_sends_what_is_asked_for_and_its_own_choice_elsewhere(make_routed_recipe, routed):
    trainer, model, tokens = model_and_tokens(make_routed_recipe, router__enabled=routed)
    inputs = [rows[:ROWS] for rows in tensors(trainer.task, trainer.data.validation)]
    snr_db = torch.linspace(-6.0, 20.0, len(tokens))
    own = model.mode_of(tokens, snr_db)
    asked = torch.arange(len(tokens)) % 4 - 1
    told = [snr_db, asked] if routed else [asked]
    mode = torch.where(asked < 0, own, asked)
    assert (own == 2).all() or routed
    sent = model.send_hard(tokens, mode)
    graph = TransmitterGraph(model)(*inputs, *told)
    for found, wanted in zip(graph[:3], (mode, sent.indices, sent.bits.to(torch.uint8)), strict=True):
        assert torch.equal(found, wanted)
    assert torch.equal(graph[4], sent.symbols)


def routed_pass(trainer, weights, epoch=4):
    """The first batch of an epoch, sent in the modes that were drawn, with its terms."""
    trainer.model.train()
    settings = plan(trainer.recipe.schedule, epoch)
    _, batch = next(trainer.batches.of(epoch))
    tokens = trainer.model.encode(*batch.inputs)
    routing = trainer._route(tokens, batch, epoch - trainer.recipe.schedule.warmup_epochs)
    sent = send(trainer.model, tokens, batch.labels, batch.no, batch.normals, settings, routing=routing)
    return sent, terms_of(trainer.model, sent, settings, weights, trainer.recipe.header)


@pytest.mark.parametrize(("term", "reaches"), [("sym", True), ("lb", True), ("task", True), ("commitment", False)])
def test_rate_balance_and_the_task_reach_the_router_and_the_codec_does_not_move_for_it(
    make_routed_recipe, term, reaches
):
    trainer, model, _ = model_and_tokens(make_routed_recipe)
    with torch.no_grad():  # off the saddle where it begins
        model.router.out.weight.normal_(generator=torch.Generator().manual_seed(3))
    _, terms = routed_pass(trainer, LossRecipe(lambda_sym=1.0, lambda_lb=1.0))
    model.zero_grad()
    terms.values[term].backward()
    moved = {
        name: parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        for name, parameter in model.named_parameters()
    }
    assert all(moved[name] == reaches for name in moved if name.startswith("router."))
    if term in ("sym", "lb"):
        assert not any(moved[name] for name in moved if not name.startswith("router."))


def test_the_routers_gradient_is_that_of_the_loss_in_every_mode(make_routed_recipe):
    """Closed form: the slope of sum_r gate_r loss_r, gate the softmax of noisy logits at the Gumbel temperature."""
    trainer, model, _ = model_and_tokens(make_routed_recipe)
    sent, terms = routed_pass(trainer, LossRecipe())
    model.zero_grad()
    terms.values["task"].backward()
    found = model.router.out.bias.grad
    _, batch = next(trainer.batches.of(4))
    noisy = torch.from_numpy(batch.routing.gumbel).float()  # all logits are 0 at the start
    temperature = trainer.recipe.router.temperature(2)
    soft = torch.softmax(noisy / temperature, dim=-1)
    losses = sent.mode_losses
    expected = 4.0 * soft * (losses - (soft * losses).sum(dim=-1, keepdim=True)) / temperature  # 4: the logits' gain
    torch.testing.assert_close(found, expected.mean(dim=0), rtol=1e-4, atol=1e-6)


def test_the_rate_term_counts_the_header(make_routed_recipe):
    trainer, _, _ = model_and_tokens(make_routed_recipe)
    sent, terms = routed_pass(trainer, LossRecipe(lambda_sym=1.0))
    link, header = trainer.recipe.link, trainer.recipe.header
    per_mode = torch.tensor([rate.num_symbols + 16 * header.repeats / header.frame_samples for rate in link.modes])
    assert torch.equal(symbols_of_modes(link, header), per_mode)
    torch.testing.assert_close(terms.values["sym"], expected_symbols(sent.routing.probabilities, per_mode))
    assert "lb" not in terms.values
    assert float(load_balance(sent.routing.probabilities).detach()) == pytest.approx(
        1.0
    )  # all modes as likely at the start


def test_gumbel_noise_draws_modes_with_the_routers_probabilities():
    logits = torch.log(torch.tensor([0.5, 0.3, 0.2])).expand(20_000, 3)
    uniforms = torch.rand(20_000, 3, generator=torch.Generator().manual_seed(5))
    found = choose(logits, -torch.log(-torch.log(uniforms)), 0.5)
    shares = torch.bincount(found.mode, minlength=3) / 20_000
    # Five standard deviations of a share of a half.
    assert torch.all((shares - torch.tensor([0.5, 0.3, 0.2])).abs() < 5 * 0.5 / 20_000**0.5)
    assert torch.equal(found.gate, torch.nn.functional.one_hot(found.mode, 3).float())


def test_the_draws_of_a_row_are_the_same_in_any_batch_and_leave_the_global_generators_alone(make_routed_recipe):
    choice = ModeChoice(make_routed_recipe(router__snr_error_db=3.0))
    state = torch.random.get_rng_state()
    together, alone = (choice.noise(Draws(3, np.array(rows), 7)) for rows in ([4, 5, 6], [5]))
    for all_rows, one in zip(together, alone, strict=True):
        np.testing.assert_array_equal(all_rows[1], one[0])
    other = choice.noise(Draws(3, np.array([5]), 8))
    assert not np.array_equal(other.gumbel, alone.gumbel)
    assert np.abs(choice.noise(Draws(1, np.arange(999))).snr_error_db).max() == pytest.approx(3.0, abs=0.05)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_headers_fail_in_training_at_their_exact_rates(make_routed_recipe):
    recipe = make_routed_recipe(header={"repeats": 1, "frame_samples": 4, "threshold": 0.6}, router__enabled=False)
    choice, rows = ModeChoice(recipe), 20_000
    snr_db = np.full(rows, -4.0)
    _, model, _ = model_and_tokens(make_routed_recipe, router__enabled=False)
    routing = choice.choose(model, torch.zeros(rows, 3, 4), snr_db, choice.noise(Draws(0, np.arange(rows))), 1)
    shares = torch.bincount(routing.mode, minlength=3) / rows
    assert (shares - 1 / 3).abs().max() < 5 * (2 / 9 / rows) ** 0.5
    expected = [uniform_rates(-4.0, recipe.header, 3, mode) for mode in range(3)]
    for failed, rate in (
        (routing.lost, np.mean([each.lost for each in expected])),
        (~routing.lost & ~routing.right, np.mean([each.wrong for each in expected])),
    ):
        assert abs(float(failed.float().mean()) - rate) < 5 * (rate * (1 - rate) / rows) ** 0.5
    assert (routing.decoded[routing.lost] == recipe.link.default_mode).all()


def test_a_row_whose_header_was_lost_says_nothing(make_routed_recipe):
    """It is erased: its answer is that of the prior, whatever was sent."""
    trainer, model, tokens = model_and_tokens(make_routed_recipe)
    settings = plan(trainer.recipe.schedule, 4)
    _, batch = next(trainer.batches.of(4))
    tokens = model.encode(*batch.inputs)
    routing = trainer._route(tokens, batch, 2)
    lost = torch.zeros(len(tokens), dtype=torch.bool)
    lost[::2] = True
    decoded = torch.where(lost, trainer.recipe.link.default_mode, routing.decoded)
    sent = send(
        model,
        tokens,
        batch.labels,
        batch.no,
        batch.normals,
        settings,
        routing=routing._replace(lost=lost, decoded=decoded),
    )
    answers = sent.hard_heard.logits[lost]
    assert torch.equal(answers, answers[:1].expand_as(answers))
    assert not torch.equal(sent.hard_heard.logits[~lost][0], answers[0])


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_routed_run_is_the_same_when_interrupted(make_routed_recipe, routed_run, tmp_path, same_tensors, epoch):
    """In warm-up, where no gradient has reached the router yet, and after it."""
    from train.run import train

    class Stop(Exception):
        pass

    def stop(record):
        if record.epoch == epoch:
            raise Stop

    recipe = make_routed_recipe()
    with pytest.raises(Stop):
        train(recipe, tmp_path / "run", on_epoch=stop)
    train(recipe, tmp_path / "run")
    left, right = (checkpoints.load(folder / "last")[1].state_dict() for folder in (tmp_path / "run", routed_run))
    assert same_tensors(left, right)


def test_the_exported_link_gives_the_accuracy_and_rate_of_the_evaluation(routed_run, routed_signs_bundle):
    """The graphs, their headers and their noise against the same in torch: SNR by SNR, decision by decision."""
    described, model = checkpoints.load(routed_run)
    recipe = described.recipe
    task = load_task(recipe.task)
    split = task.load(None).validation
    found = evaluate(model, task, split, recipe.channel, temperature=0.7, seed=recipe.seed, header=recipe.header)
    link = Link(load_bundle(routed_signs_bundle))
    symbols = []
    for snr_db, accuracy in found.hard.items():
        correct = 0
        for draw in range(recipe.channel.eval_draws):
            result = link.transmit(split.inputs, Awgn(), snr_db, Draws(recipe.seed, np.arange(len(split)), draw))
            correct += int((result.decoded.decisions == split.labels).sum())
            symbols.append(float((result.sent.num_symbols + result.header.symbols).mean()))
        assert correct / (len(split) * recipe.channel.eval_draws) == accuracy
    assert found.symbols == pytest.approx(np.mean(symbols))
    assert sum(found.mode_shares) == pytest.approx(1.0)


@pytest.fixture(scope="module")
def unrouted(make_routed_recipe, train_run, export_run):
    """A run without a router, which sends mode 2 of its own accord, and its bundle."""
    run = train_run(make_routed_recipe(router__enabled=False))
    return run, export_run(run)


@pytest.mark.parametrize("kind", ["routed", "unrouted"])
def test_the_bundle_sends_in_any_mode_what_torch_sends_in_it(kind, routed_run, routed_signs_bundle, unrouted):
    run, bundle = (routed_run, routed_signs_bundle) if kind == "routed" else unrouted
    described, model = checkpoints.load(run)
    task = load_task(described.recipe.task)
    split = task.load(None).validation
    link = Link(load_bundle(bundle))
    assert link.manifest.takes_mode
    mode = np.arange(len(split)) % 3
    expected = model.send_hard(encode(model, tensors(task, split)), torch.from_numpy(mode))
    sent = link.transmitter(split.inputs, mode=mode)
    np.testing.assert_array_equal(sent.mode, mode)
    agree = (sent.indices == expected.indices.numpy()).all(axis=1)
    assert agree.mean() > 1.0 - 1e-2  # but for near-ties of codewords
    np.testing.assert_array_equal(sent.bits[agree], expected.bits.numpy()[agree])
    np.testing.assert_allclose(sent.symbols[agree], expected.symbols.numpy()[agree], atol=1e-6)
    if kind == "unrouted":
        assert (link.transmitter(split.inputs).mode == 2).all()


def test_a_mode_that_the_transmitter_never_chooses_is_held_to_torch_too(unrouted):
    run, bundle = unrouted
    described, model = checkpoints.load(run)
    task = load_task(described.recipe.task)
    split = task.load(None).validation
    check_bundle(bundle, model, task, split)
    model.modes[1].quantizer.codebook.neg_()
    with pytest.raises(BundleError, match="choose the same codeword in only"):
        check_bundle(bundle, model, task, split)


def test_an_epoch_of_several_modes_says_which_were_sent(routed_run):
    from train.record import read_metrics

    record = read_metrics(routed_run)[-1]
    assert len(record.mode_shares) == 3
    assert record.codebook_usage.keys() <= {"4", "8"}
    assert "Modes:" in record.text()
    assert record.losses.keys() >= {"sym", "lb"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"link__tokens": 2}, "tokens is told by each of the modes"),
        ({"link__default_mode": 3}, "default_mode must be below 3, got 3"),
        ({"router__enabled": False, "loss__lambda_sym": 0.1}, "lambda_sym must be 0 where no router chooses"),
        ({"quantizer": {"kind": "fsq"}}, "all modes must have as many codewords, got 4, 8"),
    ],
)
def test_a_recipe_of_several_modes_that_makes_no_sense_is_refused(make_routed_recipe, changes, message):
    with pytest.raises(RecipeError, match=message):
        make_routed_recipe(**changes)


@pytest.mark.parametrize("changes", [{"router": {"enabled": True}}, {"header": {"repeats": 2}}])
def test_one_mode_has_neither_router_nor_header(make_signs_recipe, changes):
    with pytest.raises(RecipeError, match="must be absent where the link has one mode"):
        make_signs_recipe(**changes)


def test_a_samples_share_of_a_uniform_header_is_that_of_all_blocks_of_its_head():
    link = LinkRecipe(dim=4, modes=[{"tokens": tokens, "codewords": 4, "order": 4} for tokens in (2, 4)])
    for code, symbols in (("rm-1-5", 16), ("rm-1-4", 2 * 8), ("rm-1-3", 2 * 4)):
        header = HeaderSpec(code=code, repeats=3, frame_samples=8)
        assert symbols_of_modes(link, header).tolist() == [2 + 3 * symbols / 8, 4 + 3 * symbols / 8]
