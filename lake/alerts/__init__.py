"""Turn check evaluations into alerts: transitions, wording, and posting to a webhook."""
