"""The running of the vendor: processes, connections and background tasks, on one machine or on Ray."""
