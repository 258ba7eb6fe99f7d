"""A student as scikit-learn has its estimators."""

from collections.abc import Sequence
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin

from client.data.pictures import Pictures


class _Student(Protocol):
    """Of `client.Student`, what the estimator uses."""

    @property
    def classes(self) -> Sequence[str]: ...

    def probabilities(self, images: Pictures) -> NDArray[np.float32]: ...

    def embed(self, images: Pictures) -> NDArray[np.float32]: ...


class StudentEstimator(ClassifierMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A student that has learnt already: a classifier of pictures, and a transformer to embeddings.

    X is what `Student.predict` takes. `fit` leaves the student as it is, whatever the labels, and clones
    share it.
    """

    def __init__(self, student: _Student) -> None:
        self.student = student

    @property
    def classes_(self) -> NDArray[np.str_]:
        """The names of the classes, in the order of `predict_proba`."""
        return np.array(self.student.classes)

    def fit(self, X: Pictures, y: object = None) -> Self:  # noqa: ARG002, N803 (scikit-learn's names)
        """Nothing is left to learn."""
        return self

    def predict_proba(self, X: Pictures) -> NDArray[np.float32]:  # noqa: N803
        """How likely each class is, shape (n, classes)."""
        return self.student.probabilities(X)

    def predict(self, X: Pictures) -> NDArray[np.str_]:  # noqa: N803
        """The name of the most probable class of each picture, shape (n,)."""
        named: NDArray[np.str_] = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return named

    def transform(self, X: Pictures) -> NDArray[np.float32]:  # noqa: N803
        """The student's embeddings, shape (n, d)."""
        return self.student.embed(X)

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_clone__(self) -> Self:
        return type(self)(self.student)

    def __sklearn_tags__(self) -> Any:  # noqa: ANN401
        tags = super().__sklearn_tags__()
        tags.requires_fit = tags.input_tags.two_d_array = False
        return tags
