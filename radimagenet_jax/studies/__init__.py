"""Studies: many runs over tasks, networks, initialisations and settings, as one command."""
