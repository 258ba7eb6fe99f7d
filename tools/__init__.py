"""Programs around the project: the site of its documents, and the notes of a release."""
