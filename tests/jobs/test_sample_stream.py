"""The stream of packs: every sample in its epoch, the same from any point on, bad ones named."""

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from jobs.sample_stream import SampleStream, read_here, read_with_ray
from model_core.tokenizer import TextTokenizer
from model_core.training.augment import AugmentConfig
from model_core.training.packs import START, Position
from pipeline.engine import EngineConfig, ray_session
from pipeline.storage import Corpus
from schemas.errors import ConfigError, DataError
from tests.jobs.sample_corpus import (
    CHANNELS,
    CLIPS,
    PATCH,
    SESSIONS,
    TOKENIZER,
    latent_of,
    make_corpus,
    reading_of,
)

TRAINED = 5 * (SESSIONS * CLIPS - 2)
PLAIN = AugmentConfig(phoneme_samples=0.0)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("samples"))


def stream_of(corpus, **changes):
    return SampleStream(reading_of(corpus, **changes), background=False)


def epochs(stream, number=1, start=START):
    """Packs up to the end of an epoch."""
    return list(itertools.takewhile(lambda pack: pack.after.epoch < number, stream.packs(start)))


def same(one, other):
    return (
        one.sample_ids == other.sample_ids
        and one.after == other.after
        and torch.equal(one.tokens, other.tokens)
        and torch.equal(one.patches, other.patches)
        and torch.equal(one.is_target, other.is_target)
    )


def ids_of(packs):
    return [sample_id for pack in packs for sample_id in pack.sample_ids]


@pytest.mark.parametrize("workers", [1, 2, 3, 11])
def test_an_epoch_gives_every_training_sample_once_among_the_workers(corpus, workers):
    seen = []
    for rank in range(workers):
        seen += ids_of(epochs(stream_of(corpus, rank=rank, workers=workers)))
    assert len(seen) == TRAINED
    assert len(set(seen)) == TRAINED
    assert not {i for i in seen if i.startswith(("00-", "07-"))}, "held out for validation"


def test_packs_keep_the_budget_and_are_well_filled(corpus):
    packs = epochs(stream_of(corpus), 4)
    assert max(len(pack) for pack in packs) <= 200, "phonemes and shorter voices are counted"
    # Blocks of thirty samples leave a part of their last pack free.
    assert np.mean([len(pack) for pack in packs]) > 0.75 * 200


def test_a_sample_that_is_too_long_is_named_and_left_out(corpus):
    whole = epochs(stream_of(corpus, augment=PLAIN), 3)
    limit = max(length for pack in whole for length in pack.lengths) - 1
    shorter = epochs(stream_of(corpus, augment=PLAIN, max_positions=limit), 3)
    assert max(length for pack in shorter for length in pack.lengths) <= limit
    skips = [skip for pack in shorter for skip in pack.skipped]
    # The plan knows the positions of a sequence exactly, whichever voice it takes.
    too_long = [length for pack in whole for length in pack.lengths if length > limit]
    assert len(skips) == len(too_long)
    assert sum(len(pack.sample_ids) for pack in shorter) + len(skips) == 3 * TRAINED
    assert {skip.reason for skip in skips} == {f"{limit + 1} positions, {limit} are allowed"}


