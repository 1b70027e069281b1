"""Our modules against transformers and diffusers, on tiny random weights and without network."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from midas_world.checkpoint import load_weights
from midas_world.config import load_preset
from midas_world.model.autoencoder import Autoencoder
from midas_world.model.backbone import Backbone
from midas_world.model.foreign_weights import (
    autoencoder_dc_config,
    autoencoder_dc_weights,
    load_autoencoder_dc,
    qwen2_config,
    qwen2_weights,
    read_qwen2,
)
from midas_world.types import CheckpointError

pytestmark = pytest.mark.parity


def random_weights(module: torch.nn.Module, *, seed: int = 0) -> None:
    """Fill every weight and buffer with seeded noise; variances stay positive."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if not tensor.is_floating_point():
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            scale = 0.5 / max(1, tensor[0].numel()) ** 0.5 if tensor.ndim > 1 else 0.2
            is_scale = tensor.ndim == 1 and "bias" not in name and "mean" not in name
            offset = 1.0 if is_scale else 0.0
            tensor.copy_(
                (offset + scale * noise).abs() if "var" in name else offset + scale * noise
            )


@pytest.fixture(scope="module")
def qwen2():
    transformers = pytest.importorskip("transformers")
    config = transformers.Qwen2Config(
        vocab_size=32,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        rope_theta=1e6,
    )
    model = transformers.Qwen2Model(config).eval()
    random_weights(model)
    return model


def test_backbone_with_one_position_per_frame_equals_qwen2(qwen2):
    backbone = Backbone(qwen2_config(qwen2.config.to_dict(), context_frames=12)).eval()
    load_weights(backbone, qwen2_weights(qwen2.state_dict()), source="qwen2")
    assert backbone.config.head_dim == 6
    assert backbone.config.rope_theta == 1e6
    tokens = torch.randn(2, 12, 24, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours = backbone(tokens, positions_per_frame=1)
        theirs = qwen2(inputs_embeds=tokens, use_cache=False).last_hidden_state
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_qwen2_folders_load_by_name_and_strictly(qwen2, tmp_path: Path):
    qwen2.save_pretrained(tmp_path)
    read = read_qwen2(tmp_path, context_frames=4)
    backbone = Backbone(read.config)
    load_weights(backbone, read.backbone, source="qwen2")
    expected = qwen2.state_dict()
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    deeper = Backbone(replace(read.config, num_layers=4))
    with pytest.raises(CheckpointError, match=r"missing key layers\.3"):
        load_weights(deeper, read.backbone, source="qwen2")


PLAIN = {
    "downsample_block_type": "conv",
    "upsample_block_type": "interpolate",
    "decoder_norm_types": "rms_norm",
    "decoder_act_fns": "silu",
}
STAGES = {
    # The structure of f32c32 as Sana uses it: every stage filled, several scales of attention.
    "f32c32-sana": {
        "latent_channels": 4,
        "block_types": ("ResBlock", "EfficientViTBlock", "EfficientViTBlock"),
        "block_out_channels": (8, 16, 16),
        "encoder_layers_per_block": (1, 2, 1),
        "decoder_layers_per_block": (2, 1, 1),
        "multiscales": ((), (5,), (5,)),
        **PLAIN,
        "scaling_factor": 0.4,
    },
    # The structure of f64c128: an empty first stage, batch norm and ReLU in the fine decoder.
    "f64c128": {
        "latent_channels": 8,
        "block_types": ("ResBlock", "ResBlock", "ResBlock", "EfficientViTBlock"),
        "block_out_channels": (4, 8, 16, 32),
        "encoder_layers_per_block": (0, 2, 1, 2),
        "decoder_layers_per_block": (0, 1, 2, 2),
        "multiscales": ((), (), (), ()),
        "downsample_block_type": "pixel_unshuffle",
        "upsample_block_type": "pixel_shuffle",
        "decoder_norm_types": ("batch_norm", "batch_norm", "batch_norm", "rms_norm"),
        "decoder_act_fns": ("relu", "relu", "relu", "silu"),
    },
    # What DC-AE 1.5 changes: no latent shortcuts, residual blocks only.
    "no-shortcuts": {
        "latent_channels": 6,
        "block_types": "ResBlock",
        "block_out_channels": (8, 16),
        "encoder_layers_per_block": (0, 1),
        "decoder_layers_per_block": (1, 1),
        "multiscales": ((), ()),
        **PLAIN,
        "encoder_out_shortcut": False,
        "decoder_in_shortcut": False,
        "decoder_conv_act_fn": "silu",
    },
}


@pytest.fixture(scope="module", params=STAGES)
def autoencoder_dc(request: pytest.FixtureRequest):
    diffusers = pytest.importorskip("diffusers")
    values = dict(STAGES[request.param])
    shared = {
        "block_out_channels": values.pop("block_out_channels"),
        "block_types": values.pop("block_types"),
        "qkv_multiscales": values.pop("multiscales"),
    }
    for side in ("encoder", "decoder"):
        values |= {f"{side}_{name}": value for name, value in shared.items()}
    model = diffusers.AutoencoderDC(attention_head_dim=8, **values).eval()
    random_weights(model)
    return model


# 16 px: the grid has fewer places than a head has channels, where diffusers takes its quadratic
# branch; 64 px: its linear one.
@pytest.mark.parametrize("size", [(16, 16), (64, 48)])
def test_autoencoder_equals_autoencoder_dc(autoencoder_dc, size):
    config = autoencoder_dc_config(autoencoder_dc.config)
    ours = Autoencoder(config).eval()
    weights = autoencoder_dc_weights(autoencoder_dc.state_dict(), config)
    weights |= {name: getattr(ours, name) for name in ("latent_mean", "latent_std")}
    load_weights(ours, weights, source="diffusers")
    assert config.downsampling == autoencoder_dc.spatial_compression_ratio
    frames = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(3)) * 2 - 1
    with torch.no_grad():
        latents = autoencoder_dc.encode(frames).latent
        torch.testing.assert_close(ours.encode_raw(frames), latents, rtol=1e-4, atol=1e-4)
        decoded = autoencoder_dc.decode(latents).sample
        torch.testing.assert_close(ours.decode_raw(latents), decoded, rtol=1e-4, atol=1e-4)
    # The comparison would prove nothing on pictures without contrast.
    assert latents.std() > 0.01
    assert decoded.std() > 0.01


