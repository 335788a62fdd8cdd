"""Text encoders: a transformer backbone, and learned queries that read latent tokens from its states.

    input_ids, attention_mask ─> backbone ─> states (B, T, H) ─> N queries attend ─> (B, N, H) ─> MLP ─> tokens (B, N, D)
                                 pretrained                      └───────────────────── neck ─────────────────────┘

Each latent token has queries of its own, so it may look at other words than its neighbours do. The key projection of
attention is left out: a learned query times a key matrix is a learned query, so nothing is lost (Jaegle et al. 2021,
arXiv:2103.03206, read with a query that does not depend on the input), and values are projected after they are pooled.

A backbone that is frozen gives the same states in every epoch: `train.features` keeps them, and only the neck is trained.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from link.errors import HardpathError, MissingExtra, RecipeError
from link.tokenizer import Tokenizer
from train.hub import from_hub, names_a_folder

ENCODER: Final = "AutoModel"
"""What builds and loads an encoder, by its name in transformers."""
_WIDTH: Final = 128
_SPECIAL: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# Large enough to be nothing after a softmax, small enough for half precision.
_MASKED: Final = -1e4
_SCRATCH: Final = {
    "model_type": "bert",
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 512,
}


class LatentQueries(nn.Module):
    """N learned queries over the states of a text: (B, T, H) and a mask (B, T) to (B, N, D).

    Parameters
    ----------
    hidden : int
        H.
    tokens, dim : int
        N and D.
    """

    def __init__(self, hidden: int, tokens: int, dim: int) -> None:
        super().__init__()
        self.queries = nn.Linear(hidden, tokens, bias=False)
        self.values = nn.Linear(hidden, _WIDTH)
        self.position = nn.Parameter(torch.empty(tokens, _WIDTH))
        self.mlp = nn.Sequential(nn.LayerNorm(_WIDTH), nn.Linear(_WIDTH, _WIDTH), nn.GELU(), nn.Linear(_WIDTH, dim))
        nn.init.normal_(self.position)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Latent tokens of each text."""
        scores = self.queries(states) / math.sqrt(states.shape[-1]) + (1.0 - mask.to(states.dtype))[..., None] * _MASKED
        pooled = scores.softmax(dim=1).transpose(1, 2) @ states
        tokens: Tensor = self.mlp(self.values(pooled) + self.position)
        return tokens


