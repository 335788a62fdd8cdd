import pytest
from pydantic import ValidationError

from link.errors import RecipeError
from train import recipe_file
from train.recipe import LossRecipe, Recipe
from train.recipe_file import load_recipe, parse_recipe, preset_names, recipe_names
from train.tasks import task_names

MINIMAL = """
name = "mine"
task = "digits"
[link]
tokens = 5
codewords = 8
[schedule]
epochs = 6
warmup_epochs = 2
alignment_start_epoch = 4
"""


@pytest.fixture
def minimal(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(MINIMAL)
    return str(file)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_that_comes_with_hardpath_loads_and_names_a_task(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.task in task_names()


def test_a_recipe_is_read_from_a_file_by_its_path(minimal):
    recipe = load_recipe(minimal)
    assert (recipe.name, recipe.link.tokens, recipe.schedule.epochs, recipe.seed) == ("mine", 5, 6, 0)


def test_bits_and_symbols_follow_from_tokens_codewords_and_order(minimal):
    link = load_recipe(minimal).link
    # 5 tokens of 3 bits in symbols of 4: 15 bits, 4 symbols, one bit of padding.
    assert (link.index_bits, link.num_bits, link.num_symbols) == (3, 15, 4)


def test_overrides_are_values_in_toml_syntax(minimal):
    overrides = {
        "link.order": "64",
        "link.demapper": '"max-log"',
        "schedule.temp_start": "1.5",
        "channel.eval_snr_db": "[3, 9.5]",
        "name": '"other"',
        "seed": "9223372036854775807",
    }
    recipe = load_recipe(minimal, overrides)
    assert (recipe.link.order, recipe.link.demapper, recipe.schedule.temp_start) == (64, "max-log", 1.5)
    assert recipe.channel.eval_snr_db == (3.0, 9.5)
    assert (recipe.name, recipe.seed) == ("other", 2**63 - 1)


def test_a_word_needs_no_quotes_on_the_command_line(minimal):
    assert load_recipe(minimal, {"link.demapper": "max-log"}).link.demapper == "max-log"


def test_an_override_leaves_the_other_keys_as_they_were(minimal):
    before, after = load_recipe(minimal), load_recipe(minimal, {"schedule.epochs": "7"})
    changed = before.model_copy(update={"schedule": before.schedule.model_copy(update={"epochs": 7})})
    assert after == changed


@pytest.mark.parametrize(
    ("key", "answer"),
    [
        ("loss.lamda_entropy", "did you mean loss.lambda_entropy?"),
        ("schedule.temp_frezze_floor", "did you mean schedule.temp_freeze_floor?"),
        ("epoch", "did you mean schedule.epochs?"),
        ("loss.warmup.lambda_entropie", "did you mean loss.warmup.lambda_entropy?"),
        ("link.codeword", "did you mean link.codewords?"),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest_known_one(minimal, key, answer):
    with pytest.raises(RecipeError) as caught:
        load_recipe(minimal, {key: "1"})
    assert f"unknown key {key}; {answer}" in str(caught.value)


def test_a_key_like_no_other_is_answered_with_all_known_keys(minimal):
    with pytest.raises(RecipeError, match=r"unknown key qqqq; known keys: name, task, task_options, seed, link"):
        load_recipe(minimal, {"qqqq": "1"})


def test_an_override_below_a_value_is_refused_with_its_key(minimal):
    with pytest.raises(RecipeError, match=r"^link\.tokens\.deep is no key of a recipe"):
        load_recipe(minimal, {"link.tokens.deep": "1"})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"link.tokens": "0"}, "link.tokens: Input should be greater than or equal to 1"),
        ({"link.tokens": "many"}, "link.tokens: Input should be a valid integer"),
        ({"link.dim": "2"}, "link.dim: Input should be greater than or equal to 3"),
        ({"link.codewords": "12"}, "link: codewords must be a power of two, got 12"),
        ({"link.order": "8"}, "link: order must be one of 4, 16, 64, 256, 1024, 4096, got 8"),
        ({"link.llr_clip": "inf"}, "link.llr_clip: Input should be a finite number"),
        (
            {"optimizer.unfreeze_layers": "2"},
            "optimizer: unfreeze_layers 2 trains nothing without encoder_learning_rate: give it too",
        ),
        ({"optimizer.layer_decay": "0.9"}, "layer_decay 0.9 trains nothing without encoder_learning_rate"),
        ({"optimizer.precision": "float16"}, "optimizer.precision: Input should be 'float32' or 'bfloat16'"),
        ({"schedule.alignment_start_epoch": "2"}, "alignment_start_epoch must come after the 2 warmup_epochs, got 2"),
        ({"schedule.epochs": "2"}, "epochs must exceed the 2 warmup_epochs, got 2"),
        ({"schedule.kind": "three-phase"}, "schedule.kind: Input should be 'two-phase', 'anneal', 'floor' or 'freeze'"),
        (
            {"schedule.kind": "freeze", "anneal_stop_epoch": "2"},
            "anneal_stop_epoch must come after the 2 warmup_epochs",
        ),
        (
            {"schedule.hardening_epochs": "4"},
            "schedule: hardening_epochs must be in [0, 3], the epochs of alignment, got 4",
        ),
        (
            {"schedule.kind": "floor", "hardening_epochs": "2"},
            "hardening_epochs is of kind two-phase, and kind floor has",
        ),
        (
            {"schedule.kind": "anneal", "early_stop": "true"},
            "early_stop is of kind two-phase, and kind anneal has no align",
        ),
        ({"loss.lambda_sym": "0.1"}, "mine.toml: loss.lambda_sym must be 0 where the link has one mode"),
        ({"loss.lambda_lb": "0.1"}, "mine.toml: loss.lambda_lb must be 0 where the link has one mode"),
        ({"loss.warmup.lambda_kl": "-1"}, "loss.warmup.lambda_kl: Input should be greater than or equal to 0"),
        ({"schedule.temp_decay": "1.1"}, "schedule.temp_decay: Input should be less than or equal to 1"),
        ({"optimizer.batch_size": "1"}, "optimizer.batch_size: Input should be greater than or equal to 2"),
        ({"loss.lambda_vq": "-1"}, "loss.lambda_vq: Input should be greater than or equal to 0"),
        ({"quantizer.ema_decay": "1.0"}, "quantizer.ema_decay: Input should be less than 1"),
        ({"channel.train_snr_db": "[9, 3]"}, "channel: train_snr_db must be (low, high), got (9.0, 3.0)"),
        ({"channel.eval_snr_db": "[]"}, "channel: eval_snr_db must name at least one SNR"),
        ({"channel.eval_snr_db": "[0, 99]"}, "channel.eval_snr_db.1: Input should be less than or equal to 60"),
        ({"alarms.preset": '"loud"'}, "alarms.preset: Input should be 'fractions' or 'published'"),
        ({"seed": "-1"}, "seed: Input should be greater than or equal to 0"),
        ({"name": '"../up"'}, "name: String should match pattern"),
        ({"link": "5"}, "link: Input should be a valid dictionary"),
    ],
)
def test_a_bad_value_is_refused_in_one_line_that_names_its_key(minimal, overrides, message):
    with pytest.raises(RecipeError) as caught:
        load_recipe(minimal, overrides)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{minimal}: ")
    assert "\n" not in str(caught.value)


