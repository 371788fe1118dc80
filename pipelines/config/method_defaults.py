"""Where a method's published settings are not the defaults of ``config/schema.py``, which are those of TCAM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_ONE_FRAME: Final[Mapping[str, Any]] = {
    "seeds": {"foreground_fraction": 1.0, "weighted": False, "erosion": 11},
    "temporal": {"neighbours": 0},
}
"""Seeds of F-CAM (arXiv 2109.07069): foreground drawn alike from all of an eroded region, one frame at a time."""

METHOD_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "colocam": {
        "localizer": {
            "epochs": 10,
            "lr_step": 5,
            "seeds": {
                "foreground": 1000,
                "background": 1000,
                "foreground_fraction": 0.7,
                "background_fraction": 0.1,
                "region": "largest",
                "box_mask": True,
            },
            "temporal": {"neighbours": 0},
            "sequence": {"frames": 4, "style": "adjacent", "side": "before"},
            "joint": {"weight": 4.0, "adaptive": True},
        }
    },
    "fcam": {"localizer": {**_ONE_FRAME, "size": {"weight": 0.1}}},
    "negev": {
        "localizer": {
            **_ONE_FRAME,
            "crf": {"weight": 0.0},
            "size": {"weight": 0.0},
            "negatives": {"weight": 1.0},
        }
    },
    "pixelcam": {
        "model": {"decoder": "pixels"},
        "localizer": {
            "lr": 1e-3,
            "seeds": {
                "foreground": 5,
                "background": 5,
                "foreground_fraction": 1.0,
                "background_fraction": 0.2,
                "kernel": 1,
                "region": "frame",
            },
            "temporal": {"neighbours": 0},
            "crf": {"weight": 0.0},
            "size": {"weight": 0.0},
        },
    },
    "maxmin": {
        "localizer": {
            "seeds": {"weight": 0.0},
            "temporal": {"neighbours": 0},
            "crf": {"weight": 0.0},
            "uncertainty": {"foreground": 1.0, "background": 1.0},
        }
    },
}
"""By method; what a file or an override says wins over these. The weights of ``maxmin`` are ours, not the paper's."""
