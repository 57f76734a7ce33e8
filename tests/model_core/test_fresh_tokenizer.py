"""A tokenizer made for a corpus reads any text, in the family's format."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from model_core.fresh_tokenizer import SPECIAL, train_tokenizer
from model_core.tokenizer import TextTokenizer
from schemas.errors import ConfigError

TEXTS = ["the quick brown fox, the lazy dog.", "the dog is quick.", "你好世界你好", "¿qué tal?"] * 5


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    return folder, train_tokenizer(TEXTS, folder, 600)


@settings(deadline=None, max_examples=150)
@given(text=st.text(min_size=1, max_size=40))
def test_every_text_is_read_without_an_unknown_piece(made, text):
    folder, size = made
    ids = TextTokenizer(folder / "tokenizer.json").ids(text)
    assert (ids > 0).all()
    assert (ids < size).all()
    if not any(name in text for name in SPECIAL.values()):
        back = Tokenizer.from_file(str(folder / "tokenizer.json")).decode(ids.tolist())
        assert back.replace("▁", " ") == text.replace("▁", " ")


def test_special_tokens_stand_where_the_family_expects_them(made):
    bpe = Tokenizer.from_file(str(made[0] / "tokenizer.json"))
    assert {number: bpe.id_to_token(number) for number in SPECIAL} == SPECIAL


def test_words_of_the_texts_are_few_pieces_and_punctuation_stands_alone(made):
    tokenizer = TextTokenizer(made[0] / "tokenizer.json")
    assert tokenizer.tokens("the dog.") == ["▁the", "▁dog", "."]


def test_chinese_stays_a_character_a_piece(made):
    assert TextTokenizer(made[0] / "tokenizer.json").tokens("你好世界")[-4:] == list("你好世界")


def test_the_companion_files_name_the_same_tokens(made):
    config = json.loads((made[0] / "tokenizer_config.json").read_text())
    assert config["added_tokens_decoder"]["101"]["content"] == SPECIAL[101]
    assert (made[0] / "special_tokens_map.json").is_file()


def test_a_vocabulary_without_room_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="at least 365"):
        train_tokenizer(TEXTS, tmp_path, 300)
