"""What a sentence is about, as a vector: texts of one matter lie near each other.

Reads folders in the layout of sentence-transformers: a BERT-like encoder, one pooling, unit length.
The packaged model is all-MiniLM-L6-v2 (Apache-2.0), for English only.
Source: Reimers and Gurevych, "Sentence-BERT", EMNLP 2019, section 3.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from annotators.registry import first_line, resolve
from annotators.threads import torch_with
from schemas.errors import ModelLoadError

PACKAGED = "minilm"
"""The model that an installed package carries."""

F32 = npt.NDArray[np.float32]

_LONGEST = 256
"""Tokens that are read of a text, where the folder does not say."""
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_NOT_LANGUAGES = {"multilingual", "code"}


class SentenceEmbedder:
    """Embeds texts of any length; neighbours in length share a batch."""

    def __init__(
        self,
        folder: Path | None = None,
        *,
        threads: int = 1,
        device: str = "cpu",
        batch_size: int = 32,
    ) -> None:
        """folder: of the model; None takes the packaged one. Raises ModelLoadError."""
        folder = folder or resolve(PACKAGED).path
        torch = self._torch = torch_with(threads)
        self.languages = languages_of(folder)
        self._mean = _pools_by_mean(folder)
        self._tokenizer = _tokenizer(folder)
        self._net = _network(folder).to(device).eval()
        self._device = torch.device(device)
        self._batch = batch_size
        self.size = int(self._net.config.hidden_size)

    languages: frozenset[str]
    """ISO 639-1 codes that the model was trained on."""

    def covers(self, language: str | None) -> bool:
        """Whether the model knows a language; a region or script does not matter."""
        return (language or "").partition("-")[0] in self.languages

    def embed(self, texts: Sequence[str]) -> F32:
        """(N, D) rows of unit length, in the order of the texts."""
        found = np.zeros((len(texts), self.size), np.float32)
        codes = [code.ids for code in self._tokenizer.encode_batch(list(texts))]
        # Alike in length, so that little of a batch is padding.
        order = sorted(range(len(codes)), key=lambda at: len(codes[at]))
        for start in range(0, len(order), self._batch):
            rows = order[start : start + self._batch]
            found[rows] = self._forward([codes[row] for row in rows])
        return found

    def _forward(self, codes: Sequence[Sequence[int]]) -> F32:
        torch = self._torch
        length = max(len(code) for code in codes)
        ids = torch.zeros(len(codes), length, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, code in enumerate(codes):
            ids[row, : len(code)] = torch.tensor(code)
            mask[row, : len(code)] = 1
        ids, mask = ids.to(self._device), mask.to(self._device)
        with torch.inference_mode():
            tokens = self._net(input_ids=ids, attention_mask=mask).last_hidden_state  # (B, T, D)
            heard = mask[..., None].to(tokens.dtype)
            pooled = (tokens * heard).sum(1) / heard.sum(1) if self._mean else tokens[:, 0]
            unit = torch.nn.functional.normalize(pooled.float(), dim=-1)
        vectors: F32 = unit.cpu().numpy()
        return vectors


def languages_of(folder: Path) -> frozenset[str]:
    """The languages that a model's card names. Raises ModelLoadError where it names none."""
    card = folder / "README.md"
    try:
        head = card.read_text(encoding="utf-8").split("---", 2)[1]
        named = yaml.safe_load(head).get("language", [])
    except (OSError, IndexError, AttributeError, UnicodeDecodeError, yaml.YAMLError):
        named = []
    codes = [named] if isinstance(named, (str, bool)) else named or []
    # YAML reads Norwegian's code as false.
    known = {"no" if code is False else str(code).lower() for code in codes} - _NOT_LANGUAGES
    if not known:
        raise ModelLoadError(
            f"{card} does not say which languages the model knows; begin it with a line ---, a line "
            "such as language: [en, de], and a line ---"
        )
    return frozenset(known)


def _pools_by_mean(folder: Path) -> bool:
    """Whether the vector is the mean over the tokens; else it is the first token's."""
    for module in _json(folder / "modules.json"):
        kind = str(module.get("type", "")).rpartition(".")[2]
        if kind not in ("Transformer", "Pooling", "Normalize"):
            raise ModelLoadError(f"{folder} has a module {kind}, which is not known here")
    modes = _json(folder / "1_Pooling" / "config.json")
    on = [
        name for name, value in modes.items() if name.startswith("pooling_mode") and value is True
    ]
    if on not in (["pooling_mode_mean_tokens"], ["pooling_mode_cls_token"]):
        raise ModelLoadError(f"{folder} pools by {', '.join(on) or 'nothing'}; known: mean, cls")
    return on == ["pooling_mode_mean_tokens"]


def _tokenizer(folder: Path) -> Any:
    from tokenizers import Tokenizer

    file = folder / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # bound in Rust: it raises nothing narrower
        raise ModelLoadError(f"{file} does not open: {first_line(error)}") from error
    settings = folder / "sentence_bert_config.json"
    longest = _json(settings).get("max_seq_length") if settings.is_file() else None
    tokenizer.enable_truncation(int(longest or _LONGEST))
    # Files bring along the padding that their model was exported with.
    tokenizer.no_padding()
    return tokenizer


def _network(folder: Path) -> Any:
    """The encoder with its weights. No code that the folder brings along is run."""
    from model_core.weights import read_weights

    try:
        from transformers import AutoConfig, AutoModel
    except ImportError as error:
        raise ModelLoadError(
            "sentence embeddings need transformers, which is not installed"
        ) from error
    file = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if file is None:
        raise ModelLoadError(f"{folder} has no weights: {' or '.join(_WEIGHTS)}")
    state = read_weights(file)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        net = AutoModel.from_config(config, trust_remote_code=False).float()
        missing = net.load_state_dict(state, strict=False).missing_keys
    except Exception as error:
        raise ModelLoadError(f"the model in {folder} does not open: {first_line(error)}") from error
    # The pooler is a head over the first token that these models do not use.
    missing = [name for name in missing if not name.startswith("pooler.")]
    if missing:
        raise ModelLoadError(f"the weights in {folder} lack {missing[0]}")
    return net


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{file} does not open: {first_line(error)}") from error
