"""Serve by LitServe with batching, one worker on the CPU: `python lit_serve.py PORT FOLDER`."""

import sys
from typing import Any

import litserve
import torch
from fastapi import UploadFile
from network import load
from PIL import Image


class Classifier(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.network, self.transform, self.classes = load(sys.argv[2])

    def decode_request(self, request: UploadFile) -> torch.Tensor:
        tensor: torch.Tensor = self.transform(Image.open(request.file).convert("RGB"))
        return tensor

    def batch(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack(inputs)

    def predict(self, x: torch.Tensor) -> Any:
        with torch.inference_mode():
            return self.network(x).argmax(dim=1)

    def unbatch(self, output: torch.Tensor) -> list[int]:
        return [int(one) for one in output]

    def encode_response(self, output: int) -> dict[str, str]:
        return {"label": self.classes[output]}


if __name__ == "__main__":
    api = Classifier(max_batch_size=16, batch_timeout=0.01)
    litserve.LitServer(api, accelerator="cpu").run(
        port=int(sys.argv[1]), generate_client_file=False, log_level="warning"
    )
