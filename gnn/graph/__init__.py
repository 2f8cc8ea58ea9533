"""Build heterogeneous graphs: batches, a compact dataset on disk, and the builders for one packet or a million."""
