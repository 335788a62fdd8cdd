"""Questions about images: tables as published and of one's own, in any language; what is refused; and a run of it."""

import csv
import json
import logging
import shutil
import unicodedata
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from link.bundle import load_bundle
from link.chain import Link
from link.channel import Awgn
from link.errors import ArgumentError, RecipeError
from link.randomness import Draws
from link.sequential import Verdict
from link.sweep import SweepSpec, sweep
from train.checkpoint import load
from train.recipe_file import load_recipe, parse_recipe
from train.run import train
from train.tasks import Split, load_task, receiver_inputs_of, task_facts
from train.tasks.visual_questions import Options, find
from train.verify import VerifySettings, verify

COLOURS = {"đỏ": (220, 30, 30), "xanh": (30, 30, 220), "vàng": (220, 220, 30)}
SIDE = 16


def question_and_answer(colour, kind):
    """Vietnamese: what colour is it, is it red, is it not red."""
    return [
        ("màu của hình là gì?", colour),
        ("hình có màu đỏ không?", "có" if colour == "đỏ" else "không"),
        ("hình không có màu đỏ phải không?", "không" if colour == "đỏ" else "có"),
    ][kind]


def draw(colour, seed):
    """A square of that colour somewhere on something bright."""
    generator = np.random.default_rng(seed)
    pixels = np.full((SIDE, SIDE, 3), generator.integers(235, 256, 3), dtype=np.uint8)
    top, left = generator.integers(1, SIDE - 7, 2)
    pixels[top : top + 6, left : left + 6] = COLOURS[colour]
    return Image.fromarray(pixels)


def write_table(file, rows, header=("image", "question", "answer")):
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """60 images, asked three things each: 180 rows."""
    base = tmp_path_factory.mktemp("hình ảnh")
    (base / "images").mkdir()
    rows = []
    for number in range(60):
        colour = list(COLOURS)[number % 3]
        draw(colour, number).save(base / "images" / f"{number}.png")
        rows += [(f"{number}.png", *question_and_answer(colour, kind)) for kind in range(3)]
    write_table(base / "train.csv", rows)
    return base


OWN = {"csv_path": "train.csv", "image_folder": "images", "image_size": SIDE, "max_length": 12}


def recipe_of(**options):
    return parse_recipe(
        {
            "name": "asked",
            "task": "visual-questions",
            "seed": 2,
            "task_options": OWN | options,
            "link": {"tokens": 6, "codewords": 4, "dim": 8, "order": 4},
            "schedule": {"epochs": 24, "warmup_epochs": 12, "alignment_start_epoch": 19},
            "optimizer": {
                "batch_size": 16,
                "learning_rate": 5e-3,
                "freeze_vision_epochs": 1,
                "head_learning_rate": 3e-3,
            },
            "bottleneck": {
                "enabled": True,
                "kl_weight": 0.5,
                "kl_warmup": 10,
                "teacher_weight": 0.3,
                "teacher_start_epoch": 16,
            },
            "quantizer": {"ema_decay": 0.9},
            "channel": {"train_snr_db": [0.0, 16.0], "eval_snr_db": [6.0, 12.0], "eval_draws": 1},
        },
        "the test's recipe",
    )


@pytest.fixture(scope="module")
def recipe():
    return recipe_of()


@pytest.fixture(scope="module")
def data(task, folder):
    return task.load(folder)


def test_the_answers_and_their_kinds_come_from_the_training_rows(task):
    assert task.classes == tuple(sorted([*COLOURS, "có", "không"]))
    rules = dict(zip(task.classes, task.rules, strict=True))
    assert task.rules.sum(axis=1) == pytest.approx(1.0)
    # A colour in place of another, yes in place of no, and neither in place of the other kind.
    said = dict(zip(task.classes, rules["đỏ"], strict=True))
    assert said == pytest.approx({"đỏ": 0.9, "xanh": 0.05, "vàng": 0.05, "có": 0.0, "không": 0.0})
    assert dict(zip(task.classes, rules["có"], strict=True))["không"] == pytest.approx(0.1)


def test_how_many_images_are_held_out_is_said_where_nobody_asked_for_a_number(folder, recipe, task, caplog):
    task.load(folder)
    said = [record.getMessage().partition("train.csv: ")[2] for record in caplog.records]
    assert said == ["6 of 60 images are held out for test", "5 of 54 images are held out for validation"]
    caplog.clear()
    options = recipe.task_options | {"test_images": 7, "validation_images": 5}
    load_task("visual-questions", options, task_facts(recipe, folder)).load(folder)
    assert not caplog.records


