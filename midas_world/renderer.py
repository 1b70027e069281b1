"""The neural renderer: what the conditions alone say of a frame, cell by cell.

Of a teacher whose pose tells where the camera stands, and whose text tells what the place looks
like, most of a frame follows from its conditions. This network learns that part on single frames,
which is several times cheaper than on sequences; the dynamics then start from what it foretells and
learn the rest. So a rollout has something to hold on to that does not drift.

Shapes: B batch, F frames, N cells (latent tokens), C latent channels, R width of the renderer.
"""

import torch
from torch import Tensor, nn

from midas_world.conditions_config import ConditionsConfig
from midas_world.layers import RMSNorm, SwiGLU
from midas_world.pose_guider import PoseGuider


class NeuralRenderer(nn.Module):
    """Residual SwiGLU layers over each cell alone.

    Every cell has its own linear map of the pose, so that the camera's place becomes the cell's own
    place in the scenery in the first layer.

    Args:
        config: Of the conditions.
        num_words: Width of the mean word embedding.
        num_local: Size of what is told to each cell.
        grid: (h, w) of the latent grid, with N cells.
        latent_channels: C.
    """

    def __init__(
        self,
        config: ConditionsConfig,
        *,
        num_words: int,
        num_local: int,
        grid: tuple[int, int],
        latent_channels: int,
    ) -> None:
        super().__init__()
        self.config = config
        width, num_cells = config.renderer_width, grid[0] * grid[1]
        num_pose = config.pose_size + 2 * config.phase_octaves
        self.cells = nn.Parameter(torch.randn(num_cells, num_pose, width) / num_pose**0.5)
        self.places = nn.Parameter(0.5 * torch.randn(num_cells, width))
        self.input = nn.Linear(num_words + max(1, config.audio_size) + num_local, width)
        self.norms = nn.ModuleList([RMSNorm(width) for _ in range(config.renderer_layers)])
        self.mlps = nn.ModuleList([SwiGLU(width, 3 * width) for _ in range(config.renderer_layers)])
        self.norm = RMSNorm(width)
        self.output = nn.Linear(width, latent_channels)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)
        self.guider = None
        if config.limbs.limbs:
            self.guider = PoseGuider(
                config.limbs, feature_width=width, grid=grid, latent_channels=latent_channels
            )

    def forward(
        self, pose: Tensor, words: Tensor, audio: Tensor, local: Tensor, keypoints: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return features (B, F, N, R) and the frame's foretold latents (B, F, N, C).

        Args:
            pose: (B, F, P), 0 where absent.
            words: (B, F, num_words), 0 where absent.
            audio: (B, F, A), 0 where absent.
            local: (B, F, N, num_local) of each cell.
            keypoints: (B, F, N, K, 2) from each cell's centre, in cells; far away where absent.
        """
        shared = torch.cat((words, audio.to(words.dtype)), dim=-1)[:, :, None]
        inputs = torch.cat((shared.expand(-1, -1, local.shape[2], -1), local), dim=-1)
        x = self.input(inputs) + self.places
        # A product for each cell: as one einsum, torch would lay the weights out anew each time.
        own = torch.matmul(self._with_octaves(pose).flatten(0, 1), self.cells)  # (N, B F, R)
        x = x + own.transpose(0, 1).unflatten(0, pose.shape[:2])
        for norm, layer in zip(self.norms, self.mlps, strict=True):
            assert isinstance(layer, SwiGLU)
            # Play may have these in bfloat16; phases and sums stay in float32.
            x = x + layer(norm(x).to(layer.down_proj.weight.dtype)).to(x.dtype)
        features = self.norm(x)
        foretold = self.output(features)
        if self.guider is not None:
            foretold = foretold + self.guider(keypoints, features).to(foretold.dtype)
        return features, foretold

    def _with_octaves(self, pose: Tensor) -> Tensor:
        """Return the pose and the sines and cosines of doubled multiples of its last phase."""
        if not self.config.phase_octaves:
            return pose
        parts, (sine, cosine) = [pose], pose[..., -2:].unbind(dim=-1)
        for _ in range(self.config.phase_octaves):
            sine, cosine = 2.0 * sine * cosine, cosine.square() - sine.square()
            parts.append(torch.stack((sine, cosine), dim=-1))
        return torch.cat(parts, dim=-1)
