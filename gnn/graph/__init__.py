"""The heterogeneous graph: its batches, its compact dataset and the builders for one packet or a million."""
