"""From export files to contract tables: staged, audited, committed."""
