"""
Files of rules that an operator writes beside the settings, read strictly: the listener's policy, the API's tokens.

Pure, but for reading the files: what a rule means is decided here, what follows from it elsewhere. A room of its own
because the listener lives by these files and the command line checks them.
"""
