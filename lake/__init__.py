"""What is on disk: durable files, tables, exports and how they are read in, builds, the warehouse. Imports schemas alone."""
