"""Write files that appear whole or not at all, append to journals, digest files, parse strict JSON."""
