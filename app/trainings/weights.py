"""The places for backbone weights that the settings describe."""

from app.core.settings import Settings
from app.vision.backbones.weights import WeightStore


def configured_weights(settings: Settings) -> WeightStore:
    return WeightStore(settings.weights_dir, settings.weights_cache, settings.weights_mirror, settings.weights_download)
