"""What each message says: Leyline, telemetry, Urza, Simic."""
