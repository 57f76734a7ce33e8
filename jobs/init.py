"""`voxquarry init`: a checkpoint to start from, in the layout of the releases."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console

from annotators.registry import checkpoint_folder
from model_core.checkpoint import TOKENIZER_FILES, load_vae, read_config, save_checkpoint
from model_core.config import VoxCPMConfig
from model_core.fresh import fresh_model, fresh_vae, take_language_model
from model_core.fresh_tokenizer import train_tokenizer
from model_core.sizes import NANO_VOCABULARY, RELEASED_VOCABULARY, config_of
from model_core.tokenizer import TextTokenizer
from pipeline.storage import Corpus
from schemas.arrow import CLIPS, DESCRIPTIONS
from schemas.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class InitConfig:
    """What a fresh checkpoint is made of."""

    size: str
    """One of `model_core.sizes.SIZES`."""
    out: Path
    corpus: str | None = None
    """Whose texts the tokenizer learns its pieces from."""
    tokenizer: str | None = None
    """A checkpoint whose tokenizer is taken over."""
    tslm: str | None = None
    """A MiniCPM-4 checkpoint that the semantic LM, and the tokenizer, come from."""
    vae: str | None = None
    """A checkpoint of the family whose AudioVAE is taken over."""
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.out / "config.json").exists():
            raise ConfigError(f"there is a checkpoint already: {self.out}")
        if sum(source is not None for source in (self.corpus, self.tokenizer, self.tslm)) != 1:
            raise ConfigError(
                "a tokenizer is needed: --corpus learns one from its texts, --tokenizer takes that "
                "of a checkpoint, --tslm that of a MiniCPM-4; give one of the three"
            )


def init(config: InitConfig, console: Console) -> None:
    """Write the checkpoint and say what is in it. Raises ConfigError or ModelLoadError."""
    with tempfile.TemporaryDirectory() as made:
        tokenizer, vocab_size = _tokenizer(config, Path(made))
        model_config = config_of(config.size, vocab_size)
        source = None if config.vae is None else checkpoint_folder(config.vae)
        if source is not None:
            model_config = _fitting(source, model_config)
        with console.status("Drawing weights"):
            model = fresh_model(model_config, config.seed)
            if config.tslm is not None:
                take_language_model(model, checkpoint_folder(config.tslm))
            vae = fresh_vae(model_config, config.seed) if source is None else load_vae(source)
        with console.status("Writing"):
            dtype = getattr(torch, model_config.dtype)
            save_checkpoint(config.out, model.to(dtype), vae, tokenizer)
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    console.print(
        f"{config.out}: {config.size}, {millions:,.1f} M parameters and an AudioVAE of "
        f"{sum(parameter.numel() for parameter in vae.parameters()) / 1e6:,.1f} M, "
        f"{vocab_size:,} text pieces.",
        highlight=False,
        soft_wrap=True,
    )
    if config.vae is None:
        console.print(
            "The AudioVAE's weights are random: `voxquarry train-vae` comes before `encode`.",
            soft_wrap=True,
        )


def _tokenizer(config: InitConfig, made: Path) -> tuple[Path, int]:
    """The folder of the tokenizer's files, and the rows of the embedding."""
    if config.corpus is not None:
        wanted = NANO_VOCABULARY if config.size == "nano" else RELEASED_VOCABULARY
        pieces = train_tokenizer(_texts(config.corpus), made, wanted)
        # Rows in eights, as fast kernels want them.
        return made, -(-pieces // 8) * 8
    source = checkpoint_folder(config.tokenizer or config.tslm or "")
    file = source / TOKENIZER_FILES[0]
    TextTokenizer(file)  # opens, or says why not
    if config.tokenizer is not None:
        return source, read_config(source).lm_config.vocab_size
    return source, RELEASED_VOCABULARY


def _texts(root: str) -> Iterator[str]:
    """What is said in a corpus, and what is said of it."""
    corpus = Corpus(root)
    if not corpus.exists():
        raise ConfigError(f"{root} is no corpus")
    for table in (CLIPS, DESCRIPTIONS):
        for _, rows in corpus.scan(table, ["text"]):
            yield from (text for text in rows["text"].to_pylist() if text)


def _fitting(folder: Path, config: VoxCPMConfig) -> VoxCPMConfig:
    """The config with the AudioVAE of a checkpoint."""
    theirs = read_config(folder).audio_vae_config
    if theirs.version != config.audio_vae_config.version:
        raise ConfigError(f"{folder} has an AudioVAE {theirs.version}, this size needs another")
    return replace(config, feat_dim=theirs.latent_dim, audio_vae_config=theirs)
