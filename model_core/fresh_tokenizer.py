"""A tokenizer for a model that starts from nothing, in the family's format.

A Llama-style BPE with byte fallback, so that it reads every text, with the special tokens where the
family expects them. Source: checkpoint spec §9.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from schemas.errors import ConfigError

SPECIAL = {
    0: "<unk>",
    1: "<s>",
    2: "</s>",
    101: "<|audio_start|>",
    102: "<|audio_end|>",
    103: "<|audio_prompt_start|>",
    104: "<|audio_prompt_end|>",
    105: "<|background|>",
    106: "<|/background|>",
}
_BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
_FEWEST = len(SPECIAL) + len(_BYTES) + 100
# Whatever the texts hold: phonemes are told in these letters, and they are worth more than bytes.
_ALPHABET = [chr(code) for code in range(ord("!"), ord("~") + 1)]


def train_tokenizer(texts: Iterable[str], folder: Path, vocab_size: int) -> int:
    """Learn pieces from texts and write tokenizer.json and its two companions into a folder.

    Returns how many pieces there are: fewer than `vocab_size` where the texts hold no more. Raises
    ConfigError for a vocabulary that has no room for more than bytes.
    """
    if vocab_size < _FEWEST:
        raise ConfigError(f"a vocabulary needs at least {_FEWEST} pieces, got {vocab_size}")
    learner = Tokenizer(models.BPE(unk_token=SPECIAL[0], fuse_unk=True, byte_fallback=True))
    learner.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    # No piece holds a letter and a comma, or two Chinese characters: the family takes those apart.
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Punctuation(), pre_tokenizers.Split(Regex(r"[\u4e00-\u9fff]"), "isolated")]
    )
    learner.train_from_iterator(
        # A word at a time: no piece crosses a space.
        (word for text in texts for word in text.split()),
        trainers.BpeTrainer(
            vocab_size=vocab_size - len(SPECIAL) - len(_BYTES),
            initial_alphabet=["▁", *_ALPHABET],
            limit_alphabet=(vocab_size - len(SPECIAL) - len(_BYTES)) // 2,
            show_progress=False,
        ),
    )
    learnt = json.loads(learner.to_str())["model"]
    pieces = [*_BYTES, *sorted(learnt["vocab"], key=learnt["vocab"].get)]
    free = (number for number in range(len(pieces) + len(SPECIAL) + 107) if number not in SPECIAL)
    vocab = {name: number for number, name in SPECIAL.items()} | dict(
        zip(pieces, free, strict=False)
    )
    _write(folder, vocab, [tuple(merge) for merge in learnt["merges"]])
    return max(vocab.values()) + 1


def _write(folder: Path, vocab: dict[str, int], merges: list[tuple[str, str]]) -> None:
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocab, merges=merges, unk_token=SPECIAL[0], fuse_unk=True, byte_fallback=True
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(list(SPECIAL.values()))
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {"bos_token": SPECIAL[1], "eos_token": SPECIAL[2], "unk_token": SPECIAL[0]}
    config: dict[str, Any] = {
        "tokenizer_class": "LlamaTokenizerFast",
        "add_bos_token": True,
        "add_eos_token": False,
        "legacy": True,
        "model_max_length": 1_000_000_000,
        "clean_up_tokenization_spaces": False,
        "added_tokens_decoder": {
            str(number): {
                "content": name,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": True,
            }
            for number, name in SPECIAL.items()
        },
        **named,
    }
    for name, values in (("tokenizer_config.json", config), ("special_tokens_map.json", named)):
        (folder / name).write_text(json.dumps(values, indent=1), encoding="utf-8")
