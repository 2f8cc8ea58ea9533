"""Every derived table, declared once: columns, types, descriptions."""
