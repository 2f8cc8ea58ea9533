"""Encode raw features as the tensors' channels, with the help of registries."""
