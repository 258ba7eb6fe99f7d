"""Images that strangers send: what is too large, and how they are decoded."""
