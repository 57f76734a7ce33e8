"""Shelves and ledgers on disk answer as dictionaries in memory would."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.ledger import Item, Ledger, UnitRecord
from pipeline.shelf import Shelf

names = st.text("ab", max_size=2)
keys = st.tuples(names, names) | st.tuples(st.floats(-2, 2), names)


@given(pairs=st.lists(st.tuples(keys, st.integers())))
def test_a_shelf_is_a_sorted_dictionary(pairs: list[tuple[tuple[str | float, str], int]]) -> None:
    shelf, expected = Shelf(pairs), dict(pairs)
    # SQLite puts numbers before texts.
    order = sorted(expected, key=lambda key: (isinstance(key[0], str), *key))
    assert list(shelf) == [expected[key] for key in order]
    assert len(shelf) == len(expected)
    assert all(shelf.get(key) == value for key, value in expected.items())
    assert all(value in shelf for value in expected.values())
    assert shelf.get(("none", "")) is None
    assert "none" not in shelf


@given(pairs=st.lists(st.tuples(keys, st.integers())))
def test_what_lies_there_first_stays(pairs: list[tuple[tuple[str | float, str], int]]) -> None:
    shelf: Shelf[int] = Shelf()
    expected: dict[tuple[str | float, str], int] = {}
    for key, value in pairs:
        assert shelf.setdefault(key, value) == expected.setdefault(key, value)


def unit(name: str, attempt: int, *items: Item) -> UnitRecord:
    return UnitRecord(unit_id=name, attempt=attempt, items=items, rows={}, seconds={})


def item(name: str, *, status: str = "done", source: str = "s", index: int = 0) -> Item:
    facts = {"source": source, "index": index, "num_chunks": 2}
    return Item(item_id=name, uri=f"/{source[0]}", status=status, duration_s=1.0, facts=facts)


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(1, 3), st.sampled_from("xy")),
        unique_by=lambda ended: ended[:2],
    )
)
def test_the_last_attempt_at_an_item_counts(ended: list[tuple[str, int, str]]) -> None:
    records = [unit(f"{n}{a}", a, item(n, source=source)) for n, a, source in ended]
    expected: dict[str, tuple[int, str]] = {}
    for name, attempt, source in sorted(ended, key=lambda e: e[1]):
        expected[name] = (attempt, source)
    ledger = Ledger(records)
    found = {name: (attempt, it.facts["source"]) for name, (attempt, it) in ledger.items()}
    assert found == expected
    assert len(ledger) == len(expected)


def test_only_a_whole_source_is_known() -> None:
    first, second = item("a", index=0), item("b", index=1)
    assert Ledger([unit("u", 1, second)]).of_source("s") == []
    assert Ledger([unit("u", 1, second), unit("v", 1, first)]).of_source("s") == [first, second]


def test_what_was_broken_before_its_source_was_mended_is_overtaken() -> None:
    broken = item("broken", status="quarantined", source="s-before")
    mended = [item("a", source="s-after"), item("b", source="s-after", index=1)]
    assert "broken" in Ledger([unit("u", 1, broken)])
    # Another piece of the same source says nothing about it.
    assert "broken" in Ledger([unit("u", 1, broken, item("a", source="s-before", index=1))])
    assert list(Ledger([unit("u", 1, broken), unit("v", 1, *mended)])) == ["a", "b"]
