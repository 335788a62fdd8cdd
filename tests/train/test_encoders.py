import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from link.errors import RecipeError
from train.encoders import (
    TextEncoder,
    build_backbone,
    build_tokenizer,
    layers_of,
    learn_tokenizer,
    load_config,
    load_tokenizer,
    load_weights,
    require_length,
    scratch_config,
    token_of,
)

SMALL = {
    "bert": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64},
    "roberta": {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "pad_token_id": 1,
        "max_position_embeddings": 66,
    },
    "distilbert": {"dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 64},
    "electra": {
        "hidden_size": 32,
        "embedding_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    },
}
IDS = torch.tensor([[2, 7, 8, 9, 3, 1, 1, 1], [2, 7, 3, 1, 1, 1, 1, 1]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0, 0, 0]])


def small(kind):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TextEncoder({"model_type": kind, "vocab_size": 40, **SMALL[kind]}, tokens=3, dim=5).eval()


@pytest.mark.parametrize("kind", SMALL)
@torch.no_grad()
def test_a_text_is_read_alike_in_any_company_and_behind_any_padding(kind):
    encoder = small(kind)
    both = encoder(IDS, MASK)
    assert both.shape == (2, 3, 5)
    assert torch.allclose(both[1:], encoder(IDS[1:], MASK[1:]), atol=1e-6)
    assert torch.allclose(both[1:], encoder(IDS[1:, :3], MASK[1:, :3]), atol=1e-6)


@pytest.mark.parametrize("kind", SMALL)
def test_the_layers_of_a_backbone_hold_each_weight_once(kind):
    backbone = small(kind).backbone
    layer, rest = layers_of(backbone)
    names = {parameter: name for name, parameter in backbone.named_parameters()}
    assert sorted(names[parameter] for parameter in [*layer, *rest]) == sorted(names.values())
    assert all(".layer.0." in names[parameter] for parameter in layer)
    assert all(names[parameter].startswith("embeddings") for parameter in rest)


@pytest.mark.parametrize("kind", SMALL)
def test_no_backbone_draws_random_numbers_in_training(kind):
    """Dropout would draw them from torch's global generator."""
    encoder = small(kind).train()
    state = torch.get_rng_state()
    first, second = encoder(IDS, MASK), encoder(IDS, MASK)
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", SMALL)
def test_every_weight_is_read(kind):
    """A pooler that nothing reads would be saved, exported and given weight decay for nothing."""
    encoder = small(kind)
    encoder(IDS, MASK).square().sum().backward()
    unread = [name for name, weight in encoder.named_parameters() if weight.grad is None]
    assert not unread


def test_latent_tokens_look_at_different_words():
    """With queries of their own, the tokens of one text weigh its states differently."""
    neck = small("bert").neck
    with torch.no_grad():
        states = torch.randn(1, 6, 32, generator=torch.Generator().manual_seed(1))
        weights = (neck.queries(states) / 32**0.5).softmax(dim=1)
    assert (weights.amax(dim=2) - weights.amin(dim=2)).max() > 0.01


def test_an_architecture_that_is_not_known_is_one_line():
    with pytest.raises(RecipeError, match=r"cannot build this encoder"):
        build_backbone({"model_type": "abacus"})


@pytest.mark.parametrize(
    ("config", "most"),
    [
        ({"max_position_embeddings": 512, "pad_token_id": 0}, 512),
        ({"max_position_embeddings": 514, "pad_token_id": 1}, 512),
    ],
)
def test_positions_bound_the_length(config, most):
    require_length(config, most)
    with pytest.raises(RecipeError, match=rf"max_length must be at most {most} for this encoder, got {most + 1}"):
        require_length(config, most + 1)


def test_a_learned_tokenizer_names_its_padding_and_its_words():
    learned = learn_tokenizer(["a fine film", "a fine story"] * 3, 100)
    assert token_of(learned, 0) == "[PAD]"
    assert "film" in json.loads(learned)["model"]["vocab"]
    assert scratch_config(learned, 16)["vocab_size"] == len(json.loads(learned)["model"]["vocab"])
    with pytest.raises(RecipeError, match=r"no token 99999"):
        token_of(learned, 99999)


