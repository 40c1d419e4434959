"""Operations on the whole of a service: back it up, restore it, check it."""
