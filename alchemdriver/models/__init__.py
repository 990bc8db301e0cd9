"""Embedded models, each a JSON and its tensors; see recipes/demo_model."""