def test_images_and_questions_become_arrays_and_no_image_is_in_two_parts(data, task):
    assert [len(part) for part in (data.train, data.validation, data.test)] == [147, 15, 18]
    seen = [{image.tobytes() for image in part.inputs["image"]} for part in (data.train, data.validation, data.test)]
    assert [len(images) for images in seen] == [49, 5, 6]
    assert not (seen[0] & seen[1])
    assert not (seen[0] & seen[2])
    assert not (seen[1] & seen[2])
    for part in (data.train, data.validation, data.test):
        for spec in (*task.inputs, *receiver_inputs_of(task)):
            assert part.inputs[spec.name].dtype == spec.dtype
            assert part.inputs[spec.name].shape == (len(part), *spec.shape[1:])


def test_accents_tell_words_apart_and_both_ways_to_write_them_are_one(task):
    composed = "hình có màu đỏ không?"
    apart = unicodedata.normalize("NFD", composed)
    assert apart != composed
    found = task.tokenizer([composed, apart, "hinh co mau do khong?"]).input_ids
    np.testing.assert_array_equal(found[0], found[1])
    assert (found[0] != found[2]).any()
    # Words of the training rows are one token each: [CLS] hình có màu đỏ không ? [SEP].
    assert (found[0] != 0).sum() == 8


def test_each_row_has_its_own_image(folder, task, data):
    """The part of an image that is no background is the colour that is answered, where a colour is asked for."""
    asked = data.test.labels
    for image, label in zip(data.test.inputs["image"], asked, strict=True):
        answer = task.classes[label]
        if answer in COLOURS:
            assert (image == COLOURS[answer]).all(axis=-1).sum() == 36


def test_test_samples_are_the_test_rows_with_their_questions_as_texts(task, folder, data):
    inputs, labels = task.test_samples(folder)
    np.testing.assert_array_equal(labels, data.test.labels)
    np.testing.assert_array_equal(inputs["image"], data.test.inputs["image"])
    np.testing.assert_array_equal(task.tokenizer(inputs["text"]).input_ids, data.test.inputs["input_ids"])


def test_a_mirrored_image_is_a_matter_of_its_row_alone(folder):
    recipe = recipe_of(flip=True)
    task = load_task(recipe.task, recipe.task_options, task_facts(recipe, folder))
    inputs = {name: values[:40] for name, values in task.load(folder).train.inputs.items()}
    before = inputs["image"].copy()
    whole = task.augment(inputs, Draws(1, np.arange(40), 4))
    chosen = np.array([31, 4, 17])
    part = task.augment({name: values[chosen] for name, values in inputs.items()}, Draws(1, chosen, 4))
    np.testing.assert_array_equal(part["image"], whole["image"][chosen])
    np.testing.assert_array_equal(inputs["image"], before)
    mirrored = [(image == plain[:, ::-1]).all() for image, plain in zip(whole["image"], before, strict=True)]
    assert 8 < sum(mirrored) < 32


@pytest.mark.parametrize(
    ("question", "at_transmitter", "at_receiver"),
    [("transmitter", True, False), ("receiver", False, True), ("both", True, True)],
)
def test_the_question_is_known_where_the_option_says(folder, question, at_transmitter, at_receiver):
    recipe = recipe_of(question=question)
    task = load_task(recipe.task, recipe.task_options, task_facts(recipe, folder))
    words = ("input_ids", "attention_mask")
    assert [spec.name for spec in task.inputs] == ["image", *(words if at_transmitter else ())]
    assert [spec.name for spec in receiver_inputs_of(task)] == [*(words if at_receiver else ())]
    rows = {name: torch.from_numpy(values[:2]) for name, values in task.load(folder).test.inputs.items()}
    tokens = task.encoder(6, 8)(*(rows[spec.name] for spec in task.inputs))
    answers = task.head(6, 8)(tokens, *(rows[spec.name] for spec in receiver_inputs_of(task)))
    assert (tokens.shape, answers.shape) == ((2, 6, 8), (2, 5))


