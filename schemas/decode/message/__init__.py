"""Turn each kind of message into rows: Leyline, telemetry, Urza, Simic."""
