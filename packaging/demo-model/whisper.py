# mypy: allow-subclassing-any
# (without torch installed, nn.Module is Any)
"""Whisper's architecture in plain PyTorch, with transformers' parameter names.

Shapes: B clips, T encoder positions of 20 ms, L tokens, D model width.

Two techniques make training cheap and are not used at inference:
- The encoder may get only the positions with audio. Every window is zero-padded to 1500 positions.
  Inside the padding all have the same content, so that a few sampled positions can represent all:
  each is weighted by log(padded / sampled) in every softmax over positions.
- The time of each word is known in synthetic speech. Linear heads label every encoder position, and
  some cross-attention heads are guided to the positions of the word (`GUIDES`).
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from vocabulary import MAX_TOKENS, N_MELS, POSITIONS, TIMESTAMPS

# Decoder layer -> the word to which its first heads are guided ("now": the current one, "next": the
# one to predict), and the number of heads. The last layer's two also become `alignment_heads`.
GUIDES = {0: ("next", 1), 1: ("now", 1), 2: ("next", 1), 3: ("next", 2)}

# Encoder layer -> the initial offset of each head's attention, in positions of 20 ms.
_OFFSETS = ((-3, 3, -9, 9), (-6, 6, -18, 18))


@dataclass(frozen=True)
class Shape:
    """The sizes in a checkpoint. `ts0` is the first timestamp's token id; `n_aux` is the number of
    outputs of the heads that label positions."""

    vocab: int
    ts0: int
    n_aux: int
    d: int = 128
    heads: int = 4
    enc_layers: int = 2
    dec_layers: int = 4


@dataclass(frozen=True)
class Guided:
    """A request for the log attention of the first `heads` heads, from token `first` on."""

    heads: int
    first: int


class Attention(nn.Module):
    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.k_proj = nn.Linear(d, d, bias=False)
        self.v_proj = nn.Linear(d, d)
        self.q_proj = nn.Linear(d, d)
        self.out_proj = nn.Linear(d, d)

    def forward(
        self,
        x: Tensor,
        source: Tensor,
        bias: Tensor | None = None,
        causal: bool = False,
        guided: Guided | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Returns (B, L, D) and, with `guided`, the log attention (B, heads, L - first, T)."""
        # float32: the bfloat16 kernel's backward is several times slower on a CPU
        q = self._heads(self.q_proj(x)).float()
        k = self._heads(self.k_proj(source)).float()
        v = self._heads(self.v_proj(source)).float()
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias, is_causal=causal)
        out = self.out_proj(out.transpose(1, 2).reshape(x.shape))
        return out, self._log_attention(q, k, bias, guided) if guided else None

    def _heads(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        return x.view(b, t, self.heads, d // self.heads).transpose(1, 2)

    def _log_attention(self, q: Tensor, k: Tensor, bias: Tensor | None, guided: Guided) -> Tensor:
        """Computes the attention again, because the fast kernel does not return it."""
        q, k = q[:, : guided.heads, guided.first :], k[:, : guided.heads]
        scores: Tensor = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        if bias is not None:
            scores = scores + bias
        return functional.log_softmax(scores, -1)


class EncoderLayer(nn.Module):
    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.self_attn = Attention(d, heads)
        self.self_attn_layer_norm = nn.LayerNorm(d)
        self.fc1, self.fc2 = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)
        self.final_layer_norm = nn.LayerNorm(d)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        normed = self.self_attn_layer_norm(x)
        x = x + self.self_attn(normed, normed, bias=bias)[0]
        change: Tensor = self.fc2(functional.gelu(self.fc1(self.final_layer_norm(x))))
        return x + change


class DecoderLayer(nn.Module):
    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.self_attn = Attention(d, heads)
        self.self_attn_layer_norm = nn.LayerNorm(d)
        self.encoder_attn = Attention(d, heads)
        self.encoder_attn_layer_norm = nn.LayerNorm(d)
        self.fc1, self.fc2 = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)
        self.final_layer_norm = nn.LayerNorm(d)

    def forward(
        self, x: Tensor, audio: Tensor, bias: Tensor | None, dropout: float, guided: Guided | None
    ) -> tuple[Tensor, Tensor | None]:
        def drop(change: Tensor) -> Tensor:
            return functional.dropout(change, dropout, self.training)

        normed = self.self_attn_layer_norm(x)
        x = x + drop(self.self_attn(normed, normed, causal=True)[0])
        heard, attention = self.encoder_attn(
            self.encoder_attn_layer_norm(x), audio, bias=bias, guided=guided
        )
        x = x + drop(heard)
        return x + drop(self.fc2(functional.gelu(self.fc1(self.final_layer_norm(x))))), attention


