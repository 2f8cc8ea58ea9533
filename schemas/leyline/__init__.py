"""Hold Leyline v1: `leyline.proto` and the module that protoc generates from it (`make proto`)."""
