"""Errors that a person can put right, each told in one sentence."""


class UserError(Exception):
    """Something the user can mend: the message says what is wrong, where, and what to do.

    Commands print it without a traceback and exit with code 1 (see `command.run`).
    """


class ConfigError(UserError):
    """A config, flag or working directory that contradicts itself or the machine."""


class DataError(UserError):
    """Source files or records that are missing, damaged or contradictory."""


class WeightsError(UserError):
    """A weight file that cannot be loaded whole, strictly and safely."""


class CheckpointError(UserError):
    """A checkpoint that could not be written or restored."""
