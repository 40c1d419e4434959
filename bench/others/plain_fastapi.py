"""Serve by a plain FastAPI handler: `python plain_fastapi.py PORT FOLDER`."""

import sys

import torch
import uvicorn
from fastapi import FastAPI, UploadFile
from network import load
from PIL import Image

app = FastAPI()
network, transform, classes = load(sys.argv[2])


@app.post("/predict")
def predict(file: UploadFile) -> dict[str, str]:
    image = Image.open(file.file).convert("RGB")
    with torch.inference_mode():
        scores = network(transform(image).unsqueeze(0))
    return {"label": classes[int(scores.argmax())]}


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning")