def test_a_sequence_holds_its_text_its_patches_and_its_target(corpus):
    tokenizer = TextTokenizer(TOKENIZER)
    seen = {}
    for pack in epochs(stream_of(corpus, augment=PLAIN)):
        starts = np.concatenate(([0], np.cumsum(pack.lengths)))
        for sample_id, start, end in zip(pack.sample_ids, starts, starts[1:], strict=False):
            audio = pack.is_audio[:start].sum(), pack.is_audio[:end].sum()
            seen[sample_id] = (
                pack.tokens[start:end],
                pack.patches[audio[0] : audio[1]],
                pack.is_target[start:end],
                pack.is_audio[start:end],
            )
    as_patches = [torch.from_numpy(latent_of(c)).reshape(-1, PATCH, CHANNELS) for c in range(20)]
    text = tokenizer.ids("speech is said in clip 8")
    tokens, patches, target, _ = seen["08-text"]
    assert tokens[: len(text)].tolist() == text.tolist()
    assert torch.equal(patches, as_patches[8])
    assert target.sum() == len(as_patches[8])
    tokens, patches, target, audio = seen["08-continuation"]
    assert torch.equal(patches, torch.cat((as_patches[7], as_patches[8])))
    assert torch.equal(patches[target[audio]], as_patches[8])
    tokens, patches, target, audio = seen["05-continuation"]  # cut in two
    assert torch.equal(patches, as_patches[5])
    assert torch.equal(patches[target[audio]], as_patches[5][2:])
    tokens, patches, target, audio = seen["08-described_reference"]
    assert torch.equal(patches[target[audio]], as_patches[8])
    voice = patches[~target[audio]]
    assert any(torch.equal(voice, as_patches[c]) for c in (6, 7))
    words = tokenizer.ids("(An old man)speech is said in clip 8").tolist()
    assert tokens[len(voice) + 2 :][: len(words)].tolist() == words


def test_epochs_take_other_orders_other_references_and_other_words(corpus):
    stream = stream_of(corpus)
    by_epoch = [[p for p in epochs(stream, 3) if p.after.epoch == e] for e in range(3)]
    assert ids_of(by_epoch[0]) != ids_of(by_epoch[1])
    assert sorted(ids_of(by_epoch[0])) == sorted(ids_of(by_epoch[1]))

    def voice(packs, sample_id):
        [pack] = [pack for pack in packs if sample_id in pack.sample_ids]
        number = pack.sample_ids.index(sample_id)
        start = sum(pack.lengths[:number])
        length = pack.lengths[number]
        audio, target = (x[start : start + length] for x in (pack.is_audio, pack.is_target))
        before = int(pack.is_audio[:start].sum())
        return pack.patches[before : before + int((audio & ~target).sum())]

    voices = [voice(packs, "08-reference") for packs in by_epoch]
    distinct = {tuple(v.flatten()[:8].tolist()) for v in voices}
    assert len(distinct) == 3, "three references, three epochs"


@pytest.mark.parametrize("workers", [1, 2])
def test_the_stream_goes_on_from_any_pack(corpus, workers):
    reading = {"rank": workers - 1, "workers": workers}
    whole = list(itertools.islice(stream_of(corpus, **reading).packs(START), 60))
    assert whole[-1].after.epoch >= 2
    for at in (0, 1, 5, 17, 30, 41, 58):
        rest = stream_of(corpus, **reading).packs(whole[at].after)
        for expected in whole[at + 1 :]:
            assert same(next(rest), expected)


def test_layouts_follow_the_weights_of_the_stage(corpus):
    packs = epochs(stream_of(corpus, stage=2), 40)
    per_epoch = Counter(
        (pack.after.epoch, sample_id[:2]) for pack in packs for sample_id in pack.sample_ids
    )
    assert set(per_epoch.values()) == {1}, "weights of a target sum to 1: once an epoch"
    layouts = Counter(layout for pack in packs for layout in pack.layouts)
    assert all(0.15 < count / layouts.total() < 0.25 for count in layouts.values())


def test_a_stage_without_samples_says_so(corpus):
    with pytest.raises(DataError, match="stage 3 finds no sample"):
        next(stream_of(corpus, stage=3).packs(START))


def test_a_corpus_without_samples_says_what_to_run(tmp_path):
    with pytest.raises(ConfigError, match="voxquarry compose"):
        stream_of(Corpus(str(tmp_path)))


