"""Serve by BentoML with adaptive batching: `bentoml serve bento:Classifier --port PORT`, the folder in MODEL_FOLDER."""

import os

import bentoml
import torch
from network import load
from PIL.Image import Image


@bentoml.service(workers=1, traffic={"timeout": 120})
class Classifier:
    def __init__(self) -> None:
        self.network, self.transform, self.classes = load(os.environ["MODEL_FOLDER"])

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=60_000)
    def classify(self, images: list[Image]) -> list[str]:
        batch = torch.stack([self.transform(image.convert("RGB")) for image in images])
        with torch.inference_mode():
            return [self.classes[index] for index in self.network(batch).argmax(dim=1).tolist()]
