"""Small corpora with everything that `compose` joins, written through the project's own storage."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.clone_plan import PHASE as CLONE
from jobs.judge_synthetic import JUDGE_PHASE
from jobs.sequence_reader import hash_of_vae
from pipeline.ledger import Item, UnitRecord
from pipeline.storage import Corpus
from schemas.arrow import TABLES
from schemas.attributes import Traits
from schemas.descriptions import Description
from schemas.latents import Latent
from schemas.references import Duplicate, Reference
from schemas.rows import Clip, Recording, Span, Word
from schemas.synthetic import Synthetic, SyntheticVerdict

V2 = str(Path(__file__).parents[1] / "data" / "core" / "v2")
V15 = str(Path(__file__).parents[1] / "data" / "core" / "v15")
CHANNELS = 16
POLICY = """
tiers: {wideband: 4000.0, fullband: 10000.0}
accept_tiers: [telephone, wideband, fullband]
rules: {quiet: {column: snr_db, min: 10.0}}
"""


@dataclass(kw_only=True)
class Said:
    """A clip as a test tells it."""

    name: str
    text: str | None = "a few words"
    recording: str = "r0"
    session: str = "s0"
    start_s: float = 0.0
    duration_s: float = 4.0
    pause: tuple[float, float] | None = None
    """A silence between its two words; none: one word from end to end."""
    speaker: str | None = "ann"
    language: str | None = "en"
    source: str | None = "radio"
    accepted: bool = True
    latent: bool = True
    references: tuple[str, ...] = ()
    group: str | None = None
    """Of near-duplicates."""
    description: str | None = None
    description_accepted: bool = True
    consent: str | None = None
    """The recording's, as its first clip tells it."""


@dataclass(kw_only=True)
class Cloned:
    """A generated clip as a test tells it."""

    name: str
    of: str
    """The clip whose voice and description it has."""
    says: str
    """The clip that said its text first."""
    text: str
    heard: tuple[str, ...] = ()
    """Clips whose audio was the voice reference; none: the described one's."""
    description: str = "A calm voice."
    language: str = "en"
    duration_s: float = 4.0
    accepted: bool = True
    latent: bool = True


@dataclass(kw_only=True)
class Made:
    """A corpus and the policy that judges it."""

    root: str
    policy: str
    corpus: Corpus = field(repr=False)


def make(folder: Path, said: Sequence[Said], *, checkpoint: str = V2, attempt: int = 1) -> Made:
    """Write a corpus; latents are of the checkpoint's AudioVAE."""
    folder.mkdir(parents=True, exist_ok=True)
    policy = folder / "policy.yaml"
    policy.write_text(POLICY)
    corpus = Corpus(str(folder / "corpus"))
    recordings = {one.recording: one for one in reversed(said)}
    _commit(
        corpus,
        "curate",
        {
            "clips": [_clip(one) for one in said],
            "recordings": [_recording(name, one) for name, one in recordings.items()],
        },
        [one.name for one in said],
        durations=[one.duration_s for one in said],
    )
    write_latents(corpus, said, checkpoint, attempt)
    pairs = [
        Reference(
            target_id=one.name,
            reference_id=other,
            session_id=one.session,
            cosine=0.9,
            rank=rank,
            attempt=1,
        )
        for one in said
        for rank, other in enumerate(one.references)
    ]
    _commit(corpus, "mine", {"references": pairs}, sorted({one.session for one in said}))
    marks = [
        Duplicate(clip_id=one.name, group_id=one.group, similarity=0.95, text_id="t", attempt=1)
        for one in said
        if one.group
    ]
    _commit(corpus, "duplicates", {"duplicates": marks}, ["t"])
    described = [one for one in said if one.description]
    traits = [
        Traits(
            **{
                name: (one.name if name == "clip_id" else True if name == "chosen" else None)
                for name in TABLES["traits"].schema.names
            }
        )
        for one in described
    ]
    table = TABLES["traits"]
    corpus.write_current("traits", table, table.to_arrow(traits))
    written = [_description(one) for one in described]
    _commit(corpus, "describe", {"descriptions": written}, [one.name for one in described])
    return Made(root=corpus.root, policy=str(policy), corpus=corpus)


