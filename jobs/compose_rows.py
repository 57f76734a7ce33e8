"""From inputs to samples: every sequence that could be, its length and its weights.

Shapes: N clips, R rows (samples, those of one target together), P pairs of target and reference.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

from jobs.compose import ComposeConfig
from jobs.compose_inputs import Inputs, keys_of
from jobs.compose_synthetic import leaking
from jobs.sequence_reader import Reader
from model_core.tokenizer import described, flattened
from stages.composition import (
    CONTINUATION,
    DESCRIBED,
    DESCRIBED_REFERENCE,
    REFERENCE,
    TEXT,
    WITH_REFERENCE,
    Bools,
    Floats,
    Ints,
    held_out,
    joined,
    positions_of,
)
from stages.curriculum import Rows, weights_of

_TEXTS_AT_ONCE = 8192


@dataclass(frozen=True, kw_only=True, slots=True)
class Composition:
    """All samples, as arrays; their rows are made piece by piece."""

    inputs: Inputs
    texts: tuple[pl.Series, pl.Series, pl.Series]
    """(N,) each: a clip's text, its description, and its text behind that of the clip before it."""
    rows: Rows
    tokens: Ints = field(repr=False)
    """(R,)"""
    joins: Bools = field(repr=False)
    """(N,) whether a clip's continuation joins the clip before it, rather than cut the clip."""
    held: Bools = field(repr=False)
    """(N,) kept for validation."""
    lent: Ints = field(repr=False)
    """(P',) pairs of the inputs that can be used, ascending."""
    weights: Floats = field(repr=False)
    """(R, 3)"""
    left_out: Counter[str]
    """Recorded clips without a sample, by the reason."""
    synthetic_left_out: Counter[str]
    """Generated ones."""


def composed(
    inputs: Inputs,
    reader: Reader,
    config: ComposeConfig,
    done: Callable[[int, int], None] = lambda done, total: None,
) -> Composition:
    """Say what there is to train on. done: told how many texts of how many are read."""
    clips = inputs.clips
    frames = clips["frames"].to_numpy()
    before = clips["before"].fill_null(-1).to_numpy()
    text, description = _one_line(clips["text"]), _one_line(clips["description"])
    target, synthetic = (clips[name].to_numpy().copy() for name in ("is_target", "synthetic"))
    speakable = _of_texts(text, target, reader.tokenizer.speakable, lambda *_: None)
    unspeakable = target & (speakable == 0)
    target &= speakable > 0
    held = _held_out(clips, target & ~synthetic, config.validation_share)
    leaks = target & leaking(clips, inputs.made_from, text, target & ~synthetic, held)
    target &= ~leaks
    uncontrolled = target & synthetic & (not reader.knows_voices)
    target &= ~uncontrolled
    recorded = target & ~synthetic
    left_out = inputs.left_out + Counter(unspeakable=int((unspeakable & ~synthetic).sum()))
    synthetic_left_out = inputs.synthetic_left_out + Counter(
        unspeakable=int((unspeakable & synthetic).sum()),
        held_out=int(leaks.sum()),
        no_control=int(uncontrolled.sum()),
    )

    both = (before >= 0) & target & target[before] & (held == held[before])
    cut = clips["cut"].to_numpy()
    odd = (keys_of(clips["clip_id"]) & 1).astype(np.bool_)
    joins = both & ((cut == 0) | odd)
    behind = pl.Series(
        [
            joined(text[number], other) if one else None
            for number, other, one in zip(before.tolist(), text, joins, strict=True)
        ],
        dtype=pl.String,
    )
    with_description = pl.Series(
        [
            described(one, other) if other else None
            for one, other in zip(text, description, strict=True)
        ],
        dtype=pl.String,
    )
    has_description = target & with_description.is_not_null().to_numpy() & reader.knows_voices

    wanted = (recorded, has_description, joins)
    total = sum(int(chosen.sum()) for chosen in wanted)
    counts, so_far = [], 0
    for texts, chosen in zip((text, with_description, behind), wanted, strict=True):
        start = so_far
        counts.append(
            _of_texts(
                texts,
                chosen,
                reader.tokenizer.lengths,
                lambda num, start=start: done(start + num, total),  # type: ignore[misc]
            )
        )
        so_far += int(chosen.sum())
    plain, controlled, continued = counts

    limit = min(reader.max_positions, max(stage.max_positions for stage in config.stages))
    lent, longest = _lent(
        inputs, target, held, frames, (plain, controlled * has_description), limit, reader
    )
    audio = frames + np.where(joins, frames[before], 0)
    layouts = (
        (TEXT, recorded, plain, frames),
        (DESCRIBED, has_description, controlled, frames),
        (REFERENCE, recorded & (longest[REFERENCE] > 0), plain, frames),
        (DESCRIBED_REFERENCE, longest[DESCRIBED_REFERENCE] > 0, controlled, frames),
        (CONTINUATION, recorded & ((cut > 0) | joins), np.where(joins, continued, plain), audio),
    )
    rows, tokens = _rows(layouts, longest, clips["duration_s"].to_numpy(), joins, before, reader)
    fits: Bools = rows.positions <= limit
    rows, tokens = _some(rows, fits), tokens[fits]
    weights = _weights(rows, clips, held, config, reader)
    used = np.any(weights > 0, axis=1)
    rows, tokens, weights = _some(rows, used), tokens[used], weights[used]
    seen = np.bincount(rows.clip, minlength=target.size) > 0
    left_out["fits_no_stage"] = int((recorded & ~seen).sum())
    synthetic_left_out["fits_no_stage"] = int((target & synthetic & ~seen).sum())
    return Composition(
        inputs=inputs,
        texts=(text, description, behind),
        rows=rows,
        tokens=tokens,
        joins=joins,
        held=held,
        lent=lent,
        weights=weights,
        left_out=+left_out,
        synthetic_left_out=+synthetic_left_out,
    )


