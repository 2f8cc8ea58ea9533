"""Declare what crosses a boundary: wire format, contract tables, features, published formats.

Nothing here imports another package of this project, Dagster or torch.
"""
