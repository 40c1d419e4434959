"""Networks: a pretrained trunk, pooled features, and a head."""
