"""Classification: each image belongs to one class."""
