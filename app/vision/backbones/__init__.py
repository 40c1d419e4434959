"""The catalogue of pretrained backbones, what they are made of, and where their weights are found."""
