"""Acts and queries: one function each, called by the command line and by `/admin` alike."""
