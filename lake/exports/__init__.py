"""Find export files: scan folders, remember digests, record arrivals, and list what is pending."""
