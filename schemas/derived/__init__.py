"""Declare every derived table: columns, types, descriptions."""
