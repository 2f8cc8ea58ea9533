"""Train in a process of its own, here or on another machine: inputs as a folder, the program, its result as a folder."""
