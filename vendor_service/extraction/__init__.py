"""How much of a model do its answers give away? Sketches of what accounts asked, and what that is worth."""
