"""Leyline v1: `leyline.proto` and the module that protoc makes of it (`make proto`)."""
