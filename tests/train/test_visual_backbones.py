"""Vision models by name: what they see, what is read of their files, and what is refused."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from link.errors import RecipeError
from train.encoders import build_backbone, layers_of
from train.visual_backbones import PretrainedVision, VisionModel, find_vision_model, load_backbone

SIDE = 16
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
VIT = {"model_type": "vit", "image_size": SIDE, "patch_size": 8, **SMALL}
RESNET = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 3]}
SWIN = {"model_type": "swin", "embed_dim": 8, "depths": [1, 3], "num_heads": [1, 2], "window_size": 4, "patch_size": 2}
OTHERS = {
    "a map of features": RESNET,
    "windows": SWIN | {"image_size": SIDE},
    "convolutions in stages": {
        "model_type": "convnext",
        "image_size": SIDE,
        "hidden_sizes": [8, 16],
        "depths": [1, 1],
        "num_stages": 2,
    },
    "places that are interpolated": {"model_type": "dinov2", "image_size": 32, "patch_size": 8, **SMALL},
    "images and texts": {
        "model_type": "clip",
        "vision_config": {"image_size": SIDE, "patch_size": 8, **SMALL},
        "text_config": {"vocab_size": 50, **SMALL},
    },
}


def images(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, SIDE, SIDE, 3), dtype=torch.uint8, generator=generator)


def test_pixels_are_what_the_models_own_preprocessor_makes_of_them(vit, preprocessor):
    """Recomputed by transformers, for images that need not be resized; to the rounding of float32 at values below 4."""
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    wanted = ViTImageProcessorPil(**preprocessor)(list(images(2).numpy()), return_tensors="pt")["pixel_values"]
    found = PretrainedVision(find_vision_model(str(vit))).pixels(images(2))
    torch.testing.assert_close(found, wanted, rtol=0, atol=4e-6)


@pytest.mark.parametrize(
    ("changes", "lowest", "highest"),
    [
        ({"do_normalize": False}, 0.0, 1.0),
        ({"do_normalize": False, "do_rescale": False}, 0.0, 255.0),
        ({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}, -1.0, 1.0),
    ],
)
def test_pixels_are_scaled_and_shifted_where_the_preprocessor_says_so(
    tmp_path, save_model, preprocessor, changes, lowest, highest
):
    vision = PretrainedVision(
        find_vision_model(str(save_model(tmp_path, VIT, preprocessor_config=preprocessor | changes)))
    )
    ends = torch.tensor([0, 255], dtype=torch.uint8)[:, None, None, None].expand(2, SIDE, SIDE, 3)
    black, white = vision.pixels(ends)
    torch.testing.assert_close(black, torch.full_like(black, lowest))
    torch.testing.assert_close(white, torch.full_like(white, highest))


@pytest.mark.parametrize("name", OTHERS)
def test_vision_models_of_other_kinds_are_looked_through_as_well(tmp_path, save_model, preprocessor, name):
    """Built from what a checkpoint keeps of them, with the weights of their folder; each image for itself."""
    folder = str(save_model(tmp_path, OTHERS[name], preprocessor_config=preprocessor))
    described = VisionModel.model_validate_json(find_vision_model(folder).model_dump_json())
    assert described.image_size == SIDE
    vision = PretrainedVision(described)
    before = {key: tensor.clone() for key, tensor in vision.backbone.model.state_dict().items()}
    load_backbone(vision.backbone, folder)
    assert any(not torch.equal(tensor, before[key]) for key, tensor in vision.backbone.model.state_dict().items())
    seen = vision(images(3))
    assert seen.shape == (3, vision.features)
    torch.testing.assert_close(vision(images(3)[1:2]), seen[1:2], rtol=0, atol=1e-5)
    assert not torch.allclose(seen[0], seen[1], atol=1e-4)


def test_the_weights_of_what_looks_at_images_are_taken_from_a_model_of_images_and_texts(
    tmp_path, save_model, preprocessor
):
    folder = save_model(tmp_path, OTHERS["images and texts"], preprocessor_config=preprocessor)
    vision = PretrainedVision(find_vision_model(str(folder)))
    load_backbone(vision.backbone, str(folder))
    whole = load_file(folder / "model.safetensors")
    for name, tensor in vision.backbone.model.state_dict().items():
        (own,) = [key for key in whole if key.startswith("vision_model.") and key.endswith(name)]
        assert torch.equal(tensor, whole[own])


@pytest.mark.parametrize("config", [RESNET, SWIN | {"image_size": SIDE, "drop_path_rate": 0.5}])
def test_what_is_pretrained_works_in_training_as_it_is_deployed(tmp_path, save_model, preprocessor, config):
    """Batch norm would make an image depend on its company, dropped paths draw from torch's global generator."""
    vision = PretrainedVision(find_vision_model(str(save_model(tmp_path, config, preprocessor_config=preprocessor))))
    before = {name: tensor.clone() for name, tensor in vision.train().state_dict().items()}
    state = torch.get_rng_state()
    torch.testing.assert_close(vision(images(4))[1:], vision(images(4)[1:]), rtol=0, atol=1e-5)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in vision.state_dict().items())
    vision(images(2)).square().sum().backward()
    assert all(weight.grad is not None for weight in vision.backbone.model.parameters())


