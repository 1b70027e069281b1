import pytest
import torch

from midas_world.config import BackboneConfig
from midas_world.model.backbone import Backbone
from midas_world.model.kv_cache import KVCache
from tests.test_backbone import CONFIG, CPU, make_backbone, make_cache, make_tokens, stream

SMALL = BackboneConfig(
    num_layers=1, width=8, num_heads=1, num_kv_heads=1, head_dim=4, mlp_width=8, context_frames=3
)


@pytest.fixture
def backbone() -> Backbone:
    return make_backbone()


def test_reset_of_one_row_leaves_the_others(backbone):
    tokens = make_tokens(3, 9, 2)
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
    names = ("keys", "values", "frames_held", "before", "camera", "audio")

    def full(batch: int, value: float) -> KVCache:
        cache = KVCache(
            SMALL,
            batch_size=batch,
            positions_per_frame=2,
            dtype=torch.float32,
            device=CPU,
            token_shape=(2, 5),
            audio_size=3,
        )
        for name in names:
            if name != "frames_held":
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
