"""A tokenizer of a few words, and any room's small bundle made to take texts."""

import json
import shutil

import numpy as np
import onnx
import pytest
import tokenizers
from onnx import TensorProto, helper, numpy_helper

from link.manifest import MANIFEST_NAME, sha256

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "fine", "film", "and", "dull", "one")
TEXT_LENGTH = 6


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory):
    """A tokenizer.json: whole words between [CLS] and [SEP]."""
    words = {word: number for number, word in enumerate(WORDS)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(list(WORDS[:4]))
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", words["[CLS]"]), ("[SEP]", words["[SEP]"])]
    )
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(file))
    return file


@pytest.fixture(scope="session")
def with_tokenizer(tmp_path_factory, tokenizer_file):
    """Function from the folder of a bundle with one input of floats to that of one with texts in its place."""

    def make(bundle):
        folder = tmp_path_factory.mktemp("texts") / "bundle"
        shutil.copytree(bundle, folder)
        shutil.copy(tokenizer_file, folder / "tokenizer.json")
        manifest = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
        graph = manifest["transmitter"]
        put_words_before(folder / "transmitter.onnx", graph["inputs"][0])
        names = {"input_ids": len(WORDS) - 1, "attention_mask": 1}
        graph["inputs"] = [
            {"name": name, "dtype": "int64", "shape": ["batch", TEXT_LENGTH], "low": 0, "high": high}
            for name, high in names.items()
        ]
        graph["sha256"] = sha256(folder / "transmitter.onnx")
        manifest["tokenizer"] = {
            "sha256": sha256(folder / "tokenizer.json"),
            "length": TEXT_LENGTH,
            "pad_id": 0,
            "pad_token": "[PAD]",
        }
        (folder / MANIFEST_NAME).write_text(json.dumps(manifest), encoding="utf-8")
        return folder

    return make


def put_words_before(file, spec):
    """Give a transmitter a layer that turns words into its input: the sum of a vector a word, around the range's middle."""
    transmitter = onnx.load(str(file))
    shape = spec["shape"][1:]
    low, high = (-10.0 if spec["low"] is None else spec["low"]), (10.0 if spec["high"] is None else spec["high"])
    table = np.random.default_rng(4).uniform(low - high, high - low, size=(len(WORDS), int(np.prod(shape)))) / 2.0
    constants = {
        "words_table": table.astype(np.float32),
        "words_axis": np.array([1], dtype=np.int64),
        "words_last": np.array([2], dtype=np.int64),
        "words_shape": np.array([-1, *shape], dtype=np.int64),
        "words_middle": np.float32((low + high) / 2.0),
        "words_low": np.float32(low),
        "words_high": np.float32(high),
    }
    nodes = [
        helper.make_node("Gather", ["words_table", "input_ids"], ["words_each"]),
        helper.make_node("Cast", ["attention_mask"], ["words_mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["words_mask", "words_last"], ["words_mask_3"]),
        helper.make_node("Mul", ["words_each", "words_mask_3"], ["words_masked"]),
        helper.make_node("ReduceSum", ["words_masked", "words_axis"], ["words_sum"], keepdims=0),
        helper.make_node("Add", ["words_sum", "words_middle"], ["words_moved"]),
        helper.make_node("Clip", ["words_moved", "words_low", "words_high"], ["words_clipped"]),
        helper.make_node("Reshape", ["words_clipped", "words_shape"], ["words_out"]),
    ]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", TEXT_LENGTH])
        for name in ("input_ids", "attention_mask")
    ]
    output = helper.make_tensor_value_info("words_out", TensorProto.FLOAT, ["batch", *shape])
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    words = helper.make_model(
        helper.make_graph(nodes, "words", inputs, [output], initializers),
        opset_imports=transmitter.opset_import,
        ir_version=transmitter.ir_version,
    )
    onnx.save(onnx.compose.merge_models(words, transmitter, io_map=[("words_out", spec["name"])]), str(file))
