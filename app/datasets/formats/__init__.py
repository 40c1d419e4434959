"""Formats of uploads: archives, folders of classes, files of labels, annotations."""
