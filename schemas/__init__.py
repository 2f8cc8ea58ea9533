"""What crosses a boundary, declared once: wire format, contract tables, features, published formats.

Nothing here imports another package of this project, Dagster or torch.
"""
