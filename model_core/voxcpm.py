"""The VoxCPM backbone: from text and past audio to the condition of the next patch.

Shapes: B rows, T positions, A audio positions of all rows, P frames of a patch, C latent channels,
D width of the LMs, E width of LocDiT, M condition tokens. Source: spec §7. Module names are those
of the checkpoint format.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_core.config import TransformerConfig, VoxCPMConfig
from model_core.local_dit import LocalDiT
from model_core.local_encoder import LocalEncoder
from model_core.packed import Linear, packed
from model_core.quantizer import ScalarQuantizer
from model_core.rope import Rope
from model_core.sequences import Batch
from model_core.transformer import Attend, Transformer, causal


class Hidden(NamedTuple):
    """What both LMs say at each position: semantic (B, T, D), quantised at audio; acoustic (B, T, D)."""

    semantic: Tensor
    acoustic: Tensor


class Targets(NamedTuple):
    """What LocDiT sees in training, for the N target patches of a batch."""

    mu: Tensor
    """(N, M · E)."""
    patches: Tensor
    """(N, P, C)."""
    past: Tensor
    """(N, P, C): the patch one position earlier, zero where that is text."""


class LanguageModel(Transformer):
    """A transformer with token embeddings."""

    def __init__(self, config: TransformerConfig, vocab_size: int) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(vocab_size, config.dim)


class FlowDecoder(nn.Module):
    """Holds the estimator under the name that checkpoints use."""

    def __init__(self, estimator: LocalDiT) -> None:
        super().__init__()
        self.estimator = estimator


class VoxCPM(nn.Module):
    """LocEnc, semantic LM, FSQ, acoustic LM, LocDiT and the stop head; without the AudioVAE."""

    def __init__(self, config: VoxCPMConfig) -> None:
        super().__init__()
        self.config = config
        dim, dit_dim = config.base.dim, config.dit.dim
        self.rope = Rope(config.lm_config, config.base.head_dim)
        self.base_lm = LanguageModel(config.base, config.lm_config.vocab_size)
        self.residual_lm = Transformer(config.residual)
        self.feat_encoder = LocalEncoder(config.encoder, config.feat_dim, self.rope)
        estimator = LocalDiT(config.dit, config.feat_dim, v2=config.is_v2, rope=self.rope)
        self.feat_decoder = FlowDecoder(estimator)
        self.fsq_layer = ScalarQuantizer(
            dim, config.scalar_quantization_latent_dim, config.scalar_quantization_scale
        )
        self.enc_to_lm_proj: Linear = nn.Linear(config.encoder.dim, dim)
        self.lm_to_dit_proj: Linear = nn.Linear(dim, dit_dim)
        self.res_to_dit_proj: Linear = nn.Linear(dim, dit_dim)
        self.fusion_concat_proj: Linear | None = nn.Linear(2 * dim, dim) if config.is_v2 else None
        self.stop_proj: Linear = nn.Linear(dim, dim)
        self.stop_head: Linear = nn.Linear(dim, 2, bias=False)
        self.fused = False

    @property
    def estimator(self) -> LocalDiT:
        """LocDiT."""
        return self.feat_decoder.estimator

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.base_lm.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        return self.base_lm.embed_tokens.weight.dtype

    def fuse(self) -> "VoxCPM":
        """For inference, in place: products joined and weights laid out for the machine.

        The weights are then no longer those of the checkpoint format, and cannot be saved.
        """
        if not self.fused:
            self.requires_grad_(False).eval()
            for part in (self.base_lm, self.residual_lm, self.feat_encoder, self.fsq_layer):
                part.fuse()
            self.estimator.fuse()
            for name in ("enc_to_lm_proj", "lm_to_dit_proj", "res_to_dit_proj", "stop_proj"):
                setattr(self, name, packed(getattr(self, name)))
            if self.fusion_concat_proj is not None:
                self.fusion_concat_proj = packed(self.fusion_concat_proj)
            self.fused = True
        return self

    def embed_text(self, tokens: Tensor) -> Tensor:
        """(…) ids -> (…, D)."""
        x = self.base_lm.embed_tokens(tokens)
        lm = self.config.lm_config
        return x * lm.scale_emb if lm.use_mup else x

    def embed_patches(self, patches: Tensor) -> Tensor:
        """(N, P, C) -> (N, D)."""
        return self.enc_to_lm_proj(self.feat_encoder(patches))

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Inputs of the LMs: (all positions, audio alone), (B, T, D) each, in the patches' type.

        LocEnc runs on audio positions only.
        """
        text = self.embed_text(batch.tokens).to(batch.patches.dtype)
        if not len(batch.patches):
            return text, torch.zeros_like(text)
        where, patches = batch.audio_index, self.embed_patches(batch.patches)
        flat = text.flatten(0, 1)
        audio = torch.zeros_like(flat).index_copy(0, where, patches)
        return flat.index_copy(0, where, patches).view_as(text), audio.view_as(text)

    def semantic(self, x: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """The semantic LM before quantisation: (B, T, D) -> (B, T, D)."""
        return self.base_lm(x, self.rope.rotation(positions).over_heads(), attend)

    def acoustic(self, g: Tensor, e: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """The acoustic LM over semantic states g and audio embeddings e: (B, T, D) each."""
        if self.fusion_concat_proj is None:
            x = g + e
        else:
            x = self.fusion_concat_proj(torch.cat((g, e), dim=-1))
        rotation = None if self._no_rope else self.rope.rotation(positions).over_heads()
        return self.residual_lm(x, rotation, attend)

    @property
    def _no_rope(self) -> bool:
        return self.config.is_v2 and self.config.residual_lm_no_rope

    def hidden(
        self,
        batch: Batch,
        base: Attend = causal,
        residual: Attend = causal,
        positions: Tensor | None = None,
    ) -> Hidden:
        """Both LMs over whole sequences. positions: (1, T); counted through each row when None."""
        x, e = self.embed(batch)
        if positions is None:
            positions = torch.arange(x.shape[1], device=x.device)[None]
        h = self.semantic(x, positions, base)
        g = torch.where(batch.audio_mask[..., None], self.fsq_layer(h), h)
        return Hidden(g, self.acoustic(g, e, positions, residual))

    def step(self, patches: Tensor, position: Tensor, base: Attend, residual: Attend) -> Hidden:
        """One more patch for each row: patches (B, P, C), position (B,) -> (B, 1, D) each."""
        e = self.embed_patches(patches)[:, None]
        g = self.fsq_layer(self.semantic(e, position[:, None], base))
        return Hidden(g, self.acoustic(g, e, position[:, None], residual))

    def condition(self, g: Tensor, r: Tensor) -> Tensor:
        """What LocDiT is told of the next patch: (N, D), (N, D) -> (N, M · E)."""
        semantic, acoustic = self.lm_to_dit_proj(g), self.res_to_dit_proj(r)
        if self.config.is_v2:
            return torch.cat((semantic, acoustic), dim=-1)
        return semantic + acoustic

    def stop_logits(self, g: Tensor) -> Tensor:
        """(…, D) -> (…, 2); class 1 says that the patch made from g is the last."""
        return self.stop_head(F.silu(self.stop_proj(g)))

    def shifted(self, hidden: Hidden) -> Hidden:
        """What is known before each position: one later, zero at the first."""
        return Hidden(*(F.pad(h, (0, 0, 1, 0))[:, :-1] for h in hidden))

    def targets(self, batch: Batch, before: Hidden) -> Targets:
        """Inputs of the flow loss, for target patches alone. before: shifted hidden states."""
        rows, length = batch.tokens.shape
        dense = batch.patches.new_zeros(rows * length, *batch.patches.shape[1:])
        dense = dense.index_copy(0, batch.audio_index, batch.patches)
        past = F.pad(dense.view(rows, length, *dense.shape[1:]), (0, 0, 0, 0, 1, 0))[:, :-1]
        where = batch.target_index
        g, r = (states.flatten(0, 1)[where] for states in before)
        return Targets(self.condition(g, r), dense[where], past.flatten(0, 1)[where])
