"""Instrumented PyTorch training that speaks the upstream contracts: a reference producer for every system.

`recorder.watch.watch` records any module while it trains; `recorder.record.record` trains hosts, grafts kernels, measures
them against controls and writes everything as exports. Imports schemas, and nothing else of this project.
"""
