"""From image files to the numbers a network sees: decoding, preprocessing, augmentation."""
