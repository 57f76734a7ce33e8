"""What the model reads is laid out position by position as the releases were trained."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from model_core.audio import Padding, encode_patches
from model_core.checkpoint import Checkpoint, load_checkpoint
from model_core.sequences import (
    AUDIO_END,
    AUDIO_START,
    REFERENCE_END,
    REFERENCE_START,
    Batch,
    Sequence,
    collate,
    generation_sequence,
    training_sequence,
    voice_prompt_sequence,
)
from model_core.synthesis import SpeechRequest, Synthesizer

CORE = Path(__file__).parents[1] / "data" / "core"
SPECIAL = (AUDIO_START, AUDIO_END, REFERENCE_START, REFERENCE_END)


@cache
def expected(name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Texts and settings, tensors."""
    folder = CORE / name
    facts = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    return facts, load_file(folder / "expected.safetensors")


@cache
def opened(name: str) -> Checkpoint:
    return load_checkpoint(CORE / name, dtype=torch.float32)


@cache
def synthesizer(name: str) -> Synthesizer:
    return Synthesizer(load_checkpoint(CORE / name, dtype=torch.float32))


def encoded(name: str, wave: Tensor, padding: Padding) -> Tensor:
    """A waveform at the encoder's own rate as patches."""
    checkpoint = opened(name)
    return encode_patches(
        checkpoint.vae,
        wave,
        checkpoint.vae.config.sample_rate,
        patch_size=checkpoint.model.config.patch_size,
        padding=padding,
    )


def dense(batch: Batch) -> Tensor:
    """(B, T, P, C) with zeros where there is no audio, as the official packer has it."""
    out = torch.zeros(*batch.tokens.shape, *batch.patches.shape[1:])
    out[batch.audio_mask] = batch.patches
    return out


@pytest.mark.parametrize("name", ["v1", "v15", "v2", "v2b"])
def test_training_rows_are_those_of_the_official_packer(name: str) -> None:
    facts, tensors = expected(name)
    train = facts["train"]
    rows = []
    for i, (text, is_prompt) in enumerate(zip(train["texts"], train["is_prompt"], strict=True)):
        ids = opened(name).tokenizer.ids(text)
        patches = encoded(name, tensors[f"train/wav{i}"], "right")
        if is_prompt:
            rows.append(voice_prompt_sequence(ids, patches))
        else:
            refers = i in train["ref_for"]
            reference = encoded(name, tensors[f"train/ref{i}"], "right") if refers else None
            rows.append(training_sequence(ids, patches, reference=reference))
    batch = collate(rows)
    assert batch.tokens.tolist() == tensors["train/text_tokens"].tolist()
    assert batch.text_mask.int().tolist() == tensors["train/text_mask"].tolist()
    assert batch.audio_mask.int().tolist() == tensors["train/audio_mask"].tolist()
    assert batch.loss_mask.int().tolist() == tensors["train/loss_mask"].tolist()
    # The packer labels a voice prompt too, where no loss looks; here a label needs a target.
    labels = tensors["train/labels"] * tensors["train/loss_mask"]
    assert batch.stop_labels.tolist() == labels.tolist()
    assert labels.any()
    torch.testing.assert_close(dense(batch), tensors["train/audio_feats"], atol=1e-4, rtol=1e-4)


MODES = {"v1": ("zero_shot", "continuation"), "v15": ("zero_shot", "continuation")}
FOUR = ("zero_shot", "continuation", "reference", "ref_continuation")


@pytest.mark.parametrize(
    ("name", "mode"),
    [(name, mode) for name in ("v1", "v15", "v2", "v2b") for mode in MODES.get(name, FOUR)],
)
def test_generation_starts_from_the_official_positions(name: str, mode: str) -> None:
    facts, tensors = expected(name)
    prompt = reference = None
    if "continuation" in mode:
        wave, _ = soundfile.read(CORE / name / "prompt.wav", dtype="float32")
        prompt = encoded(name, torch.from_numpy(wave), "left")
        official = tensors[f"gen/{mode}/audio_feat"]
        torch.testing.assert_close(prompt, official, atol=1e-4, rtol=1e-4)
    if "ref" in mode:
        wave, _ = soundfile.read(CORE / name / "reference.wav", dtype="float32")
        reference = encoded(name, torch.from_numpy(wave), "right")
        official = tensors[f"gen/{mode}/ref_audio_feat"]
        torch.testing.assert_close(reference, official, atol=1e-4, rtol=1e-4)
    prepared = synthesizer(name).prepare(
        SpeechRequest(
            text=facts["target_text"],
            prompt=prompt,
            prompt_text=facts["prompt_text"] if prompt is not None else None,
            reference=reference,
        )
    )
    batch = collate([prepared.sequence])
    assert batch.tokens.tolist() == tensors[f"gen/{mode}/text"].tolist()
    assert batch.text_mask.int().tolist() == tensors[f"gen/{mode}/text_mask"].tolist()
    assert batch.audio_mask.int().tolist() == tensors[f"gen/{mode}/feat_mask"].tolist()
    torch.testing.assert_close(dense(batch), tensors[f"gen/{mode}/feat"], atol=1e-4, rtol=1e-4)
    assert not batch.loss_mask.any()


