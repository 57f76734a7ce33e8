"""The encoder made ready for inference (see `folded_layers`).

Shapes: B batch, T time steps, C channels, F latent frames.
"""

from torch import Tensor, nn

from model_core.audio_vae.encoder import Encoder, EncoderBlock
from model_core.audio_vae.folded_layers import FoldedConv, FoldedDownsample, FoldedUnit, State
from model_core.audio_vae.layers import CausalConv, Downsample, ResidualUnit, Snake
from model_core.audio_vae.pieces import in_pieces, spans_for


class FoldedEncoderBlock(nn.Module):
    """Three residual units and the strided convolution."""

    def __init__(self, block: EncoderBlock) -> None:
        super().__init__()
        *units, snake, conv = block.block
        assert isinstance(snake, Snake)
        assert isinstance(conv, Downsample)
        self.units = nn.ModuleList(FoldedUnit(u) for u in units if isinstance(u, ResidualUnit))
        self.down = FoldedDownsample(snake, conv)
        self.stride = conv.stride

    def forward(self, x: Tensor, state: State) -> Tensor:
        """(B, T, C) -> (B, T / stride, 2C)."""
        frames = spans_for(x).piece // (x.shape[0] * x.shape[2] * self.stride)
        return in_pieces(lambda x: self._piece(x, state), x, max(1, frames) * self.stride)

    def _piece(self, x: Tensor, state: State) -> Tensor:
        for unit in self.units:
            x = unit(x, state)
        return self.down(x, state)


class FoldedEncoder(nn.Module):
    """The encoder for inference."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        first, *blocks = encoder.block
        assert isinstance(first, CausalConv)
        self.first = FoldedConv(first)
        self.blocks = nn.ModuleList(
            FoldedEncoderBlock(block) for block in blocks if isinstance(block, EncoderBlock)
        )
        self.fc_mu = FoldedConv(encoder.fc_mu)
        self.fc_logvar = FoldedConv(encoder.fc_logvar)
        self.dim = first.weight_v.shape[0]

    def hidden(self, wave: Tensor, hop: int) -> Tensor:
        """(B, 1, F·hop) -> (B, F, C)."""
        state: State = {}
        frames = spans_for(wave).span // (wave.shape[0] * self.dim * hop)
        return in_pieces(lambda x: self._span(x, state), wave.mT, max(1, frames) * hop)

    def _span(self, x: Tensor, state: State) -> Tensor:
        x = self.first(x, state)
        for block in self.blocks:
            x = block(x, state)
        return x
