"""The mean of two separators' weights, where the second is the first trained on.

    python -m jobs.shipped.separator.mean WAVES WORDS OUT

Trained on for words, a separator leaves more music; the mean keeps most of what either can (weight-space
ensembling: Wortsman et al., "Robust fine-tuning of zero-shot models", arXiv 2109.01903).
"""

import sys
from pathlib import Path

from demucs.hdemucs import HDemucs
from safetensors.torch import load_file

from jobs.shipped.separator.train import MODEL, NAME, write


def main(first: Path, second: Path, out: Path) -> None:
    """Write `out`. Raises RuntimeError where one is no separator of `train`'s size."""
    models = [HDemucs(**MODEL) for _ in range(2)]
    for model, folder in zip(models, (first, second), strict=True):
        model.load_state_dict(load_file(folder / f"{NAME}.safetensors"))
    mean = models[0]
    for weight, other in zip(mean.parameters(), models[1].parameters(), strict=True):
        weight.data.lerp_(other.data, 0.5)
    out.mkdir(parents=True, exist_ok=True)
    write(mean, out)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
