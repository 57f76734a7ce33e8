"""Phases over what the corpus holds: what changed is done again, what did not is left alone."""

from dataclasses import dataclass
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pipeline.derived import Derived, due, units_of
from pipeline.ledger import Item, UnitRecord
from pipeline.storage import Corpus
from schemas.arrow import REFERENCES
from schemas.references import Reference


@dataclass(frozen=True)
class Plan:
    attempt: int = 0


def derived(name: str, fingerprint: str = "f", size: int = 1) -> Derived:
    return Derived(
        item_id=name, uri=name, fingerprint=fingerprint, duration_s=1.0, plan=Plan(), size=size
    )


def ended(name: str, fingerprint: str, *, attempt: int = 1, status: str = "done") -> UnitRecord:
    item = Item(
        item_id=name, uri=name, status=status, duration_s=1.0, facts={"source": fingerprint}
    )
    return UnitRecord(
        unit_id=f"{name}-{attempt}", attempt=attempt, items=(item,), rows={}, seconds={}
    )


def test_new_and_changed_items_are_due_and_quarantined_ones_on_request(tmp_path: Path) -> None:
    corpus = Corpus(str(tmp_path))
    corpus.commit("mine", [ended("same", "f"), ended("changed", "old")], {})
    corpus.commit("mine", [ended("ill", "f", status="quarantined")], {})
    ledger = corpus.latest_items("mine")
    items = [derived(name) for name in ("new", "same", "changed", "ill")]
    assert [(i.item_id, n) for i, n in due(items, ledger, retry=False)] == [
        ("new", 1),
        ("changed", 2),
    ]
    assert [(i.item_id, n) for i, n in due(items, ledger, retry=True)] == [
        ("new", 1),
        ("changed", 2),
        ("ill", 2),
    ]


def test_only_the_rows_of_the_last_attempt_stand(tmp_path: Path) -> None:
    def row(target: str, session: str, attempt: int) -> Reference:
        return Reference(
            target_id=target,
            reference_id="r",
            session_id=session,
            cosine=0.9,
            rank=0,
            attempt=attempt,
        )

    corpus = Corpus(str(tmp_path))
    corpus.commit("mine", [ended("s1", "f")], {"references": [row("a", "s1", 1)]})
    corpus.commit("mine", [ended("s2", "f")], {"references": [row("b", "s2", 1)]})
    corpus.commit("mine", [ended("s1", "g", attempt=2)], {"references": [row("c", "s1", 2)]})
    standing = corpus.read_standing(REFERENCES, "mine", "session_id", ["target_id"])
    assert sorted(standing["target_id"]) == ["b", "c"]
    assert standing.columns == ["target_id"]


@given(
    sizes=st.lists(st.integers(1, 9), max_size=30),
    attempts=st.lists(st.integers(1, 3), min_size=30, max_size=30),
    unit_size=st.integers(1, 20),
)
def test_units_hold_every_item_once_with_its_attempt(
    sizes: list[int], attempts: list[int], unit_size: int
) -> None:
    items = [(derived(f"i{i}", size=size), attempts[i]) for i, size in enumerate(sizes)]
    units = list(units_of(items, unit_size))
    flat = [(item.item_id, unit.attempt) for unit in units for item in unit.items]
    assert flat == [(item.item_id, attempt) for item, attempt in items]
    assert all(item.plan.attempt == unit.attempt for unit in units for item in unit.items)
    by_name = {item.item_id: item.size for item, _ in items}
    for unit in units:
        total = sum(by_name[item.item_id] for item in unit.items)
        assert total <= unit_size or len(unit.items) == 1
