"""An image encoder and a question encoder by their names in transformers, in place of the small ones of train.vision.

    image, uint8 ─> scale, shift ─> vision model ─> states of its places ─> 8 queries attend ─> 256 features
    question     ─> text model   ─> states of its tokens                 ─> 1 query attends  ─>  64 features

Images have the side that the model was trained on, by its preprocessor_config.json: others are resized to it where they are
read, not cropped. The graph that is exported takes their pixels as they are, and scales and shifts them as that file says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from link.errors import RecipeError
from train.backbones import Backbone
from train.encoders import (
    LatentQueries,
    build_backbone,
    first_line,
    hidden_size,
    import_transformers,
    load_pretrained,
    load_weights,
)

VISION_ROLE: Final = "vision_model"
QUESTION_ROLE: Final = "question_model"
_QUERIES: Final = 8
_FEATURES: Final = 32
# What a preprocessor may do beside scaling and shifting.
_MORE: Final = ("do_flip_channel_order", "rescale_offset", "include_top", "do_color_quantize")
Rgb = tuple[float, float, float]
Spread = Annotated[float, Field(gt=0)]


class VisionModel(BaseModel):
    """What a checkpoint keeps of a vision model, so that it can be built without its files.

    Attributes
    ----------
    config : mapping
        Its architecture.
    image_size : int
        Pixels of a side.
    rescale_factor : float
        What pixels of 0 to 255 are multiplied by, before `image_mean` is taken off and `image_std` divided by.
    hidden : int
        Size of its states.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: dict[str, Any]
    image_size: Annotated[int, Field(ge=1)]
    rescale_factor: Spread
    image_mean: Rgb
    image_std: tuple[Spread, Spread, Spread]
    hidden: int


class PretrainedVision(nn.Module):
    """(B, S, S, 3) uint8 pixels to (B, features): what learned queries read from the states of a vision model.

    Parameters
    ----------
    described : VisionModel

    Attributes
    ----------
    features : int
    """

    features = _QUERIES * _FEATURES

    def __init__(self, described: VisionModel) -> None:
        super().__init__()
        self.backbone = Backbone(VISION_ROLE, described.config)
        self.queries = LatentQueries(described.hidden, _QUERIES, _FEATURES)
        mean, spread = (torch.tensor(values).reshape(3, 1, 1) for values in (described.image_mean, described.image_std))
        self.register_buffer("scale", described.rescale_factor / spread, persistent=False)
        self.register_buffer("shift", mean / spread, persistent=False)

    def pixels(self, image: Tensor) -> Tensor:
        """Pixels (B, 3, S, S) as the model takes them."""
        scale, shift = self.get_buffer("scale"), self.get_buffer("shift")
        return image.permute(0, 3, 1, 2).to(scale.dtype) * scale - shift

    def forward(self, image: Tensor) -> Tensor:
        """What is seen of each image."""
        states = _states(self.backbone.model, self.pixels(image))
        seen: Tensor = self.queries(states, torch.ones_like(states[..., 0]))
        return seen.flatten(1)


class PretrainedQuestion(nn.Module):
    """Tokens of a question (B, T) and their mask to (B, words): what a learned query reads from the states of a text model.

    Parameters
    ----------
    config : mapping
        Of the text model.
    words : int
    """

    def __init__(self, config: Mapping[str, Any], words: int) -> None:
        super().__init__()
        self.backbone = Backbone(QUESTION_ROLE, config)
        self.query = LatentQueries(hidden_size(self.backbone.model), 1, words)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """What each question says."""
        model = self.backbone.model
        states = model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        said: Tensor = self.query(states, attention_mask)
        return said.flatten(1)


