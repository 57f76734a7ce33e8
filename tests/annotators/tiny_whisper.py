"""A multilingual Whisper that knows nothing, in CTranslate2's format."""

import json
from pathlib import Path

import torch
from ctranslate2.converters.transformers import WhisperLoader
from transformers import WhisperConfig, WhisperForConditionalGeneration

from annotators.registry import resolve

_FIRST_CONTROL = 50_256
"""In the English vocabulary; the multilingual one has an empty token before it."""


def checkpoint(folder: Path) -> Path:
    """One layer of random weights, with tiny.en's tokens at a multilingual model's numbers."""
    english = resolve("tiny.en").path
    tokens = (english / "vocabulary.txt").read_text(encoding="utf-8").splitlines()
    tokens.insert(_FIRST_CONTROL, "")  # by which CTranslate2 knows a multilingual model
    control = {token: number for number, token in enumerate(tokens) if token.startswith("<|")}
    end = control["<|endoftext|>"]
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(
        WhisperConfig(
            vocab_size=len(tokens),
            d_model=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=16,
            decoder_ffn_dim=16,
            bos_token_id=end,
            eos_token_id=end,
            pad_token_id=end,
            decoder_start_token_id=control["<|startoftranscript|>"],
        )
    )
    spec = WhisperLoader().get_model_spec(model)
    spec.register_vocabulary(tokens)
    first, last = control["<|startoftranscript|>"] + 1, control["<|translate|>"]
    spec.config.lang_ids = list(range(first, last))
    spec.config.alignment_heads = [(0, 0), (0, 1)]
    spec.config.suppress_ids, spec.config.suppress_ids_begin = [], []
    spec.validate()
    spec.optimize(quantization="float32")
    folder.mkdir(parents=True)
    spec.save(str(folder))
    tokenizer = json.loads((english / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["model"]["vocab"] = {token: n for n, token in enumerate(tokens[: _FIRST_CONTROL + 1])}
    for token in tokenizer["added_tokens"]:
        token["id"] = control[token["content"]]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    return folder
