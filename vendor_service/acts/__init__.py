"""What operators do: one function an act, called by the command line and by `/admin` alike."""