def find_vision_model(name: str) -> VisionModel:
    """What must be known of a vision model, by its name on the hub or from a folder in the format of transformers.

    Of a model of images and texts, CLIP say, it is the part that looks at images.

    Raises
    ------
    RecipeError
        If there is none, it is no vision encoder of RGB images, they have no size, or it wants more than scaled and shifted
        pixels.
    MissingExtra
        If transformers is not installed.
    """
    transformers = import_transformers()
    whole = load_pretrained(name, transformers.AutoConfig, VISION_ROLE)
    config = getattr(whole, "vision_config", whole)
    described = json.loads(config.to_json_string(use_diff=False))
    model = _without_weights(name, described)
    wants = _preprocessor(name)
    more = [key for key in _MORE if wants.get(key)]
    if more:
        raise RecipeError(
            f"{VISION_ROLE} {name!r} cannot be used: its preprocessor_config.json has {more[0]}, which is not done here"
        )
    side = _side(wants, described.get("image_size"))
    if side is None:
        raise RecipeError(
            f"{VISION_ROLE} {name!r} has no image size: neither its preprocessor nor its config has a square"
        )
    normalised = wants.get("do_normalize", True)
    try:
        return VisionModel(
            config=described,
            image_size=side,
            rescale_factor=wants.get("rescale_factor", 1.0 / 255.0) if wants.get("do_rescale", True) else 1.0,
            image_mean=wants.get("image_mean") if normalised else (0.0, 0.0, 0.0),
            image_std=wants.get("image_std") if normalised else (1.0, 1.0, 1.0),
            hidden=_hidden(name, model, side),
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise RecipeError(
            f"{VISION_ROLE} {name!r} cannot be used: preprocessor_config.json: {where}: {first['msg']}"
        ) from None


def load_backbone(backbone: Backbone, name: str) -> None:
    """Give a pretrained model the weights of that name.

    Raises
    ------
    RecipeError
        If there are none, some are missing or not finite, or they are another model's.
    """
    weights = load_weights(name, backbone.config, backbone.role, part=backbone.role == VISION_ROLE)
    backbone.model.load_state_dict(weights)


class _NoDraws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses random numbers: a model that masks at random, as it is trained to, does not see the same image twice alike."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise ValueError("it looks at places that are drawn at random")
        return func(*args, **(kwargs or {}))


class _Preprocessor:
    """preprocessor_config.json, read as transformers finds it."""

    @staticmethod
    def from_pretrained(name: str, **options: Any) -> dict[str, Any]:
        found: dict[str, Any] = import_transformers().ImageProcessingMixin.get_image_processor_dict(name, **options)[0]
        return found


def _preprocessor(name: str) -> Mapping[str, Any]:
    """preprocessor_config.json of a model, where transformers finds it.

    Raises
    ------
    RecipeError
        If there is none that can be read.
    """
    try:
        found: object = load_pretrained(name, _Preprocessor, VISION_ROLE)
    except RecipeError:
        found = None
    if not isinstance(found, Mapping):
        raise RecipeError(
            f"{VISION_ROLE} {name!r} has no preprocessor_config.json that can be read: size and scale of images stand there"
        )
    return found


def _without_weights(name: str, config: Mapping[str, Any]) -> nn.Module:
    """A vision model that has shapes alone.

    Raises
    ------
    RecipeError
        If it is none.
    """
    with torch.device("meta"):
        model: Any = build_backbone(config).eval()
    if model.main_input_name != "pixel_values":
        kind = config.get("model_type")
        raise RecipeError(f"{VISION_ROLE} {name!r} is no vision encoder: its config.json describes a {kind}")
    built: nn.Module = model
    return built


def _hidden(name: str, model: nn.Module, side: int) -> int:
    """Size of the states that a model without weights makes of images of that side.

    Raises
    ------
    RecipeError
        If it makes none, or draws random numbers.
    """
    try:
        with _NoDraws():  # type: ignore[no-untyped-call]
            return int(_states(model, torch.zeros(1, 3, side, side, device="meta")).shape[-1])
    except Exception as error:  # what a model of transformers raises is its own affair
        raise RecipeError(
            f"{VISION_ROLE} {name!r} makes no states of RGB images of {side} x {side}: {first_line(error)}"
        ) from None


def _states(model: nn.Module, pixels: Tensor) -> Tensor:
    """States (B, P, H) of the places of an image; a map (B, H, h, w) row by row."""
    states: Tensor = model(pixel_values=pixels).last_hidden_state
    return states.flatten(2).transpose(1, 2) if states.dim() == 4 else states


def _side(wants: Mapping[str, Any], described: object) -> int | None:
    """Side of the squares that a preprocessor cuts or resizes to, or else the architecture names; None without any."""
    cropped = wants.get("crop_size") if wants.get("do_center_crop", True) else None
    resized = None if "max_size" in wants else wants.get("size")
    sides = (_square(size) for size in (cropped, resized, described))
    return next((side for side in sides if side is not None), None)


def _square(size: object) -> int | None:
    """The side that a size in one of the forms of transformers gives both ways; None where it gives none."""
    if isinstance(size, Mapping):
        keys = ("height", "width") if "height" in size else ("shortest_edge",)
        sides = [] if "longest_edge" in size else [size.get(key) for key in keys]
    else:
        sides = size if isinstance(size, list) else [size]
    return sides[0] if sides and isinstance(sides[0], int) and sides.count(sides[0]) == len(sides) else None
