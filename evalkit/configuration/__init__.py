"""Where the YAML files are and how they are read; Hydra, in one module."""
