"""Join contract rows of many systems as of each packet's time."""
