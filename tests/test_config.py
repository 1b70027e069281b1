import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midas_world.config import (
    PRESETS_FOLDER,
    DataConfig,
    ProjectConfig,
    load_config,
    load_preset,
    override_config,
    preset_path,
    save_config,
)

PRESETS = sorted(path.stem for path in PRESETS_FOLDER.glob("*.yaml"))
TINY = load_preset("tiny").world


@pytest.mark.parametrize("name", PRESETS)
def test_config_to_yaml_to_config_is_the_identity(name, tmp_path: Path):
    config = load_preset(name)
    save_config(config, tmp_path / "config.yaml")
    assert load_config(ProjectConfig, tmp_path / "config.yaml") == config


@pytest.mark.parametrize("name", PRESETS)
def test_presets_fit_their_picture_and_their_held_out_episodes(name):
    config = load_preset(name)
    world = config.world
    assert world.token_channels * world.tokens_per_frame == (
        world.autoencoder.latent_channels * world.grid[0] * world.grid[1]
    )
    assert world.grid[0] * world.autoencoder.downsampling == world.height
    assert config.data.num_steps > world.backbone.context_frames
    for stage in (config.train_autoencoder, config.train_dynamics):
        assert stage.crop_size <= min(world.height, world.width)
        assert stage.crop_size % world.autoencoder.downsampling == 0


def test_stage_hd_is_stage_at_twice_the_size():
    small, large = load_preset("stage").world, load_preset("stage-hd").world
    assert (large.height, large.width) == (2 * small.height, 2 * small.width)
    assert large.conditions.limbs == small.conditions.limbs
    assert large.conditions.limb_reach == 2 * small.conditions.limb_reach
    assert large.conditions.camera.loop == 2 * small.conditions.camera.loop
    assert large.motion.reach == 2 * small.motion.reach
    for name in ("strip", "outside"):
        assert getattr(large.entries, name) == 2 * getattr(small.entries, name)
    assert large.scenery.layers.keys() == small.scenery.layers.keys()
    for name, layer in large.scenery.layers.items():
        assert layer.loop == 2 * small.scenery.layers[name].loop


def test_overrides_change_one_value_each():
    config = load_preset("tiny")
    changed = load_preset(
        "tiny", ["world.backbone.num_layers=3", "world.autoencoder.encoder_depths=[1,2]", "seed=7"]
    )
    assert changed.world.backbone.num_layers == 3
    assert changed.world.autoencoder.encoder_depths == (1, 2)
    backbone = dataclasses.replace(changed.world.backbone, num_layers=2)
    autoencoder = dataclasses.replace(changed.world.autoencoder, encoder_depths=(1, 1))
    world = dataclasses.replace(changed.world, backbone=backbone, autoencoder=autoencoder)
    assert dataclasses.replace(changed, world=world, seed=0) == config
    assert override_config(config, ["world.backbone.num_layers=3"]) != config
    assert override_config(changed, ["seed=0"]) == dataclasses.replace(changed, seed=0)
    with pytest.raises(ValueError, match=r"did you mean seed"):
        override_config(config, ["sead=1"])
    with pytest.raises(ValueError, match=r"seed=much: "):
        override_config(config, ["seed=much"])


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(ValueError, match=r"no preset 'tyni'; did you mean 'tiny'\?.*paper"):
        preset_path("tyni")


def test_files_of_before_say_nothing_of_a_refiner_or_are_refused(tmp_path: Path):
    text = (PRESETS_FOLDER / "tiny.yaml").read_text().replace("world:", "world:\n  refiner: {}")
    for widths in ([], [8, 16]):
        of_world = text.replace("refiner: {}", f"refiner: {{widths: {widths}, lift: 4}}")
        path = tmp_path / "old.yaml"
        path.write_text(f"{of_world}\ntrain_refiner: {{num_rollouts: 60}}\n")
        if not widths:
            assert load_preset(str(path)) == load_preset("tiny")
    with pytest.raises(ValueError, match=r"old\.yaml: world\.refiner: .* can no longer be played"):
        load_preset(str(path))


def test_an_unknown_key_in_a_file_names_the_file(tmp_path: Path):
    text = (PRESETS_FOLDER / "tiny.yaml").read_text().replace("context_noise:", "contxt_noise:")
    path = tmp_path / "typo.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"typo\.yaml: no key world\.contxt_noise.*context_noise"):
        load_preset(str(path))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("world: {height: 48", r"broken\.yaml"),
        ("- 1\n- 2", r"broken\.yaml"),
        ("just words", r"broken\.yaml"),
        ("seed: 3", "world"),  # which is required
    ],
)
def test_a_broken_file_is_a_value_error(text, words, tmp_path: Path):
    (tmp_path / "broken.yaml").write_text(text)
    with pytest.raises(ValueError, match=words):
        load_preset(str(tmp_path / "broken.yaml"))


@settings(deadline=None)
@given(height=st.integers(1, 200), width=st.integers(1, 200))
def test_a_world_is_valid_exactly_if_its_picture_divides_into_tokens(height, width):
    # Windows at a place need a picture that has it.
    scenery = dataclasses.replace(TINY.scenery, windows={})
    config = dataclasses.replace(TINY, scenery=scenery)
    step = config.autoencoder.downsampling * config.token_block
    if height % step or width % step:
        with pytest.raises(ValueError, match="multiples of the autoencoder's downsampling"):
            dataclasses.replace(config, height=height, width=width)
    else:
        changed = dataclasses.replace(config, height=height, width=width)
        assert changed.tokens_per_frame == height * width // step**2


