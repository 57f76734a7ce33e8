"""A bad row costs itself alone."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.guard import guarded
from schemas.errors import UndecodableAudio


def square_unless_bad(bad: set[int]):
    def step(batch):
        if bad & set(batch):
            raise UndecodableAudio(f"cannot square {min(bad & set(batch))}")
        return [value * value for value in batch]

    return step


@given(rows=st.lists(st.integers(0, 30), unique=True), bad=st.sets(st.integers(0, 30)))
def test_good_rows_survive_their_bad_neighbours(rows: list[int], bad: set[int]) -> None:
    done, failures = guarded("square", square_unless_bad(bad), rows)
    assert done == [row * row for row in rows if row not in bad]
    assert [failure.row for failure in failures] == [row for row in rows if row in bad]
    assert all(failure.error_type == "UndecodableAudio" for failure in failures)


def test_a_failure_tells_stage_message_and_traceback() -> None:
    _, [failure] = guarded("square", square_unless_bad({3}), [1, 3])
    assert (failure.stage, failure.message) == ("square", "cannot square 3")
    assert "raise UndecodableAudio" in failure.traceback
