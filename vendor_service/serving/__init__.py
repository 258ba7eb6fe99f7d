"""How the vendor runs: its processes, connections and chores, on one machine or on Ray."""