def write_clones(
    corpus: Corpus,
    cloned: Sequence[Cloned],
    *,
    checkpoint: str = V2,
    attempt: int = 1,
    audio: bytes = b"",
) -> None:
    """Commit generated clips with their latents, and give them their verdicts."""
    rows = [
        Synthetic(
            clip_id=one.name,
            described_id=one.of,
            session_id="the voice's",
            transcript_id=one.says,
            transcript_session_id="another",
            reference_ids=one.heard or (one.of,),
            description=one.description,
            model="tiny",
            model_hash="m",
            seed=1,
            candidates=1,
            language=one.language,
            text=one.text,
            lexical_overlap=0.0,
            sample_rate=16_000,
            duration_s=one.duration_s,
            audio=audio,
            watermark="none",
            watermark_score=1.0,
            stopped=True,
            text_asr=one.text,
            cer=0.0,
            length_ratio=1.0,
            attempt=attempt,
        )
        for one in cloned
    ]
    names = [one.name for one in cloned]
    _commit(corpus, CLONE, {"synthetic": rows}, names, attempt=attempt)
    judge_clones(corpus, cloned)
    write_latents(corpus, cloned, checkpoint, attempt)


def judge_clones(corpus: Corpus, cloned: Sequence[Cloned]) -> None:
    """Put these verdicts in the place of all before."""
    verdicts = [
        SyntheticVerdict(
            clip_id=one.name,
            accepted=one.accepted,
            reasons=() if one.accepted else ("wrong_text",),
            policy_hash="p",
        )
        for one in cloned
    ]
    table = TABLES["synthetic_verdicts"]
    corpus.write_current(JUDGE_PHASE, table, table.to_arrow(verdicts))


def write_latents(
    corpus: Corpus, said: Sequence[Said | Cloned], checkpoint: str, attempt: int
) -> None:
    """Commit latents for the clips that have one."""
    vae = hash_of_vae(checkpoint)
    rows = []
    for one in said:
        if not one.latent:
            continue
        content = latent_of(one).tobytes()
        rows.append(
            Latent(
                clip_id=one.name,
                latent=content,
                frames=frames_of(one),
                channels=CHANNELS,
                crc32=zlib.crc32(content),
                vae_hash=vae,
                attempt=attempt,
            )
        )
    # Two parts, so that places differ by more than their row.
    for number, some in enumerate((rows[::2], rows[1::2])):
        names = [row.clip_id for row in some]
        unit = f"{number}-{vae}-{said[0].name}"
        _commit(corpus, "encode", {"latents": some}, names, attempt=attempt, unit=unit)


def latent_of(one: Said | Cloned) -> npt.NDArray[np.float16]:
    """(F, C): clips differ in length and content."""
    random = np.random.default_rng(zlib.crc32(one.name.encode()))
    return random.standard_normal((frames_of(one), CHANNELS), np.float32).astype("<f2")


