"""Whether a trained network looks at the lesion: see README.md beside this file."""
