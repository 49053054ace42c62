"""The version, where setup.cfg and the command line both read it."""

__version__ = '0.1.0'
