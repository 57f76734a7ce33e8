"""Rows of the compose phase: training sequences, and how often each stage sees them."""

from dataclasses import dataclass

LAYOUTS = ("text", "described", "reference", "described_reference", "continuation")
"""text → audio; description + text → audio; reference | text → audio;
reference | description + text → audio; prompt text + text | prompt audio → audio."""

STAGES = (1, 2, 3)
"""Of the curriculum: pre-training, joint training, annealing."""

SPLITS = ("train", "validation")


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A latent, and where its row lies."""

    clip_id: str
    part: str
    """The part of `latents`."""
    row: int
    """From the start of the part."""
    frames: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One training sequence: one row of `samples`. Rows of one target stand together."""

    sample_id: str
    layout: str
    """One of `LAYOUTS`."""
    target: Place
    target_start: int
    """First frame that carries loss; what stands before it is the prompt, where a continuation
    cuts one clip in two. A multiple of four."""
    prompt: Place | None = None
    """Another clip that the target continues."""
    references: tuple[Place, ...]
    """Recorded clips that may lend their voice; each epoch takes one of them."""
    text: str
    """What is said in prompt and target, as one string."""
    description: str | None = None
    language: str | None = None
    source: str | None = None
    session_id: str
    """The recording's; of a generated clip, that of the clip whose voice it has."""
    synthetic: bool
    """The target is a generated clip, a row of `synthetic`."""
    split: str
    """One of `SPLITS`; what is generated is for training alone."""
    duration_s: float
    """Of the audio that is said: prompt and target."""
    tokens: int
    """Ids of the text with its description."""
    positions: int
    """Of the whole sequence, with the longest of its references."""
    weights: tuple[float, ...]
    """How often an epoch of each stage sees it, on average; 0 where a stage has no use for it."""
