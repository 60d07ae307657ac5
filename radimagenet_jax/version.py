"""Which version this is, for whatever must not import the rest."""

__version__ = "0.2.0"