def test_padding_says_nothing(task):
    head = task.head(6, 8).eval()
    encoded = task.tokenizer(["hình có màu đỏ không?"])
    ids, mask = torch.from_numpy(encoded.input_ids), torch.from_numpy(encoded.attention_mask)
    embedding = torch.ones(1, 6, 8)
    other = torch.where(mask == 1, ids, 7)
    torch.testing.assert_close(head(embedding, ids, mask), head(embedding, other, mask), rtol=0, atol=0)
    shorter = int(mask.sum()) + 1
    torch.testing.assert_close(head(embedding, ids[:, :shorter], mask[:, :shorter]), head(embedding, ids, mask))


@pytest.fixture(params=["zip files", "folders", "as in the repository"])
def published(request, folder, tmp_path):
    """The same rows as easy-VQA publishes its own, the images of the test part numbered anew."""
    for part, numbers in (("train", range(50)), ("test", range(50, 60))):
        rows = []
        inside = request.param == "as in the repository"
        questions = tmp_path / (f"{part}/questions.json" if inside else f"{part}_questions.json")
        images = tmp_path / (f"{part}/images" if inside else f"{part}_images")
        images.mkdir(parents=True)
        for place, number in enumerate(numbers):
            (images / f"{place}.png").write_bytes((folder / "images" / f"{number}.png").read_bytes())
            rows += [[*question_and_answer(list(COLOURS)[number % 3], kind), place] for kind in range(3)]
        questions.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
        if request.param == "zip files":
            with zipfile.ZipFile(tmp_path / f"{part}_images.zip", "w") as file:
                for image in images.iterdir():
                    file.write(image, f"images/{image.name}")
                    image.unlink()
            images.rmdir()
    return tmp_path


def test_a_folder_as_it_is_published_is_read_as_it_is(published, folder):
    options = {"image_size": SIDE, "max_length": 12}
    recipe = load_recipe("visual-questions", {f"task_options.{key}": str(value) for key, value in options.items()})
    task = load_task(recipe.task, options, task_facts(recipe, published))
    data = task.load(published)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [135, 15, 30]
    expected = np.stack([np.asarray(Image.open(folder / "images" / f"{50 + row // 3}.png")) for row in range(30)])
    np.testing.assert_array_equal(data.test.inputs["image"], expected)


def refusal(folder, **options):
    checked = Options.model_validate(OWN | options)
    with pytest.raises(ArgumentError) as refused:
        load_task("visual-questions", checked.model_dump(), find(checked, folder)).load(folder)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.fixture
