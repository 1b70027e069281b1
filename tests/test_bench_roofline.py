"""What a step must cost: operations and bytes counted by hand, and the bound that follows."""

import pytest
import torch
from torch import nn

from engine.bench import roofline
from engine.bench.counting import Cost, Count, count_call, count_step
from engine.bench.roofline import Rates, lower_bound, measure_rates
from midas_world.config import load_preset
from midas_world.machine import forget_peak_memory, peak_memory_mib
from midas_world.world import World

RATES = Rates(
    device="cpu", num_threads=1, bytes_per_s=1e9, flops_per_s={"float32": 1e9, "bfloat16": 4e9}
)


def test_a_linear_counts_as_worked_out_by_hand():
    with torch.device("meta"):
        layer, x = nn.Linear(3, 5), torch.empty(2, 7, 3)
    count = count_call(lambda: layer(x), [layer])
    assert count == Count(
        flops=2 * (2 * 7) * 3 * 5,
        num_weights=3 * 5 + 5,
        num_activations=2 * 7 * 3 + 2 * 7 * 5,
    )
    assert count.cost(dtype="bfloat16") == Cost(
        dtype="bfloat16", flops=420, weight_bytes=40, activation_bytes=224, cache_bytes=0
    )


def test_a_convolution_counts_as_worked_out_by_hand():
    with torch.device("meta"):
        layer, x = nn.Conv2d(4, 6, 3, padding=1, stride=2, groups=2), torch.empty(1, 4, 8, 10)
    count = count_call(lambda: layer(x), [nn.Sequential(layer)])
    # Each of 4 x 5 places and 6 channels sums over 3 x 3 places of 4 / 2 channels.
    assert count.flops == 2 * (4 * 5) * 6 * (3 * 3) * 2
    assert count.num_weights == 6 * 2 * 9 + 6
    assert count.num_activations == 4 * 8 * 10 + 6 * 4 * 5
    assert count.cost(dtype="float32", batch_size=3).num_bytes == 4 * 114 + 3 * 4 * 440


def test_products_outside_modules_count_and_tables_do_not():
    with torch.device("meta"):
        table, x = nn.Embedding(1000, 4), torch.empty(2, 4)
        index = torch.zeros(3, dtype=torch.int64)
    count = count_call(lambda: x @ table(index).T, [table], parameters=[x], num_cached=9)
    assert count.flops == 2 * 2 * 4 * 3
    assert (count.num_weights, count.num_activations, count.num_cached) == (8, 0, 9)


def test_int8_halves_no_activations_and_float32_parts_stay():
    count = Count(flops=1, num_weights=10, num_activations=3, num_cached=2)
    cost = count.times(2).cost(dtype="int8")
    assert (cost.flops, cost.weight_bytes, cost.activation_bytes, cost.cache_bytes) == (
        2,
        20,
        24,
        16,
    )
    fixed = Count(flops=1, num_weights=10, num_activations=3, stays_float32=True)
    assert fixed.cost(dtype="int8").dtype == "float32"
    with pytest.raises(ValueError, match="one of float32, bfloat16, float16, int8, got 'fp4'"):
        count.cost(dtype="fp4")


def test_a_step_of_tiny_reads_all_its_weights(tiny_world: World):
    config = tiny_world.config.world
    count = count_step(config, num_denoise_steps=3)
    model, autoencoder = tiny_world.model, tiny_world.autoencoder
    sizes = {
        name: sum(parameter.numel() for parameter in module.parameters())
        for name, module in (("model", model), ("autoencoder", autoencoder))
    }
    assert count.num_parameters == sum(sizes.values())
    assert count.parts["head"].num_weights == 3 * count.part_parameters["head"]
    assert count.parts["backbone"].num_weights == count.part_parameters["backbone"]
    assert count.parts["decoder"].num_weights == count.part_parameters["decoder"]
    read = sum(part.num_weights for part in count.parts.values())
    read -= 2 * count.part_parameters["head"]
    tables = model.conditions.words.weight.numel() + model.noise_level.weight.numel()
    assert read == sizes["model"] - tables + count.part_parameters["decoder"]
    # Two layers, one head of 16, four frames of 18 places; and one frame written.
    assert count.parts["backbone"].num_cached == 2 * 2 * 16 * 18 * (4 + 1)


def test_operations_of_the_backbone_are_those_worked_out_by_hand():
    config = load_preset("tiny").world
    places, width, wide, seen = 18, 32, 64, 4 * 18
    linear = width * 32 + 2 * width * 16 + 32 * width + 3 * width * wide
    attention = 2 * 2 * seen * 16  # two heads: scores and their sums of values
    expected = 2 * 2 * places * (linear + attention)
    assert count_step(config).parts["backbone"].flops == expected


def test_the_largest_preset_is_counted_in_no_memory():
    count_step(load_preset("tiny").world)  # what torch itself loads for it comes first
    assert forget_peak_memory() or peak_memory_mib() > 0
    before = peak_memory_mib()
    config = load_preset("paper", ["world.backbone.num_layers=4", "world.diffusion.num_layers=2"])
    count = count_step(config.world)
    assert count.num_parameters > 1e9
    assert peak_memory_mib() - before < 200  # in float32 it would be 4 GB and more


def test_the_bound_is_the_slower_of_memory_and_products():
    cost = Cost(
        dtype="bfloat16", flops=8_000_000, weight_bytes=10**6, activation_bytes=0, cache_bytes=0
    )
    assert lower_bound(cost, RATES).milliseconds == pytest.approx(2.0)
    assert lower_bound(cost, RATES).limit == "products"
    heavy = Cost(
        dtype="int8", flops=10**9, weight_bytes=0, activation_bytes=0, cache_bytes=5 * 10**6
    )
    assert lower_bound(heavy, RATES).milliseconds == pytest.approx(5.0)
    assert lower_bound(heavy, RATES).limit == "memory"
    assert RATES.fastest_dtype == "bfloat16"


def test_rates_are_measured(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(roofline, "COPY_BYTES", {"cpu": 2**12})
    monkeypatch.setattr(roofline, "MATRIX_SIZE", {"cpu": 32})
    rates = measure_rates("cpu")
    assert rates.bytes_per_s > 0
    assert set(rates.flops_per_s) == {"float32", "bfloat16"}
    assert all(rate > 0 for rate in rates.flops_per_s.values())
