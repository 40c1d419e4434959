"""This package fine-tunes and runs image models: pure torch, it knows no HTTP and no database.

Its rooms import downwards only: errors and scores; backbones; settings; images and runtime; networks; data; tasks;
engines; artefacts; training; command. Importing the package does not import torch, and processes that never compute can
use `errors`, `backbones`, `settings`, `images`, the names of `engines` and a task's `answers` and `tables`.
"""
