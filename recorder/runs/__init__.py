"""Record hosts, grafts and trials, from the plan to the files."""