def test_validation_is_held_out_and_shared_among_the_workers(corpus):
    whole = stream_of(corpus).validation()
    assert {i[:2] for i in ids_of(whole)} == {"00", "07"}
    shares = [stream_of(corpus, rank=rank, workers=2).validation() for rank in range(2)]
    assert len(whole) > 1
    assert sorted(ids_of(whole)) == sorted(ids_of(shares[0]) + ids_of(shares[1]))
    assert all(shares)
    limited = SampleStream(reading_of(corpus), validation_limit=1, background=False)
    assert len(limited.validation()) == 1


def bad(clip, kind):
    values = latent_of(clip)
    if kind == "NaN":
        values[3, 2] = np.nan
    return values[:-PATCH] if kind == "short" else values


@pytest.mark.parametrize(
    ("kind", "said"), [("NaN", "NaN or infinity"), ("short", "does not have the")]
)
def test_a_bad_latent_costs_the_samples_that_need_it_and_no_other(tmp_path, kind, said):
    corpus = make_corpus(tmp_path, damage={8: bad(8, kind)})
    check_only_clip_8_is_missed(corpus, said)


def test_a_flipped_byte_costs_the_samples_that_need_its_clip(tmp_path):
    corpus = make_corpus(tmp_path)
    file = tmp_path / "latents" / "current.parquet"
    content = bytearray(file.read_bytes())
    at = content.find(latent_of(8).tobytes())
    assert at > 0, "latents lie in the file as they are"
    content[at + 40] ^= 0xFF
    file.write_bytes(content)
    check_only_clip_8_is_missed(corpus, "checksum differs")


def check_only_clip_8_is_missed(corpus, said):
    packs = epochs(stream_of(corpus, augment=PLAIN), 3)
    skips = [skip for pack in packs for skip in pack.skipped]
    assert skips
    assert all("clip08" in skip.reason and said in skip.reason for skip in skips)
    for pack in packs:
        assert pack.patches.isfinite().all()
    always = {f"08-{layout}" for layout in ("text", "described", "reference", "continuation")}
    assert always <= {skip.sample_id for skip in skips}
    assert "09-continuation" in {skip.sample_id for skip in skips}, "its prompt is the bad clip"
    seen = Counter(ids_of(packs))
    assert not [sample_id for sample_id in seen if sample_id.startswith("08-")]
    assert seen["10-text"] == 3
    # Every sample of every epoch is either given or named.
    assert sum(seen.values()) + len(skips) == 3 * TRAINED


def test_a_lost_part_is_told_and_nothing_else_breaks(tmp_path):
    corpus = make_corpus(tmp_path)
    (tmp_path / "latents" / "current.parquet").unlink()
    with pytest.raises(DataError, match="cannot be read"):
        next(stream_of(corpus).packs(START))


def test_another_clip_in_the_place_of_a_latent_is_refused(tmp_path):
    corpus = make_corpus(tmp_path)
    from schemas.arrow import LATENTS

    rows = corpus.read(LATENTS).to_arrow()
    swapped = rows.take([1, 0, *range(2, rows.num_rows)])
    corpus.write_current("encode", LATENTS, swapped)
    skips = [skip for pack in epochs(stream_of(corpus)) for skip in pack.skipped]
    assert {"another clip lies in its place: clip00" in skip.reason for skip in skips} >= {True}


@pytest.mark.ray
def test_ray_gives_the_very_same_packs(corpus):
    reading = reading_of(corpus)
    tasks = list(itertools.islice(SampleStream(reading).tasks(Position(1, 0, 2)), 12))
    expected = list(read_here(reading, tasks))
    assert expected[-1][0].after.epoch >= 3
    with ray_session(EngineConfig()):
        found = list(read_with_ray(reading, tasks))
    for (pack, skipped), (other, others) in zip(expected, found, strict=True):
        assert same(pack, other)
        assert skipped == others


def test_the_seed_decides_the_order(corpus):
    reading = reading_of(corpus)
    other = replace(reading, order=replace(reading.order, seed=4))
    first = next(iter(SampleStream(reading, background=False).packs(START)))
    second = next(iter(SampleStream(other, background=False).packs(START)))
    assert first.sample_ids != second.sample_ids
