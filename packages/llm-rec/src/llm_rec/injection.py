"""Adding popularity and the retriever's score to the language model's, by weights fitted on held-out rows."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

RIDGE = 1e-3


class Injection(NamedTuple):
    """Weights of a sum: `language * log p(title | prompt) + popularity * log(1 + count) + retriever * score`.

    BIGRec (arXiv 2308.08434) injects popularity and collaborative scores into its distances by a power that is tuned
    on validation data; here three weights are fitted at once.
    """

    language: float = 1.0
    popularity: float = 0.0
    retriever: float = 0.0

    def __call__(self, language: Tensor, popularity: Tensor, retriever: Tensor) -> Tensor:
        """The sum, (B, C)."""
        return self.language * language + self.popularity * popularity + self.retriever * retriever


def fit_injection(features: Tensor, target_columns: Tensor, names: tuple[str, ...]) -> Injection:
    r"""Conditional logit: the weights under which a softmax over the candidates makes the targets most likely.

    .. math:: \max_w \; \frac{1}{R} \sum_r \log softmax(X_r w)_{t_r} - \lambda \lVert w \rVert^2

    with features scaled to standard deviation 1 within rows, :math:`\lambda` = 0.001. The language model's weight is
    not negative: where the fit would turn its order around, it gets 0 and the others are fitted without it.

    Args:
        features: (R, C, F) finite.
        target_columns: (R,) column of the target in each row.
        names: fields of `Injection`, one per feature; the others get 0.

    Raises:
        ValueError: features that are not finite.
    """
    if not bool(torch.isfinite(features).all()):
        raise ValueError("scores to be combined must be finite (got NaN or infinity)")
    x = features.double()
    x = x - x.mean(dim=1, keepdim=True)
    scale = x.square().mean(dim=(0, 1)).sqrt()
    scale[scale == 0] = 1
    x = x / scale
    weights = torch.zeros(x.shape[-1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(x @ weights, target_columns) + RIDGE * weights.square().sum()
        torch.autograd.backward(loss)
        return loss

    with torch.enable_grad():
        optimizer.step(objective)  # type: ignore[no-untyped-call]
    fitted = (weights.detach() / scale).tolist()
    if len(names) > 1 and names[0] == "language" and fitted[0] < 0:
        return fit_injection(features[..., 1:], target_columns, names[1:])
    return Injection(**{**dict.fromkeys(Injection._fields, 0.0), **dict(zip(names, fitted, strict=True))})
