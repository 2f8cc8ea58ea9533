"""Parts of the online policy: serving configuration, metadata snapshots, masks, choice, annotations, telemetry, compiling."""
