"""Turn check evaluations into alerts: transitions, wording, and the post to a webhook."""
