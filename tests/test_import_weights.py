"""Published weights as Hugging Face lays them out, made tiny, become a world that is played."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from midas_world import tokenizing
from midas_world.checkpoint import load_tensors
from midas_world.commands.cli import main
from midas_world.config import ConditionsConfig, load_preset
from midas_world.importing.weights import import_dc_ae, import_qwen2
from midas_world.model.conditions import hash_text
from midas_world.types import CheckpointError
from midas_world.world import load_world
from tests.fakes import randn
from tests.recordings import import_to, make_film

WORDS = ["[UNK]", "someone", "walks", "right", "left", "red", "jacket"]
QWEN2 = {
    "model_type": "qwen2",
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
}
DC_AE = {
    "_class_name": "AutoencoderDC",
    "latent_channels": 4,
    "attention_head_dim": 8,
    "encoder_block_types": ["ResBlock", "ResBlock", "ResBlock", "EfficientViTBlock"],
    "decoder_block_types": ["ResBlock", "ResBlock", "ResBlock", "EfficientViTBlock"],
    "encoder_block_out_channels": [4, 8, 8, 16],
    "decoder_block_out_channels": [4, 8, 8, 16],
    "encoder_layers_per_block": [1, 1, 1, 1],
    "decoder_layers_per_block": [1, 1, 1, 1],
    "encoder_qkv_multiscales": [[]] * 4,
    "decoder_qkv_multiscales": [[]] * 4,
    "upsample_block_type": "pixel_shuffle",
    "downsample_block_type": "pixel_unshuffle",
    "decoder_norm_types": "rms_norm",
    "decoder_act_fns": "silu",
    "scaling_factor": 0.5,
}


def write_qwen2(folder: Path, *, shards: int = 2) -> Path:
    """Write a Qwen2 of seven words by hand, in the layout of transformers: bf16, in shards."""
    folder.mkdir()
    width, inner, kv = 24, 40, 12
    tensors = {"model.embed_tokens.weight": 0.1 * randn(len(WORDS), width, seed=9)}
    tensors |= {"model.norm.weight": torch.ones(width), "lm_head.weight": 0.1 * randn(7, width)}
    for layer in range(2):
        sizes = {
            "self_attn.q_proj.weight": (width, width),
            "self_attn.q_proj.bias": (width,),
            "self_attn.k_proj.weight": (kv, width),
            "self_attn.k_proj.bias": (kv,),
            "self_attn.v_proj.weight": (kv, width),
            "self_attn.v_proj.bias": (kv,),
            "self_attn.o_proj.weight": (width, width),
            "mlp.gate_proj.weight": (inner, width),
            "mlp.up_proj.weight": (inner, width),
            "mlp.down_proj.weight": (width, inner),
            "input_layernorm.weight": (width,),
            "post_attention_layernorm.weight": (width,),
        }
        for seed, (name, size) in enumerate(sizes.items()):
            tensors[f"model.layers.{layer}.{name}"] = 0.1 * randn(*size, seed=seed)
    names, places = sorted(tensors), {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        held = names[shard::shards]
        save_file({name: tensors[name].bfloat16() for name in held}, folder / file)
        places |= dict.fromkeys(held, file)
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(QWEN2))
    return folder


def write_tokenizer(folder: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def qwen2(tmp_path_factory) -> Path:
    folder = write_qwen2(tmp_path_factory.mktemp("theirs") / "qwen2")
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def dc_ae(tmp_path_factory) -> Path:
    """A DC-AE as diffusers writes it, random."""
    diffusers = pytest.importorskip("diffusers")
    folder = tmp_path_factory.mktemp("theirs") / "dc-ae"
    values = {name: value for name, value in DC_AE.items() if not name.startswith("_")}
    torch.random.set_rng_state(torch.Generator().manual_seed(0).get_state())
    diffusers.AutoencoderDC(**values).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def skeleton(qwen2: Path, dc_ae: Path, tmp_path_factory) -> Path:
    """Both in one, by the command, Qwen2 first: its rest is made anew for the autoencoder."""
    folder = tmp_path_factory.mktemp("mine") / "mine"
    words = ["--to", str(folder), "--preset", "tiny", "world.token_block=2"]
    assert main(["import", "qwen2", str(qwen2), *words]) == 0
    assert main(["import", "dc-ae", str(dc_ae), "--to", str(folder)]) == 0
    return folder


def test_both_make_a_world_that_takes_a_step_is_packed_and_played(skeleton, data, tmp_path, capsys):
    preset = str(skeleton / "mine.yaml")
    words = ["--preset", preset, "--data", str(data), "train_dynamics.optimizer.bf16=false"]
    begin = ["--output", str(skeleton), "--init-from", str(skeleton / "init")]
    assert main(["train", "dynamics", *words, *begin, "--stop-at", "1"]) == 0
    assert main(["train", "decoder", *words[:4], *begin[:2], "--stop-at", "1"]) == 0
    world = str(tmp_path / "world")
    assert main(["pack", "--preset", preset, "--output", str(skeleton), "--world", world]) == 0
    assert (tmp_path / "world/tokenizer.json").is_file()
    capsys.readouterr()
    play = ["play", "--world", world, "--headless", "--steps", "3", "--backend", "torch"]
    assert main([*play, "--prompt", "red jacket"]) == 0
    loaded = load_world(world).config.world
    assert loaded.backbone.width == 24
    assert loaded.autoencoder.latent_channels == 4


def test_what_is_written_is_theirs(skeleton, qwen2, dc_ae):
    config = load_preset(str(skeleton / "mine.yaml"))
    conditions = config.world.conditions
    assert (conditions.text_buckets, conditions.word_width) == (len(WORDS) + 1, 24)
    assert (config.world.height, config.world.width) == (48, 80)
    theirs = {}
    for path in qwen2.glob("*.safetensors"):
        theirs |= load_file(path)
    model = load_tensors(skeleton / "init/weights.safetensors")
    for name in ("layers.1.self_attn.q_proj.bias", "layers.0.mlp.up_proj.weight"):
        torch.testing.assert_close(model[f"backbone.{name}"], theirs[f"model.{name}"].float())
    words = model["conditions.words.weight"]
    assert not words[0].any()
    torch.testing.assert_close(words[1:], theirs["model.embed_tokens.weight"].float())
    coder = load_tensors(skeleton / "autoencoder/weights.safetensors")
    theirs = load_file(dc_ae / "diffusion_pytorch_model.safetensors")
    torch.testing.assert_close(coder["encoder.conv_in.weight"], theirs["encoder.conv_in.weight"])
    assert coder["latent_std"].tolist() == [2.0] * 4  # one over the scaling factor


def test_words_are_the_tokens_of_their_tokenizer(skeleton):
    conditions = load_preset(str(skeleton / "mine.yaml")).world.conditions
    ids = hash_text("someone walks left quickly", conditions)
    assert ids.tolist()[:5] == [2, 3, 5, 1, 0]
    assert len(ids) == conditions.text_length


def test_a_whole_folder_of_transformers_is_read(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.Qwen2Config(vocab_size=7, **{**QWEN2, "tie_word_embeddings": True})
    transformers.Qwen2ForCausalLM(config).save_pretrained(tmp_path / "theirs")
    overrides = ["world.token_block=2"]
    made = import_qwen2(tmp_path / "theirs", tmp_path / "to", preset="tiny", overrides=overrides)
    assert made.world.backbone.rope_theta == 1e6
    # Without a tokenizer, words are hashed as before.
    assert made.world.conditions == load_preset("tiny").world.conditions


def test_a_skeleton_of_recordings_learns_from_them_alone(qwen2, tmp_path, capsys):
    assert import_to(tmp_path / "data", make_film(tmp_path, 60)) == 0
    preset = str(tmp_path / "data" / "data.yaml")
    words = ["--to", str(tmp_path / "mine"), "--preset", preset, "world.token_block=2"]
    capsys.readouterr()
    assert main(["import", "qwen2", str(qwen2), *words]) == 0
    assert "midas-world collect" not in capsys.readouterr().out
    made, given = load_preset(str(tmp_path / "mine" / "mine.yaml")), load_preset(preset)
    assert made.data == given.data
    assert made.world.conditions.pose_size == given.world.conditions.pose_size == 3


def test_the_paper_preset_takes_sizes_of_files(dc_ae, tmp_path):
    words = ["world.height=32", "world.width=48", "world.head.widths=[8]", "world.head.depths=[1]"]
    words += ["data.env_kwargs={}", "world.backbone.num_layers=1"]
    config = import_dc_ae(dc_ae, tmp_path / "to", preset="paper", overrides=words)
    assert config.world.autoencoder.widths == (4, 8, 8, 16)
    assert config.world.tokens_per_frame == 4 * 6
    assert config.train_dynamics.crop_size == 32
    assert not (tmp_path / "to/init").exists()


def test_what_does_not_fit_is_told(dc_ae, tmp_path):
    with pytest.raises(ValueError, match=r"does not fit the preset: .*token_block"):
        import_dc_ae(dc_ae, tmp_path / "to", preset="tiny", overrides=["world.token_block=7"])
    with pytest.raises(CheckpointError, match="is of no qwen2"):
        import_qwen2(dc_ae, tmp_path / "to", preset="tiny", overrides=[])
    assert not (tmp_path / "to").exists()


def damage_config(folder: Path, **changes) -> None:
    path = folder / "config.json"
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in values.items() if value != ...}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: damage_config(folder, model_type="llama"), "is of no qwen2: .*'llama'"),
        (lambda folder: damage_config(folder, hidden_size=...), "says no 'hidden_size'"),
        (lambda folder: damage_config(folder, num_hidden_layers=3), r"missing key layers\.2"),
        (lambda folder: (folder / "config.json").write_text("{"), "missing or corrupt"),
        (lambda folder: (folder / "config.json").write_text("[]"), "is of no qwen2"),
        (
            lambda folder: (folder / "model-00002-of-00002.safetensors").unlink(),
            "lacks model-00002-of-00002.safetensors",
        ),
        (
            lambda folder: (folder / "model-00002-of-00002.safetensors").write_bytes(b"x" * 99),
            "truncated or corrupt",
        ),
        (
            lambda folder: [path.unlink() for path in folder.glob("*.safetensors")],
            "pickled weights are not read",
        ),
    ],
)
def test_a_folder_that_holds_something_else_is_refused_and_nothing_is_written(
    tmp_path, damage, message
):
    folder = write_qwen2(tmp_path / "theirs")
    damage(folder)
    with pytest.raises(CheckpointError, match=message):
        import_qwen2(folder, tmp_path / "to", preset="tiny", overrides=[])
    assert not (tmp_path / "to").exists()
    assert main(["import", "dc-ae", str(folder), "--to", str(tmp_path / "to")]) == 2


def test_a_tokenizer_that_is_missing_or_another_one_is_refused(skeleton, tmp_path):
    folder = shutil.copytree(skeleton, tmp_path / "mine")
    preset, file = str(folder / "mine.yaml"), folder / "tokenizer.json"
    name = load_preset(preset).world.conditions.tokenizer
    file.write_text(file.read_text() + " ")
    with pytest.raises(ValueError, match="is not the tokenizer that this world learned with"):
        load_preset(preset)
    file.unlink()
    tokenizing._known.pop(name)
    tokenizing._tokenizer.cache_clear()
    with pytest.raises(ValueError, match=r"tokenizer.json is missing"):
        load_preset(preset)
    with pytest.raises(ValueError, match="not beside its preset, nor in its folder"):
        hash_text("red", ConditionsConfig(tokenizer=name))
    load_preset(str(skeleton / "mine.yaml"))


def test_a_file_that_is_no_tokenizer_is_told(tmp_path):
    pytest.importorskip("tokenizers")
    (tmp_path / "tokenizer.json").write_text("{}")
    name = tokenizing.hash_of(tmp_path / "tokenizer.json")
    tokenizing.know_tokenizer(name, tmp_path)
    with pytest.raises(ValueError, match="is no tokenizer"):
        tokenizing.token_ids("red", name)


def test_more_tokens_than_embeddings_are_refused(qwen2, tmp_path):
    name = tokenizing.hash_of(qwen2 / "tokenizer.json")
    tokenizing.know_tokenizer(name, qwen2)
    with pytest.raises(ValueError, match="more than the tokenizer's tokens, got 3"):
        hash_text("red jacket", ConditionsConfig(tokenizer=name, text_buckets=3))
    np.testing.assert_array_equal(
        hash_text("red", ConditionsConfig(tokenizer=name, text_buckets=8, text_length=2)), [6, 0]
    )
