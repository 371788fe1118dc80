"""CAM: the class head's own map of a class, and prior CAM: that of the ImageNet classes that go with a tag."""

from __future__ import annotations

from torch import Tensor

from tcam.model.cam.inputs import CamInputs, weigh


def cam(inputs: CamInputs) -> Tensor:
    """Return the head's own map of each image's class (CAM, Zhou et al., arXiv:1512.04150), any sign, ``[N, h, w]``.

    For a linear head over average pooling it is ``M = sum_k w_k A_k``, without the bias. The poolings in
    ``tcam.model.heads.pooling`` document their maps.

    Raises:
        ValueError: the layer is not the head's input.
    """
    if inputs.head is None:
        raise ValueError("cam needs the class head itself: its layer must be the head's input")
    return inputs.head.class_maps(inputs.features, inputs.labels)


def prior_cam(inputs: CamInputs) -> Tensor:
    """Return prior CAMs: the CAM with weights ``sum_k w_k W_k`` of the pretrained ImageNet classifier ``W``.

    ``w_k`` is proportional to ``p(k | frame) p(k | tag) / p(k)``, see ``tcam.model.tag_prior``. The formula is tcam's
    own. The idea: the 1000 classes know far more objects and backgrounds than a few tags can teach, and the tagged
    videos say which of them go with a tag. The maps depend on nothing that the classifier stage learns.

    Returns:
        ``[N, h, w]``, 0 or more.

    Raises:
        ValueError: the inputs have no ImageNet classifier.
    """
    if inputs.prior is None:
        raise ValueError("prior needs the ImageNet classifier of the pretrained weights: the inputs have none")
    return weigh(inputs.features, inputs.prior.channel_weights(inputs.features, inputs.labels)).relu()
