"""Work on what strangers sent, in processes that can be killed: bounded in time and memory, fair to all."""
