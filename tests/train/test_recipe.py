import pytest
from pydantic import ValidationError

from link.errors import RecipeError
from train.recipe import Recipe, load_recipe, parse_recipe, recipe_names
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
        ("epochs", "did you mean schedule.epochs?"),
        ("link.codeword", "did you mean link.codewords?"),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest_known_one(minimal, key, answer):
    with pytest.raises(RecipeError) as caught:
        load_recipe(minimal, {key: "1"})
    assert f"unknown key {key}; {answer}" in str(caught.value)


def test_a_key_like_no_other_is_answered_with_all_known_keys(minimal):
    with pytest.raises(RecipeError, match=r"unknown key qqqq; known keys: name, task, seed, link\.tokens,"):
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
        ({"schedule.alignment_start_epoch": "2"}, "alignment_start_epoch must come after the 2 warmup_epochs, got 2"),
        ({"schedule.epochs": "2"}, "epochs must exceed the 2 warmup_epochs, got 2"),
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
