import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midas_world.config import (
    PRESETS_FOLDER,
    AutoencoderConfig,
    BackboneConfig,
    CameraConfig,
    ClockConfig,
    ConditionsConfig,
    DataConfig,
    EntriesConfig,
    HeadConfig,
    LayerConfig,
    OptimizerConfig,
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


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("sead=1", "did you mean seed"),
        ("world.hight=48", r"did you mean world\.height"),
        ("world.backbone.nun_layers=3", r"did you mean world\.backbone\.num_layers"),
        ("train_dynamics.optimizer.lerning_rate=1", r"train_dynamics\.optimizer\.learning_rate"),
    ],
)
def test_an_unknown_key_names_the_nearest_at_any_depth(override, nearest):
    with pytest.raises(ValueError, match=nearest):
        load_preset("tiny", [override])


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
    "override",
    [
        "world.backbone.num_layers=many",
        "train_dynamics.sharding=half",
        "world.autoencoder.widths=3",
        "world.autoencoder=3",
        "world.conditions=[1,2]",
    ],
)
def test_a_value_of_the_wrong_type_is_an_error(override):
    with pytest.raises(ValueError, match=r"tiny\.yaml"):
        load_preset("tiny", [override])


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


AUTOENCODER = {"widths": (8, 16), "encoder_depths": (1, 1), "decoder_depths": (1, 1)}
BACKBONE = {"num_layers": 1, "width": 8, "num_heads": 2, "num_kv_heads": 1}
BACKBONE |= {"head_dim": 4, "mlp_width": 8}
HEAD = {"widths": (8,), "depths": (1,)}
POSE = {"pose_size": 6, "num_keypoints": 2}


@pytest.mark.parametrize(
    ("cls", "values", "message"),
    [
        (AutoencoderConfig, AUTOENCODER | {"encoder_depths": (1,)}, "encoder_depths"),
        (AutoencoderConfig, AUTOENCODER | {"block_types": ("res",)}, "block_types must have 2"),
        (AutoencoderConfig, AUTOENCODER | {"block_types": ("res", "vit")}, "got 'vit'"),
        (AutoencoderConfig, AUTOENCODER | {"decoder_norms": ("l2", "l2")}, "decoder_norms"),
        (AutoencoderConfig, AUTOENCODER | {"widths": (8, 48)}, "widths must be a multiple of 4"),
        (AutoencoderConfig, AUTOENCODER | {"latent_channels": 5}, "multiple of latent_channels"),
        (ConditionsConfig, {"pose_size": 10, "num_keypoints": 6}, "num_keypoints"),
        (BackboneConfig, BACKBONE | {"head_dim": 5}, "head_dim must be even"),
        (BackboneConfig, BACKBONE | {"num_kv_heads": 3}, "multiple of num_kv_heads"),
        (BackboneConfig, BACKBONE | {"context_frames": 1}, "context_frames"),
        (HeadConfig, {"widths": (8, 8), "depths": (1,)}, "widths and depths"),
        (HeadConfig, {"widths": (), "depths": ()}, "widths and depths"),
        (HeadConfig, HEAD | {"num_denoise_steps": 0}, "num_denoise_steps"),
        (HeadConfig, HEAD | {"temperature": -1.0}, "temperature must be at least 0, got -1"),
        (ConditionsConfig, {**POSE, "limbs": ((0, 2),)}, r"limbs must name keypoints 0 to 1"),
        (ConditionsConfig, {**POSE, "camera": CameraConfig(index=3)}, "camera.index must be"),
        (ConditionsConfig, {**POSE, "clock": ClockConfig(index=6)}, "clock.index must be"),
        (OptimizerConfig, {"learning_rate": 1.0, "train_steps": 0, "batch_size": 1}, "train_steps"),
        (LayerConfig, {"parallax": 1.0, "loop": 8, "resolution": 0}, "resolution must be"),
        (EntriesConfig, {"phases": 0}, "phases must be"),
        (DataConfig, {"first_seed": 0, "first_validation_seed": 3}, "overlap the held-out"),
    ],
)
def test_limits_name_the_field(cls, values, message):
    values = {"latent_channels": 8, **values} if cls is AutoencoderConfig else values
    with pytest.raises(ValueError, match=message):
        cls(**values)


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


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("world.head={widths: [8, 8, 8], depths: [1, 1, 1]}", "3 levels do not fit a grid of 6x10"),
        ("world.token_block=1", "2 levels do not fit a grid of 6x10 and 6 rows"),
        ("world.conditions.camera.index=-1", r"motion.parallax needs a camera"),
        (
            "world.scenery.layers.ground.loop=1500",
            r"scenery.layers.ground.loop must be a multiple of 8",
        ),
        (
            "world.scenery.layers.ground.resolution=3",
            r"layers.ground.resolution must divide the autoencoder's downsampling of 8, got 3",
        ),
        ("world.outcome_width=-1", r"outcome_width must be 0 to 65536, got -1"),
        ("world.scenery.layers.fall.loop=600", r"divide the 400 px that the layer travels"),
        ("world.scenery.width=0", r"scenery.width must be positive where there are scenery.layers"),
        (
            "world.scenery.windows.portrait.shown_by=39",
            r"portrait.shown_by must be an entry of the pose, which has 39, got 39",
        ),
        ("world.scenery.windows.portrait.at=[5,0]", r"portrait must lie in the grid of 6x10"),
    ],
)
def test_what_does_not_fit_together_is_told(override, message):
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
