"""The programs that measure make what they say they measure."""
