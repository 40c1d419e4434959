"""What names in requests are made of."""

PLAIN = r"^[^\x00-\x1f\x7f]+$"  # no control characters, and no lone surrogates, which JSON can spell
