"""Train a small CTC model on the prompts of one language, in the format of transformers.

    python -m jobs.shipped.asterisk_prompts / prompts
    python -m jobs.shipped.ctc prompts/es.csv es ctc-es

It has heard one voice for half an hour: enough to find given words in that voice, and to try
`ctc_alignment.model` without a hub. For other voices there are MMS and its kin.
"""

import argparse
import csv
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import soxr
import torch
from rich.console import Console
from transformers import (
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertConfig,
    Wav2Vec2BertForCTC,
    Wav2Vec2BertProcessor,
    Wav2Vec2CTCTokenizer,
)

from annotators.text import normalised

RATE = 16_000
SPEEDS = (0.9, 1.0, 1.1)
BATCH_S = 20.0


def main() -> None:
    """Train, and save at the end."""
    parser = argparse.ArgumentParser(prog="ctc", description=__doc__.split("\n")[0])
    parser.add_argument("manifest", type=Path, help="CSV with uri and transcript")
    parser.add_argument("language", help="ISO 639-1")
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate, at its peak")
    options = parser.parse_args()
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    prompts = read(options.manifest, options.language)
    letters = sorted({letter for _, text in prompts for letter in text} - {" "})
    processor = spelling(letters, options.out)
    ids = {letter: number for letter, number in processor.tokenizer.get_vocab().items()}
    model = Wav2Vec2BertForCTC(settings_of(len(ids), options.language)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.rate, weight_decay=0.01)
    console = Console()
    total = options.epochs * len(list(batches(prompts, rng)))
    step, began = 0, time.perf_counter()
    for epoch in range(options.epochs):
        losses = []
        for batch in batches(prompts, rng):
            for group in optimizer.param_groups:
                group["lr"] = options.rate * rate_at(step, total)
            loss = loss_of(model, processor, ids, batch, rng)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            losses.append(float(loss.detach()))
            step += 1
        wall = time.perf_counter() - began
        console.print(f"epoch {epoch + 1}: {np.mean(losses):.3f} a letter, {wall:.0f} s")
    model.save_pretrained(options.out)


def read(manifest: Path, language: str) -> list[tuple[np.ndarray, str]]:
    """Wave and plain text of every prompt."""
    with manifest.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = []
    for row in rows:
        wave, _ = sf.read(manifest.parent / row["uri"], dtype="float32")
        text = " ".join(normalised(row["transcript"], language).split())
        if text and wave.size > RATE // 4:
            found.append((wave, text))
    return found


def spelling(letters: list[str], out: Path) -> Any:
    """Write the vocabulary and the processor that go with the model."""
    out.mkdir(parents=True, exist_ok=True)
    symbols = ["<pad>", "<unk>", "|", *letters]
    vocabulary = out / "vocab.json"
    vocabulary.write_text(json.dumps({s: i for i, s in enumerate(symbols)}, ensure_ascii=False))
    tokenizer = Wav2Vec2CTCTokenizer(vocabulary, unk_token="<unk>", pad_token="<pad>")
    processor = Wav2Vec2BertProcessor(SeamlessM4TFeatureExtractor(), tokenizer)
    processor.save_pretrained(out)
    return processor


def settings_of(symbols: int, language: str) -> Wav2Vec2BertConfig:
    """A conformer of 1.2 million weights, with positions that cost nothing on a CPU."""
    return Wav2Vec2BertConfig(
        vocab_size=symbols,
        hidden_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=384,
        conv_depthwise_kernel_size=15,
        position_embeddings_type="rotary",
        layerdrop=0.0,
        hidden_dropout=0.1,
        ctc_loss_reduction="sum",
        ctc_zero_infinity=True,
        pad_token_id=0,
        language=language,
    )


def batches(
    prompts: list[tuple[np.ndarray, str]], rng: np.random.Generator
) -> Iterator[list[tuple[np.ndarray, str]]]:
    """Prompts of about one length, BATCH_S seconds at a time, in any order."""
    order = sorted(range(len(prompts)), key=lambda i: prompts[i][0].size * rng.uniform(0.9, 1.1))
    groups: list[list[int]] = [[]]
    for i in order:
        if groups[-1] and prompts[i][0].size * (len(groups[-1]) + 1) > BATCH_S * RATE:
            groups.append([])
        groups[-1].append(i)
    for number in rng.permutation(len(groups)):
        yield [prompts[i] for i in groups[number]]


def loss_of(
    model: Any, processor: Any, ids: dict[str, int], batch: Any, rng: np.random.Generator
) -> torch.Tensor:
    """CTC loss for a letter."""
    waves, texts = [], []
    for wave, text in batch:
        speed = SPEEDS[rng.integers(len(SPEEDS))]
        wave = soxr.resample(wave, RATE, RATE / speed, quality="LQ")
        wave = np.pad(wave, (int(rng.uniform(0, 0.3) * RATE), int(rng.uniform(0, 0.3) * RATE)))
        waves.append(wave + rng.normal(0, 10 ** rng.uniform(-5, -2.5), wave.size))
        texts.append([ids["|" if letter == " " else letter] for letter in text])
    inputs = processor(waves, sampling_rate=RATE, return_tensors="pt", padding=True)
    longest = max(map(len, texts))
    labels = torch.tensor([text + [-100] * (longest - len(text)) for text in texts])
    loss: torch.Tensor = model(**inputs, labels=labels).loss
    return loss / sum(map(len, texts))


def rate_at(step: int, total: int) -> float:
    """Rises for a twentieth of the steps, then falls along a cosine."""
    rise = max(1, total // 20)
    return min(1, (step + 1) / rise) * 0.5 * (1 + math.cos(math.pi * step / total))


if __name__ == "__main__":
    main()
