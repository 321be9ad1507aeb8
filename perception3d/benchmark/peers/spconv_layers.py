"""Our sparse convolutions as layers of spconv, with our weights."""

import warnings
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from perception3d.layers.sparse_conv import InverseConv3d, SparseConv3d, SubMConv3d
from perception3d.structures import SparseVoxels

Conv = SubMConv3d | SparseConv3d | InverseConv3d


@dataclass(frozen=True)
class Spconv:
    """spconv and what it calls its algorithm for a device."""

    module: ModuleType
    algorithm: Any

    def tensor(self, voxels: SparseVoxels) -> Any:  # noqa: ANN401  # spconv has no types
        """Return voxels as spconv's tensor, which remembers the pairs of its coordinates."""
        shape = list(voxels.spatial_shape)
        return self.module.SparseConvTensor(
            voxels.features, voxels.coords, shape, voxels.batch_size
        )

    def layer(self, conv: Conv, key: str | None = None) -> "SpconvLayer":
        """Return a layer with the weights of ours.

        Args:
            conv: ours.
            key: layers of one key share pairs; an inverse convolution needs that of its partner.
        """
        options: dict[str, Any] = {"bias": False, "indice_key": key, "algo": self.algorithm}
        widths, kernel = (conv.in_channels, conv.out_channels), conv.kernel
        if isinstance(conv, SubMConv3d):
            layer = self.module.SubMConv3d(*widths, kernel.size, **options)
        elif isinstance(conv, InverseConv3d):
            layer = self.module.SparseInverseConv3d(*widths, kernel.size, **options)
        else:
            geometry = (kernel.size, kernel.stride, kernel.padding)
            layer = self.module.SparseConv3d(*widths, *geometry, **options)
        layer.weight = conv.weight
        return SpconvLayer(layer, conv.bias)


@dataclass(frozen=True)
class SpconvLayer:
    """A convolution; the bias is added outside, since spconv refuses it in evaluation."""

    convolution: Any
    bias: Tensor | None

    def __call__(self, tensor: Any) -> Any:  # noqa: ANN401
        """Map spconv's tensors."""
        out = self.convolution(tensor)
        return out if self.bias is None else out.replace_feature(out.features + self.bias)


def find_spconv(device: torch.device) -> Spconv | None:
    """Return spconv for a device, None where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # about torch.cuda.amp
            import spconv.pytorch as spconv
            from spconv.core import ConvAlgo
    except ImportError:
        return None
    cuda = device.type == "cuda"
    return Spconv(spconv, ConvAlgo.MaskImplicitGemm if cuda else ConvAlgo.Native)
