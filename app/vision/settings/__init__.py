"""What a training run is told: its configuration, with presets, bounds and meanings."""
