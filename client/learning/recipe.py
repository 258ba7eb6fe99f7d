"""Every number that shapes a training run, named; a run's config.json holds all of them."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Augmentation:
    """The student's random view of an image (DomainBed's; paper, supplementary material)."""

    crop_scale: tuple[float, float] = (0.7, 1.0)
    jitter: float = 0.3
    grayscale: float = 0.1


@dataclass(frozen=True)
class Recipe:
    """A training protocol.

    Steps are optimiser steps; each takes `images_per_domain` images from every source domain.
    Learning rates are Adam's, warmed up over `warmup` of the steps and then decayed by a cosine to zero.
    """

    image_weight: float = 0.5
    holdout: float = 0.2
    augmentation: Augmentation = Augmentation()
    align_views: int = 6
    align_steps: int = 1200
    align_images_per_domain: int = 64
    align_learning_rate: float = 1e-3
    steps: int = 600
    images_per_domain: int = 16
    learning_rate: float = 1e-3
    frozen: float = 0.375
    warmup: float = 0.05
    evaluations: int = 10

    def with_steps(self, steps: int | None) -> "Recipe":
        """The same protocol with so many distillation steps; a very short run is aligned shortly too."""
        if steps is None:
            return self
        return replace(self, steps=steps, align_steps=min(self.align_steps, 4 * steps))
