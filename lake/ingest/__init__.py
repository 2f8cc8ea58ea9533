"""Ingest export files into contract tables: stage, audit, commit."""
