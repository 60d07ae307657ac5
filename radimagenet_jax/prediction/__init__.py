"""Applying a network to any number of images: streamed, resumable, with nothing passed over."""
