"""Raw features and registries -> channels."""