class Encoder(nn.Module):
    def __init__(self, d: int, heads: int, layers: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(N_MELS, d, 3, padding=1)
        self.conv2 = nn.Conv1d(d, d, 3, stride=2, padding=1)
        self.embed_positions = nn.Embedding(POSITIONS, d)
        self.embed_positions.weight = nn.Parameter(sinusoids(POSITIONS, d), requires_grad=False)
        self.layers = nn.ModuleList(EncoderLayer(d, heads) for _ in range(layers))
        self.layer_norm = nn.LayerNorm(d)

    def forward(
        self, features: Tensor, padding: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """`features`: (B, 80, 2T). `padding`: the sampled positions in [T, 1500).

        Returns (B, T + sampled, D) and its attention bias.
        """
        x = self.convolved(features)
        t = x.shape[1]
        x = x + self.embed_positions.weight[:t]
        bias = None
        if padding is not None:
            # The middle position of ten silent frames sees only silence.
            silence = self.convolved(torch.zeros(1, N_MELS, 10))[0, 2]
            padded = silence + self.embed_positions.weight[padding]
            x = torch.cat([x, padded.expand(x.shape[0], -1, -1).to(x.dtype)], 1)
            bias = torch.zeros(1, 1, 1, x.shape[1])
            bias[..., t:] = math.log((POSITIONS - t) / len(padding))
        for layer in self.layers:
            x = layer(x, bias)
        return self.layer_norm(x), bias

    def convolved(self, features: Tensor) -> Tensor:
        """Returns (B, T, D) from (B, 80, 2T)."""
        x = functional.gelu(self.conv1(features))
        return functional.gelu(self.conv2(x)).transpose(1, 2)


class Decoder(nn.Module):
    def __init__(self, d: int, heads: int, layers: int, vocab: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocab, d)
        self.embed_positions = nn.Embedding(MAX_TOKENS, d)
        self.layers = nn.ModuleList(DecoderLayer(d, heads) for _ in range(layers))
        self.layer_norm = nn.LayerNorm(d)

    def forward(
        self,
        tokens: Tensor,
        audio: Tensor,
        bias: Tensor | None,
        dropout: float = 0.0,
        first_guided: int | None = None,
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Returns (B, L, D) and, from token `first_guided` on, the guided heads' log attention by
        layer."""
        x = self.embed_tokens(tokens) + self.embed_positions.weight[: tokens.shape[1]]
        x = functional.dropout(x, dropout, self.training)
        attention = {}
        for i, layer in enumerate(self.layers):
            guided = None if first_guided is None else Guided(GUIDES[i][1], first_guided)
            x, log_attention = layer(x, audio, bias, dropout, guided)
            if guided:
                attention[i] = log_attention
        return self.layer_norm(x), attention


class Whisper(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.encoder = Encoder(shape.d, shape.heads, shape.enc_layers)
        self.decoder = Decoder(shape.d, shape.heads, shape.dec_layers, shape.vocab)
        self.aux = nn.Linear(shape.d, shape.n_aux)
        self._initialise()

    def forward(self, features: Tensor, tokens: Tensor) -> Tensor:
        """Returns logits (B, L, vocab), as at inference."""
        audio, bias = self.encoder(features)
        return self._logits(self.decoder(tokens, audio, bias)[0])

    def labels(self, features: Tensor, padding: Tensor | None) -> Tensor:
        """Returns (B, T, n_aux), the logits of each position's labels."""
        audio, _ = self.encoder(features, padding)
        return self._labels(audio, features)

    def train_step(
        self,
        features: Tensor,
        tokens: Tensor,
        kept: Tensor,
        padding: Tensor | None,
        first_guided: int,
        dropout: float,
    ) -> tuple[Tensor, dict[int, Tensor], Tensor]:
        """Returns the logits (N, vocab) of the N positions that `kept` (B, L) marks, the guided
        heads' log attention, and the position labels' logits. Only positions with a target are
        projected, which saves most of the vocabulary's cost."""
        audio, bias = self.encoder(features, padding)
        x, attention = self.decoder(tokens, audio, bias, dropout, first_guided)
        return self._logits(x[kept]), attention, self._labels(audio, features)

    def calibrate(self, features: Tensor, std: float = 0.7) -> None:
        """Scales the content to the size of the position encodings that are added to it. By
        default, these are about five times larger."""
        e = self.encoder
        with torch.no_grad():
            e.conv1.weight.mul_(std / functional.gelu(e.conv1(features)).std())
            e.conv2.weight.mul_(std / e.convolved(features).std())

    def _labels(self, audio: Tensor, features: Tensor) -> Tensor:
        labels: Tensor = self.aux(audio[:, : features.shape[2] // 2])
        return labels

    def _logits(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.decoder.embed_tokens.weight)

    def _initialise(self) -> None:
        d, decoder = self.shape.d, self.decoder
        with torch.no_grad():
            for layer, offsets in zip(self.encoder.layers, _OFFSETS, strict=True):
                _look_around(cast(EncoderLayer, layer).self_attn, offsets)
            nn.init.normal_(decoder.embed_tokens.weight, std=d**-0.5)
            decoder.embed_positions.weight.copy_(sinusoids(MAX_TOKENS, d) * 0.2)
            # A timestamp starts as the scaled encoder position of the same 20 ms.
            timestamps = sinusoids(TIMESTAMPS, d) * (2.0 / d) ** 0.5
            decoder.embed_tokens.weight[self.shape.ts0 :].copy_(timestamps)


def save(model: Whisper, path: Path) -> None:
    torch.save({"model": model.state_dict(), "cfg": asdict(model.shape)}, path)


def load(path: Path) -> Whisper:
    checkpoint = torch.load(path)
    model = Whisper(Shape(**checkpoint["cfg"]))
    model.load_state_dict(checkpoint["model"])
    return model


def sinusoids(length: int, channels: int) -> Tensor:
    """Returns (length, channels), Whisper's fixed position encodings."""
    angles = torch.arange(length)[:, None] * _frequencies(channels)
    return torch.cat([angles.sin(), angles.cos()], 1)


def _frequencies(channels: int) -> Tensor:
    pairs = channels // 2
    return torch.exp(-math.log(10_000) / (pairs - 1) * torch.arange(pairs))


def _look_around(attention: Attention, offsets: tuple[int, ...]) -> None:
    """Initialises the heads as a time-delay network: head h attends around position t + offsets[h].

    The positions are sinusoids. A query of (sin wt, cos wt) and a key rotated by w * offset have
    the score sum cos(w (t + offset - s)), whose maximum is at s = t + offset. Training can
    change this.
    """
    gain, fastest_skipped = 1.9, 5
    d = attention.q_proj.weight.shape[1]
    half, frequencies = d // 2, _frequencies(d)
    pairs = d // attention.heads // 2
    q, k = attention.q_proj.weight, attention.k_proj.weight
    for weight in (q, k):
        weight.mul_(0.2)
    attention.q_proj.bias.zero_()
    for head, offset in enumerate(offsets):
        for pair in range(pairs):
            i = fastest_skipped + pair
            row = 2 * (head * pairs + pair)
            cos = gain * math.cos(frequencies[i] * offset)
            sin = gain * math.sin(frequencies[i] * offset)
            q[row, i] += gain
            q[row + 1, half + i] += gain
            k[row, i] += cos
            k[row, half + i] -= sin
            k[row + 1, half + i] += cos
            k[row + 1, i] += sin
