"""The backbone: a Qwen2-compatible decoder with frame-causal attention.

Attention is full inside a frame and causal across frames, back to ``context_frames``. With one
position per frame that is a plain Qwen2 (RMSNorm, GQA with QKV bias, SwiGLU, RoPE), whose weights
load by name. Knows neither latents nor conditions: tokens in, hidden out.

Shapes: B batch, F frames, T positions per frame, D width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from midas_world.config import BackboneConfig
from midas_world.model.kv_cache import KVCache
from midas_world.model.layers import RMSNorm, SwiGLU, apply_rope, rope_tables


class Attention(nn.Module):
    """Grouped-query attention with biases on queries, keys and values."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        kv_width = config.num_kv_heads * config.head_dim
        self.q_proj = nn.Linear(config.width, config.num_heads * config.head_dim)
        self.k_proj = nn.Linear(config.width, kv_width)
        self.v_proj = nn.Linear(config.width, kv_width)
        self.o_proj = nn.Linear(config.num_heads * config.head_dim, config.width, bias=False)

    def project(self, x: Tensor, rope: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return rotated queries, rotated keys and values, each (B, heads, tokens, head_dim)."""
        cosine, sine = rope
        size = self.config.head_dim
        q = self.q_proj(x).unflatten(-1, (-1, size)).transpose(1, 2)
        k = self.k_proj(x).unflatten(-1, (-1, size)).transpose(1, 2)
        v = self.v_proj(x).unflatten(-1, (-1, size)).transpose(1, 2)
        return apply_rope(q, cosine, sine), apply_rope(k, cosine, sine), v

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """Return the attended values, (B, tokens, D)."""
        out = functional.scaled_dot_product_attention(
            q, k.to(q.dtype), v.to(q.dtype), attn_mask=mask, enable_gqa=True
        )
        return self.o_proj(out.transpose(1, 2).flatten(-2))


class Layer(nn.Module):
    """Attention and SwiGLU, each behind an RMSNorm and with a residual."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.width, eps=config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.width, eps=config.norm_eps)
        self.mlp = SwiGLU(config.width, config.mlp_width)


class Backbone(nn.Module):
    """A stack of layers over the tokens of many frames, or of one frame and a cache."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList([Layer(config) for _ in range(config.num_layers)])
        self.norm = RMSNorm(config.width, eps=config.norm_eps)

    def forward(self, tokens: Tensor, *, positions_per_frame: int) -> Tensor:
        """Return the hidden states of whole sequences, (B, F * T, D) -> (B, F * T, D).

        Raises:
            ValueError: The tokens do not divide into frames.
        """
        count = tokens.shape[1]
        if count % positions_per_frame:
            raise ValueError(
                f"tokens must be a multiple of positions_per_frame {positions_per_frame}, "
                f"got {count}"
            )
        rope = rope_tables(
            torch.arange(count, device=tokens.device),
            self.config.head_dim,
            theta=self.config.rope_theta,
        )
        mask = frame_causal_mask(
            count // positions_per_frame,
            positions_per_frame,
            context_frames=self.config.context_frames,
            device=tokens.device,
        )
        x = tokens
        for layer in self.layers:
            assert isinstance(layer, Layer)
            q, k, v = layer.self_attn.project(layer.input_layernorm(x), rope)
            x = x + layer.self_attn.attend(q, k, v, mask)
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        return self.norm(x)

    def step(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """Return the hidden states of the present frame, (B, T, D) -> (B, T, D).

        Changes the cache: the frame is written to its slot, but it becomes part of the past only
        by ``cache.commit()``.

        Raises:
            ValueError: More or fewer tokens than one frame has.
        """
        if tokens.shape[1] != cache.positions_per_frame:
            raise ValueError(
                f"with a cache, tokens must be those of one frame ({cache.positions_per_frame}), "
                f"got {tokens.shape[1]}"
            )
        rope, mask = cache.rope(), cache.mask()
        x = tokens
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, Layer)
            q, k, v = layer.self_attn.project(layer.input_layernorm(x), rope)
            keys, values = cache.write(index, k, v)
            x = x + layer.self_attn.attend(q, keys, values, mask)
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        return self.norm(x)


def frame_causal_mask(
    frames: int, positions_per_frame: int, *, context_frames: int, device: torch.device
) -> Tensor:
    """Return (F * T, F * T) bool: True where a row may look at a column."""
    index = torch.arange(frames, device=device).repeat_interleave(positions_per_frame)
    distance = index[:, None] - index[None, :]
    return (distance >= 0) & (distance < context_frames)
