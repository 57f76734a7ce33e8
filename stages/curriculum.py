"""The stages of the curriculum: what each takes, in which layouts, and how often it sees a sample.

A stage first says how often it sees a clip (the balance of languages and sources), then how a
clip's share is split among the layouts that it can have, so that over the corpus each layout gets
its share. Recorded clips come first: generated ones are added to them, up to a share of what each
language then has. Shapes: N clips, R rows, L layouts, M sets of layouts, K languages.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.errors import ConfigError
from schemas.samples import LAYOUTS
from stages.composition import WITH_REFERENCE

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

REFERENCE_AUDIO = (0.3, 0.5)
"""Share of a stage's samples that should have reference audio."""

_ROUNDS = 500
# Weights are stored in float32: so much less, and the share of generated clips holds there, too.
_UNROUNDED = 1 - 2.0**-22


@dataclass(frozen=True, kw_only=True, slots=True)
class StageConfig:
    """What a stage takes and how it mixes; each stage of the curriculum has its own defaults."""

    min_s: float = 0.0
    """Seconds of speech in a sample, prompt and target."""
    max_s: float = 60.0
    max_positions: int = 4096
    """Of a sequence; the checkpoint's own limit holds as well."""
    text: float = 0.46
    """Shares of the layouts, relative to one another; 0 leaves a layout out."""
    described: float = 0.0
    reference: float = 0.42
    described_reference: float = 0.0
    continuation: float = 0.12
    language_temperature: float = 1.0
    """A language is seen in proportion to n^(1/T): 1 is as the corpus is, more is flatter."""
    source_temperature: float = 1.0
    """The same for the sources of a language."""
    synthetic: float = 0.0
    """Largest share of a stage's samples, in [0, 1), that are of generated clips, in each language;
    0 leaves them out. They come on top of the recorded ones, each at most about once an epoch."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_s < self.max_s or self.max_positions < 1:
            raise ConfigError("a stage needs 0 <= min_s < max_s and max_positions >= 1")
        if min(self.shares) < 0 or not sum(self.shares):
            raise ConfigError("a stage's shares must not be negative, and one must be above 0")
        if min(self.language_temperature, self.source_temperature) < 1:
            raise ConfigError("a temperature must be at least 1")
        if not 0 <= self.synthetic < 1:
            raise ConfigError(f"a stage's synthetic must be in [0, 1), got {self.synthetic}")

    @property
    def shares(self) -> tuple[float, ...]:
        """Of the layouts, in the order of `LAYOUTS`."""
        return tuple(getattr(self, name) for name in LAYOUTS)


@dataclass(frozen=True, kw_only=True, slots=True)
class PreTraining(StageConfig):
    """Multilingual speech: short clips, no descriptions, nothing generated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JointTraining(StageConfig):
    """Speech and control: long clips, descriptions and generated clips come in."""

    max_s: float = 180.0
    max_positions: int = 8192
    text: float = 0.32
    described: float = 0.12
    reference: float = 0.3
    described_reference: float = 0.13
    continuation: float = 0.13
    synthetic: float = 0.3


@dataclass(frozen=True, kw_only=True, slots=True)
class Annealing(StageConfig):
    """The best of it, languages balanced; mostly recorded."""

    min_s: float = 2.0
    max_s: float = 300.0
    max_positions: int = 8192
    text: float = 0.3
    described: float = 0.13
    reference: float = 0.3
    described_reference: float = 0.14
    continuation: float = 0.13
    language_temperature: float = 2.0
    source_temperature: float = 2.0
    synthetic: float = 0.1


def balanced(
    language: Ints, source: Ints, language_temperature: float, source_temperature: float
) -> Floats:
    """(N,) how often each clip is seen, on average once.

    language, source: (N,) numbers from 0. A language's probability goes with its number of clips to
    the power 1/T, so does a source's within its language; clips of one source are alike.
    """
    if not language.size:
        return np.zeros(0)
    pairs, cell, size = np.unique(
        np.stack((language, source), axis=1), axis=0, return_inverse=True, return_counts=True
    )
    cell = cell.reshape(-1)
    clips_of_language = np.bincount(pairs[:, 0], weights=size)
    of_language = np.where(clips_of_language > 0, clips_of_language, np.inf)
    of_language = np.where(np.isinf(of_language), 0.0, of_language ** (1 / language_temperature))
    of_language /= of_language.sum()
    of_source = size ** (1 / source_temperature)
    of_source /= np.bincount(pairs[:, 0], weights=of_source)[pairs[:, 0]]
    weight = language.size * of_language[pairs[:, 0]] * of_source / size
    found: Floats = weight[cell]
    return found


