"""Phonemes in the place of words."""

import re

import numpy as np

from model_core.training.augment import AugmentConfig, with_phonemes

ALL = AugmentConfig(phoneme_samples=1.0, phoneme_words=1.0)


def told(text, language, config=ALL, seed=0):
    return with_phonemes(text, language, config, np.random.default_rng(seed))


def test_english_words_are_told_in_cmudict_phonemes():
    assert told("World, end.", "en") == "{W ER1 L D}, {EH1 N D}."


def test_a_word_that_is_unknown_or_said_in_two_ways_keeps_its_letters():
    assert told("I read voxquarry", "en").endswith("read voxquarry")


def test_chinese_characters_are_told_in_the_pinyin_of_their_word():
    assert told("重庆，重要", "zh") == "{chong2}{qing4}，{zhong4}{yao4}"


def test_other_languages_stay_as_they_are():
    assert told("hola mundo", "es") == "hola mundo"
    assert told("hello world", None) == "hello world"


def test_shares_of_samples_and_words_are_kept():
    text = "the quick world ends " * 20
    config = AugmentConfig(phoneme_samples=0.25, phoneme_words=0.3)
    heard = [told(text, "en", config, seed) for seed in range(400)]
    touched = [out for out in heard if out != text]
    assert 0.18 < len(touched) / 400 < 0.32
    sayable = len(re.findall(r"\{", told(text, "en")))
    share = np.mean([len(re.findall(r"\{", out)) / sayable for out in touched])
    assert 0.27 < share < 0.33


def test_the_same_numbers_say_the_same():
    config = AugmentConfig(phoneme_samples=1.0, phoneme_words=0.5)
    assert told("a world of words", "en", config, 3) == told("a world of words", "en", config, 3)