def test_the_same_texts_give_the_same_tokenizer():
    """The trainers of the tokenizers library break ties by a hash that changes from call to call."""
    texts = [f"{first} {second} tail" for first in "abcdefgh" for second in ("one", "two", "three", "four")]
    assert len({learn_tokenizer(texts, 60) for _ in range(4)}) == 1


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A folder in the format of transformers, whole."""
    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = learn_tokenizer(["a fine film", "a dull story"] * 3, 100)
    described = scratch_config(tokenizer, 16) | SMALL["bert"]
    build_backbone(described).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    return folder


def load(folder):
    tokenizer, config = load_tokenizer(str(folder)), load_config(str(folder))
    build_tokenizer(tokenizer, 8, config)
    return load_weights(str(folder), config)


def written(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def cut(size):
    return lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:size])


def weights(edit):
    def change(folder):
        file = folder / "model.safetensors"
        save_file({key: edit(key, tensor) for key, tensor in load_file(file).items()}, file, {"format": "pt"})

    return change


def described(**changes):
    def change(folder):
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def without_layers(folder):
    file = folder / "model.safetensors"
    kept = {key: tensor for key, tensor in load_file(file).items() if "layer.0.output" not in key}
    save_file(kept, file, {"format": "pt"})


def more_tokens(folder):
    file = folder / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    tokenizer["model"]["vocab"]["beyond"] = 5000
    file.write_text(json.dumps(tokenizer))


BREAKAGES = {
    "weights cut short": (cut(-10), r"cannot be loaded: Error while deserializing header"),
    "weights empty": (cut(0), r"cannot be loaded: Error while deserializing header"),
    "weights absent": (
        lambda folder: (folder / "model.safetensors").unlink(),
        r"cannot be loaded: .*no file named model",
    ),
    "weights of another shape": (
        weights(lambda key, tensor: tensor[:3].clone() if "word_embeddings" in key else tensor),
        r"holds embeddings\.word_embeddings\.weight of shape \(3, 32\), its config\.json describes",
    ),
    "weights missing": (
        without_layers,
        r"lacks 4 of its weights, encoder\.layer\.0\.output\.LayerNorm\.bias among them",
    ),
    "weights that are NaN": (
        weights(lambda _, tensor: tensor * float("nan")),
        r"holds weights that are NaN or infinite",
    ),
    "no tokenizer": (written("tokenizer.json", b"{}"), r"tokenizer\.json is no tokenizer: "),
    "a tokenizer that is no UTF-8": (
        written("tokenizer.json", b"\xff\xfe{}"),
        r"tokenizer\.json is no tokenizer: 'utf-8'",
    ),
    "a tokenizer of another JSON": (written("tokenizer.json", b"[1, 2]"), r"tokenizer\.json is no tokenizer: "),
    "a larger tokenizer": (more_tokens, r"it numbers tokens up to 5000, the encoder knows 0 to \d+"),
    "a config that is no JSON": (written("config.json", b"{"), r"cannot be loaded: .* not a valid JSON file"),
    "a config that is no UTF-8": (written("config.json", b"\xff\xfe"), r"cannot be loaded: .* not a valid JSON file"),
    "an empty config": (written("config.json", b"{}"), r"cannot be loaded: Unrecognized model"),
    "a size that is no number": (described(hidden_size="wide"), r"cannot be loaded: .* 'hidden_size'"),
    "a negative size": (described(hidden_size=-3), r"cannot be loaded: .*negative dimension"),
    "a padding that is no token": (
        described(pad_token_id=999),
        r"no token 999, which the encoder names as its padding",
    ),
    "an encoder of pictures": (
        written("config.json", b'{"model_type": "vit"}'),
        r"is no encoder of texts: its config\.json describes a vit",
    ),
    "an encoder with a decoder": (
        written("config.json", b'{"model_type": "t5"}'),
        r"is no encoder of texts: its config\.json describes a t5",
    ),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_a_broken_encoder_folder_is_one_line(encoder, tmp_path, name):
    breakage, message = BREAKAGES[name]
    folder = tmp_path / "encoder"
    shutil.copytree(encoder, folder)
    assert load(folder)
    breakage(folder)
    with pytest.raises(RecipeError, match=message) as refused:
        load(folder)
    assert "\n" not in str(refused.value)