def test_autoencoder_dc_folders_load_with_their_scaling(autoencoder_dc, tmp_path: Path):
    autoencoder_dc.save_pretrained(tmp_path)
    ours = load_autoencoder_dc(tmp_path)
    frames = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(4)) * 2 - 1
    with torch.no_grad():
        expected = autoencoder_dc.encode(frames).latent * autoencoder_dc.config.scaling_factor
        torch.testing.assert_close(ours.encode(frames), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            ours.decode(ours.encode(frames)), autoencoder_dc(frames).sample, rtol=1e-4, atol=1e-4
        )


# What the published config.json files say.
QWEN25_3B = {
    "hidden_size": 2048,
    "intermediate_size": 11008,
    "num_hidden_layers": 36,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
}
F64C128 = {
    "latent_channels": 128,
    "attention_head_dim": 32,
    "encoder_block_types": ["ResBlock"] * 3 + ["EfficientViTBlock"] * 4,
    "decoder_block_types": ["ResBlock"] * 3 + ["EfficientViTBlock"] * 4,
    "encoder_block_out_channels": [128, 256, 512, 512, 1024, 1024, 2048],
    "decoder_block_out_channels": [128, 256, 512, 512, 1024, 1024, 2048],
    "encoder_layers_per_block": [0, 4, 8, 2, 2, 2, 2],
    "decoder_layers_per_block": [0, 5, 10, 2, 2, 2, 2],
    "encoder_qkv_multiscales": [[]] * 7,
    "decoder_qkv_multiscales": [[]] * 7,
    "upsample_block_type": "pixel_shuffle",
    "downsample_block_type": "pixel_unshuffle",
    "decoder_norm_types": ["batch_norm"] * 3 + ["rms_norm"] * 4,
    "decoder_act_fns": ["relu"] * 3 + ["silu"] * 4,
}


def shapes(tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def test_the_paper_preset_takes_the_weights_of_qwen25_3b():
    transformers = pytest.importorskip("transformers")
    config = load_preset("paper").world.backbone
    assert qwen2_config(QWEN25_3B, context_frames=config.context_frames) == config
    with torch.device("meta"):
        theirs = transformers.Qwen2Model(transformers.Qwen2Config(vocab_size=8, **QWEN25_3B))
        ours = Backbone(config)
    assert shapes(qwen2_weights(theirs.state_dict())) == shapes(ours.state_dict())


def test_the_paper_preset_takes_the_weights_of_dc_ae_f64c128():
    diffusers = pytest.importorskip("diffusers")
    config = load_preset("paper").world.autoencoder
    assert autoencoder_dc_config(F64C128) == config
    with torch.device("meta"):
        theirs = diffusers.AutoencoderDC(**F64C128)
        ours = Autoencoder(config)
    mapped = shapes(autoencoder_dc_weights(theirs.state_dict(), config))
    statistics = {"latent_mean": torch.Size([128]), "latent_std": torch.Size([128])}
    assert mapped | statistics == shapes(ours.state_dict())
