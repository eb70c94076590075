"""The exit statuses of the commands, where sysexits.h has a number for them."""

EXIT_USAGE = 64
EXIT_UNAVAILABLE = 69
EXIT_TEMPORARY = 75
EXIT_NOT_ALLOWED = 77
EXIT_CONFIGURATION = 78
