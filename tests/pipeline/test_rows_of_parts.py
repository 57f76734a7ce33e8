"""Reading some rows of some parts, and committing tables beside rows."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.ledger import UnitRecord
from pipeline.storage import Corpus
from pipeline.work import Phase, Progress, Unit, WorkItem, finish
from schemas.arrow import REFERENCES
from schemas.references import Reference


def reference(number: int) -> Reference:
    return Reference(
        target_id=f"t{number}",
        reference_id="r",
        session_id="s",
        cosine=number / 1000,
        rank=0,
        attempt=1,
    )


def unit(name: str) -> UnitRecord:
    return UnitRecord(unit_id=name, attempt=1, items=(), rows={}, seconds={})


NUM_ROWS = 3 * REFERENCES.rows_per_group + 17


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    corpus = Corpus(str(tmp_path_factory.mktemp("parts")))
    corpus.commit("mine", [unit("a")], {"references": [reference(i) for i in range(NUM_ROWS)]})
    corpus.commit("mine", [unit("b")], {"references": [reference(5000)]})
    return corpus


def test_a_scan_names_each_part_and_its_rows(corpus: Corpus) -> None:
    found = dict(corpus.scan(REFERENCES, ["target_id", "rank"]))
    assert sorted(found) == corpus.parts("references")
    assert sorted(table.num_rows for table in found.values()) == [1, NUM_ROWS]
    assert all(table.column_names == ["target_id", "rank"] for table in found.values())


@given(rows=st.lists(st.integers(0, NUM_ROWS - 1), min_size=1, max_size=50))
def test_rows_come_in_the_order_asked_for(corpus: Corpus, rows: list[int]) -> None:
    part = next(
        name for name, table in corpus.scan(REFERENCES, ["rank"]) if table.num_rows == NUM_ROWS
    )
    read = corpus.read_rows(part, np.array(rows), ["target_id"])
    assert read["target_id"].to_pylist() == [f"t{row}" for row in rows]


def test_a_file_that_is_not_there_is_none(corpus: Corpus) -> None:
    assert corpus.find_json("_calibration/none.json") is None
    corpus.write_json("_calibration/some.json", {"a": 1})
    assert corpus.find_json("_calibration/some.json") == {"a": 1}


def test_an_item_may_leave_a_table_and_its_neighbour_rows(tmp_path: Path) -> None:
    corpus = Corpus(str(tmp_path))
    items = tuple(WorkItem(item_id=name, uri=name, duration_s=0, plan=name) for name in "ab")
    phase = Phase(
        name="mine",
        read=str,
        stages=(),
        placement={},
        write=lambda plan, row: {
            "references": (
                REFERENCES.to_arrow([reference(1), reference(2)]) if plan == "a" else [reference(3)]
            )
        },
        measure=lambda row: 0.0,
    )
    progress = Progress(unit=Unit(items=items), rows={"a": 1, "b": 2}, failures={}, seconds={})
    (record,) = finish(phase, corpus, [progress])
    assert record.rows == {"references": 3}
    assert sorted(corpus.read(REFERENCES)["target_id"]) == ["t1", "t2", "t3"]
