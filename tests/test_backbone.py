import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from midas_world.config import BackboneConfig
from midas_world.model.backbone import Backbone, frame_causal_mask
from midas_world.model.kv_cache import KVCache

CONFIG = BackboneConfig(
    num_layers=2, width=16, num_heads=4, num_kv_heads=2, head_dim=4, mlp_width=24, context_frames=3
)
SMALL = BackboneConfig(
    num_layers=1, width=8, num_heads=1, num_kv_heads=1, head_dim=4, mlp_width=8, context_frames=3
)
CPU = torch.device("cpu")


def make_backbone(config: BackboneConfig = CONFIG, *, seed: int = 0) -> Backbone:
    backbone = Backbone(config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in backbone.named_parameters():
        if parameter.ndim > 1:
            parameter.normal_(0.0, parameter.shape[1] ** -0.5, generator=generator)
        else:
            mean = 1.0 if "norm" in name else 0.0
            parameter.normal_(mean, 0.1, generator=generator)
    return backbone


def make_tokens(batch: int, frames: int, positions: int, *, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, frames * positions, CONFIG.width, generator=generator)


def make_cache(config: BackboneConfig, batch: int, positions: int) -> KVCache:
    return KVCache(
        config, batch_size=batch, positions_per_frame=positions, dtype=torch.float32, device=CPU
    )


def stream(backbone: Backbone, tokens: Tensor, cache: KVCache) -> Tensor:
    parts = []
    for frame in tokens.split(cache.positions_per_frame, dim=1):
        parts.append(backbone.step(frame, cache))
        cache.commit()
    return torch.cat(parts, dim=1)


@settings(deadline=None, max_examples=30)
@given(
    frames=st.integers(1, 9),
    positions=st.integers(1, 5),
    context_frames=st.integers(2, 5),
    batch=st.integers(1, 3),
    seed=st.integers(0, 9),
)
def test_streaming_equals_full_sequence(frames, positions, context_frames, batch, seed):
    """Also where the window rolls: the full sequence's mask has the same window."""
    config = dataclasses.replace(CONFIG, context_frames=context_frames)
    backbone = make_backbone(config, seed=seed)
    tokens = make_tokens(batch, frames, positions, seed=seed)
    expected = backbone(tokens, positions_per_frame=positions)
    streamed = stream(backbone, tokens, make_cache(config, batch, positions))
    torch.testing.assert_close(streamed, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_committed", [1, 2, 10_000, 1_000_000])
def test_after_many_frames_the_answer_is_the_same(num_committed):
    """Angles grow to 18 million radians; float32 angles would be off by whole radians there."""
    config = dataclasses.replace(CONFIG, context_frames=4)
    backbone, tokens = make_backbone(config), make_tokens(2, 11, 18)
    cache = make_cache(config, 2, 18)
    expected = stream(backbone, tokens, cache)
    later = make_cache(config, 2, 18)
    later.num_committed = num_committed
    torch.testing.assert_close(stream(backbone, tokens, later), expected, rtol=1e-5, atol=1e-5)


def test_the_mask_is_full_within_a_frame_and_causal_across_the_window():
    mask = frame_causal_mask(4, 2, context_frames=2, device=CPU)
    frame = torch.arange(4).repeat_interleave(2)
    for row in range(8):
        for column in range(8):
            allowed = frame[row] - frame[column] in (0, 1)
            assert mask[row, column] == allowed


def test_no_frame_depends_on_a_later_one_or_on_one_before_the_window():
    # Attention of one layer reaches context_frames - 1 back; L layers reach L times as far.
    config = dataclasses.replace(CONFIG, num_layers=1, context_frames=3)
    backbone, tokens = make_backbone(config), make_tokens(1, 7, 2)
    before = backbone(tokens, positions_per_frame=2).unflatten(1, (7, 2))
    changed = tokens.clone()
    changed[:, 2 * 3] += 1.0  # frame 3
    after = backbone(changed, positions_per_frame=2).unflatten(1, (7, 2))
    differs = [(before[:, f] - after[:, f]).abs().max().item() > 1e-6 for f in range(7)]
    assert differs == [False, False, False, True, True, True, False]
    # Within the frame, both positions see the change.
    assert (before[:, 3] - after[:, 3]).abs().amax(dim=-1).min() > 1e-6


# The cache


def test_reset_of_one_row_leaves_the_others():
    backbone, tokens = make_backbone(), make_tokens(3, 9, 2)
    whole, cache = make_cache(CONFIG, 3, 2), make_cache(CONFIG, 3, 2)
    expected = stream(backbone, tokens, whole).unflatten(1, (9, 2))
    first = stream(backbone, tokens[:, :10], cache)
    cache.reset(torch.tensor([False, True, False]))
    second = stream(backbone, tokens[:, 10:], cache)
    got = torch.cat((first, second), dim=1).unflatten(1, (9, 2))
    assert torch.equal(got[[0, 2]], expected[[0, 2]])
    # The row that was reset goes on as if frame 5 were its first.
    fresh = stream(backbone, tokens[1:2, 10:], make_cache(CONFIG, 1, 2)).unflatten(1, (4, 2))
    torch.testing.assert_close(got[1:2, 5:], fresh, rtol=1e-5, atol=1e-5)
    assert (got[1, 5] - expected[1, 5]).abs().max() > 1e-3


def test_rows_are_replaced_with_all_that_lies_beside_keys_and_values():
    def full(batch: int, value: float) -> KVCache:
        sizes = {"positions_per_frame": 2, "token_shape": (2, 5), "audio_size": 3}
        cache = KVCache(SMALL, batch_size=batch, dtype=torch.float32, device=CPU, **sizes)
        for name in ("keys", "values", "before", "camera", "audio"):
            getattr(cache, name).fill_(value)
        return cache

    cache, source = full(3, 1.0), full(2, 2.0)
    for _ in range(3):
        cache.commit()
    copy = cache.clone()
    with cache.replacing([2, 0], source, num_frames=1):
        source.commit()
    for name in ("before", "camera", "audio"):
        assert [row.mean().item() for row in getattr(cache, name)] == [2.0, 1.0, 2.0]
        assert getattr(copy, name).mean() == 1.0
    assert cache.frames_held.tolist() == [1, 2, 1]
    assert copy.frames_held.tolist() == [2, 2, 2]
