"""Define which characters a name in a request may have."""

PLAIN = r"^[^\x00-\x1f\x7f]+$"  # no control characters, and no lone surrogates, which JSON can spell
