"""Give everybody one of what they would take, so that nothing is taken too often.

Deferred acceptance (Gale and Shapley, "College admissions and the stability of marriage", 1962):
each asks for what it likes best that has not turned it away; what is asked for more often than it
can bear keeps whom it likes best. The outcome does not depend on the order of the rows, and one
more row changes few of the others.
"""

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]


def mixed(first: Keys, second: Keys | int = 0) -> Keys:
    """A number of 64 bits from two, as good as random and the same everywhere (splitmix64)."""
    with np.errstate(over="ignore"):
        seed = np.asarray(second, np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        value = first + seed + np.uint64(0x9E3779B97F4A7C15)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        found: Keys = value ^ (value >> np.uint64(31))
    return found


def chosen_evenly(wishes: Ints, who: Keys, what: Keys, room: Ints) -> Ints:
    """(N,) column of the wish that came true; -1 where none did.

    wishes: (N, Q) numbers of things, best first, -1 after the last. who: (N,), what: (T,) keys of
    those who wish and of the things. room: (T,) how often a thing may be taken.
    """
    num, width = wishes.shape
    at = np.zeros(num, np.int64)
    wishing = np.arange(num) if width else np.zeros(0, np.int64)
    while True:
        wishing = wishing[at[wishing] < width]
        wishing = wishing[wishes[wishing, at[wishing]] >= 0]
        things = wishes[wishing, at[wishing]]
        order = np.lexsort((mixed(what[things], who[wishing]), things))
        things = things[order]
        first = np.searchsorted(things, things)
        turned_away = wishing[order][np.arange(things.size) - first >= room[things]]
        if not turned_away.size:
            break
        at[turned_away] += 1
    found = np.full(num, -1, np.int64)
    found[wishing] = at[wishing]
    return found
