"""The plan: every source exactly once, the same units at every start, minus what is done."""

from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import planning
from pipeline.engine import EngineConfig, longest_first, ray_session
from pipeline.ledger import Item, Ledger, UnitRecord
from pipeline.planning import (
    Broken,
    fingerprint,
    items_of,
    key_of,
    still_to_do,
    survey_all,
    units_of,
)
from pipeline.shelf import Shelf
from pipeline.sources import Source, list_sources
from pipeline.survey import Surveyed, survey
from pipeline.work import Unit, WorkItem
from schemas.errors import DataError, DuplicateRecording, UndecodableAudio


def work(name: str, duration_s: float) -> WorkItem:
    facts = {
        "source": f"source-{name}",
        "index": 0,
        "num_chunks": 1,
        "recording_id": name,
        "planned_s": duration_s,
    }
    return WorkItem(item_id=name, uri=f"/{name}", duration_s=duration_s, plan=None, facts=facts)


def committed(units: Iterable[Unit], status: str = "done") -> Ledger:
    return Ledger(
        UnitRecord(
            unit_id=unit.unit_id,
            attempt=unit.attempt,
            items=tuple(
                Item(
                    item_id=item.item_id,
                    uri=item.uri,
                    status=status,
                    duration_s=item.duration_s,
                    facts=item.facts,
                )
                for item in unit.items
            ),
            rows={},
            seconds={},
        )
        for unit in units
    )


lengths = st.lists(st.floats(0.1, 700), max_size=40)


@given(lengths=lengths, unit_s=st.floats(1, 200))
def test_units_hold_every_item_once_and_in_order(lengths: list[float], unit_s: float) -> None:
    items = [work(f"i{i}", length) for i, length in enumerate(lengths)]
    units = list(units_of(items, unit_s))
    assert [item for unit in units for item in unit.items] == items
    for unit in units:
        # Without its last item a unit is not full yet; a long item stands alone.
        assert len(unit.items) == 1 or sum(i.duration_s for i in unit.items[:-1]) < unit_s
        assert len(unit.items) == 1 or all(i.duration_s < unit_s for i in unit.items)


@given(lengths=lengths, unit_s=st.floats(1, 200), data=st.data())
def test_a_resumed_plan_is_what_is_left_of_the_first(
    lengths: list[float], unit_s: float, data: st.DataObject
) -> None:
    items = [work(f"i{i}", length) for i, length in enumerate(lengths)]
    units = list(units_of(items, unit_s))
    done = [unit for unit in units if data.draw(st.booleans())]
    left = still_to_do(units_of(items, unit_s), committed(done), retry=False)
    assert [u.unit_id for u in left] == [u.unit_id for u in units if u not in done]


def test_quarantined_items_wait_until_they_are_asked_for() -> None:
    units = list(units_of([work("a", 5.0), work("b", 5.0)], 60.0))
    ledger = committed(units, "quarantined")
    assert list(still_to_do(units, ledger, retry=False)) == []
    [again] = still_to_do(units, ledger, retry=True)
    assert (again.attempt, len(again.items)) == (2, 2)
    assert again.unit_id != units[0].unit_id


def test_the_same_bytes_at_two_places_are_taken_once(tmp_path: Path, devset: Path) -> None:
    sound = (devset / "bad" / "three_channel.wav").read_bytes()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "take.wav").write_bytes(sound)
    sources = list_sources(str(tmp_path))
    surveyed = Shelf((key_of(source), survey(source)) for source in sources)
    first, second = items_of(sources, surveyed, Ledger())
    assert first.plan.recording_id == first.facts["recording_id"]
    assert isinstance(second.plan, Broken)
    assert isinstance(second.plan.error, DuplicateRecording)
    assert first.uri in str(second.plan.error)
    assert second.duration_s == pytest.approx(4.0)


@pytest.mark.ray
def test_every_source_is_surveyed_once_though_few_tasks_wait_at_a_time(
    devset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "SOURCES_PER_TASK", 1)
    monkeypatch.setattr(planning, "TASKS_PER_CPU", 0.5)
    sources = list_sources(str(devset / "bad"))
    with ray_session(EngineConfig()):
        surveyed = survey_all(sources, 600.0)
    assert len(surveyed) == len(sources) > 3
    whole = {}
    for source in sources:
        try:
            whole[source.uri] = survey(source).recording_id
        except DataError:
            assert isinstance(surveyed.get(key_of(source)), Broken)
    assert whole
    for source in sources:
        found = surveyed.get(key_of(source))
        if isinstance(found, Surveyed):
            assert found.recording_id == whole[source.uri]


def test_long_units_start_first() -> None:
    units = [
        Unit(items=(work(name, length),)) for name, length in (("a", 5.0), ("b", 9.5), ("c", 7))
    ]
    assert [unit.duration_s for unit in longest_first(units)] == [9.5, 7, 5]


def test_a_finished_source_is_known_until_it_changes() -> None:
    source = Source(uri="/a.wav", size_bytes=1, modified="1", session_id="s")
    broken = Shelf([(key_of(source), Broken(error=UndecodableAudio("no")))])
    [item] = items_of([source], broken, Ledger())
    [unit] = units_of([item], 60.0)
    known = committed([unit], "quarantined")
    assert [item.uri for item in known.of_source(fingerprint(source))] == [source.uri]
    changed = Source(uri="/a.wav", size_bytes=2, modified="2", session_id="s")
    assert known.of_source(fingerprint(changed)) == []
    # Its new bytes are tried without being asked for.
    mended = Shelf([(key_of(changed), Broken(error=UndecodableAudio("still no")))])
    [retried] = items_of([changed], mended, Ledger())
    assert retried.item_id == item.item_id
    assert list(still_to_do(units_of([retried], 60.0), known, retry=False))