def _one_line(texts: pl.Series) -> pl.Series:
    return pl.Series(
        [flattened(text).strip() if text is not None else None for text in texts], dtype=pl.String
    )


def _of_texts(
    texts: pl.Series,
    chosen: Bools,
    measure: Callable[[Sequence[str]], Sequence[int]],
    done: Callable[[int], None],
) -> Ints:
    """(N,) what is measured of the chosen texts; 0 of the others."""
    found = np.zeros(len(texts), np.int64)
    numbers = np.flatnonzero(chosen)
    for start in range(0, numbers.size, _TEXTS_AT_ONCE):
        some = numbers[start : start + _TEXTS_AT_ONCE]
        found[some] = measure(texts.gather(some).to_list())
        done(min(start + _TEXTS_AT_ONCE, numbers.size))
    return found


def _held_out(clips: pl.DataFrame, target: Bools, share: float) -> Bools:
    """(N,) targets that are kept for validation."""
    chosen = clips.filter(pl.Series(target))
    groups, keys = [], []
    for name in ("session_id", "recording_id"):
        distinct = chosen[name].unique(maintain_order=True)
        number = pl.DataFrame({name: distinct}).with_row_index("number")
        joined_on = chosen.select(name).join(number, on=name, how="left", maintain_order="left")
        groups.append(joined_on["number"].to_numpy().astype(np.int64))
        keys.append(keys_of(distinct))
    kept = np.zeros(target.size, np.bool_)
    kept[target] = held_out(groups, keys, keys_of(chosen["clip_id"]), share)
    return kept


def _lent(
    inputs: Inputs,
    target: Bools,
    held: Bools,
    frames: Ints,
    tokens: tuple[Ints, Ints],
    limit: int,
    reader: Reader,
) -> tuple[Ints, dict[int, Ints]]:
    """Pairs whose reference can be used, and the frames of each target's longest one by layout.

    A reference that would make a sequence too long for every stage is none, and training hears
    nothing of what is held out.
    """
    to, of = inputs.targets, inputs.references
    usable = target[to] & (held[to] | ~held[of])
    if not reader.knows_voices:
        usable = np.zeros_like(usable)
    fits = positions_of(
        np.full(to.size, REFERENCE),
        np.maximum(tokens[0], tokens[1])[to],
        frames[to],
        frames[of],
        reader.patch_size,
    )
    lent = np.flatnonzero(usable & (fits <= limit))
    longest = np.zeros(target.size, np.int64)
    np.maximum.at(longest, to[lent], frames[of[lent]])
    has_description = tokens[1] > 0
    return lent, {
        REFERENCE: longest,
        DESCRIBED_REFERENCE: np.where(has_description, longest, 0),
    }


def _rows(
    layouts: Sequence[tuple[int, Bools, Ints, Ints]],
    longest: dict[int, Ints],
    durations_s: Floats,
    joins: Bools,
    before: Ints,
    reader: Reader,
) -> tuple[Rows, Ints]:
    """Rows in the order of their clips, and their tokens."""
    clip = np.concatenate([np.flatnonzero(has) for _, has, _, _ in layouts])
    layout = np.concatenate([np.full(int(has.sum()), which) for which, has, _, _ in layouts])
    tokens = np.concatenate([count[has] for _, has, count, _ in layouts])
    audio = np.concatenate([frames[has] for _, has, _, frames in layouts])
    order = np.lexsort((layout, clip))
    clip, layout, tokens, audio = clip[order], layout[order], tokens[order], audio[order]
    heard = np.where(np.isin(layout, WITH_REFERENCE), longest[REFERENCE][clip], 0)
    both = (layout == CONTINUATION) & joins[clip]
    rows = Rows(
        clip=clip,
        layout=layout,
        duration_s=durations_s[clip] + np.where(both, durations_s[before[clip]], 0.0),
        positions=positions_of(layout, tokens, audio, heard, reader.patch_size),
    )
    return rows, tokens


def _weights(
    rows: Rows, clips: pl.DataFrame, held: Bools, config: ComposeConfig, reader: Reader
) -> Floats:
    """(R, 3): training and validation are each balanced and mixed on their own; what is generated
    is for training alone."""
    language, source = (
        clips[name].fill_null("").rank("dense").to_numpy().astype(np.int64) - 1
        for name in ("language", "source")
    )
    synthetic = clips["synthetic"].to_numpy()
    weights = np.zeros((rows.clip.size, len(config.stages)), np.float64)
    for kept in (False, True):
        mine = held[rows.clip] == kept
        some = _some(rows, mine)
        for number, stage in enumerate(config.stages):
            weights[mine, number] = weights_of(
                some, language, source, synthetic, stage, reader.max_positions
            )
    # As they are stored.
    stored: Floats = weights.astype(np.float32).astype(np.float64)
    return stored


def _some(rows: Rows, chosen: Bools) -> Rows:
    return replace(
        rows,
        clip=rows.clip[chosen],
        layout=rows.layout[chosen],
        duration_s=rows.duration_s[chosen],
        positions=rows.positions[chosen],
    )
