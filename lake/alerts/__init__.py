"""Alerts: what evaluations say, the transitions that follow, how they are worded, and the post to a webhook."""
