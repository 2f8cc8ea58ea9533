"""Find export files: the folders that are read, digests, what has arrived and what is pending."""
