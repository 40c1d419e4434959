"""Fine-tuning and running image classifiers: pure torch, knows no HTTP and no database.

Importing this package does not import torch: `backbones`, `config`, `errors`, `preprocessing` and `weights` can be
used by processes that never train. `training`, `artefact` and `classifier` load it.
"""
