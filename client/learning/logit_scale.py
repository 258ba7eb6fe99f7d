"""The scale of a teacher's cosines, for those who have no PyTorch as well."""

# Cosines are multiplied by this before a softmax: CLIP's own temperature, as method.md's predict uses it.
LOGIT_SCALE = 100.0
