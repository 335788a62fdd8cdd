"""A byte-pair vocabulary: pieces that spell whatever is UTF-8, and give it back to the last byte (Sennrich et al. 2016)."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Final

from link.errors import MissingExtra
from link.tokenizer import Tokenizer

PAD_TOKEN: Final = "[PAD]"
PAD_ID: Final = 0
END: Final = "[END]"
END_ID: Final = 1


def learn_pieces(sentences: Sequence[str], vocabulary: int) -> str:
    """tokenizer.json of so many pieces, the bytes and the most frequent pairs of pieces among `sentences`.

    An end stands behind each sentence.
    """
    try:
        from tokenizers import Tokenizer as Library
        from tokenizers import decoders, models, pre_tokenizers, processors, trainers
    except ImportError:
        raise MissingExtra("tokenizers", "text") from None
    learned = Library(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learned.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD_TOKEN, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    learned.train_from_iterator(sentences, trainer)
    learned.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, END_ID)])
    text: str = learned.to_str()
    return text


def build_pieces(tokenizer: str, length: int) -> Tokenizer:
    """The tokenizer of a tokenizer.json, which makes `length` pieces of every sentence, its end and padding among them."""
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        file.write(tokenizer)
        file.flush()
        return Tokenizer(file.name, length=length, pad_id=PAD_ID, pad_token=PAD_TOKEN)
