"""What an operator does with the whole of a service: back it up, restore it, check it, collect garbage."""