class TextEncoder(nn.Module):
    """Backbone and neck.

    Parameters
    ----------
    config : mapping
        Of a transformers encoder.
    tokens, dim : int
        N and D.

    Raises
    ------
    RecipeError
        If transformers knows no such encoder.
    """

    def __init__(self, config: Mapping[str, Any], tokens: int, dim: int) -> None:
        super().__init__()
        self.backbone = build_backbone(config)
        self.neck = LatentQueries(hidden_size(self.backbone), tokens, dim)

    def features(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """States (B, T, H) of the backbone, and the mask (B, T)."""
        states: Tensor = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return states, attention_mask

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Latent tokens of each text."""
        tokens: Tensor = self.neck(*self.features(input_ids, attention_mask))
        return tokens


def hidden_size(backbone: nn.Module) -> int:
    """H: size of a backbone's states."""
    config: Any = backbone.config
    return int(config.hidden_size)


def layers_of(backbone: nn.Module) -> list[list[nn.Parameter]]:
    """Parameters of each layer of a backbone from its top down, and last of all those of no layer: embeddings, norms.

    Layers are the longest list of modules that it has, lists inside lists left aside: a stage of blocks is one layer.
    """
    every = [module for module in backbone.modules() if isinstance(module, nn.ModuleList)]
    inner = {part for whole in every for part in whole.modules() if part is not whole}
    lists = [module for module in every if module not in inner]
    layers = [list(layer.parameters()) for layer in max(lists, key=len, default=nn.ModuleList())][::-1]
    inside = {parameter for layer in layers for parameter in layer}
    return [*layers, [parameter for parameter in backbone.parameters() if parameter not in inside]]


def build_backbone(config: Mapping[str, Any], kind: str = ENCODER) -> nn.Module:
    """A transformers encoder, or a model of another kind, with weights drawn at random.

    Raises
    ------
    RecipeError
        If transformers knows no such encoder.
    """
    transformers = import_transformers()
    try:
        described = transformers.AutoConfig.for_model(**config)
        backbone: Any = getattr(transformers, kind).from_config(described, attn_implementation="eager")
    except Exception as error:  # what it raises depends on what is wrong with the description
        what = "encoder" if kind == ENCODER else "model"
        raise RecipeError(
            f"transformers {transformers.__version__} cannot build this {what}: {first_line(error)}"
        ) from None
    # A head that nothing reads would be saved, exported and given weight decay for nothing; one without weights may stay.
    pooler = getattr(backbone, "pooler", None)
    if pooler is not None and list(pooler.parameters()):
        backbone.pooler = None
    # Dropout draws from torch's global generator: a run that is resumed would not go on as it had begun.
    for module in backbone.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    built: nn.Module = backbone
    return built


def load_config(name: str, role: str = "encoder") -> dict[str, Any]:
    """Architecture of an encoder, by its name on the hub or from a folder in the format of transformers.

    `role` is the option of a task that names it: messages begin with it.

    Raises
    ------
    RecipeError
        If there is none, or it is no encoder of texts.
    """
    config = load_pretrained(name, import_transformers().AutoConfig, role)
    found: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    if not isinstance(found.get("vocab_size"), int) or found.get("is_encoder_decoder"):
        raise RecipeError(f"{role} {name!r} is no encoder of texts: its config.json describes a {config.model_type}")
    return found


def load_weights(
    name: str, config: Mapping[str, Any], role: str = "encoder", *, part: bool = False, kind: str = ENCODER
) -> dict[str, Tensor]:
    """Weights of an encoder, by name, for a backbone that was built from `config`.

    Parameters
    ----------
    name : str
    config : mapping
    role : str
        As for `load_config`.
    part : bool
        Whether it may be a part of what bears the name, as what looks at images is of a model of images and texts.
    kind : str
        As for `build_backbone`.

    Raises
    ------
    RecipeError
        If there are none, some are missing or not finite, or they are another encoder's.
    """
    # What does not fit is not to be put right at random, but said in a line of our own.
    options: dict[str, Any] = {"output_loading_info": True, "ignore_mismatched_sizes": True}
    if part:
        options["config"] = import_transformers().AutoConfig.for_model(**config)
    loaded, report = load_pretrained(name, getattr(import_transformers(), kind), role, **options)
    found = loaded.state_dict()
    wanted = build_backbone(config, kind).state_dict()
    missing = sorted(wanted.keys() & set(report["missing_keys"]))
    if missing:  # transformers draws them at random, anew at each call
        raise RecipeError(f"{role} {name!r} lacks {len(missing)} of its weights, {missing[0]} among them")
    if report["mismatched_keys"]:
        key, held, described = sorted(report["mismatched_keys"])[0]
        raise RecipeError(
            f"{role} {name!r} holds {key} of shape {tuple(held)}, its config.json describes {tuple(described)}"
        )
    if any(key not in found or found[key].shape != tensor.shape for key, tensor in wanted.items()):
        raise RecipeError(
            f"{role} {name!r} has changed since the run began: its weights do not fit the architecture kept"
        )
    broken = [key for key in wanted if found[key].is_floating_point() and not found[key].isfinite().all()]
    if broken:
        raise RecipeError(f"{role} {name!r} holds weights that are NaN or infinite, {broken[0]} among them")
    return {key: found[key] for key in wanted}


def require_length(config: Mapping[str, Any], length: int, *, more: int = 0) -> None:
    """Refuse texts longer than the encoder has positions for, `more` of them beside the text's own.

    Raises
    ------
    RecipeError
        If `length` tokens are more than it takes.
    """
    positions = int(config.get("max_position_embeddings", length + more))
    # RoBERTa and its kin count positions from behind the padding token.
    offset = int(config.get("pad_token_id") or 0) + 1 if positions % 2 == 0 and positions % 64 == 2 else 0
    if length > positions - offset - more:
        raise RecipeError(
            f"task_options.max_length must be at most {positions - offset - more} for this encoder, got {length}"
        )


def load_tokenizer(name: str, role: str = "encoder") -> str:
    """tokenizer.json of an encoder.

    Raises
    ------
    RecipeError
        If there is none, or it is not of the fast kind.
    """
    if names_a_folder(name):
        file = _folder(name, role) / "tokenizer.json"
        if not file.is_file():
            raise RecipeError(f"{role} folder {name} has no tokenizer.json: save its tokenizer beside it")
        try:
            found = file.read_text(encoding="utf-8")
            read_library(found)
        except (OSError, ValueError) as error:
            raise RecipeError(f"{file} is no tokenizer: {first_line(error)}") from None
        return found
    tokenizer = load_pretrained(name, import_transformers().AutoTokenizer, role, use_fast=True)
    if not getattr(tokenizer, "is_fast", False):
        raise RecipeError(
            f"{role} {name!r} has no fast tokenizer: only one that is a tokenizer.json can travel in a bundle"
        )
    text: str = tokenizer.backend_tokenizer.to_str()
    return text


def scratch_config(tokenizer: str, length: int) -> dict[str, Any]:
    """A small encoder to be trained from nothing, for a tokenizer.json: two layers, 128 wide."""
    vocabulary = len(json.loads(tokenizer)["model"]["vocab"])
    return {**_SCRATCH, "vocab_size": vocabulary, "max_position_embeddings": length, "pad_token_id": 0}


def build_tokenizer(tokenizer: str, length: int, config: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that an encoder was trained with.

    Parameters
    ----------
    tokenizer : str
        tokenizer.json.
    length : int
        Tokens of every text.
    config : mapping
        Of the encoder; names the padding, and how many tokens it has states for.

    Raises
    ------
    RecipeError
        If the encoder has no state for some token, or the tokenizer has no padding that it knows.
    """
    pad_id = int(config.get("pad_token_id") or 0)
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        file.write(tokenizer)
        file.flush()
        made = Tokenizer(file.name, length=length, pad_id=pad_id, pad_token=token_of(tokenizer, pad_id))
    known = int(config["vocab_size"])
    if made.highest_id >= known:
        raise RecipeError(
            f"the tokenizer is not this encoder's: it numbers tokens up to {made.highest_id}, the encoder knows 0 to "
            f"{known - 1}"
        )
    return made


def token_of(tokenizer: str, number: int) -> str:
    """Token of a number, by tokenizer.json."""
    token: str | None = read_library(tokenizer).id_to_token(number)
    if token is None:
        raise RecipeError(f"the tokenizer has no token {number}, which the encoder names as its padding")
    return token


def learn_tokenizer(texts: Sequence[str], vocabulary: int, *, accents: bool = False) -> str:
    """tokenizer.json that knows the words of `texts`, the most frequent first, and spells all others.

    Ties go by the word, so that the same texts give the same file: the trainers of the library break them by a hash that
    changes from call to call.

    Parameters
    ----------
    accents : bool
        Whether letters keep their accents, composed (NFC): in many languages they tell words apart.
    """
    try:
        from tokenizers import Tokenizer as Library
        from tokenizers import decoders, models, normalizers, pre_tokenizers, processors
    except ImportError:
        raise MissingExtra("tokenizers", "text") from None
    plain, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    composed = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    normalizer = normalizers.Sequence([normalizers.NFC(), composed]) if accents else plain
    counts = Counter(word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    letters = sorted({letter for word in counts for letter in word})
    words = sorted((word for word, count in counts.items() if count > 1), key=lambda word: (-counts[word], word))
    names = dict.fromkeys([*_SPECIAL, *letters, *(f"##{letter}" for letter in letters), *words])
    known = {name: number for number, name in enumerate(list(names)[:vocabulary])}
    learned = Library(models.WordPiece(known, unk_token="[UNK]"))
    learned.normalizer, learned.pre_tokenizer, learned.decoder = normalizer, splitter, decoders.WordPiece()
    learned.add_special_tokens(list(_SPECIAL))
    learned.post_processor = processors.BertProcessing(("[SEP]", known["[SEP]"]), ("[CLS]", known["[CLS]"]))
    text: str = learned.to_str()
    return text


def read_library(tokenizer: str) -> Any:
    """A tokenizer.json as the tokenizers library has it; ValueError where it is none."""
    try:
        from tokenizers import Tokenizer as Library
    except ImportError:
        raise MissingExtra("tokenizers", "text") from None
    try:
        return Library.from_str(tokenizer)
    except Exception as error:  # the library's exceptions share no base class but Exception
        raise ValueError(first_line(error)) from None


def _folder(name: str, role: str) -> Path:
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise RecipeError(f"{role} folder {name} does not exist")
    return folder


def load_pretrained(name: str, kind: Any, role: str = "encoder", **options: Any) -> Any:
    """What a class of transformers makes of a folder, or of a name on the hub.

    Raises
    ------
    RecipeError
        If that fails, for whatever reason its files give.
    """
    try:
        if names_a_folder(name):
            return kind.from_pretrained(_folder(name, role), local_files_only=True, **options)
        return from_hub(name, role, lambda here: kind.from_pretrained(name, local_files_only=here, **options))
    except HardpathError:
        raise
    except Exception as error:  # what transformers raises depends on which of its files is broken, and how
        raise RecipeError(f"{role} {name!r} cannot be loaded: {first_line(error)}") from None


def import_transformers() -> Any:
    """The transformers package, its progress bars and advice turned off."""
    try:
        import transformers
    except ImportError:
        raise MissingExtra("transformers", "hub") from None
    quiet: Any = transformers.utils.logging
    quiet.set_verbosity_error()
    quiet.disable_progress_bar()
    return transformers


def first_line(error: Exception) -> str:
    """What an exception of a library says, in one line."""
    lines = [line.strip() for line in str(error).strip().splitlines()]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1]) if lines else type(error).__name__
