"""These modules make the numbers that a network sees of image files: decoding, preprocessing, augmentation."""
