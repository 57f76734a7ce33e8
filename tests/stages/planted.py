"""Clones whose worth is known: real clips as good ones, and what a bad model would make of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import soundfile as sf

from jobs.clone import Maker, open_judges, rows_of
from jobs.clone_plan import ClipPlace, ClonePlan
from pipeline.policy import judge_synthetic, load_synthetic_policy
from schemas.arrow import SYNTHETIC
from schemas.cloning import Candidate, Clone
from schemas.rows import Wave
from stages.dnsmos import DnsmosConfig
from stages.judging import Judging, JudgingConfig
from stages.marking import Marking
from stages.speaker import SpeakerConfig, open_encoder
from stages.speaking import SpeakingConfig
from stages.transcription import TranscriptionConfig

DEVSET = Path(__file__).parents[1] / "data" / "devset"
GOOD = "good"
BABBLE_VOICES = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Spoken:
    """A real utterance."""

    speaker: str
    """Whoever speaks two languages has one name."""
    language: str
    text: str
    sample_rate: int
    wave: Wave = field(repr=False)

    @property
    def chars_per_s(self) -> float:
        """Letters and digits per second of sound."""
        frame = self.sample_rate // 50
        level = np.square(self.wave[: self.wave.size // frame * frame].reshape(-1, frame)).mean(1)
        sound_s = float((level > level.max() * 10**-3.5).sum()) / 50
        return _letters(self.text) / sound_s


@dataclass(frozen=True, kw_only=True, slots=True)
class Planted:
    """A clone, and what it is."""

    kind: str
    """`good`, or what is wrong with it."""
    clone: Clone


def devset_utterances(shortest_s: float = 2.0) -> list[Spoken]:
    """Clean utterances of the bundled recordings, in all their languages."""
    truth = pl.read_parquet(DEVSET / "ground_truth.parquet")
    found = []
    for name in ("en_allison_s1", "en_allison_s2", "es_allison_s1", "fr_june_s1", "fr_armelle_s1"):
        wave, rate = sf.read(DEVSET / "audio" / f"{name}.flac", dtype="float32")
        for row in truth.filter(pl.col("recording_id") == name).to_dicts():
            piece = wave[round(row["start"] * rate) : round(row["end"] * rate)]
            if piece.size >= shortest_s * rate:
                language, speaker, _ = name.split("_")
                found.append(
                    Spoken(
                        speaker=speaker,
                        language=language,
                        text=row["text"] or "",
                        sample_rate=rate,
                        wave=piece,
                    )
                )
    return found


def planted(utterances: Sequence[Spoken], *, each: int, seed: int = 0) -> Iterator[Planted]:
    """`each` clones of every kind; what is said in them is English.

    Each good clip is beside the same sound with another text, the same sound for another voice, and
    what is no speech at all.
    """
    random = np.random.default_rng(seed)
    encoder = open_encoder(SpeakerConfig())
    english = [one for one in utterances if one.language == "en" and len(one.text) >= 20]
    order = random.permutation(len(english))
    for number in range(each):
        said = english[order[number % len(order)]]
        others = [one for one in english if one.text != said.text]
        voice = _any([one for one in others if one.speaker == said.speaker], random)
        stranger = _any([one for one in utterances if one.speaker != said.speaker], random)
        other = _any(others, random)
        noise = random.standard_normal(said.wave.size).astype(np.float32)
        babble = [_any(utterances, random) for _ in range(BABBLE_VOICES - 1)]
        sounds = {
            GOOD: (said, voice, said.text, said.wave),
            "wrong text": (said, voice, other.text, said.wave),
            "wrong speaker": (said, stranger, said.text, said.wave),
            "silence": (said, voice, said.text, noise * 1e-3),
            "noise": (said, voice, said.text, noise * 0.05),
            "babble": (said, voice, said.text, _sum([said, *babble])),
            "half of it": (said, voice, said.text, said.wave[: said.wave.size // 2]),
        }
        for kind, (source, described, text, wave) in sounds.items():
            embedding = encoder.embed([described.wave])[0].embedding
            clone = Clone(
                clip_id=f"{kind} {number}",
                attempt=1,
                text=text,
                language="en",
                description="A voice.",
                expected_s=_letters(text) / (described.chars_per_s if described.text else 15.0),
                seed=0,
                speaker_embedding=embedding,
                candidates=(
                    Candidate(seed=0, stopped=True, sample_rate=source.sample_rate, wave=wave),
                ),
            )
            yield Planted(kind=kind, clone=clone)


def verdicts_of(plants: Sequence[Planted], policy: str = "synthetic") -> pl.DataFrame:
    """Scores, verdict and kind of each, as the command would have them: marked, stored, judged."""
    marking = Marking()
    judges = partial(open_judges, TranscriptionConfig(), DnsmosConfig(), SpeakerConfig())
    judging = Judging(JudgingConfig(), judges)
    marking.setup()
    judging.setup()
    judged = judging.process(marking.process([one.clone for one in plants]))
    maker = Maker(checkpoint="planted", model_hash="", watermark="")
    rows = []
    for clone in judged:
        place = ClipPlace(clip_id="", part="")
        plan = ClonePlan(
            corpus="",
            clip_id=clone.clip_id,
            described=place,
            session_id="",
            references=(place,),
            reference_max_s=1.0,
            transcript_id="",
            transcript_session_id="",
            text=clone.text,
            language=clone.language,
            description=clone.description,
            text_cosine=None,
            lexical_overlap=0.0,
            expected_s=clone.expected_s,
            seed=clone.seed,
        )
        made = rows_of(plan, clone, maker=maker, config=SpeakingConfig(candidates=1))
        rows += made[SYNTHETIC.name]
    frame = pl.from_arrow(SYNTHETIC.to_arrow(rows).replace_schema_metadata())
    assert isinstance(frame, pl.DataFrame)
    verdicts = judge_synthetic(frame, load_synthetic_policy(policy))
    kinds = pl.Series("kind", [one.kind for one in plants])
    return frame.drop("audio", "speaker_embedding").with_columns(
        kinds, verdicts["accepted"], verdicts["reasons"]
    )


def shares(verdicts: pl.DataFrame) -> dict[str, float]:
    """Kind → the share that is accepted."""
    return dict(verdicts.group_by("kind").agg(pl.col("accepted").mean()).sort("kind").iter_rows())


def _letters(text: str) -> int:
    return sum(char.isalnum() for char in text)


def _any(choice: Sequence[Spoken], random: np.random.Generator) -> Spoken:
    return choice[int(random.integers(len(choice)))]


def _sum(voices: Sequence[Spoken]) -> Wave:
    """All at once, equally loud, as long as the first."""
    length = voices[0].wave.size
    total = np.zeros(length, np.float32)
    for one in voices:
        level = float(np.sqrt(np.square(one.wave).mean()))
        total += np.resize(one.wave, length) / max(level, 1e-6)
    return (total * 0.05 / np.sqrt(len(voices))).astype(np.float32)
