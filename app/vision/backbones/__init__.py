"""These modules list pretrained backbones, say what they are made of, and find their weights."""
