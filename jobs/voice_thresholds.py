"""From which cosine on a corpus' clips are one voice: set, calibrated on it, or the encoder's."""

from dataclasses import asdict, dataclass, replace

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from annotators.calibration import VoiceThresholds, scores_of
from annotators.registry import known_model
from jobs.curate import PHASE as CURATE
from pipeline.storage import Corpus
from schemas.arrow import CLIPS, RECORDINGS, VERDICTS
from schemas.errors import ConfigError
from stages.mining import COLUMNS, MiningConfig, are_clean, embeddings_of
from stages.voice_pairs import Timeline, VoicePairs

FEWEST_CLIPS = 5
"""Of a voice, to say how much it varies."""
MOST_CLIPS = 4000
"""Their pairs are compared all at once: eight million."""
FALSE_ACCEPT = 0.001
"""Share of pairs of different voices that both limits may let through. A target has many clips to
choose from, so a small share of wrong ones is a larger share of what it gets."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoder:
    """The speaker encoder that measured a corpus, as its run records say."""

    name: str
    hash: str


def encoder_of(corpus: Corpus) -> Encoder:
    """Raises `ConfigError` where no run says it, or several say different ones."""
    found = {}
    for run in corpus.runs():
        if run.get("phase") == CURATE and run.get("units"):
            name = run["settings"]["speaker"]["model"]
            for model in run["models"]:
                if model["name"] == name:
                    found[model["hash"]] = Encoder(name=name, hash=model["hash"])
    if not found:
        raise ConfigError(f"{corpus.root}: no run record says which encoder measured the voices")
    if len(found) > 1:
        told = " and ".join(f"{encoder.name} ({encoder.hash[:12]})" for encoder in found.values())
        raise ConfigError(
            f"{corpus.root}: voices were measured by {told}, whose cosines do not compare; "
            "curate into one corpus per encoder"
        )
    return next(iter(found.values()))


def with_thresholds(config: MiningConfig, corpus: Corpus, encoder: Encoder) -> MiningConfig:
    """The config with both cosines set: its own, else the corpus' calibration, else the registry's.

    Raises `ConfigError` where none of them knows.
    """
    if config.min_cosine is not None and config.min_voice_cosine is not None:
        return config
    known = known_model(encoder.name)
    own = corpus.find_json(calibration_file(encoder))
    found = VoiceThresholds(**own) if own else known.voices if known else None
    if found is None:
        raise ConfigError(
            f"nobody has calibrated the speaker encoder {encoder.name} ({encoder.hash[:12]}): run "
            f"`voxquarry doctor --calibrate {corpus.root}` on a corpus whose recordings declare "
            "their speakers, or set mine.min_cosine and mine.min_voice_cosine"
        )
    return replace(
        config,
        min_cosine=found.min_cosine if config.min_cosine is None else config.min_cosine,
        min_voice_cosine=(
            found.min_voice_cosine if config.min_voice_cosine is None else config.min_voice_cosine
        ),
    )


def calibration_file(encoder: Encoder) -> str:
    """Where a corpus keeps the thresholds that were measured on it."""
    return f"_calibration/{encoder.hash}.json"


def calibrate(root: str, config: MiningConfig, console: Console) -> VoiceThresholds:
    """Measure both thresholds on a corpus with declared speakers, print them, keep them there.

    Raises `ConfigError` where the corpus has no encoder, or fewer than two speakers with enough
    clean clips.
    """
    corpus = Corpus(root)
    if not corpus.exists():
        raise ConfigError(f"{root} holds no corpus")
    encoder = encoder_of(corpus)
    clips = _clips_of_known_voices(corpus, config)
    found = measured(clips, config.block)
    corpus.write_json(calibration_file(encoder), asdict(found))
    table = Table("", "", title=f"Voices by {encoder.name}", show_header=False)
    table.add_row("compared", found.data)
    table.add_row("pairs of one voice, of two", f"{found.same_pairs:,}, {found.different_pairs:,}")
    table.add_row(
        "equal error rate of clips", f"{found.equal_error:.1%} at {found.equal_error_cosine:.3f}"
    )
    table.add_row("min_cosine, between clips", f"{found.min_cosine:.2f}")
    table.add_row("min_voice_cosine, between voices", f"{found.min_voice_cosine:.2f}")
    table.add_row("pairs of two voices that pass both", f"{found.false_accept:.2%}")
    table.add_row("pairs of one voice that pass both", f"{found.recall:.1%}")
    table.add_row("of those that pass, of one voice", f"{found.precision:.2%}")
    console.print(table)
    console.print(
        f"Kept in {root}/{calibration_file(encoder)}; `voxquarry mine {root}` uses it.",
        highlight=False,
    )
    return found


def measured(clips: pl.DataFrame, block: int) -> VoiceThresholds:
    """Thresholds from clips whose `speaker` is known, as if all were one session.

    The limit of clips is where both errors are as frequent; that of voices is the lowest that
    lets `FALSE_ACCEPT` of the different pairs through.
    """
    embeddings, _ = embeddings_of(clips)
    names = sorted(clips["speaker"].unique())
    voices = clips["speaker"].replace_strict(names, list(range(len(names)))).to_numpy()
    num = clips.height
    everyone = np.arange(num)
    timeline = Timeline(
        recording=everyone,
        start_s=np.zeros(num),
        end_s=np.ones(num),
        accepted=np.ones(num, np.bool_),
    )
    pairs = VoicePairs(embeddings, timeline, everyone, everyone, block)
    cosines = embeddings @ embeddings.T
    of_clips = scores_of(cosines, voices)
    equal_error, equal_error_cosine = of_clips.equal_error()
    min_cosine = round(equal_error_cosine, 2)
    around = pairs.voices(pairs.survey(1), min_cosine)
    # A pair must pass the first limit to be looked at by the second.
    both = np.where(cosines >= min_cosine, around @ around.T, np.float32(-1.0))
    of_voices = scores_of(both, voices)
    min_voice = max(min_cosine, of_voices.cosine_at(FALSE_ACCEPT))
    passed_same = int((of_voices.same >= min_voice).sum())
    passed = passed_same + int((of_voices.different >= min_voice).sum())
    return VoiceThresholds(
        min_cosine=min_cosine,
        min_voice_cosine=min_voice,
        equal_error=round(equal_error, 4),
        equal_error_cosine=round(equal_error_cosine, 4),
        false_accept=round(of_voices.false_accept(min_voice), 5),
        recall=round(1 - of_voices.false_reject(min_voice), 4),
        precision=round(passed_same / passed, 5) if passed else 0.0,
        voices=len(names),
        same_pairs=of_clips.same.size,
        different_pairs=of_clips.different.size,
        data=f"{num} clean clips of {len(names)} speakers",
    )


def _clips_of_known_voices(corpus: Corpus, config: MiningConfig) -> pl.DataFrame:
    recordings = corpus.read(RECORDINGS, ["recording_id", "speaker"]).drop_nulls("speaker")
    if recordings.is_empty():
        raise ConfigError(
            f"{corpus.root}: no recording declares its speaker; calibration wants a manifest with "
            "the column speaker"
        )
    clips = corpus.read(CLIPS, COLUMNS).join(recordings, on="recording_id")
    clips = clips.join(corpus.read(VERDICTS).filter("accepted"), on="clip_id", how="semi")
    clips = clips.filter(pl.Series(are_clean(clips, config), dtype=pl.Boolean))
    clips = clips.filter(pl.Series(embeddings_of(clips)[1], dtype=pl.Boolean))
    clips = clips.filter(pl.len().over("speaker") >= FEWEST_CLIPS)
    num = clips["speaker"].n_unique()
    if num < 2:
        raise ConfigError(
            f"{corpus.root}: calibration compares voices, and {num} of the declared speakers "
            f"{'has' if num == 1 else 'have'} {FEWEST_CLIPS} accepted, clean clips"
        )
    # By id, which is as good as chance and the same every time.
    most = max(FEWEST_CLIPS, MOST_CLIPS // num)
    return (
        clips.sort("clip_id").group_by("speaker", maintain_order=True).head(most).head(MOST_CLIPS)
    )
