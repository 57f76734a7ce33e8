"""Sentences of one matter lie near each other; texts share words or they do not."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from annotators.content_words import content_words
from annotators.registry import resolve
from annotators.sentence import PACKAGED, SentenceEmbedder, languages_of
from schemas.errors import ModelLoadError

RELATED = (
    ("A man is playing a guitar.", "Somebody strums a guitar."),
    ("The weather is cold today.", "It is freezing outside."),
    ("The bank raised its interest rates.", "Interest rates were increased by the bank."),
)


@pytest.fixture(scope="module")
def embedder() -> SentenceEmbedder:
    return SentenceEmbedder()


def test_related_sentences_are_closer_than_unrelated_ones(embedder: SentenceEmbedder) -> None:
    first, second = (embedder.embed([pair[side] for pair in RELATED]) for side in (0, 1))
    cosines = first @ second.T
    related = cosines.diagonal()
    unrelated = cosines[~np.eye(len(RELATED), dtype=bool)]
    assert related.min() > 0.5
    assert unrelated.max() < 0.35


def test_vectors_are_those_of_the_models_card(embedder: SentenceEmbedder) -> None:
    """Published with the model by sentence-transformers: its widget's similarities."""
    vectors = embedder.embed(
        ["That is a happy person", "That is a happy dog", "That is a very happy person"]
    )
    assert vectors.shape == (3, 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors[:1] @ vectors[1:].T, [[0.695, 0.943]], atol=2e-3)


def test_neither_order_nor_company_changes_a_vector(embedder: SentenceEmbedder) -> None:
    texts = ["One.", "A much longer sentence about boats, harbours and the sea " * 3, "", "Two."]
    together = embedder.embed(texts)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-5)
    for at, text in enumerate(texts):
        np.testing.assert_allclose(embedder.embed([text])[0], together[at], atol=1e-5)
    assert embedder.embed([]).shape == (0, 384)


def test_a_text_longer_than_the_model_reads_is_cut(embedder: SentenceEmbedder) -> None:
    long = "word " * 5000
    np.testing.assert_allclose(embedder.embed([long]), embedder.embed([long + "other"]), atol=1e-6)


def test_the_packaged_model_covers_english_only(embedder: SentenceEmbedder) -> None:
    assert embedder.languages == {"en"}
    assert embedder.covers("en")
    assert embedder.covers("en-gb")
    assert not embedder.covers("fr")
    assert not embedder.covers(None)


def folder_with(tmp_path: Path, **files: str | None) -> Path:
    """The packaged model with some files in the place of its own, or without them."""
    folder = tmp_path / "model"
    shutil.copytree(resolve(PACKAGED).path, folder, symlinks=True, ignore=_heavy)
    (folder / "model.safetensors").symlink_to(resolve(PACKAGED).path / "model.safetensors")
    for name, content in files.items():
        file = folder / name.replace("__", "/").replace("_json", ".json").replace("_md", ".md")
        file.unlink()
        if content is not None:
            file.write_text(content)
    return folder


def _heavy(folder: str, names: list[str]) -> list[str]:
    return ["model.safetensors", "data_config.json"]


def test_a_card_may_name_many_languages(tmp_path: Path) -> None:
    card = "---\nlanguage:\n- multilingual\n- de\n- no\n- zh\n---\n# A model\n"
    assert languages_of(folder_with(tmp_path, README_md=card)) == {"de", "no", "zh"}


@pytest.mark.parametrize("card", [None, "# no front matter", "---\nlanguage: multilingual\n---\n"])
def test_a_model_that_does_not_say_its_languages_says_how_to(
    tmp_path: Path, card: str | None
) -> None:
    with pytest.raises(ModelLoadError, match=r"language: \[en, de\]"):
        SentenceEmbedder(folder_with(tmp_path, README_md=card))


def test_other_kinds_of_models_are_refused_by_name(tmp_path: Path) -> None:
    modules = json.dumps([{"type": "sentence_transformers.models.Dense", "path": "2_Dense"}])
    with pytest.raises(ModelLoadError, match="Dense"):
        SentenceEmbedder(folder_with(tmp_path, modules_json=modules))


def test_a_pooling_that_is_not_known_is_refused(tmp_path: Path) -> None:
    folder = folder_with(tmp_path)
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_max_tokens": true}')
    with pytest.raises(ModelLoadError, match="pooling_mode_max_tokens"):
        SentenceEmbedder(folder)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    folder = folder_with(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 64}))
    with pytest.raises(ModelLoadError, match="does not open"):
        SentenceEmbedder(folder)


@pytest.mark.parametrize("missing", ["tokenizer.json", "modules.json", "model.safetensors"])
def test_a_folder_without_a_file_names_it(tmp_path: Path, missing: str) -> None:
    folder = folder_with(tmp_path)
    (folder / missing).unlink()
    with pytest.raises(ModelLoadError, match=missing):
        SentenceEmbedder(folder)


@pytest.mark.parametrize(
    ("text", "language", "words"),
    [
        ("Please hold the line.", "en", {"please", "hold", "line"}),
        ("Veuillez entrer le numéro, s'il vous plaît", "fr", {"veuillez", "entrer", "numéro"}),
        ("今天天气很好。", "zh", {"今天", "天天", "天气", "气很", "很好"}),
        ("今天天气很好。", "zh-tw", {"今天", "天天", "天气", "气很", "很好"}),
        ("好", "zh", {"好"}),
        ("Mi ne scias", "eo", {"mi", "ne", "scias"}),
        ("Is it that?", "en", {"is", "it", "that"}),
        ("", "en", set()),
        ("…", None, set()),
    ],
)
def test_content_words_are_what_a_text_is_about(
    text: str, language: str | None, words: set[str]
) -> None:
    assert words <= content_words(text, language)
    if language != "fr":
        assert content_words(text, language) == words
