import numpy as np
import pytest

from link.channel import build_channel
from link.codebook import softmax
from link.randomness import Draws
from serve.pb.inference import grpc_service_pb2 as pb

TRANSMISSION = ("mode", "indices", "bits", "num_bits", "symbols", "num_symbols")


def shapes(tensors):
    return {tensor.name: (tensor.datatype, tuple(tensor.shape)) for tensor in tensors}


def sent_of(link, images):
    return link.transmitter({"image": images})


def test_the_transmitter_answers_what_the_link_s_own_transmitter_sends(stub, oip, link, images):
    found = oip.arrays(stub.ModelInfer(oip.request("tiny.transmitter", {"image": images})))
    assert tuple(found) == TRANSMISSION
    for name, wanted in sent_of(link, images)._asdict().items():
        np.testing.assert_array_equal(found[name], wanted, strict=True)


def test_the_receiver_answers_what_the_link_s_own_receiver_finds(stub, oip, link, images):
    sent = sent_of(link, images)
    no = np.full(sent.symbols.shape[:2], 0.3, dtype=np.float32)
    wanted = link.receiver(sent.symbols, no)
    found = oip.arrays(stub.ModelInfer(oip.request("tiny.receiver", {"symbols": sent.symbols, "no": no})))
    assert tuple(found) == ("decisions", "class_names", "probabilities", "logits", "indices_hat", "llr")
    np.testing.assert_array_equal(found["decisions"], wanted.decisions, strict=True)
    assert found["class_names"] == [link.manifest.task.classes[index] for index in wanted.decisions]
    np.testing.assert_array_equal(found["probabilities"], softmax(wanted.logits), strict=True)
    for name in ("logits", "indices_hat", "llr"):
        np.testing.assert_array_equal(found[name], getattr(wanted, name), strict=True)


def test_the_receiver_takes_the_bits_or_llrs_of_another_modem(stub, oip, link, images):
    sent = sent_of(link, images)
    llr = np.where(sent.bits == 1, 20.0, -20.0).astype(np.float32)
    for inputs in ({"bits": sent.bits}, {"llr_in": llr}):
        found = oip.arrays(stub.ModelInfer(oip.request("tiny.receiver", inputs)))
        np.testing.assert_array_equal(found["indices_hat"], sent.indices)
        np.testing.assert_array_equal(found["llr"], llr)


@pytest.mark.parametrize("channel", ["awgn", "rayleigh"])
def test_the_link_carries_as_the_library_does(stub, oip, link, images, channel):
    draws = Draws(3, 5 + np.arange(len(images)), 2)
    wanted = link.transmit({"image": images}, build_channel(channel), 4.0, draws)
    parameters = {"snr_db": 4.0, "channel": channel, "seed": 3, "sample_offset": 5, "draw": 2}
    names = ("symbols", "y", "no", "llr", "logits", "decisions", "bit_errors", "bits")
    reply = stub.ModelInfer(oip.request("tiny.link", {"image": images}, outputs=names, parameters=parameters))
    found = oip.arrays(reply)
    assert tuple(found) == names
    np.testing.assert_array_equal(found["symbols"], wanted.sent.symbols, strict=True)
    np.testing.assert_array_equal(found["y"], wanted.received.y, strict=True)
    np.testing.assert_array_equal(found["no"], wanted.received.no, strict=True)
    np.testing.assert_array_equal(found["llr"], wanted.decoded.llr, strict=True)
    np.testing.assert_array_equal(found["logits"], wanted.decoded.logits, strict=True)
    np.testing.assert_array_equal(found["decisions"], wanted.decoded.decisions, strict=True)
    errors = ((wanted.decoded.llr > 0) != wanted.sent.bits.astype(bool)).sum(axis=1)
    np.testing.assert_array_equal(found["bit_errors"], errors, strict=True)
    assert errors.any()


