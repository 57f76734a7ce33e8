"""Test lists: what a line says, what it may not, and how the others fare."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.evaluation.lists import BadLine, read_list, sound_of, utterance_of
from jobs.evaluation.systems import labels_of, safe_name
from schemas.errors import ConfigError

GOOD = "one|what was said|voice.wav|Say this.|truth.wav"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`en`, with two files that nobody opens as sound here, and one outside."""
    home = tmp_path / "en"
    home.mkdir()
    (home / "voice.wav").write_bytes(b"voice")
    (home / "truth.wav").write_bytes(b"truth")
    (tmp_path / "outside.wav").write_bytes(b"secret")
    return home


def written(folder: Path, *lines: str | bytes) -> Path:
    raw = [line if isinstance(line, bytes) else line.encode() for line in lines]
    file = folder / "meta.lst"
    file.write_bytes(b"\n".join(raw))
    return file


def test_a_line_is_an_utterance_in_the_language_of_its_folder(folder: Path) -> None:
    file = written(folder, b"\xef\xbb\xbf" + GOOD.encode() + b"\r", "", "two||voice.wav|And this.")
    first, second = read_list(file, None).utterances
    assert (first.utterance_id, first.text, first.voice_text) == (
        "one",
        "Say this.",
        "what was said",
    )
    assert first.language == second.language == "en"
    assert first.origin == "en/meta.lst"
    assert first.truth is not None
    assert (second.truth, second.voice_text) == (None, None)
    assert read_list(file, "pt-BR").utterances[0].language == "pt"


def test_the_same_line_is_the_same_wherever_its_list_lies(folder: Path) -> None:
    (here,) = read_list(written(folder, GOOD), None).utterances
    folder.rename(folder.with_name("de"))
    moved = folder.with_name("de")
    (there,) = read_list(moved / "meta.lst", "en").utterances
    assert here.key == there.key
    (moved / "voice.wav").write_bytes(b"another voice")
    (other,) = read_list(moved / "meta.lst", "en").utterances
    assert other.key != here.key


def test_what_stands_in_two_lists_is_said_once(folder: Path) -> None:
    file = written(folder, GOOD, "two|a|voice.wav|And this.")
    first = read_list(file, None)
    other = file.rename(folder / "hard.lst")
    other.write_text(f"{GOOD}\nthree|a|voice.wav|And that.")
    both = first + read_list(other, None)
    assert [one.utterance_id for one in both.utterances] == ["one", "two", "three"]
    (repeated,) = both.refused
    assert (repeated.where, repeated.error) == ("en/hard.lst", "Repeated")
    assert repeated.message == "the same utterance stands in en/meta.lst"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("one|voice.wav|text", "has 3 fields"),
        ("one|a|voice.wav|text|truth.wav|more", "has 6 fields"),
        ("|a|voice.wav|text", "has no id"),
        ("one|a||text", "names no recording"),
        ("one|a|voice.wav| … ", "has no text"),
        ("one|a|gone.wav|text", "gone.wav cannot be read: No such file"),
        ("one|a|voice.wav|text|gone.wav", "gone.wav cannot be read"),
        ("one|a|.|text", "is no file"),
        ("one|a|../outside.wav|text", "leads out of the list's folder"),
        ("one|a|{outside}|text", "leads out of the list's folder"),
        ("one|a|voice.wav|text|../outside.wav", "leads out of the list's folder"),
        ("one|a|link.wav|text", "leads out of the list's folder"),
        ("one|a|circle.wav|text", "circle.wav cannot be read"),
        ("one|a|pipe.wav|text", "is no file"),
        ("one|a|null\0.wav|text", "cannot be read"),
        (f"one|a|{'x' * 300}.wav|text", "cannot be read: File name too long"),
        ("one|a|voice.wav|" + "x" * 20_000, "has 20,016 bytes"),
        (b"one|a|voice.wav|\xff\xfe", "is not UTF-8"),
        ("good|a|voice.wav|other text", "line 1 has the same id"),
    ],
)
def test_a_bad_line_is_named_and_the_others_stand(
    folder: Path, line: str | bytes, says: str
) -> None:
    outside = folder.parent / "outside.wav"
    (folder / "link.wav").symlink_to(outside)
    (folder / "circle.wav").symlink_to(folder / "circle.wav")
    os.mkfifo(folder / "pipe.wav")
    if isinstance(line, str):
        line = line.replace("{outside}", str(outside))
    found = read_list(written(folder, "good|a|voice.wav|Say.", line, "last|a|voice.wav|Say."), None)
    assert [one.utterance_id for one in found.utterances] == ["good", "last"]
    (bad,) = found.refused
    assert bad.where == "en/meta.lst, line 2"
    assert says in bad.message


def test_a_list_without_a_usable_line_or_language_is_an_error(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"no utterance; en/meta.lst, line 1: has 1 fields"):
        read_list(written(folder, "nothing"), None)
    with pytest.raises(ConfigError, match="no utterance"):
        read_list(written(folder), None)
    with pytest.raises(ConfigError, match="unknown language 'xx'"):
        read_list(written(folder, GOOD), "xx")
    folder.rename(folder.with_name("test"))
    with pytest.raises(ConfigError, match="give --language"):
        read_list(folder.with_name("test") / "meta.lst", None)


@given(raw=st.binary(max_size=200))
def test_no_bytes_do_more_than_cost_their_line(
    raw: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "empty"
    folder.mkdir(exist_ok=True)
    # Nothing lies in the folder, so no line can be whole.
    with pytest.raises(BadLine, match=r"\S"):
        utterance_of(raw, folder, "list", "en")


@given(
    name=st.lists(st.sampled_from(["..", ".", "a", "/", "//", "voice.wav", "en"]), max_size=8).map(
        "/".join
    )
)
def test_no_path_leads_out(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.getbasetemp() / "escape"
    home = root / "en"
    home.mkdir(parents=True, exist_ok=True)
    for place in (root, home):
        (place / "voice.wav").write_bytes(b"voice")
    try:
        found = sound_of(home, name)
    except BadLine:
        return
    assert found.path == home / "voice.wav"


@given(text=st.text())
def test_a_safe_name_is_one_visible_name(text: str) -> None:
    name = safe_name(text)
    assert Path(name).name == name
    assert not name.startswith(".") or name == "_"
    assert 0 < len(name) <= 60
    assert name.isascii()


def test_checkpoints_are_told_apart_by_the_ends_of_their_paths(tmp_path: Path) -> None:
    names = [tmp_path / "one" / "last", tmp_path / "two" / "last", tmp_path / "best"]
    for name in names:
        name.mkdir(parents=True)
    assert labels_of([str(name) for name in names], names) == ["one/last", "two/last", "best"]
    assert labels_of(["nano"], [Path("/somewhere/nano")]) == ["nano"]
    like_ours = tmp_path / "recorded"
    like_ours.mkdir()
    assert labels_of([str(like_ours)], [like_ours]) == [str(like_ours)]
