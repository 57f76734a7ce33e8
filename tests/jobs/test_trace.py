"""Where anything in a corpus comes from, on a corpus that holds a row of everything."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from jobs.forget import run_forget
from jobs.forget_plan import Request
from jobs.run_compose import run_compose
from jobs.settings import Settings
from jobs.trace import trace
from jobs.trace_tree import show_trace
from schemas.arrow import LATENTS, SAMPLES
from schemas.errors import ConfigError
from tests.jobs.composable_corpus import V2, Cloned, Made, Said, make, write_clones


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Two recordings; one has a clip that lends its voice, the other one that lends its words."""
    said = [
        Said(name="first", references=("second",), description="A calm voice.", consent="yes"),
        Said(name="second", start_s=6.0),
        Said(name="other", recording="r1", session="s1", text="quite other words"),
    ]
    made = make(tmp_path_factory.mktemp("traced"), said)
    clone = Cloned(name="clone", of="first", says="other", text="quite other words")
    write_clones(made.corpus, [clone], audio=b"sound")
    console = Console(file=io.StringIO())
    run_compose(made.root, V2, Settings(), policy=made.policy, console=console)
    return made


def test_a_sample_leads_to_recordings_runs_and_rules(made: Made) -> None:
    found = trace(made.root, "first.described_reference")
    assert found["sample"]["text"] == "a few words"
    assert found["target"]["clip"]["uri"] == "/made-up/r0.flac"
    assert found["target"]["clip"]["consent"] == "yes"
    assert found["target"]["description"]["model"] == "grammar-1"
    rule = found["target"]["verdict"]["thresholds"]["quiet"]
    assert (rule["column"], rule["value"], rule["min"]) == ("snr_db", 30.0, 10.0)
    assert [one["clip_id"] for one in found["references"]] == ["second"]
    assert found["recordings"]["r0"]["source"] == "radio"
    run = found["runs"][found["sample"]["run"]]
    assert run["phase"] == "compose"
    assert run["checkpoint"] == V2
    assert run["versions"]["polars"]


def test_a_clip_tells_what_was_made_with_it(made: Made) -> None:
    found = trace(made.root, "first")
    assert [one["reference_id"] for one in found["references"]] == ["second"]
    assert found["clones"] == ["clone"]
    assert "first.described_reference" in found["samples"]
    assert trace(made.root, "second")["lends_its_voice_to"] == ["first"]


def test_a_clone_a_pair_and_a_latent_lead_back(made: Made) -> None:
    clone = trace(made.root, "clone")
    assert clone["voice"]["clip"]["uri"] == "/made-up/r0.flac"
    assert clone["words"]["clip"]["uri"] == "/made-up/r1.flac"
    assert clone["clone"]["seed"] == 1
    assert "audio" not in clone["clone"]
    pair = trace(made.root, "first:second")
    assert pair["pair"]["cosine"] == 0.9
    assert pair["reference"]["clip"]["start_s"] == 6.0
    for part, piece in made.corpus.scan(LATENTS, ["clip_id"]):
        for row, clip_id in enumerate(piece["clip_id"].to_pylist()):
            found = trace(made.root, f"{part}:{row}")
            assert (found.get("clip") or found["clone"])["clip_id"] == clip_id
            assert found["row"]["row"] == row
    assert set(trace(made.root, "/made-up/r0.flac")["clips"]) == {"first", "second"}


def test_every_sample_is_told_as_a_tree_and_as_json(made: Made) -> None:
    for name in made.corpus.read(SAMPLES, ["sample_id"])["sample_id"]:
        tree, plain = (Console(file=io.StringIO(), width=120) for _ in range(2))
        show_trace(made.root, name, as_json=False, console=tree)
        assert "/made-up/r" in tree.file.getvalue()  # type: ignore[attr-defined]
        show_trace(made.root, name, as_json=True, console=plain)
        told = json.loads(plain.file.getvalue())  # type: ignore[attr-defined]
        assert told["sample"]["sample_id"] == name


@pytest.mark.parametrize(
    "name",
    ["nobody", "first:nobody", "latents/none.parquet:0", "", "nobody.text", "../x.parquet:0"],
)
def test_what_is_not_there_is_said_in_one_line(made: Made, name: str) -> None:
    with pytest.raises(ConfigError, match="knows no clip"):
        trace(made.root, name)


def test_a_row_beyond_the_end_and_a_folder_without_a_corpus(made: Made, tmp_path: Path) -> None:
    part = made.corpus.parts("latents")[0]
    with pytest.raises(ConfigError, match="there is no 99"):
        trace(made.root, f"{part}:99")
    with pytest.raises(ConfigError, match="holds no corpus"):
        trace(str(tmp_path), "first")


def test_of_the_forgotten_only_that_is_told(tmp_path: Path) -> None:
    made = make(tmp_path, [Said(name="gone"), Said(name="kept", recording="r1")])
    console = Console(file=io.StringIO())
    request = Request(kind="recording", name="r0", reason="asked to")
    run_forget(made.root, request, dry_run=False, agreed=lambda: True, console=console)
    with pytest.raises(ConfigError, match="has forgotten r0, on 20"):
        trace(made.root, "r0")
    with pytest.raises(ConfigError, match="knows no clip"):
        trace(made.root, "gone")
    assert trace(made.root, "kept")["clip"]["uri"] == "/made-up/r1.flac"
