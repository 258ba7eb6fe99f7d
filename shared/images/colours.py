"""Images as RGB, the one way in which all of them are made so."""

from PIL import Image


def loaded_rgb(image: Image.Image) -> Image.Image:
    """Decode an opened image, and convert it to RGB."""
    image.load()
    if image.mode == "RGB":
        return image
    if image.mode == "P" and "transparency" in image.info:
        # The same pixels as by the direct way, which warns about transparency.
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")
