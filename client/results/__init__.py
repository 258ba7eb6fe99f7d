"""What a run achieved: accuracy by domain, and the pages that tell it."""
