"""A small run of digits, a smaller one of a task of the tests' own, and the bundles of both."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import train.tasks
from link.bundle import load_bundle
from link.chain import Link
from train.checkpoint import load
from train.encoders import ENCODER, build_backbone
from train.export import export
from train.recipe_file import load_recipe, parse_recipe
from train.run import train as train_recipe
from train.tasks import load_task

EXTRA_TASKS = Path(__file__).parent / "extra_tasks"
collect_ignore = ["extra_tasks"]  # subjects of tests, which find each other among the tasks of hardpath


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session", autouse=True)
def extra_tasks():
    """tests/train/extra_tasks beside the tasks of hardpath, as if its file had been written there."""
    train.tasks.__path__.append(str(EXTRA_TASKS))
    yield
    train.tasks.__path__.remove(str(EXTRA_TASKS))


@pytest.fixture(scope="session")
def train_run(tmp_path_factory):
    """Function that trains a recipe in a folder of its own, which it gives back."""

    def run(recipe, **options):
        folder = tmp_path_factory.mktemp(recipe.name) / "run"
        train_recipe(recipe, folder, **options)
        return folder

    return run


@pytest.fixture(scope="session")
def train_until():
    """Function that trains as `train` does, and is interrupted behind an epoch."""

    def until(epoch, recipe, folder, **options):
        def stop(record):
            if record.epoch == epoch:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train_recipe(recipe, folder, on_epoch=stop, **options)

    return until


@pytest.fixture(scope="session")
def export_run(tmp_path_factory):
    """Function that exports a run to a folder of its own, which it gives back."""

    def bundle(run, **options):
        folder = tmp_path_factory.mktemp("exported") / "bundle"
        export(run, folder, **options)
        return folder

    return bundle


@pytest.fixture(scope="session")
def digits_recipe():
    return load_recipe(
        "digits",
        {"schedule.epochs": "8", "schedule.warmup_epochs": "3", "schedule.alignment_start_epoch": "6"},
    )


@pytest.fixture(scope="session")
def digits_run(digits_recipe, train_run):
    return train_run(digits_recipe)


@pytest.fixture(scope="session")
def digits_bundle(digits_run, export_run):
    return export_run(digits_run)


@pytest.fixture(scope="session")
def digits_link(digits_bundle):
    return Link(load_bundle(digits_bundle))


@pytest.fixture(scope="session")
def digits_model(digits_run):
    return load(digits_run)[1]


@pytest.fixture(scope="session")
def digits_data():
    return load_task("digits").load(None)


@pytest.fixture(scope="session")
def make_signs_recipe(extra_tasks):
    """A recipe of the tests' own task, some of its keys changed: an epoch takes hundredths of a second."""

    def make(**changes):
        values = {
            "name": "signs",
            "task": "signs",
            "seed": 3,
            "link": {"tokens": 3, "codewords": 4, "dim": 4, "order": 4},
            "schedule": {"epochs": 5, "warmup_epochs": 2, "alignment_start_epoch": 4},
            "optimizer": {"batch_size": 32, "learning_rate": 1e-2},
            "quantizer": {"ema_decay": 0.9},
            "channel": {"eval_snr_db": [0.0, 10.0], "eval_draws": 2},
        }
        for key, value in changes.items():
            section, _, name = key.partition("__")
            if name:
                values.setdefault(section, {})[name] = value
            else:
                values[section] = value
        return parse_recipe(values, "the test's recipe")

    return make


@pytest.fixture(scope="session")
def signs_recipe(make_signs_recipe):
    return make_signs_recipe()


@pytest.fixture(scope="session")
def signs_run(signs_recipe, train_run):
    return train_run(signs_recipe)


@pytest.fixture(scope="session")
def signs_bundle(signs_run, export_run):
    return export_run(signs_run)


@pytest.fixture(scope="session")
def questions_run(make_signs_recipe, train_run):
    """Two questions of one input, trained together."""
    schedule = {"epochs": 30, "warmup_epochs": 12, "alignment_start_epoch": 20}
    return train_run(make_signs_recipe(name="both", task="signs-and-kinds", link__tokens=6, schedule=schedule))


@pytest.fixture(scope="session")
def questions_bundle(questions_run, export_run):
    return export_run(questions_run)


@pytest.fixture(scope="session")
def asked_runs(make_signs_recipe, train_run):
    """Function that trains a task whose receiver has something of its own."""

    def run(task):
        schedule = {"epochs": 24, "warmup_epochs": 12, "alignment_start_epoch": 18}
        return train_run(make_signs_recipe(name=task, task=task, schedule=schedule))

    return run


@pytest.fixture(scope="session")
def asked_bundle(asked_runs, export_run):
    return export_run(asked_runs("asked"))


@pytest.fixture(scope="session")
def make_routed_recipe(make_signs_recipe):
    """The same task in three modes of two codebooks, with a router; some keys changed."""

    def make(**changes):
        modes = [
            {"tokens": 3, "codewords": 4, "order": 4},
            {"tokens": 3, "codewords": 8, "order": 16},
            {"tokens": 2, "codewords": 4, "order": 16},
        ]
        router = {"enabled": changes.pop("router__enabled", True)}
        values = {
            "name": "routed",
            "link": {"dim": 4, "modes": modes, "default_mode": 2},
            "router": router,
            "header": {"frame_samples": 8},
            "channel": {"train_snr_db": [-6.0, 20.0], "eval_snr_db": [-4.0, 4.0, 16.0], "eval_draws": 2},
            "loss": {"lambda_sym": 0.01, "lambda_lb": 0.01} if router["enabled"] else {},
        }
        return make_signs_recipe(**(values | changes))

    return make


