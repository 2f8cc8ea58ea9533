"""Export files: the folders that are read, their digests, what has arrived and what is pending."""
