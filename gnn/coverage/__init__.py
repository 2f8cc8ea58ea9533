"""Count what was measured, find gaps, and raise the signals that offline and online share."""
