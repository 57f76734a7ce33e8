"""Samples that go on with others: the words and the sound of both, in one order, in one voice."""

import itertools

import numpy as np
import pytest
import torch

from jobs.block_reading import row_groups_of, validation_packs
from jobs.joining import followers
from jobs.sample_stream import SampleStream
from model_core.tokenizer import TextTokenizer
from model_core.training.augment import AugmentConfig
from model_core.training.packs import START
from schemas.errors import ConfigError
from tests.jobs.sample_corpus import CLIPS, TOKENIZER, latent_of, make_corpus, reading_of

JOINED = AugmentConfig(phoneme_samples=0.0, joined_samples=1.0, joined_most=2)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("samples"))


def sequences(corpus, epochs=2, **changes):
    """Each sequence of a stream: sample id, text as ids, target frames."""
    stream = SampleStream(reading_of(corpus, **changes), background=False)
    for pack in itertools.takewhile(lambda p: p.after.epoch < epochs, stream.packs(START)):
        ends = np.cumsum(pack.lengths)
        audio = pack.is_audio.cumsum(0)
        for sample_id, end, length in zip(pack.sample_ids, ends, pack.lengths, strict=True):
            here = slice(int(end - length), int(end))
            patches = pack.patches[audio[here][pack.is_target[here]] - 1]
            text = pack.tokens[here][~pack.is_audio[here]]
            yield sample_id, text, patches.reshape(-1, patches.shape[-1]), length


def test_words_and_sound_of_the_joined_clips_stand_in_one_order(corpus):
    tokenizer = TextTokenizer(TOKENIZER)
    lengths = []
    for sample_id, text, target, _ in sequences(corpus, augment=JOINED):
        clip, _, layout = sample_id.partition("-")
        if layout not in ("text", "described"):
            continue
        start = len(latent_of(int(clip)))
        found, rest = [int(clip)], target[start:]
        assert np.array_equal(target[:start].numpy(), latent_of(int(clip)))
        while len(rest):
            [then] = [
                other
                for other in range(20)
                if np.array_equal(rest[: len(latent_of(other))].numpy(), latent_of(other))
            ]
            found.append(then)
            rest = rest[len(latent_of(then)) :]
        words = " ".join(f"speech is said in clip {number}" for number in found)
        before = "(A calm voice)" if layout == "described" else ""
        expected = tokenizer.ids(before + words)
        assert torch.equal(text[: len(expected)], expected), words
        assert {number // CLIPS for number in found} == {int(clip) // CLIPS}, "one session"
        assert len(set(found)) == len(found)
        assert not {0, 7} & set(found), "held out for validation"
        lengths.append(len(found))
    assert max(lengths) == 3
    assert np.mean([length > 1 for length in lengths]) > 0.7


def test_no_sequence_grows_beyond_what_is_allowed(corpus):
    longest = max(length for *_, length in sequences(corpus, augment=JOINED))
    limit = longest - 5
    shorter = [length for *_, length in sequences(corpus, augment=JOINED, max_positions=limit)]
    assert max(shorter) <= limit


def test_a_resumed_stream_joins_as_the_unbroken_one_did(corpus):
    stream = SampleStream(reading_of(corpus, augment=JOINED), background=False)
    packs = list(itertools.islice(stream.packs(START), 6))
    again = next(iter(stream.packs(packs[3].after)))
    assert torch.equal(again.patches, packs[4].patches)
    assert torch.equal(again.tokens, packs[4].tokens)


def test_what_is_held_out_is_never_joined(corpus):
    groups = row_groups_of(corpus)
    plain = validation_packs(reading_of(corpus), groups, 8)
    with_joins = validation_packs(reading_of(corpus, augment=JOINED), groups, 8)
    assert [pack.lengths for pack in plain] == [pack.lengths for pack in with_joins]


def test_neither_synthetic_clips_nor_parts_of_clips_follow():
    def row(name, **changes):
        values = {
            "sample_id": name,
            "target": {"clip_id": name},
            "target_start": 0,
            "prompt": None,
            "session_id": "s",
            "language": "en",
            "synthetic": False,
        }
        return values | changes

    rows = [
        row("a"),
        row("b"),
        row("cut", target_start=8),
        row("made", synthetic=True),
        row("continued", prompt={"clip_id": "a"}),
        row("foreign", language="fr"),
    ]
    found = followers(rows, JOINED, "seed")
    assert {rows[i]["sample_id"] for places in found for i in places} <= {"a", "b"}
    assert found[2] == found[4] == found[5] == []


def test_a_share_beyond_one_is_refused():
    with pytest.raises(ConfigError, match="joined_samples"):
        AugmentConfig(joined_samples=1.5)
