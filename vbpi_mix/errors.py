"""Exceptions of the package.

Every message says what was expected, what came, where (file, line, taxon, site) and what to do about it.
The command line prints the message of a `VbpiMixError` and exits with code 2; anything else is a defect.
"""

import errno

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of the errors of a system that has no room for what is written."""


class VbpiMixError(Exception):
    """Base of all errors that a user can cause and mend."""


class AlignmentError(VbpiMixError):
    """An alignment that cannot be read or used."""


class TreeFormatError(VbpiMixError):
    """A tree, or a file of trees, that cannot be read."""


class OutOfSupportError(VbpiMixError):
    """A topology outside the support of a subsplit Bayesian network, where one inside is needed."""


class NonFiniteError(VbpiMixError):
    """A bound, likelihood or parameter that is not a finite number."""


class ConfigurationError(VbpiMixError):
    """Options or a configuration file that contradict each other or are out of range."""


class RunDirectoryError(VbpiMixError):
    """A run directory that is missing, incomplete, in use, or of another version."""


class MissingProgramError(VbpiMixError):
    """An external program that is needed and not on the PATH."""


class ImageDataError(VbpiMixError):
    """Files of images that are absent, or have other content than expected."""
