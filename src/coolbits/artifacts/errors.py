"""The one exception a person is meant to read."""


class CoolbitsError(Exception):
    """Bad input, in one sentence: which file and key, what was found, what is allowed.

    The command line prints the sentence and exits with status 2; a traceback means a defect of coolbits instead.
    """
