"""Encoder-decoders by name: what is read of their files, what they read and spell, and what is refused."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM

from link.errors import RecipeError
from train.encoders import build_tokenizer
from train.pieces import END_ID
from train.seq2seq import Seq2SeqDecoder, Seq2SeqReader, load_seq2seq
from train.seq2seq_files import Seq2SeqModel, find_seq2seq

LENGTH = 5
ROWS = 6
SEQ2SEQ = "AutoModelForSeq2SeqLM"


def named(folder, beam=1):
    """Reader and decoder of a folder's model, with its weights, and what is kept of it."""
    model = Seq2SeqModel.model_validate_json(find_seq2seq(str(folder)).model.model_dump_json())
    reader, decoder = Seq2SeqReader(model), Seq2SeqDecoder(model, beam)
    for part in (reader, decoder):
        load_seq2seq(part.backbone, model, str(folder))
    return model, reader.eval(), decoder.eval()


def own(pieces, model):
    """Pieces in the numbers of the model's files."""
    return torch.where(pieces == END_ID, model.own_end, torch.where(pieces == model.own_end, END_ID, pieces))


@pytest.fixture(params=["bart", "t5", "mt5", "pegasus", "mbart", "mbart with scores of its own"])
def family(request, seq2seq, tmp_path):
    name, _, apart = request.param.partition(" ")
    if not apart:
        return seq2seq(name)
    folder = shutil.copytree(seq2seq(name, tie_word_embeddings=False), tmp_path / "apart")
    weights = load_file(folder / "model.safetensors")
    bias = torch.randn(weights["final_logits_bias"].shape, generator=torch.Generator().manual_seed(3))
    save_file(weights | {"final_logits_bias": bias}, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture
def received():
    return 2.0 * torch.randn(ROWS, LENGTH, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def present():
    return torch.arange(LENGTH) < torch.tensor([5, 1, 3, 4, 2, 5])[:, None]


@torch.no_grad()
def test_an_encoder_reads_a_sentence_as_transformers_has_it(family):
    """Recomputed by the model as its folder holds it: what stands before a sentence, the sentence, its end."""
    model, reader, _ = named(family)
    whole = AutoModelForSeq2SeqLM.from_pretrained(family).eval()
    pieces = torch.tensor([[7, 8, 9, 10], [11, 12, END_ID, 0]])
    states = reader(pieces, torch.tensor([[True] * 4, [True, True, False, False]]))
    for row, length in enumerate((4, 2)):
        sentence = torch.cat([torch.tensor(model.before), pieces[row, :length], torch.tensor([END_ID])]).long()
        wanted = whole.get_encoder()(input_ids=own(sentence, model)[None]).last_hidden_state
        found = wanted[0, len(model.before) : -1]
        assert found.shape == (length, 16)
        torch.testing.assert_close(states[row, :length], found, rtol=0, atol=2e-5)


@torch.no_grad()
def test_a_decoder_that_is_told_says_what_transformers_says(family, received, present):
    model, _, decoder = named(family)
    whole = AutoModelForSeq2SeqLM.from_pretrained(family).eval()
    told = torch.randint(3, model.pieces, (ROWS, LENGTH), generator=torch.Generator().manual_seed(2))
    told[1, 1:] = -1
    told[1, 1] = END_ID
    found = decoder(received, present, told)
    before = own(torch.tensor(model.before, dtype=torch.int64), model).tolist()
    begin = torch.tensor([whole.config.decoder_start_token_id, *before]).expand(ROWS, -1)
    wanted = whole(
        encoder_outputs=(received,),
        attention_mask=present,
        decoder_input_ids=torch.cat([begin, own(told[:, :-1].clamp_min(0), model)], dim=1),
    ).logits[:, begin.shape[1] - 1 :]
    torch.testing.assert_close(found, wanted[..., own(torch.arange(model.pieces), model)], rtol=0, atol=2e-4)


@torch.no_grad()
@pytest.mark.parametrize("beam", [1, 3])
def test_what_is_decided_step_by_step_has_the_probability_that_it_would_have_if_told(family, received, present, beam):
    _, _, decoder = named(family, beam)
    found = decoder.decide(received, present)
    told = decoder(received, present, found.decisions).log_softmax(dim=-1)
    ends = (found.decisions == END_ID).int()
    judged = present & (ends.cumsum(dim=1) - ends == 0)
    assert judged.sum() > ROWS
    wanted = told.gather(-1, found.decisions[..., None])[..., 0]
    torch.testing.assert_close(found.score[judged], wanted[judged], rtol=0, atol=1e-4)
    assert (found.decisions[~judged] == END_ID).all()
    if beam == 1:
        assert torch.equal(told.argmax(dim=-1)[judged], found.decisions[judged])


@torch.no_grad()
def test_the_best_of_three_is_likelier_than_the_greedy_text(seq2seq, received, present):
    greedy, beam = (named(seq2seq("bart"), width)[2].decide(received, present).score.sum(dim=1) for width in (1, 3))
    assert (beam > greedy + 1e-4).any()
    assert beam.sum() > greedy.sum()


@torch.no_grad()
@pytest.mark.parametrize("beam", [1, 3])
def test_a_row_is_decided_alike_beside_longer_ones(seq2seq, received, present, beam):
    _, _, decoder = named(seq2seq("bart"), beam)
    together = decoder.decide(received, present)
    for row in range(ROWS):
        length = int(present[row].sum())
        alone = decoder.decide(received[row : row + 1, :length], present[row : row + 1, :length])
        assert torch.equal(alone.decisions[0], together.decisions[row, :length])


@torch.no_grad()
def test_what_was_not_sent_changes_nothing(seq2seq, received, present):
    _, _, decoder = named(seq2seq("bart"))
    other = torch.where(present[..., None], received, 9.0)
    torch.testing.assert_close(decoder(other, present), decoder(received, present), rtol=0, atol=1e-5)


TEXTS = ["a man runs.", "Một người đàn ông.", "日本 🙂 </s> <pad><s>", "  two  spaces ", "\ta\n"]


def tokenizer_of(folder, length=64):
    found = find_seq2seq(str(folder))
    return build_tokenizer(found.tokenizer, length, found.model.config), found.model


@pytest.mark.parametrize("name", ["bart", "mbart", "pegasus"])
def test_bytes_are_spelt_and_given_back_to_the_last_one(seq2seq, name):
    tokenizer, _ = tokenizer_of(seq2seq(name))
    assert tokenizer.texts(tokenizer(TEXTS).input_ids, END_ID) == TEXTS


def test_what_a_tokenizer_normalises_stays_so(seq2seq):
    """T5 composes letters and runs spaces together; what it has no piece for it does not spell."""
    tokenizer, _ = tokenizer_of(seq2seq("t5"))
    assert tokenizer.texts(tokenizer(["a  man runs", "a \ufb01lm?"]).input_ids, END_ID) == ["a man runs", "a ilm"]


def test_pieces_are_the_tokenizers_own_with_one_end_behind_them(family):
    """Against the tokenizer of the folder: the same pieces by name, cut and padded to one length."""
    from tokenizers import Tokenizer

    plain = Tokenizer.from_file(str(family / "tokenizer.json"))
    plain.no_padding()
    plain.no_truncation()
    tokenizer, model = tokenizer_of(family, 12)
    found = tokenizer(["two dogs", "a man runs in the park by the sea. " * 3])
    for row, text in enumerate(["two dogs", "a man runs in the park by the sea. " * 3]):
        wanted = plain.encode(text, add_special_tokens=False).ids[:11]
        assert own(torch.from_numpy(found.input_ids[row]), model).tolist()[: len(wanted) + 1] == [
            *wanted,
            model.own_end,
        ]
        assert found.attention_mask[row].tolist() == [1] * (len(wanted) + 1) + [0] * (11 - len(wanted))
    assert found.cut.tolist() == [False, True]


def test_a_piece_that_is_in_the_vocabulary_alone_changes_its_number_as_well(seq2seq, tmp_path):
    from tokenizers import Tokenizer

    folder = changed_config(seq2seq("bart"), tmp_path / "model")
    file = folder / "tokenizer.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    values["added_tokens"] = [token for token in values["added_tokens"] if token["content"] != "<pad>"]
    file.write_text(json.dumps(values), encoding="utf-8")
    found = Tokenizer.from_str(find_seq2seq(str(folder)).tokenizer)
    assert [found.token_to_id(name) for name in ("<s>", "</s>", "<pad>", "<unk>")] == [0, END_ID, 2, 3]
    assert sorted(found.get_vocab().values()) == list(range(found.get_vocab_size()))


def test_the_weights_of_both_ends_are_those_of_the_folder_and_no_tensor_lies_in_them_twice(family):
    model, reader, decoder = named(family)
    whole = AutoModelForSeq2SeqLM.from_pretrained(family)
    pieces = own(torch.arange(model.pieces), model)
    for part, wanted in (
        (reader.backbone.model, whole.get_encoder()),
        (decoder.backbone.model.decoder, whole.get_decoder()),
    ):
        assert torch.equal(part.get_input_embeddings().weight, wanted.get_input_embeddings().weight[pieces])
    tensors = {**reader.state_dict(), **decoder.state_dict()}
    assert len({tensor.data_ptr() for tensor in tensors.values()}) == len(tensors)
    assert {"before", "start"}.isdisjoint(tensors)


def test_a_model_works_in_training_as_it_is_deployed(seq2seq, received, present):
    """Dropout would draw from torch's global generator."""
    _, reader, decoder = named(seq2seq("bart", dropout=0.5, attention_dropout=0.5, encoder_layerdrop=0.5))
    state = torch.get_rng_state()
    told = torch.full((ROWS, LENGTH), 7)
    assert torch.equal(decoder.train()(received, present, told), decoder.eval()(received, present, told))
    assert torch.equal(reader.train()(told, present), reader.eval()(told, present))
    assert torch.equal(torch.get_rng_state(), state)


def changed_config(folder, target, **changes):
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | changes))
    return target


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "bert"}, r"is no encoder-decoder: its config\.json describes a bert$"),
        ({"model_type": "led"}, r"must be a bart, mbart, mt5, pegasus or t5, its config\.json describes a led$"),
        ({"eos_token_id": None}, r"cannot be used: eos_token_id in its config\.json is None$"),
        ({"eos_token_id": [2, 3]}, r"cannot be used: eos_token_id in its config\.json is \[2, 3\]$"),
        ({"eos_token_id": 3}, r"cannot be used: behind a text its tokenizer puts </s>, not one end, token 3$"),
        ({"eos_token_id": 900}, r"cannot be used: behind a text its tokenizer puts </s>, not one end, token 900$"),
    ],
)
def test_what_cannot_read_and_spell_is_refused_in_one_line(seq2seq, tmp_path, changes, message):
    if changes.get("model_type") == "bert":
        changes = changes | {"is_encoder_decoder": False}
    folder = changed_config(seq2seq("bart"), tmp_path / "model", **changes)
    refused(folder, message)