def rationed(weights: Floats, language: Ints, recorded: Floats, share: float) -> Floats:
    """(N,) weights of generated clips, made smaller where they would be more than a share.

    weights: (N,) of them alone; recorded: (K,) weight of each language's recorded clips, on top of
    which they come; share: of both together, in [0, 1).
    """
    own = np.bincount(language, weights=weights, minlength=recorded.size)
    room = recorded * (share / (1 - share) * _UNROUNDED)
    scale = np.minimum(1.0, np.divide(room, own, out=np.zeros_like(room), where=own > 0))
    found: Floats = weights * scale[language]
    return found


def raked(totals: Floats, possible: Bools, shares: Floats) -> Floats:
    """(M, L) how the clips of each set of layouts are split among its layouts; rows sum to 1.

    totals: (M,) weight of the clips whose possible layouts are that set; possible: (M, L);
    shares: (L,) wanted of all. By iterative proportional fitting: rows are met exactly, columns as
    far as the corpus allows, and of all such tables this is the one nearest to an even split.
    A row without a possible layout is all zero. Source: Deming & Stephan 1940.
    """
    wanted = np.where((totals[:, None] * possible).sum(axis=0) > 0, shares, 0.0)
    cells = possible * (shares > 0)
    split: Floats = cells / np.maximum(1.0, cells.sum(axis=1, keepdims=True))
    if not wanted.sum():
        return split
    wanted = wanted / wanted.sum() * totals[split.any(axis=1)].sum()
    for _ in range(_ROUNDS):
        columns = totals @ split
        if np.allclose(columns, wanted, rtol=1e-9, atol=1e-12 * totals.sum()):
            break
        # Bounded, so that a layout that next to no clip has cannot overflow.
        bounded = np.maximum(columns, 1e-12 * wanted)
        split = split * np.divide(wanted, bounded, out=np.ones_like(wanted), where=bounded > 0)
        rows = split.sum(axis=1, keepdims=True)
        split = np.divide(split, rows, out=np.zeros_like(split), where=rows > 0)
    return split


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """Every sample that could be, one clip's together."""

    clip: Ints
    """(R,) number of the target among the clips, ascending."""
    layout: Ints
    """(R,) place in `LAYOUTS`."""
    duration_s: Floats
    """(R,) of prompt and target."""
    positions: Ints
    """(R,)"""


def weights_of(
    rows: Rows,
    language: Ints,
    source: Ints,
    synthetic: Bools,
    config: StageConfig,
    max_positions: int,
) -> Floats:
    """(R,) how often an epoch of a stage sees each row, on average.

    language, source, synthetic: (N,) of the clips. The weights of a clip's rows sum to what the
    balance gives the clip; those of all recorded rows to the number of recorded clips with a row
    that the stage can take, whatever is generated beside them.
    """
    shares = np.array(config.shares)
    limit = min(config.max_positions, max_positions)
    fits = (
        (rows.duration_s >= config.min_s)
        & (rows.duration_s <= config.max_s)
        & (rows.positions <= limit)
        & (shares[rows.layout] > 0)
    )
    masks = np.zeros(language.size, np.int64)
    np.bitwise_or.at(masks, rows.clip[fits], 1 << rows.layout[fits])
    recorded, generated = (masks > 0) & ~synthetic, (masks > 0) & synthetic
    weight = np.zeros(language.size)
    weight[recorded] = balanced(
        language[recorded],
        source[recorded],
        config.language_temperature,
        config.source_temperature,
    )
    weight[generated] = rationed(
        balanced(language[generated], source[generated], 1.0, config.source_temperature),
        language[generated],
        np.bincount(language, weights=weight).astype(np.float64),
        config.synthetic,
    )
    num_sets = 1 << len(LAYOUTS)
    possible = (np.arange(num_sets)[:, None] >> np.arange(len(LAYOUTS)) & 1).astype(np.bool_)
    found = np.zeros(fits.size)
    # Each on their own: what is generated takes no layout's share from what is recorded.
    for some in (recorded, generated):
        totals = np.bincount(masks[some], weights=weight[some], minlength=num_sets)
        split = raked(totals.astype(np.float64), possible, shares)
        mine = fits & some[rows.clip]
        clip = rows.clip[mine]
        found[mine] = weight[clip] * split[masks[clip], rows.layout[mine]]
    return found


def shares_of(layout: Ints, weights: Floats) -> Floats:
    """(L,) what each layout got of a stage."""
    totals = np.bincount(layout, weights=weights, minlength=len(LAYOUTS))
    found: Floats = totals / max(totals.sum(), 1e-12)
    return found


def reference_share(shares: Floats) -> float:
    """Of samples with reference audio."""
    return float(shares[list(WITH_REFERENCE)].sum())
