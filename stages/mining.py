"""Which clips of a session may lend their voice to which."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class MiningConfig:
    """What a pair of target and reference must hold to."""
