"""The program that people run: the `tamiyo` command and the service that answers live packets."""