def broken(folder, tmp_path):
    """Function that writes the table with some rows more, beside the images and some that are none."""

    def write(*rows, header=("image", "question", "answer")):
        (tmp_path / "images").mkdir()
        for image in (folder / "images").iterdir():
            (tmp_path / "images" / image.name).write_bytes(image.read_bytes())
        whole = (folder / "images" / "0.png").read_bytes()
        (tmp_path / "images" / "cut.png").write_bytes(whole[: len(whole) // 2])
        with (folder / "train.csv").open(encoding="utf-8", newline="") as stream:
            own = list(csv.reader(stream))[1:]
        write_table(tmp_path / "train.csv", [*own, *rows], header)
        return tmp_path

    return write


def test_a_row_without_its_image_is_named(broken):
    message = refusal(broken(("60.png", "màu của hình là gì?", "đỏ")))
    assert message.endswith(f"line 182: image 60.png is not in {message.split(' is not in ')[1]}")
    assert "train.csv: line 182: image 60.png is not in " in message


def test_a_row_whose_image_is_cut_short_is_named(broken):
    assert "train.csv: line 182: " in (message := refusal(broken(("cut.png", "màu gì?", "đỏ"))))
    assert "cut.png cannot be decoded" in message


def test_a_row_without_a_question_is_named(broken):
    assert refusal(broken(("1.png", " ", "đỏ"))).endswith("train.csv: line 182: the question is empty")


def test_a_test_row_with_an_answer_that_training_does_not_have_is_named(folder, tmp_path):
    write_table(tmp_path / "test.csv", [("0.png", "màu gì?", "đỏ"), ("1.png", "màu gì?", "tím")])
    options = {"test_csv_path": str(tmp_path / "test.csv")}
    assert refusal(folder, **options).endswith("test.csv: line 3: answer 'tím' is none of the 5 of the training rows")
    left = load_task("visual-questions", OWN | options | {"skip_bad_rows": True}, find(Options(**OWN), folder))
    assert len(left.load(folder).test) == 1


def test_bytes_that_are_no_utf8_are_named_with_their_line(broken):
    folder = broken()
    file = folder / "train.csv"
    file.write_bytes(
        file.read_bytes() + "1.png,màu gì?,đỏ\n".encode("latin-1", errors="replace").replace(b"?", b"\xe0")
    )
    assert "train.csv: line 182: is no UTF-8 (byte 0xe0)" in refusal(folder)
    options = OWN | {"skip_bad_rows": True}
    data = load_task("visual-questions", options, find(Options(**options), folder)).load(folder)
    assert sum(len(part) for part in (data.train, data.validation, data.test)) == 180


def test_rows_of_another_length_are_named_or_counted(broken, caplog):
    folder = broken(("1.png", "màu gì?"), ("1.png", "màu gì?", "đỏ", "xanh"), ("1.png", "", "đỏ"))
    assert "train.csv: line 182: has 2 columns where line 1 has 3" in refusal(folder)
    with caplog.at_level(logging.WARNING):
        options = OWN | {"skip_bad_rows": True}
        data = load_task("visual-questions", options, find(Options(**options), folder)).load(folder)
    assert sum(len(part) for part in (data.train, data.validation, data.test)) == 180
    said = "train.csv: 3 of 183 rows are left out; the first, line 182: has 2 columns where line 1 has 3"
    assert said in caplog.text


def test_questions_that_are_cut_or_say_nothing_are_counted(broken, caplog):
    folder = broken(("1.png", "màu của hình là gì? " * 5, "đỏ"))
    options = OWN | {"validation_images": 1, "test_images": 1}
    task = load_task("visual-questions", options, find(Options(**options), folder))
    with caplog.at_level(logging.WARNING):
        task.load(folder)
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.endswith("questions are longer than 12 tokens and are cut there")
    assert "train.csv: 1 of " in said


def test_a_folder_that_nothing_is_read_of_is_refused(folder, tmp_path):
    own = OWN | {key: str(folder / OWN[key]) for key in ("csv_path", "image_folder")}
    assert "is not read: the rows are those of " in refusal(tmp_path, **own)
    find(Options(**own), None)


def test_tables_of_another_machine_are_found_in_a_folder_as_they_lay(folder, tmp_path):
    away = OWN | {"csv_path": "/away/rows/train.csv", "image_folder": "/away/images"}
    there = tmp_path / "rows"
    there.mkdir()
    (there / "train.csv").write_bytes((folder / "train.csv").read_bytes())
    assert refusal(None, **away) == (
        "csv_path /away/rows/train.csv does not exist: where the files are elsewhere, name a folder with rows/train.csv and "
        "images in it (--data, of call --inputs)"
    )
    (tmp_path / "images").symlink_to(folder / "images")
    facts = find(Options(**OWN), folder)
    assert find(Options(**away), tmp_path) == facts
    here, moved = (
        load_task("visual-questions", options, facts).load(base) for options, base in ((OWN, folder), (away, tmp_path))
    )
    assert moved.sha256 == here.sha256


def test_test_images_that_are_trained_on_are_counted(folder, tmp_path, caplog):
    rows = [("1.png", "hình có màu đỏ không?", "không"), ("2.png", "màu của hình là gì?", "vàng")]
    write_table(tmp_path / "test.csv", [*rows, *rows])
    options = OWN | {"csv_path": str(folder / "train.csv"), "test_csv_path": "test.csv", "validation_images": 5}
    options["image_folder"] = str(folder / "images")
    task = load_task("visual-questions", options, find(Options(**options), tmp_path))
    task.load(tmp_path)
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.endswith(
        "test.csv: 2 of 2 images are in the training rows too: what is measured is no answer about new images"
    )
    caplog.clear()
    shutil.copytree(folder / "images", tmp_path / "others")
    options["test_image_folder"] = "others"  # images of the same names, and others
    load_task("visual-questions", options, find(Options(**options), tmp_path)).load(tmp_path)
    assert not caplog.records


def test_a_table_without_a_column_says_which(broken):
    message = refusal(broken(header=("image", "question", "reply")))
    assert (
        "train.csv needs columns image, question and answer, and lacks answer; it has image, question, reply" in message
    )


def test_bad_rows_are_counted_and_left_out_where_that_is_asked_for(broken, caplog):
    rows = [("60.png", "màu của hình là gì?", "đỏ"), ("1.png", "", "đỏ"), ("cut.png", "màu của hình là gì?", "đỏ")]
    folder = broken(*rows)
    options = OWN | {"skip_bad_rows": True, "validation_images": 5, "test_images": 6}
    with caplog.at_level(logging.WARNING):
        facts = find(Options(**options), folder)
        caplog.clear()
        data = load_task("visual-questions", options, facts).load(folder)
    assert sum(len(part) for part in (data.train, data.validation, data.test)) == 180
    said = [record.getMessage() for record in caplog.records]
    assert said[0].endswith("train.csv: 1 of 183 rows are left out; the first, line 183: the question is empty")
    assert sum("rows are left out" in text for text in said) <= 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"csv_path": "a.csv"}, "csv_path and image_folder are given together, or not at all"),
        ({"test_csv_path": "a.csv"}, "test_csv_path is given beside csv_path"),
        ({"image_size": 20}, "image_size: Input should be a multiple of 8"),
        ({"encoder": "vit"}, "task_options.encoder is unknown"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(RecipeError, match=message):
        load_task("visual-questions", options)


def test_a_folder_without_tables_says_what_it_may_hold(tmp_path):
    with pytest.raises(ArgumentError, match=r"has neither train_questions\.json nor train/questions\.json"):
        find(Options(), tmp_path)
    with pytest.raises(ArgumentError, match="must name a folder"):
        find(Options(), None)
    (tmp_path / "train_questions.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ArgumentError, match=r"lacks train_images/ and train_images\.zip"):
        find(Options(), tmp_path)
    (tmp_path / "train_images").mkdir()
    with pytest.raises(ArgumentError, match=r"must be a list of rows \[question, answer, image\]"):
        find(Options(), tmp_path)


def test_a_run_learns_to_answer_and_its_bundle_does_the_same(run, export_run, folder, data):
    _described, _model = load(run)
    bundle = load_bundle(export_run(run, data_folder=folder))
    manifest = bundle.manifest
    assert manifest.input_names == ("text", "image")
    assert manifest.task.receiver_inputs == ("input_ids", "attention_mask")
    assert (manifest.num_bits, manifest.num_symbols) == (12, 6)
    link, rows = Link(bundle), data.train
    (point,) = sweep(link, rows.inputs, rows.labels, SweepSpec(snr_db=(12.0,), draws=1)).points
    assert point.accuracy.value > 0.8
    settings = VerifySettings(snr_db=(12.0,), margin=0.2, max_draws=60)
    assert verify(bundle, run, rows.inputs, rows.labels, settings).verdict is Verdict.EQUIVALENT
    # A sample by its text, one question of one image at both ends.
    asked = {"image": rows.inputs["image"][:3], "text": [question_and_answer("đỏ", 0)[0]] * 3}
    answers = link.transmit(asked, Awgn(), 30.0, Draws(0, np.arange(3))).decoded.decisions
    assert {manifest.task.classes[answer] for answer in answers} <= set(COLOURS)


def test_vision_stands_still_in_the_epochs_that_freeze_it(recipe, folder, train_until, tmp_path):
    from train.checkpoint import build_transceiver

    facts = task_facts(recipe, folder)
    start = build_transceiver(recipe, load_task(recipe.task, recipe.task_options, facts)).encoder.vision.state_dict()
    for epoch, still in ((1, True), (2, False)):
        train_until(epoch, recipe, tmp_path / str(epoch), data_folder=folder)
        found = load(tmp_path / str(epoch) / "last")[1].encoder.vision.state_dict()
        assert all(torch.equal(found[name], start[name]) for name in start) is still


def test_a_head_asks_other_questions_behind_a_transmitter_that_knows_none(folder, tmp_path):
    """With the question at the receiver alone what is sent is the image's, whatever will be asked."""
    recipe = recipe_of(question="receiver").model_copy(update={"name": "later"})
    short = recipe.model_copy(
        update={
            "schedule": recipe.schedule.model_copy(update={"epochs": 3, "warmup_epochs": 1, "alignment_start_epoch": 3})
        }
    )
    train(short, tmp_path / "run", data_folder=folder)
    _, model = load(tmp_path / "run")
    task = load_task(short.task, short.task_options, task_facts(short, folder))
    rows = task.load(folder).test
    same = Split(rows.inputs, rows.labels)
    with torch.no_grad():
        tokens = model.encode(torch.from_numpy(same.inputs["image"]))
    # Three rows in a row ask about one image.
    torch.testing.assert_close(tokens[0::3], tokens[1::3], rtol=0, atol=1e-6)
