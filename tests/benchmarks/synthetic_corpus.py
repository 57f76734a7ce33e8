"""A corpus of made-up clips, written through the project's own storage: no audio, real columns.

Voices are directions around a common one, clips directions around their voice, so that cosines of
one voice and of two are spread as GE2E's are on real speech.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from annotators.registry import resolve
from pipeline.ledger import Item, UnitRecord
from pipeline.storage import Corpus
from schemas.arrow import CLIPS, RECORDINGS
from schemas.ids import content_id
from schemas.rows import Recording

F32 = npt.NDArray[np.float32]

SIZE = 256
CLIPS_PER_RECORDING = 100
CLIPS_PER_PART = 200
"""Twenty minutes of speech to a part, as the cluster profile commits it."""
CLIP_S = 5.0
STEP_S = 6.0
# Cosines of 0.84 within a voice and 0.58 between two (shared/data: 0.837 and 0.579).
_COMMON = 1.45
_WITHIN = 0.436
_WORDS = 5000

_SCORES = {
    "snr_db": 38.0,
    "clipping": 0.0,
    "bandwidth_hz": 12_000.0,
    "speech_ratio": 0.9,
    "level_dbfs": -25.0,
    "dnsmos_sig": 3.5,
    "dnsmos_bak": 4.0,
    "dnsmos_ovrl": 3.2,
    "dnsmos_p808": 3.9,
    "lead_silence_s": 0.3,
    "trail_silence_s": 0.3,
    "edge_start_db": 0.2,
    "edge_end_db": 0.1,
    "click_db": 3.0,
    "word_cut_start": False,
    "word_cut_end": False,
    "breath_cut": False,
    "upsampled": False,
    "speaker_purity": 0.84,
    "language": "en",
    "language_prob": 1.0,
    "text_source": "asr",
    "asr_avg_logprob": -0.2,
    "asr_no_speech_prob": 0.01,
    "asr_compression_ratio": 1.4,
    "asr_word_prob_mean": 0.95,
    "chars_per_s": 14.0,
    "unique_word_ratio": 1.0,
    "unique_trigram_ratio": 1.0,
    "impossible_word_ratio": 0.0,
    "silent_word_ratio": 0.0,
    "chunk_index": 0,
    "sample_rate": 24_000,
    "duration_s": CLIP_S,
}


def session_sizes(num_clips: int, smallest: int, largest: int, seed: int) -> list[int]:
    """Sizes between both bounds that sum up to the clips."""
    rng = np.random.default_rng(seed)
    sizes: list[int] = []
    while (left := num_clips - sum(sizes)) > largest + smallest:
        sizes.append(int(rng.integers(smallest, largest + 1)))
    half = left // 2 if left > largest else left
    return [size for size in (*sizes, half, left - half) if size]


def make_corpus(root: str, sizes: Sequence[int], seed: int) -> Corpus:
    """Curated sessions of such sizes, each of two to six voices that take turns."""
    corpus = Corpus(root)
    rng = np.random.default_rng(seed)
    common = _unit(rng.standard_normal(SIZE, np.float32)[None])[0]
    pieces: list[pa.Table] = []
    waiting = 0
    for number, size in enumerate(sizes):
        pieces.append(_session(f"session-{number:06d}", size, common, rng))
        waiting += size
        if waiting >= 50 * CLIPS_PER_PART:
            pieces = [_write(corpus, pa.concat_tables(pieces), all_of_it=False)]
            waiting = pieces[0].num_rows
    _write(corpus, pa.concat_tables(pieces), all_of_it=True)
    encoder = resolve("ge2e")
    corpus.write_json(
        "_runs/curate-synthetic.json",
        {
            "run": "curate-synthetic",
            "phase": "curate",
            "started": "2026-01-01T00:00:00+00:00",
            "status": "finished",
            "units": 1,
            "settings": {"speaker": {"model": "ge2e"}},
            "models": [{"name": encoder.name, "hash": encoder.hash}],
        },
    )
    return corpus


def _session(name: str, size: int, common: F32, rng: np.random.Generator) -> pa.Table:
    num_voices = int(rng.integers(2, 7))
    voices = _unit(_COMMON * common + _unit(rng.standard_normal((num_voices, SIZE), np.float32)))
    noise = _unit(rng.standard_normal((size, SIZE), np.float32)) * np.float32(_WITHIN)
    embeddings = _unit(voices[rng.integers(0, num_voices, size)] + noise)
    index = np.arange(size)
    recording = index // CLIPS_PER_RECORDING
    place = index % CLIPS_PER_RECORDING
    recordings = [content_id(name, int(number)) for number in range(int(recording[-1]) + 1)]
    start_s = place * STEP_S
    snr_db = np.where(rng.random(size) < 0.1, 5.0, np.where(rng.random(size) < 0.1, 15.0, 38.0))
    columns = {
        "clip_id": pa.array([content_id(name, int(number)) for number in index]),
        "recording_id": pa.array(recordings).take(pa.array(recording)),
        "session_id": pa.repeat(name, size),
        "index_in_recording": pa.array(place),
        "start_sample": pa.array((start_s * 24_000).astype(np.int64)),
        "end_sample": pa.array(((start_s + CLIP_S) * 24_000).astype(np.int64)),
        "start_s": pa.array(start_s),
        "end_s": pa.array(start_s + CLIP_S),
        "text": pa.array(list(_texts(size, rng))),
        "snr_db": pa.array(snr_db),
        "speaker_embedding": pa.ListArray.from_arrays(
            pa.array(np.arange(0, (size + 1) * SIZE, SIZE, dtype=np.int32)),
            pa.array(embeddings.ravel()),
        ),
    }
    return pa.Table.from_arrays(
        [
            columns[field.name].cast(field.type)
            if field.name in columns
            else _constant(field, size)
            for field in CLIPS.schema
        ],
        schema=CLIPS.schema,
    )


def _constant(field: "pa.Field[pa.DataType]", size: int) -> pa.Array:
    if pa.types.is_list(field.type):
        nothing = pa.array([[]], field.type)
        return pa.concat_arrays([nothing]).take(pa.array(np.zeros(size, np.int64)))
    if field.name in _SCORES:
        return pa.repeat(pa.scalar(_SCORES[field.name], field.type), size)
    return pa.nulls(size, field.type)


def _texts(size: int, rng: np.random.Generator) -> Iterator[str]:
    """Twelve made-up words each."""
    for words in rng.integers(0, _WORDS, (size, 12)).tolist():
        yield " ".join([f"w{word}" for word in words])


def _write(corpus: Corpus, clips: pa.Table, *, all_of_it: bool) -> pa.Table:
    """Commit whole parts; what is left over waits for more."""
    done = 0
    while clips.num_rows - done >= CLIPS_PER_PART or (all_of_it and done < clips.num_rows):
        part = clips.slice(done, CLIPS_PER_PART).combine_chunks()
        done += part.num_rows
        uris = dict.fromkeys(part["recording_id"].to_pylist())
        # A recording that began in the part before has its row there.
        first = part["index_in_recording"][0].as_py()
        new = [uri for number, uri in enumerate(uris) if number or not first]
        session = dict(
            zip(part["recording_id"].to_pylist(), part["session_id"].to_pylist(), strict=True)
        )
        rows = [_recording(uri, session[uri]) for uri in new]
        length_s = part.num_rows * STEP_S
        item = Item(
            item_id=part["clip_id"][0].as_py(),
            uri=f"/made-up/{part['clip_id'][0].as_py()}.flac",
            status="done",
            duration_s=length_s,
            facts={"source": part["clip_id"][0].as_py(), "index": 0, "num_chunks": 1},
        )
        unit = UnitRecord(unit_id=item.item_id, attempt=1, items=(item,), rows={}, seconds={})
        tables = {"clips": part, "recordings": RECORDINGS.to_arrow(rows)}
        corpus.commit("curate", [unit], tables)
    return clips.slice(done)


def _recording(name: str, session_id: str) -> Recording:
    return Recording(
        recording_id=name,
        uri=f"/made-up/{name}.flac",
        session_id=session_id,
        duration_s=CLIPS_PER_RECORDING * STEP_S,
        sample_rate=24_000,
        channels=1,
        codec="FLAC",
        size_bytes=1,
        num_chunks=1,
    )


def _unit(rows: F32) -> F32:
    scaled: F32 = (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)
    return scaled
