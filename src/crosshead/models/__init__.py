"""Entries in timm's registry, and the way from a recipe to a model."""

from . import cait as cait
from . import ivit as ivit
from . import saved as saved
from . import swin as swin
from . import vit as vit
from .authors import load_authors_checkpoint
from .build import build_backbone, build_model
from .weights import classifier_names, load_weights, pretrained_config, weights_file

__all__ = [
    "build_backbone",
    "build_model",
    "classifier_names",
    "load_authors_checkpoint",
    "load_weights",
    "pretrained_config",
    "weights_file",
]