def test_a_missing_key_is_named(tmp_path):
    file = tmp_path / "short.toml"
    file.write_text(MINIMAL.replace("tokens = 5\n", ""))
    with pytest.raises(RecipeError, match=r"short\.toml: link\.tokens: Field required"):
        load_recipe(str(file))


def test_a_file_that_is_no_toml_is_refused(tmp_path):
    file = tmp_path / "broken.toml"
    file.write_text("name = ")
    with pytest.raises(RecipeError, match=r"broken\.toml is no TOML: "):
        load_recipe(str(file))


def test_a_file_that_is_no_text_is_refused(tmp_path):
    file = tmp_path / "binary.toml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match=r"binary\.toml cannot be read: "):
        load_recipe(str(file))


def test_an_unknown_recipe_is_answered_with_the_known_ones():
    with pytest.raises(RecipeError, match=r"no recipe 'digit': name one of .*digits.*, or a TOML file"):
        load_recipe("digit")


def test_a_recipe_survives_json_and_cannot_be_changed(minimal):
    recipe = load_recipe(minimal)
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    assert parse_recipe(recipe.model_dump(mode="json"), "its own values") == recipe
    with pytest.raises(ValidationError, match="frozen"):
        recipe.seed = 1


@pytest.mark.parametrize("key", ["alignment_start_epoch", "temp_freeze_floor", "lambda_entropy", "lambda_vec", "order"])
def test_a_key_that_one_section_has_is_set_by_its_own_name(minimal, key):
    value = {"alignment_start_epoch": 5, "temp_freeze_floor": 0.6, "order": 64}.get(key, 0.25)
    recipe = load_recipe(minimal, {key: str(value)})
    found = {**recipe.link.model_dump(), **recipe.schedule.model_dump(), **recipe.loss.model_dump()}
    assert found[key] == value
    assert recipe.loss.warmup.lambda_entropy == 0  # which has the same name one table down


