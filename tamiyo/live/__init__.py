"""The Oona service: messages in and landed as exports, decisions and telemetry out."""