def refused(folder, message):
    with pytest.raises(RecipeError, match=message) as found:
        find_seq2seq(str(folder))
    assert str(found.value).startswith("seq2seq_model ")
    assert "\n" not in str(found.value)


def test_a_tokenizer_that_ends_a_text_otherwise_is_refused(seq2seq, tmp_path):
    from tokenizers import Tokenizer, processors

    folder = changed_config(seq2seq("bart"), tmp_path / "model")
    file = folder / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file))
    special = [(name, tokenizer.token_to_id(name)) for name in ("</s>", "<mask>")]
    for template, behind in ((["$A", "</s>", "<mask>"], "</s> <mask>"), (["</s>", "$A"], "nothing")):
        tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
        tokenizer.save(str(file))
        refused(folder, f"behind a text its tokenizer puts {behind}, not one end, token 2$")


def test_a_folder_that_is_incomplete_is_refused(seq2seq, tmp_path):
    refused(tmp_path / "none", r"folder .* does not exist$")
    folder = changed_config(seq2seq("bart"), tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    refused(folder, r"has no tokenizer\.json: save its tokenizer beside it$")
    (folder / "config.json").unlink()
    refused(folder, r"cannot be loaded: ")


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("absent", r"cannot be loaded: "),
        ("some", r"lacks 1 of its weights, model\.decoder\.layers\.0\.fc1\.weight among them$"),
        ("other", r"holds .*fc1\.weight of shape \(16, 32\), its config\.json describes \(32, 16\)$"),
        ("nan", r"holds weights that are NaN or infinite, "),
    ],
)
def test_weights_that_are_not_the_models_are_refused_in_one_line(seq2seq, tmp_path, broken, message):
    folder = changed_config(seq2seq("bart"), tmp_path / "model")
    file, key = folder / "model.safetensors", "decoder.layers.0.fc1.weight"
    weights = load_file(file)
    if broken == "absent":
        file.unlink()
    else:
        change = {"some": None, "other": weights[key].T.contiguous(), "nan": weights[key] * torch.nan}[broken]
        weights = {name: tensor for name, tensor in (weights | {key: change}).items() if tensor is not None}
        save_file(weights, file, {"format": "pt"})
    model = find_seq2seq(str(folder)).model
    for part in (Seq2SeqReader(model), Seq2SeqDecoder(model)):
        with pytest.raises(RecipeError, match=rf"^seq2seq_model '.*' {message}") as found:
            load_seq2seq(part.backbone, model, str(folder))
        assert "\n" not in str(found.value)


def test_scores_that_transformers_makes_otherwise_are_refused(seq2seq, monkeypatch):
    """As where another version of it would scale states that this one does not."""
    folder = str(seq2seq("t5"))
    model = find_seq2seq(folder).model
    decoder = Seq2SeqDecoder(model)
    monkeypatch.setattr(
        "train.seq2seq.Speller.scores", lambda self, states: states @ self.decoder.embed_tokens.weight.T
    )
    with pytest.raises(RecipeError, match=r"cannot be used: transformers .* makes other scores of its states$"):
        load_seq2seq(decoder.backbone, model, folder)