def test_a_reply_says_which_options_it_used_and_they_give_it_again(stub, oip, images):
    bare = stub.ModelInfer(oip.request("tiny.link", {"image": images}))
    used = oip.options(bare)
    assert used == {
        "snr_db": 12.0,
        "channel": "awgn",
        "block_symbols": 0,
        "seed": 0,
        "sample_offset": 0,
        "draw": 0,
        "snr_error_db": 0.0,
        "csi": "perfect",
        "pilots": 0,
        "no_offset_db": 0.0,
    }
    assert stub.ModelInfer(oip.request("tiny.link", {"image": images}, parameters=used)) == bare


def test_options_reach_the_channel(stub, oip, images):
    parameters = {"snr_db": 3, "channel": "rician", "k_factor_db": 2.0, "block_symbols": 2}
    parameters |= {"csi": "ls", "pilots": 4, "no_offset_db": 1.5}
    reply = stub.ModelInfer(oip.request("tiny.link", {"image": images}, parameters=parameters))
    assert oip.options(reply).items() >= parameters.items()


def test_a_request_that_names_no_output_gets_decisions_and_no_symbols(stub, oip, images):
    found = oip.arrays(stub.ModelInfer(oip.request("tiny.link", {"image": images})))
    assert tuple(found) == ("decisions", "class_names", "probabilities", "logits", "bit_errors")


@pytest.mark.parametrize("value", [7, 7.0, "7", "7.0"])
def test_a_number_may_come_as_whatever_the_client_makes_of_it(stub, oip, images, value):
    reply = stub.ModelInfer(oip.request("tiny.link", {"image": images}, parameters={"snr_db": value}))
    assert oip.options(reply)["snr_db"] == 7.0
    for seed in (5, "5", 5.0):
        reply = stub.ModelInfer(oip.request("tiny.link", {"image": images}, parameters={"seed": seed}))
        assert oip.options(reply)["seed"] == 5


def test_metadata_name_the_tensors_of_the_manifest(stub):
    metadata = stub.ModelMetadata(pb.ModelMetadataRequest(name="tiny.transmitter"))
    assert list(metadata.versions) == ["1"]
    assert metadata.platform == "hardpath"
    assert shapes(metadata.inputs) == {"image": ("FP32", (-1, 8, 8))}
    assert shapes(metadata.outputs) == {
        "mode": ("INT64", (-1,)),
        "indices": ("INT64", (-1, 5)),
        "bits": ("UINT8", (-1, 15)),
        "num_bits": ("INT64", (-1,)),
        "symbols": ("FP32", (-1, 4, 2)),
        "num_symbols": ("INT64", (-1,)),
    }
    receiver = stub.ModelMetadata(pb.ModelMetadataRequest(name="tiny.receiver", version="1"))
    assert shapes(receiver.inputs)["mode"] == ("INT64", (-1, 1))
    assert shapes(receiver.outputs)["class_names"] == ("BYTES", (-1,))


@pytest.mark.parametrize("name", ["tiny.transmitter", "tiny.receiver", "tiny.link"])
def test_every_output_has_the_datatype_and_shape_that_metadata_tell(stub, oip, link, images, name):
    metadata = stub.ModelMetadata(pb.ModelMetadataRequest(name=name))
    sent = sent_of(link, images)
    inputs = {"image": images}
    if name == "tiny.receiver":
        inputs = {"symbols": sent.symbols, "no": np.ones(sent.symbols.shape[:2], dtype=np.float32)}
    reply = stub.ModelInfer(oip.request(name, inputs, outputs=[output.name for output in metadata.outputs]))
    told = {key: (datatype, (len(images), *shape[1:])) for key, (datatype, shape) in shapes(metadata.outputs).items()}
    assert shapes(reply.outputs) == told
    oip.arrays(reply)  # each fills its shape


def test_the_configuration_says_what_may_be_left_out_and_what_requests_may_set(stub):
    config = stub.ModelConfig(pb.ModelConfigRequest(name="tiny.receiver")).config
    assert config.max_batch_size == 64
    assert config.WhichOneof("scheduling_choice") == "dynamic_batching"
    assert {tensor.name for tensor in config.input if tensor.optional} == {"mode", "llr_in", "bits"}
    assert not config.parameters
    link = stub.ModelConfig(pb.ModelConfigRequest(name="tiny.link")).config
    assert {name: parameter.string_value for name, parameter in link.parameters.items()}["snr_db"] == "12.0"
    assert [(tensor.name, tensor.data_type, *tensor.dims) for tensor in link.input] == [("image", pb.TYPE_FP32, 8, 8)]


