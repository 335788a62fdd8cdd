import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from serve.pb.inference import grpc_service_pb2 as pb
from serve.services.inference.tensors import BYTES, Tensor, inputs_from_message

DATATYPES = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}
CONTENTS = {"BOOL": "bool", "UINT64": "uint64", "INT64": "int64", "FP32": "fp32", "FP64": "fp64"}


def read(datatype, shape, raw=None, contents=None, tensor=None):
    head = pb.ModelInferRequest.InferInputTensor(name="x", datatype=datatype, shape=shape, contents=contents)
    request = pb.ModelInferRequest(inputs=[head], raw_input_contents=[] if raw is None else [raw])
    return inputs_from_message(request, {"x": tensor or Tensor("x", "FP32", (1,))}, 9)["x"]


def arrays_of(datatypes):
    return st.sampled_from(sorted(datatypes)).flatmap(
        lambda name: st.tuples(
            st.just(name), arrays.arrays(DATATYPES[name], arrays.array_shapes(min_dims=2, max_dims=8, max_side=3))
        )
    )


@given(arrays_of(DATATYPES))
def test_raw_contents_are_read_as_they_were_written(given):
    datatype, array = given
    little = array.astype(array.dtype.newbyteorder("<"))
    np.testing.assert_array_equal(read(datatype, array.shape, little.tobytes()), array)


@given(arrays_of(set(DATATYPES) - {"FP16"}))
def test_typed_contents_are_read_as_they_were_written(given):
    datatype, array = given
    field = CONTENTS.get(datatype, "uint" if datatype.startswith("U") else "int")
    contents = pb.InferTensorContents(**{f"{field}_contents": array.ravel().tolist()})
    np.testing.assert_array_equal(read(datatype, array.shape, contents=contents), array)


@given(arrays.arrays(np.uint16, (3, 2)))
def test_bfloat16_is_the_upper_half_of_float32(upper):
    wanted = np.array([number << 16 for number in upper.ravel().tolist()], dtype=np.uint32).view(np.float32)
    np.testing.assert_array_equal(read("BF16", (3, 2), upper.astype("<u2").tobytes()), wanted.reshape(3, 2))


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=9), min_size=1, max_size=9))
def test_texts_are_read_as_they_were_written(oip, texts):
    tensor = Tensor("x", BYTES)
    for shape in ([len(texts)], [len(texts), 1]):
        assert read(BYTES, shape, oip.elements(texts), tensor=tensor).tolist() == texts
    contents = pb.InferTensorContents(bytes_contents=[text.encode() for text in texts])
    assert read(BYTES, [len(texts)], contents=contents, tensor=tensor).tolist() == texts


@pytest.mark.parametrize(("tensor", "shape"), [(Tensor("x", "FP32"), (2,)), (Tensor("x", "FP32", (1,)), (2, 1))])
def test_a_size_of_one_is_dropped_where_a_sample_has_one_element_alone(tensor, shape):
    assert read("FP32", (2, 1), bytes(8), tensor=tensor).shape == shape
