"""EfficientNet-Lite2, the frozen image encoder of the compact model.

The network is the one of the EfficientNet-Lite release (MobileNet-v2 inverted residuals, ReLU6, no squeeze and
excitation; https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite). Batch normalisation is
folded into the convolutions when a checkpoint is made, so the forward pass is convolutions and ReLU6 alone.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from indexer.compact_checkpoint import IMAGE_SIZE

GRID = IMAGE_SIZE // 32
"""Side of the feature map: the encoder halves its input five times."""
CHANNELS = 1280
"""Width of what the last layer makes of a place, which the classifier reads."""
DETAIL_CHANNELS = 480
"""What an earlier layer made of the four quarters of a place: 120 numbers each."""
COLOUR_CHANNELS = 48
"""The mean colours of the sixteenths of a place."""
FEATURE_SIZE = CHANNELS + DETAIL_CHANNELS + COLOUR_CHANNELS
"""Width of one feature: the classifier's layer forgets colours and small things, so they stand beside it."""
CLASSES = 1000
"""ImageNet classes the classifier knows."""

# (repeats, kernel, stride, expansion, output channels): the B0 table scaled by Lite2's width 1.1 and depth 1.2.
_STAGES = (
    (1, 3, 1, 1, 16),
    (3, 3, 2, 6, 24),
    (3, 5, 2, 6, 48),
    (4, 3, 2, 6, 88),
    (4, 5, 1, 6, 120),
    (5, 5, 2, 6, 208),
    (1, 3, 1, 6, 352),
)
_STEM_CHANNELS = 32
# The first five stages end with a map that is twice as fine as the final one.
_DETAIL_BLOCKS = sum(repeats for repeats, *_ in _STAGES[:5])


class _SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding, which puts the odd pixel at the bottom and the right."""

    def forward(self, x: Tensor) -> Tensor:
        pads: list[int] = []
        for size, kernel, stride in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        if pads[0] == pads[1] and pads[2] == pads[3]:
            padding = (pads[2], pads[0])
            return F.conv2d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)
        return F.conv2d(F.pad(x, pads), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class _InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expand = _SameConv2d(inputs, inner, 1) if expansion > 1 else None
        self.depthwise = _SameConv2d(inner, inner, kernel, stride, groups=inner)
        self.project = _SameConv2d(inner, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        inner = x if self.expand is None else F.relu6(self.expand(x))
        out: Tensor = self.project(F.relu6(self.depthwise(inner)))
        return out + x if self.residual else out


class ImageEncoder(nn.Module):
    """EfficientNet-Lite2 up to its last feature map, and the classifier on top of it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _SameConv2d(3, _STEM_CHANNELS, 3, 2)
        blocks: list[nn.Module] = []
        inputs = _STEM_CHANNELS
        for repeats, kernel, stride, expansion, outputs in _STAGES:
            for repeat in range(repeats):
                blocks.append(_InvertedResidual(inputs, outputs, kernel, 1 if repeat else stride, expansion))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = _SameConv2d(inputs, CHANNELS, 1)
        self.classifier = nn.Linear(CHANNELS, CLASSES)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) float pixels, normalised as ``(value - 127) / 128`` -> (B, N, 1808) features, row by row."""
        # In this layout depthwise convolutions run half again as fast on a CPU.
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        details = self.blocks[:_DETAIL_BLOCKS](F.relu6(self.stem(pixels)))
        seen: Tensor = F.relu6(self.head(self.blocks[_DETAIL_BLOCKS:](details)))
        colours = F.adaptive_avg_pool2d(pixels, 4 * seen.shape[-1])
        features = [seen, F.pixel_unshuffle(details, 2), F.pixel_unshuffle(colours, 4)]
        return torch.cat([part.flatten(2).transpose(1, 2) for part in features], dim=-1)

    def classify(self, features: Tensor) -> Tensor:
        """(B, N, 1808) features -> (B, 1000) ImageNet class logits."""
        logits: Tensor = self.classifier(features[..., :CHANNELS].mean(dim=1))
        return logits


def fold_batch_norm(
    weight: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor, epsilon: float = 1e-3
) -> tuple[Tensor, Tensor]:
    """Fold a batch normalisation into the bias-free convolution before it; returns its new weight and bias."""
    scale = gamma / torch.sqrt(variance + epsilon)
    return weight * scale[:, None, None, None], beta - mean * scale