def test_a_nested_key_is_set_by_its_last_two_names(minimal):
    assert load_recipe(minimal, {"warmup.lambda_entropy": "10"}).loss.warmup.lambda_entropy == 10


def test_every_weight_has_a_warm_up():
    assert set(LossRecipe().warmup.model_dump()) == set(LossRecipe().model_dump()) - {"warmup"}


def test_weights_grow_by_epoch_to_their_value_and_the_others_stand():
    weights = LossRecipe(lambda_entropy=0.2, lambda_vq=0.1, warmup={"lambda_entropy": 10, "lambda_kl": 3})
    assert [weights.at(epoch).lambda_entropy for epoch in range(1, 13)] == pytest.approx(
        [0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.14, 0.16, 0.18, 0.2, 0.2, 0.2]
    )
    for epoch in (1, 9, 10, 30):
        assert weights.at(epoch).model_copy(update={"lambda_entropy": 0.2}) == weights


PUBLISHED = {
    "basic": ("two-phase", 21, 0.7, 0.5),
    "conservative": ("two-phase", 26, 0.8, 0.3),
    "aggressive": ("two-phase", 16, 0.6, 1.0),
    "anneal": ("anneal", None, 0.1, 0.0),
    "floor-0.5": ("floor", None, 0.5, 0.0),
    "floor-0.7": ("floor", None, 0.7, 0.0),
    "freeze-15": ("freeze", None, 0.5, 0.0),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_presets_apply_to_every_recipe_with_their_published_values(name):
    for source in recipe_names():
        # A published schedule is shorter than the exploration of a recipe with a router.
        settings = {"router.explore_epochs": "10"} if load_recipe(source).link.modes else {}
        recipe = load_recipe(source, settings, [name])
        schedule = recipe.schedule
        found = (
            schedule.kind,
            schedule.alignment_start_epoch,
            schedule.temp_freeze_floor,
            recipe.loss.lambda_consistency,
        )
        assert found == PUBLISHED[name]
        assert (schedule.epochs, schedule.warmup_epochs, schedule.symbol_temp) == (30, 1, "tied")
        assert (recipe.loss.lambda_entropy == 0.01) == (schedule.kind == "two-phase")
        assert recipe.link == load_recipe(source).link


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_that_comes_with_hardpath_applies_to_digits(name):
    assert load_recipe("digits", presets=[name]) != load_recipe("digits")


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_preset_applies_over_any_other(name):
    for under in PUBLISHED:
        both = load_recipe("digits", presets=[under, name])
        assert both.schedule.kind == load_recipe("digits", presets=[name]).schedule.kind


def test_later_wins_own_presets_then_the_file_then_presets_then_settings(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('presets = ["aggressive", "conservative"]\n' + MINIMAL.replace("epochs = 6", "epochs = 40"))
    own = load_recipe(str(file))
    assert (own.schedule.epochs, own.schedule.warmup_epochs, own.schedule.alignment_start_epoch) == (40, 2, 4)
    assert (own.schedule.temp_freeze_floor, own.loss.lambda_consistency) == (0.8, 0.3)
    over = load_recipe(str(file), presets=["basic"])
    assert (over.schedule.epochs, over.schedule.alignment_start_epoch, over.schedule.temp_freeze_floor) == (30, 21, 0.7)
    last = load_recipe(str(file), {"temp_freeze_floor": "0.65"}, ["basic"])
    assert last.schedule == over.schedule.model_copy(update={"temp_freeze_floor": 0.65})


def test_an_unknown_preset_is_answered_with_the_known_ones(minimal, tmp_path):
    with pytest.raises(RecipeError, match=r"^no preset 'basics': name one of ") as caught:
        load_recipe(minimal, presets=["basics"])
    assert all(name in str(caught.value) for name in PUBLISHED)
    file = tmp_path / "own.toml"
    file.write_text('presets = ["../digits"]\n' + MINIMAL)
    with pytest.raises(RecipeError, match=r"^no preset '\.\./digits': name one of "):
        load_recipe(str(file))


@pytest.mark.parametrize("value", ['"basic"', "[1]", "5"])
def test_presets_that_are_no_list_of_names_are_refused(tmp_path, value):
    file = tmp_path / "own.toml"
    file.write_text(f"presets = {value}\n{MINIMAL}")
    with pytest.raises(RecipeError, match=r"own\.toml: presets must be a list of names, got "):
        load_recipe(str(file))


def test_presets_are_not_set_like_a_value(minimal):
    with pytest.raises(RecipeError, match="name them with --preset"):
        load_recipe(minimal, {"presets": '["basic"]'})


def test_a_preset_that_does_not_fit_is_named_with_the_reason(minimal):
    with pytest.raises(RecipeError) as caught:
        load_recipe(minimal, {"warmup_epochs": "25"}, ["anneal", "basic"])
    reason = "schedule: alignment_start_epoch must come after the 25 warmup_epochs, got 21"
    assert str(caught.value) == f"{minimal} with preset anneal and basic: {reason}"


def test_a_key_of_several_sections_is_not_guessed(minimal, monkeypatch):
    monkeypatch.setattr(recipe_file, "_keys", lambda model: ["schedule.kind", "quantizer.kind", "loss.warmup.kind"])
    answer = r"^kind is a key of several sections: name one of schedule\.kind, quantizer\.kind$"
    with pytest.raises(RecipeError, match=answer):
        load_recipe(minimal, {"kind": "anneal"})


@pytest.mark.parametrize(("kind", "floor"), [("two-phase", 0.7), ("anneal", 0.1), ("floor", 0.5), ("freeze", 0.5)])
def test_each_kind_of_schedule_has_a_floor_of_its_own(minimal, kind, floor):
    schedule = load_recipe(minimal, {"schedule.kind": kind}).schedule
    assert schedule.temp_freeze_floor == floor
    assert schedule.temp_reference == 0.7  # the scale does not move with it
    assert (schedule.alignment_start_epoch is None) == (kind != "two-phase")


def test_labels_follow_restarts_only_where_codewords_restart(minimal):
    settings = {"quantizer.label_search": "restarts"}
    assert load_recipe(minimal, settings).quantizer.label_search == "restarts"
    with pytest.raises(RecipeError, match="quantizer: label_search restarts is of kind ema"):
        load_recipe(minimal, settings | {"quantizer.kind": "fsq"})


def test_two_phase_needs_to_know_where_alignment_begins(tmp_path):
    file = tmp_path / "short.toml"
    file.write_text(MINIMAL.replace("alignment_start_epoch = 4\n", ""))
    with pytest.raises(RecipeError, match=r"schedule: alignment_start_epoch is required for kind two-phase"):
        load_recipe(str(file))
    assert load_recipe(str(file), {"schedule.kind": "anneal"}).schedule.alignment_start_epoch is None


def test_an_epoch_to_unfreeze_in_needs_a_learning_rate():
    with pytest.raises(
        RecipeError, match=r"unfreeze_epoch 3 trains nothing without encoder_learning_rate: give it too"
    ):
        load_recipe("text", {"optimizer.unfreeze_epoch": "3"})
    given = load_recipe("text", {"optimizer.unfreeze_epoch": "3", "optimizer.encoder_learning_rate": "0.0"})
    assert type(given).model_validate(given.model_dump()) == given
    plain = load_recipe("text")
    assert type(plain).model_validate(plain.model_dump()) == plain
