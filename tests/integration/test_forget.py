"""`voxquarry forget` and `trace` on a corpus that went through every phase, on real recordings."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from pipeline import packing
from pipeline.storage import Corpus
from schemas.arrow import CLIPS, LATENTS, RECORDINGS, REFERENCES, SAMPLES, SYNTHETIC
from tests.integration.conftest import voxquarry
from tests.integration.test_clone import arguments as clone_arguments
from tests.jobs.corpus_scan import traces_of, voice_of

pytestmark = [pytest.mark.ray, pytest.mark.slow]

V2 = str(Path(__file__).parents[1] / "data" / "core" / "v2")
SPEAKER = "allison"


def done(*arguments: str) -> str:
    """What a command that must succeed prints, in one line."""
    ended = voxquarry(*arguments)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return " ".join(ended.stdout.split())


@pytest.fixture(scope="module")
def whole(annotated: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Curated, annotated, mined, cloned (by the smallest checkpoint), encoded and composed."""
    folder = tmp_path_factory.mktemp("whole")
    root = str(folder / "corpus")
    shutil.copytree(annotated.path, root)
    lax = folder / "lax.yaml"
    lax.write_text("rules: {anything: {column: cer, max: 1000.0}}")
    done("mine", root)
    done(*clone_arguments(root), "--synthetic-policy", str(lax))
    done("encode", root, "--checkpoint", V2)
    done("compose", root, "--checkpoint", V2)
    done("report", root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "WORTH", 1)
        packing.bring_up_to_date(Corpus(root))
    return Corpus(root)


def test_no_byte_of_a_voice_is_left_and_no_phase_brings_it_back(
    whole: Corpus, devset: Path, tmp_path: Path
) -> None:
    root = str(tmp_path / "corpus")
    shutil.copytree(whole.path, root)
    corpus = Corpus(root)
    recordings = corpus.read(RECORDINGS).filter(speaker=SPEAKER)["recording_id"].to_list()
    clips = corpus.read(CLIPS, ["clip_id", "recording_id"])
    own = clips.filter(pl.col("recording_id").is_in(recordings))["clip_id"].to_list()
    voice = voice_of(corpus, own, recordings)
    assert min(len(kind) for kind in (voice.texts, voice.vectors, voice.blobs, own)) > 20
    assert set(voice.ids) & set(corpus.read(SYNTHETIC)["clip_id"])
    traces = traces_of(corpus, voice)
    for place in ("report.html", "_index/clips/", "_index/_commits/curate/"):
        assert any(name.startswith(place) for name in traces)
    others = {
        table.name: [row for row in corpus.read(table).to_dicts() if not tells(row, voice.ids)]
        for table in (CLIPS, REFERENCES, LATENTS)
    }

    failed = voxquarry("forget", root, "--speaker", "nobody")
    assert failed.returncode == 1
    assert f"ConfigError: {root} holds no speaker nobody" in " ".join(failed.stderr.split())
    assert "Traceback" not in failed.stderr
    told = done("forget", root, "--speaker", SPEAKER, "--yes")
    assert "Forgotten: speaker allison" in told
    assert traces_of(corpus, voice) == []
    for table in (CLIPS, REFERENCES, LATENTS):
        assert corpus.read(table).to_dicts() == others[table.name]
    assert len(others[LATENTS.name]) > 5
    assert corpus.read(SAMPLES).height > 5

    again = done("curate", str(devset / "manifest.csv"), "--out", root)
    assert "6 of 19 sources are forgotten and left out" in again
    assert "Nothing to do" in again
    # The same bytes under another name, from somebody who declares nobody.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(devset / "audio" / "en_allison_s1.flac", elsewhere / "new.flac")
    assert "1 of 1 sources are forgotten" in done("curate", str(elsewhere), "--out", root)
    lax = str(Path(whole.path).parent / "lax.yaml")
    for phase in (
        ["mine", root],
        ["annotate", root],
        [*clone_arguments(root), "--synthetic-policy", lax],
        ["encode", root, "--checkpoint", V2],
        ["compose", root, "--checkpoint", V2],
        ["report", root],
    ):
        done(*phase)
    # A clone's id is that of its voice and place: of another's voice it comes back with other words.
    again_made = whole.read(SYNTHETIC).filter(~pl.col("described_id").is_in(own))["clip_id"]
    assert traces_of(corpus, replace(voice, ids=voice.ids - set(again_made))) == []
    assert corpus.read(LATENTS).height >= len(others[LATENTS.name])


def tells(row: dict[str, object], ids: frozenset[str]) -> bool:
    return any(value in ids for value in row.values() if isinstance(value, str))


def test_everything_is_traced_back_to_its_recording(whole: Corpus) -> None:
    """Every kind of id, and the run, models and thresholds of each phase on the way."""
    samples = whole.read(SAMPLES)
    sample = samples.filter(layout="reference").row(0, named=True)
    clip_id = sample["target"]["clip_id"]
    pair = whole.read(REFERENCES).row(0, named=True)
    made = whole.read(SYNTHETIC, ["clip_id", "described_id", "transcript_id"]).row(0, named=True)
    uris = dict(
        whole.read(CLIPS, ["clip_id", "recording_id"])
        .join(whole.read(RECORDINGS, ["recording_id", "uri"]), on="recording_id")
        .select("clip_id", "uri")
        .iter_rows()
    )

    def traced(name: str) -> dict[str, object]:
        return json.loads(voxquarry("trace", whole.path, name, "--json").stdout)

    found = traced(sample["sample_id"])
    assert found["sample"]["layout"] == "reference"
    assert found["target"]["clip"]["uri"] == uris[clip_id]
    assert found["target"]["clip"]["licence"].startswith(("CC-", "LicenseRef-"))
    assert found["target"]["verdict"]["accepted"]
    snr = found["target"]["verdict"]["thresholds"]["low_snr"]
    assert snr["column"] == "snr_db"
    assert snr["value"] >= snr["min"]
    assert {one["uri"] for one in found["references"]} == {uris[clip_id]}
    phases = {run["phase"] for run in found["runs"].values()}
    assert {"curate", "encode", "compose", "annotate"} <= phases
    curated = found["runs"][found["target"]["clip"]["run"]]
    assert {"tiny.en", "ge2e"} <= {model["name"] for model in curated["models"]}
    assert curated["settings"]["segmentation"]
    assert found["target"]["latents"][0]["vae_hash"]

    found = traced(f"{pair['target_id']}:{pair['reference_id']}")
    assert found["pair"]["cosine"] >= found["pair"]["thresholds"]["min_cosine"] > 0.5
    found = traced(made["clip_id"])
    assert found["voice"]["clip"]["uri"] == uris[made["described_id"]]
    assert found["words"]["clip"]["uri"] == uris[made["transcript_id"]]
    assert found["voice"]["description"]["writer"] == "grammar"
    place = sample["target"]
    assert traced(f"{place['part']}:{place['row']}")["clip"]["clip_id"] == clip_id
    assert traced(uris[clip_id])["clips"]
    told = done("trace", whole.path, clip_id)
    assert all(word in told for word in ("licence", "thresholds", "lends its voice", "tiny.en"))
    failed = voxquarry("trace", whole.path, "0" * 32)
    assert failed.returncode == 1
    assert "knows no clip" in failed.stderr
    assert "Traceback" not in failed.stderr
