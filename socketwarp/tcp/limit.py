"""How many file descriptors the process may have open: each visitor, target and lane takes one."""

import resource

#: More descriptors than any kernel gives.
NO_LIMIT = 2**31


def raiseLimit() -> int:
    """
    Allow this process as many descriptors as it may allow itself.

    :returns: how many it may have open; the shell's usual 1,024 would be too few for 1,000 visitors.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return NO_LIMIT if hard == resource.RLIM_INFINITY else hard
