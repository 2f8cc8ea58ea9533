"""Write files that appear whole or not at all, append to journals, hold locks, digest files, parse strict JSON."""
