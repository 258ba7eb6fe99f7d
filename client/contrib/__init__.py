"""Methods and acquisitions of others, as a package of anybody's adds them: by entry points, through `client`.

Nothing here knows more of Tuition than docs/extending.md says, and nothing of Tuition knows them.
"""