def test_the_best_classes_stand_in_for_scores(stub, oip, images):
    request = oip.request("tiny.link", {"image": images}, outputs=["probabilities", "decisions"])
    request.outputs[0].parameters["classification"].int64_param = 2
    reply = stub.ModelInfer(request)
    assert shapes(reply.outputs)["probabilities"] == ("BYTES", (len(images), 2))
    found = oip.arrays(reply)
    plain = oip.arrays(stub.ModelInfer(oip.request("tiny.link", {"image": images})))
    best = np.array(found["probabilities"]).reshape(len(images), 2)
    names = ("disc", "ring", "star")
    for row, scores in zip(best, plain["probabilities"], strict=True):
        order = np.argsort(-scores)[:2]
        assert row.tolist() == [f"{scores[index]:f}:{index}:{names[index]}" for index in order]


def test_a_router_s_estimate_is_an_input_a_parameter_or_the_default(routed_stub, oip, latents_of):
    latents = latents_of([0, 0]).inputs
    estimates = {12.0: {}, 4.0: {"parameters": {"snr_db": 4}}}
    for snr_db, asked in estimates.items():
        reply = routed_stub.ModelInfer(oip.request("rings.transmitter", latents, **asked))
        assert oip.options(reply) == {"snr_db": snr_db}
        np.testing.assert_array_equal(oip.arrays(reply)["mode"], [0 if snr_db > 8.0 else 1] * 2)
    each = latents | {"snr_db": np.array([20.0, -5.0], dtype=np.float32)}
    reply = routed_stub.ModelInfer(oip.request("rings.transmitter", each))
    np.testing.assert_array_equal(oip.arrays(reply)["mode"], [0, 2])
    assert not reply.parameters


def test_a_link_of_several_modes_says_what_became_of_its_headers(routed_stub, oip, latents_of):
    latents = latents_of([0, 1, 2, 1]).inputs
    names = ["mode", "mode_hat", "header_lost", "header_wrong"]
    request = oip.request("rings.link", latents, outputs=names, parameters={"snr_db": 30.0})
    found = oip.arrays(routed_stub.ModelInfer(request))
    np.testing.assert_array_equal(found["mode_hat"], found["mode"])
    assert found["header_lost"].dtype == np.bool_
    assert not found["header_lost"].any()
    assert not found["header_wrong"].any()


def test_texts_come_as_bytes_and_what_was_seen_of_them_goes_back(text_stub, oip, text_link):
    texts = ["a fine film", "one dull film and one dull film", "quux"]
    names = ["bits", "truncated", "unknown"]
    found = oip.arrays(text_stub.ModelInfer(oip.request("tiny.link", {"text": texts}, outputs=names)))
    np.testing.assert_array_equal(found["bits"], text_link.transmitter({"text": texts}).bits, strict=True)
    assert found["truncated"].tolist() == [False, True, False]
    assert found["unknown"].tolist() == [False, False, True]
    metadata = text_stub.ModelMetadata(pb.ModelMetadataRequest(name="tiny.link"))
    assert shapes(metadata.inputs) == {"text": ("BYTES", (-1, 1))}


def test_integers_may_stand_in_for_a_text_of_theirs(text_stub, oip, text_link):
    read = text_link.transmitter.read({"text": ["a fine film", "dull"]}).arrays
    names = ["bits", "truncated", "unknown"]
    found = oip.arrays(text_stub.ModelInfer(oip.request("tiny.transmitter", read, outputs=names)))
    np.testing.assert_array_equal(found["bits"], text_link.transmitter({"text": ["a fine film", "dull"]}).bits)
    assert not found["truncated"].any()
    assert not found["unknown"].any()


def test_a_sample_of_one_element_may_have_a_size_for_it(text_stub, oip):
    request = oip.request("tiny.transmitter", {"text": ["a fine film", "dull"]})
    flat = text_stub.ModelInfer(request)
    request.inputs[0].shape.append(1)
    assert text_stub.ModelInfer(request) == flat
