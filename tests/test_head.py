"""The diffusion head: what it begins with, what it listens to, and that presets' heads fit."""

import pytest
import torch
from torch import Tensor

from midas_world.commands.dream import GPU_OVERRIDES
from midas_world.config import PRESETS_FOLDER, HeadConfig, load_preset
from midas_world.model.head import DiffusionHead, Guidance
from midas_world.model.world_model import WorldModel
from midas_world.train.latent_rollouts import watched

CONFIG = HeadConfig(widths=(8, 12), depths=(1, 2), vector_width=16)
GRID, TOKEN_GRID = (4, 8), (2, 4)


def make_head(config: HeadConfig = CONFIG, *, seed: int | None = 0) -> DiffusionHead:
    """Return a head of random weights; with no seed, one as it is made."""
    head = DiffusionHead(
        config,
        latent_channels=3,
        num_copies=2,
        map_channels=5,
        vector_size=7,
        hidden_width=6,
        grid=GRID,
        token_grid=TOKEN_GRID,
    )
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.normal_(0.0, 0.2, generator=generator)
    return head.requires_grad_(requires_grad=False)


def make_guidance(batch: int = 2, *, seed: int = 1) -> Guidance:
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, generator=generator)

    return Guidance(
        last=randn(3, *GRID),
        copies=randn(2, 3, *GRID),
        maps=randn(5, *GRID),
        vector=randn(7),
        hidden=randn(8, 6),
    )


def noisy(batch: int = 2) -> tuple[Tensor, Tensor]:
    """Return noise and its levels."""
    noise = torch.randn(batch, 3, *GRID, generator=torch.Generator().manual_seed(2))
    return noise, torch.linspace(0.2, 1.0, batch)


def test_at_first_the_gates_keep_most_of_the_last_frame():
    head, guidance = make_head(seed=None), make_guidance()
    made = head(*noisy(), guidance)
    assert made.shape == guidance.last.shape
    # The gate of what was is e to 1, about.
    share = torch.e / (torch.e + 2)
    kept = share * guidance.last + (1 - share) * guidance.copies.mean(dim=1)
    assert (made - kept).square().mean() < 0.1 * (made - guidance.copies[:, 0]).square().mean()
    still = guidance._replace(copies=guidance.last[:, None].expand(-1, 2, -1, -1, -1))
    # Its free change is small.
    assert (head(*noisy(), still) - guidance.last).square().mean() < 0.05


@pytest.mark.parametrize("name", ["noisy", "sigma", *Guidance._fields])
def test_the_head_listens_to_every_input(name):
    head, guidance, (x, sigma) = make_head(), make_guidance(), noisy()
    before = head(x, sigma, guidance)
    if name in ("noisy", "sigma"):
        after = head(x * 0.5 if name == "noisy" else x, sigma * (name == "noisy"), guidance)
    else:
        changed = guidance._replace(**{name: getattr(guidance, name) * 0.5})
        after = head(x, sigma, changed)
    assert (after - before).abs().max() > 1e-3


@pytest.mark.parametrize("name", sorted(path.stem for path in PRESETS_FOLDER.glob("*.yaml")))
def test_every_presets_head_fits_its_grid_and_tokens(name):
    config = load_preset(name).world
    with torch.device("meta"):
        model = WorldModel(config)
        channels = config.autoencoder.latent_channels
        head = model.head
        maps = head.input.in_channels - (2 + config.num_copies) * channels
        last = torch.zeros(1, channels, *config.grid)
        guidance = Guidance(
            last=last,
            copies=last[:, None].expand(-1, config.num_copies, -1, -1, -1),
            maps=torch.zeros(1, maps, *config.grid),
            vector=torch.zeros(1, head.vector[0].in_features - 32),
            hidden=torch.zeros(1, config.tokens_per_frame, config.backbone.width),
        )
        assert head(last, torch.zeros(1), guidance).shape == last.shape


def test_features_that_are_never_above_zero_are_noticed():
    head = make_head()
    with watched(head) as alive:
        head(*noisy(), make_guidance())
    assert alive.any()
    bias = head.down[-1].mix.bias
    bias.sub_(1e4)
    with watched(head) as alive:
        head(*noisy(), make_guidance())
    assert not alive.any()


@pytest.mark.parametrize(
    ("name", "overrides"),
    [*((path.stem, ()) for path in PRESETS_FOLDER.glob("*.yaml")), ("dream", GPU_OVERRIDES)],
)
def test_muon_moves_the_heads_widest_weights_by_little(name, overrides):
    config = load_preset(name, overrides)
    inputs = 9 * max(config.world.head.widths)
    # Its updates have a root mean square of 0.2; weights begin at that of their inputs.
    share = 0.2 * config.train_dynamics.optimizer.muon_learning_rate * (3 * inputs) ** 0.5
    assert share < 0.025