@st.composite
def sequences(draw: st.DrawFn) -> tuple[Sequence, int]:
    """Any training row, and how many patches it is to learn."""

    def patches(least: int = 1) -> Tensor:
        count = draw(st.integers(least, 4))
        return torch.rand(count, 2, 3) + 1  # never zero, which stands for "no patch"

    text = torch.tensor(draw(st.lists(st.integers(1, 99), min_size=1, max_size=5)))
    if draw(st.integers(0, 3)) == 0:
        return voice_prompt_sequence(text, patches()), 0
    target = patches()
    reference = patches() if draw(st.booleans()) else None
    prompt = patches() if draw(st.booleans()) else None
    row = training_sequence(text, target, reference=reference, prompt=prompt)
    return row, len(target)


@settings(deadline=None, max_examples=60)
@given(rows=st.lists(sequences(), min_size=1, max_size=4))
def test_padding_to_the_longest_changes_no_row(rows: list[tuple[Sequence, int]]) -> None:
    batch = collate([row for row, _ in rows])
    patches = iter(batch.patches)
    for i, (row, _) in enumerate(rows):
        end = len(row)
        assert batch.lengths[i] == end
        assert batch.tokens[i, :end].equal(row.tokens)
        assert batch.audio_mask[i, :end].equal(row.is_audio)
        assert batch.text_mask[i, :end].equal(~row.is_audio)
        assert batch.loss_mask[i, :end].equal(row.is_target)
        for own in row.patches:
            assert next(patches).equal(own)
        for field in (batch.tokens, batch.audio_mask, batch.text_mask, batch.loss_mask):
            assert not field[i, end:].any()
        assert not batch.stop_labels[i, end:].any()
    assert next(patches, None) is None
    assert batch.tokens.shape[1] == max(len(row) for row, _ in rows)


@settings(deadline=None, max_examples=100)
@given(made=sequences())
def test_loss_falls_on_the_target_alone_and_stop_on_its_last_patch(
    made: tuple[Sequence, int],
) -> None:
    row, num_targets = made
    where = row.is_target.nonzero()[:, 0].tolist()
    assert len(where) == num_targets
    assert row.is_audio[row.is_target].all()
    if not num_targets:
        assert not row.stop_labels.any()
        return
    assert where == list(range(where[0], where[0] + num_targets)), "the target is one piece"
    assert row.stop_labels.nonzero().tolist() == [[where[-1]]]
    assert row.tokens[where[-1] + 1 :].tolist() == [AUDIO_END]


@settings(deadline=None, max_examples=100)
@given(made=sequences())
def test_every_position_is_either_text_or_the_next_patch(made: tuple[Sequence, int]) -> None:
    row, _ = made
    assert len(row.tokens) == len(row.is_audio) == len(row.is_target) == len(row)
    assert int(row.is_audio.sum()) == len(row.patches)
    assert not row.tokens[row.is_audio].any()
    assert row.tokens[~row.is_audio].all()
    reading, heard = row.tokens.tolist(), row.is_audio.tolist()
    for opening, closing in ((REFERENCE_START, REFERENCE_END),):
        assert reading.count(opening) == reading.count(closing)
        if opening in reading:
            inside = slice(reading.index(opening) + 1, reading.index(closing))
            assert all(heard[inside])
            assert heard[inside]


@settings(deadline=None, max_examples=50)
@given(
    num_text=st.integers(1, 5),
    num_reference=st.integers(0, 3),
    num_prompt=st.integers(0, 3),
    num_target=st.integers(1, 3),
)
def test_training_continues_where_generation_starts(
    num_text: int, num_reference: int, num_prompt: int, num_target: int
) -> None:
    text = torch.arange(1, num_text + 1)
    reference = torch.rand(num_reference, 2, 3) if num_reference else None
    prompt = torch.rand(num_prompt, 2, 3) if num_prompt else None
    target = torch.rand(num_target, 2, 3)
    start = generation_sequence(text, target[:0], reference=reference, prompt=prompt)
    whole = training_sequence(text, target, reference=reference, prompt=prompt)
    assert len(whole) == len(start) + num_target + 1
    assert len(start) == num_text + 1 + num_prompt + (num_reference + 2 if num_reference else 0)
    assert whole.tokens[: len(start)].equal(start.tokens)
    assert whole.is_audio[: len(start)].equal(start.is_audio)
    assert whole.patches[: len(start.patches)].equal(start.patches)
    assert whole.patches[len(start.patches) :].equal(target)
    assert whole.is_target[len(start) : -1].all()
    assert not start.is_target.any()
    assert not set(start.tokens.tolist()) & {AUDIO_END}