# Overrides of the tiny preset, and what is said of them.
REFUSED = {
    "sead=1": "did you mean seed",
    "world.hight=48": r"did you mean world\.height",
    "world.backbone.nun_layers=3": r"did you mean world\.backbone\.num_layers",
    "train_dynamics.optimizer.lerning_rate=1": r"train_dynamics\.optimizer\.learning_rate",
    "world.backbone.num_layers=many": r"tiny\.yaml",
    "train_dynamics.sharding=half": r"tiny\.yaml",
    "world.autoencoder.widths=3": r"tiny\.yaml",
    "world.autoencoder=3": r"tiny\.yaml",
    "world.conditions=[1,2]": r"tiny\.yaml",
    # What does not fit together.
    "world.head={widths: [8,8,8], depths: [1,1,1]}": "3 levels do not fit a grid of 6x10",
    "world.token_block=1": "2 levels do not fit a grid of 6x10 and 6 rows",
    "world.conditions.camera.index=-1": "motion.parallax needs a camera",
    "world.scenery.layers.ground.loop=1500": "layers.ground.loop must be a multiple of 8",
    "world.scenery.layers.ground.resolution=3": "divide the autoencoder's downsampling of 8, got 3",
    "world.scenery.layers.fall.loop=600": "divide the 400 px that the layer travels",
    "world.scenery.width=0": "scenery.width must be positive where there are scenery.layers",
    "world.scenery.windows.portrait.shown_by=39": "entry of the pose, which has 39, got 39",
    "world.scenery.windows.portrait.at=[5,0]": "portrait must lie in the grid of 6x10",
    "world.autoencoder.encoder_depths=[1]": "encoder_depths",
    "world.autoencoder.block_types=[res]": "block_types must have 2",
    "world.autoencoder.block_types=[res,vit]": "got 'vit'",
    "world.autoencoder.decoder_norms=[l2,l2]": "decoder_norms",
    "world.autoencoder.widths=[8,48]": "widths must be a multiple of 4",
    "world.autoencoder.latent_channels=5": "multiple of latent_channels",
    "world.backbone.head_dim=5": "head_dim must be even",
    "world.backbone.num_kv_heads=3": "multiple of num_kv_heads",
    "world.head={widths: [8,8], depths: [1]}": "widths and depths",
    "world.head={widths: [], depths: []}": "widths and depths",
    "world.conditions={pose_size: 10, num_keypoints: 6}": "num_keypoints",
    "world.conditions.limbs=[[0,15]]": "limbs must name keypoints 0 to 14",
    "world.conditions.camera.index=3": "camera.index must be",
    "world.conditions.clock.index=39": "clock.index must be",
    "data.first_seed=0": "overlap the held-out",
    # Limits.
    "world.backbone.context_frames=1": "context_frames",
    "world.head.num_denoise_steps=0": "num_denoise_steps",
    "world.head.temperature=-1.0": "temperature must be at least 0, got -1",
    "world.scenery.layers.ground.resolution=0": "resolution must be",
    "world.entries.phases=0": "phases must be",
    "train_dynamics.optimizer.train_steps=0": "train_steps",
    "world.outcome_width=-1": "outcome_width must be 0 to 65536, got -1",
    "world.backbone.mlp_width=1000000000": "mlp_width must be 1 to 65536",
    "world.backbone.num_layers=1000000000": "num_layers must be 1 to 128",
    "world.backbone.context_frames=1000000000": "are too many",
    "world.conditions.text_buckets=1000000000": "text_buckets must be 1 to",
    "world.conditions.pose_size=1000000000": "pose_size must be 0 to",
    "world.conditions.camera.loop=1000000000": "loop must be 1 to",
    "world.autoencoder={widths: [16,16], encoder_depths: [1000000000,1]}": "encoder_depths must be",
    "world.autoencoder.latent_channels=1000000000": "latent_channels must be 1 to",
    "world.head.widths=[8,1000000000]": "widths must be 1 to",
    "world.motion.reach=1000000000": "reach must be 0 to 256",
    "world.entries.columns=1000000000": "columns must be 1 to",
    "world.scenery.layers.ground.slots=1000000000": "slots must be 1 to",
    "world.scenery.width=1000000000": "width must be 0 to",
    "world.scenery.windows.character.widths=[8,1000000000]": "widths must be 1 to",
    "world.height=65520": "height times width must be at most",
    "world.reward_bins=1000000000": "reward_bins must be 2 to",
    "world.noise_buckets=1000000000": "noise_buckets must be 1 to",
    "world.backbone.num_heads=-4": "num_heads must be 1 to",
    "world.backbone.num_kv_heads=0": "num_kv_heads must be 1 to",
    "world.reward_limit=.inf": "reward_limit must be finite",
    "world.head.temperature=.nan": "temperature must be at least 0, got nan",
    "world.motion.parallax=[.nan]": "parallax must be finite",
}


@pytest.mark.parametrize(("override", "message"), REFUSED.items(), ids=REFUSED)
def test_values_that_cannot_be_are_named(override, message):
    with pytest.raises(ValueError, match=message):
        load_preset("tiny", [override])


def test_play_noise_lies_within_the_noise_trained_on():
    assert dataclasses.replace(TINY, play_noise=TINY.context_noise).play_noise > 0
    with pytest.raises(ValueError, match="play_noise"):
        dataclasses.replace(TINY, play_noise=TINY.context_noise + 0.01)


@settings(deadline=None)
@given(first=st.integers(0, 40), count=st.integers(1, 10), held=st.integers(0, 40))
def test_seeds_overlap_exactly_if_the_sets_do(first, count, held):
    values = {"first_seed": first, "num_episodes": count}
    values |= {"first_validation_seed": held, "num_validation_episodes": 5}
    if set(range(first, first + count)) & set(range(held, held + 5)):
        with pytest.raises(ValueError, match="overlap"):
            DataConfig(**values)
    else:
        DataConfig(**values)
