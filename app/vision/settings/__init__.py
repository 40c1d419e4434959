"""The configuration of a training run: its hyper-parameters, each written once, with presets and checks."""