def frames_of(one: Said | Cloned) -> int:
    """Of a clip's latent: 25 a second, up to a multiple of four."""
    return 4 * -(-round(one.duration_s * 1000) // 160)


def _commit(
    corpus: Corpus,
    phase: str,
    rows: dict[str, Sequence[Any]],
    names: Sequence[str],
    *,
    attempt: int = 1,
    unit: str = "u",
    durations: Sequence[float] = (),
) -> None:
    items = tuple(
        Item(item_id=name, uri=name, status="done", duration_s=seconds, facts={"source": "f"})
        for name, seconds in zip(names, durations or [1.0] * len(names), strict=True)
    )
    record = UnitRecord(
        unit_id=f"{phase}-{unit}-{attempt}", attempt=attempt, items=items, rows={}, seconds={}
    )
    corpus.commit(phase, [record], rows)


def _clip(one: Said) -> Clip:
    start, end = one.pause or (one.duration_s, one.duration_s)
    words = [Word(word="a", start_s=0.1, end_s=start, prob=1.0)]
    if one.pause:
        words.append(Word(word="b", start_s=end, end_s=one.duration_s - 0.1, prob=1.0))
    return Clip(
        clip_id=one.name,
        recording_id=one.recording,
        session_id=one.session,
        chunk_index=0,
        start_sample=round(one.start_s * 16_000),
        end_sample=round((one.start_s + one.duration_s) * 16_000),
        sample_rate=16_000,
        start_s=one.start_s,
        end_s=one.start_s + one.duration_s,
        duration_s=one.duration_s,
        speaker=one.speaker,
        language=one.language,
        text=one.text,
        words=tuple(words),
        speech=(Span(start_s=0.1, end_s=one.duration_s - 0.1),),
        bandwidth_hz=8000.0,
        snr_db=30.0 if one.accepted else 0.0,
    )


def _recording(name: str, one: Said) -> Recording:
    return Recording(
        recording_id=name,
        uri=f"/made-up/{name}.flac",
        session_id=one.session,
        source=one.source,
        consent=one.consent,
        speaker=one.speaker,
        duration_s=100.0,
        sample_rate=16_000,
        channels=1,
        codec="FLAC",
        size_bytes=1,
        num_chunks=1,
    )


def _description(one: Said) -> Description:
    assert one.description is not None
    return Description(
        clip_id=one.name,
        language="en",
        text=one.description,
        text_written=one.description,
        attributes=(),
        writer="grammar",
        model="grammar-1",
        verified=(),
        accepted=one.description_accepted,
        reasons=() if one.description_accepted else ("empty",),
        attempt=1,
    )


def many(num: int, sessions: int = 4, seed: int = 0) -> list[Said]:
    """Clips of several sessions and recordings, of which most have most of everything."""
    rng = np.random.default_rng(seed)
    said = []
    for number in range(num):
        session = f"s{number * sessions // num}"
        recording = f"{session}-r{number * sessions * 3 // num}"
        length = float(rng.choice([1.2, 2.5, 4.0, 6.0, 9.0]))
        start = 0.0
        if said and said[-1].recording == recording:
            start = said[-1].start_s + said[-1].duration_s + float(rng.choice([0.4, 3.0]))
        said.append(
            Said(
                name=f"{number:04d}{seed:04x}",
                text=f"clip number {number} of this corpus",
                session=session,
                recording=recording,
                start_s=start,
                duration_s=length,
                pause=(1.4, 1.8) if length > 3 and rng.random() < 0.7 else None,
                language=str(rng.choice(["en", "en", "en", "de"])),
                source=f"source-{session}",
                description="A calm voice." if rng.random() < 0.4 else None,
            )
        )
    for number, one in enumerate(said):
        peers = [p.name for p in said if p.session == one.session and p.name != one.name]
        if number % 5:
            chosen = rng.choice(peers, min(3, len(peers)), replace=False).tolist()
            said[number] = replace(one, references=tuple(chosen))
    return said


def clones_of(said: Sequence[Said], each: int = 2, seed: int = 0) -> list[Cloned]:
    """Some of every described clip, that say what clips of other sessions said."""
    rng = np.random.default_rng(seed)
    cloned = []
    for one in said:
        others = [other for other in said if other.session != one.session and other.text]
        for number in range(each if one.description else 0):
            other = others[int(rng.integers(len(others)))]
            cloned.append(
                Cloned(
                    name=f"clone-{one.name}-{number}",
                    of=one.name,
                    says=other.name,
                    text=str(other.text),
                    heard=(one.name, *one.references[:1]),
                    description=one.description or "",
                    language=one.language or "en",
                    duration_s=float(rng.choice([1.2, 2.5, 4.0, 6.0])),
                )
            )
    return cloned
