import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from link.errors import ArgumentError
from serve.messages.tensor import tensor_from_message, tensor_to_message
from serve.pb.hardpath.v1 import link_pb2 as pb

FORMATS = [pb.TENSOR_FORMAT_UNSPECIFIED, pb.TENSOR_FORMAT_VALUES, pb.TENSOR_FORMAT_RAW]


@pytest.mark.parametrize("tensor_format", FORMATS)
@given(
    array=arrays.arrays(
        st.sampled_from([np.float32, np.int64, np.uint8]), arrays.array_shapes(min_dims=0, max_dims=8, max_side=3)
    )
)
def test_an_array_comes_back_as_it_went(tensor_format, array):
    message = pb.Tensor.FromString(tensor_to_message("x", array, tensor_format).SerializeToString())
    np.testing.assert_array_equal(tensor_from_message("x", message), array, strict=True)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)


@pytest.mark.parametrize("tensor_format", FORMATS)
@given(texts=st.lists(TEXTS, min_size=1, max_size=5))
def test_texts_come_back_as_they_went(tensor_format, texts):
    for value in (texts, tuple(texts), np.array(texts, dtype=object)):
        message = pb.Tensor.FromString(tensor_to_message("x", value, tensor_format).SerializeToString())
        assert message.data_type == pb.DATA_TYPE_STRING
        found = tensor_from_message("x", message)
        assert found.dtype == object
        assert found.tolist() == texts


def test_texts_of_any_shape_and_numpy_s_own_are_taken():
    array = np.array([["a", "bb"], ["", "\U0001f600"]])
    np.testing.assert_array_equal(tensor_from_message("x", tensor_to_message("x", array)), array)


def test_one_long_text_takes_its_own_room_and_no_more():
    texts = ["a" * 2**20, *["b"] * 4095]
    # As dtype str each would take 4 MiB: 16 GiB together.
    assert tensor_from_message("x", tensor_to_message("x", texts)).nbytes == 4096 * np.dtype(object).itemsize


@pytest.mark.parametrize("array", [np.arange(6.0).reshape(2, 3).T, np.arange(6, dtype=">i8")[::-2], np.float16([1, 2])])
def test_order_stride_and_byte_order_of_the_array_do_not_matter(array):
    np.testing.assert_array_equal(tensor_from_message("x", tensor_to_message("x", array)), array)


def test_raw_is_little_endian_and_row_major():
    message = tensor_to_message("x", np.array([[1, 2]], dtype=np.int64))
    assert message.raw == bytes([1, *[0] * 7, 2, *[0] * 7])
    assert list(message.shape) == [1, 2]


def test_values_are_readable():
    message = tensor_to_message("bits", np.array([[0, 1]], dtype=np.uint8), pb.TENSOR_FORMAT_VALUES)
    assert list(message.uint8_values) == [0, 1]


REFUSED = [
    (pb.Tensor(shape=[1]), "x", "exactly one of"),
    (pb.Tensor(shape=[1], float32_values=[1.0], int64_values=[1]), "x", "float32_values and int64_values"),
    (pb.Tensor(shape=[2], float32_values=[1.0]), "x.shape", r"multiply to the 1 elements in float32_values, got \[2\]"),
    (pb.Tensor(shape=[2**31 - 1] * 8, raw=b"0000", data_type=1), "x.shape", "multiply to the 1 elements in raw"),
    (pb.Tensor(shape=[2**16, 2**16, 2**16, 2**16], float32_values=[1.0]), "x.shape", "multiply to"),
    (pb.Tensor(shape=[1] * 9, float32_values=[1.0]), "x.shape", "at most 8 sizes, got 9"),
    (pb.Tensor(shape=[-1, -1], float32_values=[1.0]), "x.shape", "at least 1"),
    (pb.Tensor(shape=[0], float32_values=[1.0]), "x.shape", "at least 1"),
    (pb.Tensor(shape=[1], raw=b"0000"), "x.data_type", "must be one of DATA_TYPE_FLOAT32"),
    (pb.Tensor(shape=[1], raw=b"0000", data_type=99), "x.data_type", "got 99"),
    (pb.Tensor(shape=[1], float32_values=[1.0], data_type=pb.DATA_TYPE_INT64), "x.data_type", "must agree"),
    (pb.Tensor(shape=[1], raw=b"000", data_type=pb.DATA_TYPE_FLOAT32), "x.raw", "multiple of 4 bytes, got 3"),
    (pb.Tensor(shape=[1], uint8_values=[256]), "x.uint8_values", r"\[0, 255\], got 256"),
    (pb.Tensor(shape=[1], string_values=["a"], raw=b"a"), "x", "string_values and raw"),
    (
        pb.Tensor(shape=[1], string_values=["a"], data_type=pb.DATA_TYPE_UINT8),
        "x.data_type",
        "agree with string_values",
    ),
    (
        pb.Tensor(shape=[1], raw=b"aaaa", data_type=pb.DATA_TYPE_STRING),
        "x.data_type",
        "must be one of DATA_TYPE_FLOAT32",
    ),
    (pb.Tensor(shape=[3], string_values=["a"]), "x.shape", "multiply to the 1 elements in string_values"),
]


@pytest.mark.parametrize(("message", "field", "text"), REFUSED)
def test_a_message_that_holds_no_tensor_is_refused_by_its_part(message, field, text):
    with pytest.raises(ArgumentError, match=text) as refused:
        tensor_from_message("x", message)
    assert refused.value.field == field


@pytest.mark.parametrize(
    "value",
    [
        [[1], [1, 2]],
        [b"a"],
        ["a", 7],
        ["a", None],
        ["a", ["b"]],
        ["\ud83d"],
        [None],
        np.array([2**63], dtype=np.uint64),
        [1j],
        [[[[[[[[[1]]]]]]]]],
    ],
)
def test_what_no_message_can_hold_is_refused(value):
    with pytest.raises(ArgumentError):
        tensor_to_message("x", value)
