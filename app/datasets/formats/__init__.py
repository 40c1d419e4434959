"""This package reads the formats of uploads: archives, folders of classes, files of labels, annotations."""
