"""The whole segmenter: backbone, the head that its value names, and in training an auxiliary FCN head.

Axes: N images, H W pixel rows and columns, K classes.
"""

from typing import Any

from torch import Tensor, nn

from convnext.config import ModelConfig, SegmentationHeadConfig
from convnext.errors import ConvNeXtError
from convnext.tasks.backbone import Backbone
from convnext.tasks.segmentation.parts import AuxiliaryHead, Logits, resized
from convnext.tasks.segmentation.upernet import UperNetHead

# kind: its head, made of (channels of each stage, its value), which takes the map of each stage, large to small, and
# returns (N, K, H0, W0); its `stages` are those that it reads, -1 the last; None: all
HEADS: dict[str, Any] = {"upernet": UperNetHead}


class Segmenter(nn.Module):
    """A segmentation head on any backbone with stages.

    Raises ConvNeXtError for an auxiliary head on a stage that there is not.
    """

    def __init__(self, backbone: ModelConfig, config: SegmentationHeadConfig):
        super().__init__()
        self.config = config
        head = HEADS[config.kind]
        extra = [config.aux_stage] if config.aux_weight else []
        self.backbone = Backbone(backbone, stages=None if head.stages is None else [*head.stages, *extra])
        widths = self.backbone.widths
        if config.aux_weight and config.aux_stage >= len(widths):
            raise ConvNeXtError(
                f"head.aux_stage = {config.aux_stage} is none of the backbone's {len(widths)} stages, 0 to "
                f"{len(widths) - 1}. Take one of them, or set head.aux_weight to 0."
            )
        self.decoder = head(widths, config)
        aux = AuxiliaryHead(widths[config.aux_stage], config) if config.aux_weight else None
        self.auxiliary: AuxiliaryHead | None = aux

    def forward(self, x: Tensor) -> Tensor | Logits:  # (N, in_channels, H, W) -> (N, K, H, W)
        """In evaluation the logits of every pixel; in training what both heads say, each at its own resolution.

        One `forward` for both, because wrappers (torch.compile, DDP) see nothing else.
        """
        maps = self.backbone(x)
        main: Tensor = self.decoder(maps)
        if not self.training:
            return resized(main, x.shape[-2:])
        return Logits(main, self.auxiliary(maps[self.config.aux_stage]) if self.auxiliary else None)