@pytest.fixture(scope="session")
def routed_run(make_routed_recipe, train_run):
    return train_run(make_routed_recipe())


@pytest.fixture(scope="session")
def routed_signs_bundle(routed_run, export_run):
    return export_run(routed_run)


@pytest.fixture
def signs_model(signs_run):
    return load(signs_run)[1]


@pytest.fixture(scope="session")
def same_tensors():
    """Whether two state_dicts hold the same names and, to the last bit, the same tensors."""

    def same(left, right):
        return left.keys() == right.keys() and all(
            left[name].dtype == right[name].dtype and torch.equal(left[name], right[name]) for name in left
        )

    return same


@pytest.fixture
def clustered_tokens():
    """400 tokens about 8 far corners of a cube, their corners, and a generator for more."""
    generator = np.random.default_rng(11)
    corners = 4.0 * (2.0 * ((np.arange(8)[:, None] >> np.arange(3)) & 1) - 1.0)
    which = np.repeat(np.arange(8), 50)
    tokens = corners[which] + 0.3 * generator.normal(size=(400, 3))
    order = generator.permutation(400)
    return torch.from_numpy(tokens[order].astype(np.float32)), torch.from_numpy(which[order])


@pytest.fixture(scope="session")
def preprocessor():
    """preprocessor_config.json of a vision model, for images of 16 x 16."""
    return {
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "rescale_factor": 1 / 255,
        "size": {"height": 16, "width": 16},
    }


@pytest.fixture(scope="session")
def save_model():
    """Function that saves a model with weights drawn at random in the format of transformers; a folder of its own."""

    def save(folder, config, kind=ENCODER, **files):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            build_backbone(config, kind).save_pretrained(folder)
        for name, content in files.items():
            (folder / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
        return folder

    return save


@pytest.fixture(scope="session")
def vit(tmp_path_factory, save_model, preprocessor):
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = {"model_type": "vit", "image_size": 16, "patch_size": 8, **small}
    return save_model(tmp_path_factory.mktemp("vit"), config, preprocessor_config=preprocessor)


SEQ2SEQ = {
    "bart": {
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "max_position_embeddings": 32,
        "init_std": 0.3,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 2,
    },
    "t5": {
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 32,
        "num_layers": 1,
        "num_decoder_layers": 2,
        "num_heads": 2,
        "initializer_factor": 2.0,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "decoder_start_token_id": 0,
    },
}
SEQ2SEQ |= {
    "mbart": SEQ2SEQ["bart"],
    "pegasus": SEQ2SEQ["bart"] | {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0},
    "mt5": SEQ2SEQ["t5"] | {"tie_word_embeddings": False, "feed_forward_proj": "gated-gelu"},
}
SPOKEN = [
    "a man runs in the park.",
    "two dogs sit on a wall.",
    "the old woman stands by the sea.",
    "a girl sleeps alone.",
]


@pytest.fixture(scope="session")
def seq2seq_tokenizer():
    """Function that learns the tokenizer of a family's kind: bytes, or words of T5 with what is unknown among them."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    def learn(family):
        numbers = SEQ2SEQ[family]
        names = ["<s>", "<pad>", "</s>", "<unk>"] if numbers["pad_token_id"] == 1 else ["<pad>", "</s>", "<unk>", "<s>"]
        if family in ("t5", "mt5"):
            learned = Tokenizer(models.Unigram())
            learned.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("  ", " ")])
            learned.pre_tokenizer, learned.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
            trainer = trainers.UnigramTrainer(
                vocab_size=60, special_tokens=names, unk_token="<unk>", show_progress=False
            )
        else:
            learned = Tokenizer(models.BPE())
            learned.pre_tokenizer, learned.decoder = (
                pre_tokenizers.ByteLevel(add_prefix_space=False),
                decoders.ByteLevel(),
            )
            trainer = trainers.BpeTrainer(
                vocab_size=300,
                special_tokens=[*names, "<mask>"],
                initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
                show_progress=False,
            )
        learned.train_from_iterator(SPOKEN, trainer)
        before = {"bart": "<s>", "mbart": "<mask>"}.get(family)
        template = ([before] if before else []) + ["$A", "</s>"]
        special = [(name, learned.token_to_id(name)) for name in template if name != "$A"]
        learned.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
        learned.enable_padding()
        learned.enable_truncation(7)
        return learned.to_str()

    return learn


@pytest.fixture(scope="session")
def seq2seq(tmp_path_factory, save_model, seq2seq_tokenizer):
    """Function that saves an encoder-decoder of a family with its tokenizer, once; BART without what makes scores, as its
    own authors' files are.
    """
    saved = {}

    def save(family, **changes):
        key = (family, *changes.items())
        if key not in saved:
            tokenizer = seq2seq_tokenizer(family)
            vocab = json.loads(tokenizer)["model"]["vocab"]
            config = {"model_type": family, "vocab_size": len(vocab) + 3, **SEQ2SEQ[family], **changes}
            kind = ENCODER if family == "bart" else "AutoModelForSeq2SeqLM"
            saved[key] = save_model(tmp_path_factory.mktemp(family), config, kind=kind, tokenizer=tokenizer)
        return saved[key]

    return save
