"""The names of backbones: timm's, or an open_clip model or folder behind a prefix."""

DEFAULT_BACKBONE = "tf_efficientnet_lite0"
OPEN_CLIP = "open_clip:"
BUNDLED_TEACHER = f"{OPEN_CLIP}icon-clip"