@pytest.mark.parametrize("config", [RESNET, SWIN])
def test_a_stage_of_blocks_is_one_layer_and_the_last_one_is_on_top(config):
    backbone = build_backbone(config)
    names = {parameter: name for name, parameter in backbone.named_parameters()}
    top, bottom, rest = ([names[parameter] for parameter in layer] for layer in layers_of(backbone))
    assert top
    assert bottom
    assert all(".1." in name.partition("blocks")[0] for name in top)
    assert all(".0." in name.partition("blocks")[0] for name in bottom)
    assert any(name.startswith("embed") for name in rest)


@pytest.mark.parametrize(
    "changes",
    [
        {"size": SIDE},
        {"size": [SIDE, SIDE]},
        {"size": {"shortest_edge": SIDE}},
        {"size": {"shortest_edge": 20}, "crop_size": {"height": SIDE, "width": SIDE}, "do_center_crop": True},
        {"size": {"shortest_edge": 20}, "crop_size": SIDE},
        {"size": SIDE, "crop_size": 12, "do_center_crop": False},
        {"size": {"shortest_edge": 800, "longest_edge": 1333}},
        {"size": 800, "max_size": 1333},
        {"size": None},
    ],
)
def test_the_side_of_an_image_is_what_it_is_cut_or_resized_to_or_else_the_architectures(
    tmp_path, save_model, preprocessor, changes
):
    folder = save_model(tmp_path, VIT, preprocessor_config=preprocessor | changes)
    assert find_vision_model(str(folder)).image_size == SIDE


BERT = {"model_type": "bert", "vocab_size": 40, **SMALL}
MAE = {"model_type": "vit_mae", "image_size": SIDE, "patch_size": 8, **SMALL}
REFUSED = {
    "a text encoder": (BERT, {}, r"is no vision encoder: its config\.json describes a bert$"),
    "no image size": (
        RESNET,
        {"size": None},
        r"has no image size: neither its preprocessor nor its config has a square$",
    ),
    "no square": (RESNET, {"size": {"height": 8, "width": 16}}, r"has no image size"),
    "another size than its own": (VIT, {"size": 24}, r"makes no states of RGB images of 24 x 24: Input image size"),
    "grey images": (VIT | {"num_channels": 1}, {}, r"makes no states of RGB images of 16 x 16: "),
    "no mean": (VIT, {"image_mean": None}, r"preprocessor_config\.json: image_mean: Input should be a valid tuple"),
    "a mean of grey": (VIT, {"image_mean": [0.5]}, r"preprocessor_config\.json: image_mean\.1: Field required"),
    "a spread of 0": (VIT, {"image_std": [0, 1, 1]}, r"image_std\.0: Input should be greater than 0"),
    "channels the other way": (
        VIT,
        {"do_flip_channel_order": True},
        r"has do_flip_channel_order, which is not done here",
    ),
    "places at random": (MAE, {}, r"it looks at places that are drawn at random$"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_look_at_images_is_refused_in_one_line(tmp_path, save_model, preprocessor, name):
    config, changes, message = REFUSED[name]
    folder = str(save_model(tmp_path, config, preprocessor_config=preprocessor | changes))
    with pytest.raises(RecipeError, match=message) as refused:
        find_vision_model(folder)
    assert str(refused.value).startswith(f"vision_model {folder!r} ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [None, "{", "[]", '"x"'])
def test_a_model_without_a_preprocessor_is_refused_in_one_line(tmp_path, save_model, content):
    folder = save_model(tmp_path, VIT, **({} if content is None else {"preprocessor_config": content}))
    with pytest.raises(
        RecipeError, match=r"^vision_model .* has no preprocessor_config\.json that can be read: size and"
    ):
        find_vision_model(str(folder))


def test_weights_that_do_not_fit_are_told_by_the_option_that_names_them(tmp_path, save_model, preprocessor):
    folder = save_model(tmp_path, VIT, preprocessor_config=preprocessor)
    vision = PretrainedVision(find_vision_model(str(folder)))
    file = folder / "model.safetensors"
    save_file({name: tensor * float("nan") for name, tensor in load_file(file).items()}, file, {"format": "pt"})
    with pytest.raises(RecipeError, match=r"^vision_model .* holds weights that are NaN or infinite"):
        load_backbone(vision.backbone, str(folder))
