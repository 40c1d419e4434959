"""A task of a few lines, which tests add to `TASKS`: how bright an image is, from 0 (black) to 1 (white)."""
