"""BIGRec's grounding of generated text in a catalogue: the items with the nearest titles in the base model's space."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from predilect.evaluation.ranking import Pairs, rank_metric, target_ranks, top_items

_RULE = "opening token, stripped text; last token; last layer after its norm; float32; 1"  # changes with the rule
_MAX_GAMMA = 100.0  # beyond, 2 ** -gamma times a small distance leaves the normal numbers of float32
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Grounding:
    """A catalogue's titles as points in the base model's space, and the distances of texts to them.

    `D_i = || e(text) - e(title_i) ||_2`, where `e` is the last layer's hidden state at the last token, from the
    language model without its adapter: tuning moves what is generated, not where the titles are.

    What is embedded, titles and generated texts alike: the stripped text without EOS after one opening token, BOS or
    else EOS. A model such as Llama has BOS there anyway; in others the first token, which sees nothing but itself,
    would gather their attention, and all titles of one token would lie on top of each other. A blank text is its
    opening token alone. A text that is a title has the distance 0 to it.

    Source: BIGRec, arXiv 2308.08434, step 2. There batches are padded on the left; here they are padded on the right
    and read at each row's last token, which is the same, as no token of a causal model sees what follows it.

    Args:
        model: a causal LM; with a PEFT adapter the adapter is off while embedding. After full tuning the base model
            is gone: pass a fresh one.
        tokenizer: its tokenizer.
        titles: of the items 1..N, none of them blank.
        cache_dir: where the titles' embeddings are kept, as one safetensors file whose name is a fingerprint of all
            that they depend on: token ids, weights and the rule above. None: nowhere.
        batch_size: texts embedded at a time.

    Raises:
        ValueError: no title; a blank title (names its item); a tokenizer with neither BOS nor EOS.

    Examples:
        >>> def nearest(model, tokenizer, catalogue, answers):
        ...     titles = [catalogue.title(i) for i in range(1, len(catalogue) + 1)]
        ...     grounding = Grounding(model, tokenizer, titles, cache_dir="embeddings")
        ...     return grounding.rank(answers, k=10)                     # (len(answers), 10) item ids
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        titles: Sequence[str],
        *,
        cache_dir: str | Path | None = None,
        batch_size: int = 64,
    ) -> None:
        if not titles:
            raise ValueError("grounding needs at least one title (got none)")
        if blank := [i for i, title in enumerate(titles, start=1) if not title.strip()]:
            raise ValueError(
                f"items without a title have no place in the model's space: {blank[:5]} ({len(blank)} in all); "
                "Catalogue.title names every item"
            )
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1 (got {batch_size})")
        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size
        self._opening = _opening_token(tokenizer)
        self._row = {title.strip(): row for row, title in enumerate(titles)}  # equal titles have equal rows
        self.title_embeddings = self._title_embeddings(titles, None if cache_dir is None else Path(cache_dir))

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Embeddings (B, d) of texts, float32, on the model's device; equal texts are embedded once."""
        if not texts:
            return self.title_embeddings[:0]
        ids = [tuple(row) for row in self._token_ids(texts)]
        distinct = sorted(set(ids), key=len, reverse=True)  # rows of similar length together: little is padded
        place = {row: number for number, row in enumerate(distinct)}
        with _base_decoder(self.model) as decoder:
            parts = [
                _last_states(decoder, distinct[start : start + self.batch_size])
                for start in tqdm(
                    range(0, len(distinct), self.batch_size), "Embedding texts", disable=None, delay=2, leave=False
                )
            ]
        return torch.cat(parts)[[place[row] for row in ids]]

    def distances(self, texts: Sequence[str]) -> Tensor:
        """Distances (B, N) of texts to all titles, float32, column `j` is item `j + 1`.

        Computed from differences: the expanded square, `|a|^2 + |b|^2 - 2 ab`, would lose the small distances. Texts
        that are titles are looked up instead of embedded.
        """
        stripped = [text.strip() for text in texts]
        new = [text for text in stripped if text not in self._row]
        embedded = dict(zip(new, self.embed(new).to(self.title_embeddings.device), strict=True))
        points = [embedded[t] if t in embedded else self.title_embeddings[self._row[t]] for t in stripped]
        return torch.cdist(
            torch.stack(points) if points else self.title_embeddings[:0],
            self.title_embeddings,
            compute_mode="donot_use_mm_for_euclid_dist",
        )

    def scores(self, texts: Sequence[str]) -> Tensor:
        """(B, N) float32, higher is better: minus the distances. With a prior: `inject(distances(texts), ...)`."""
        return -self.distances(texts)

    def rank(self, texts: Sequence[str], k: int = 10) -> Tensor:
        """(B, min(k, N)) ids of the nearest items, nearest first; of equal distances the lower id first."""
        return top_items(self.scores(texts), k)

    def _token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        encoded = self.tokenizer([text.strip() for text in texts], add_special_tokens=False)["input_ids"]
        return [[self._opening, *ids] for ids in encoded]

    def _title_embeddings(self, titles: Sequence[str], cache: Path | None) -> Tensor:
        if cache is None:
            return self.embed(titles)
        fingerprint = self._fingerprint(titles)
        path = cache / f"titles-{fingerprint}.safetensors"
        embeddings = _read(path, fingerprint, len(titles)) if path.exists() else None
        if embeddings is None:
            embeddings = self.embed(titles)
            _write(path, fingerprint, embeddings)
        return embeddings.to(_device(self.model))

    def _fingerprint(self, titles: Sequence[str]) -> str:
        """Changes with any token of any title, any weight of the base model, and the rule.

        The weights count by the sums of their bits: exact on any device and in any order, and read in a moment.
        """
        digest = hashlib.sha256(_RULE.encode())
        digest.update(repr(self._token_ids(titles)).encode())
        adapters = set(getattr(_adapted(self.model), "peft_config", ()))
        with _base_decoder(self.model) as decoder:
            for name, weight in decoder.named_parameters():
                parts = name.split(".")
                if adapters.intersection(parts) and "base_layer" not in parts:
                    continue
                name = ".".join(p for p in parts if p not in ("base_layer", "original_module"))
                bits = int(weight.view(_BITS[weight.element_size()]).sum(dtype=torch.int64))
                digest.update(f"{name} {tuple(weight.shape)} {weight.dtype} {bits}\n".encode())
        return digest.hexdigest()[:32]


def inject(distances: Tensor, prior: Tensor, gamma: float) -> Tensor:
    """Distances weighed by how likely the items are anyway: popularity, or a collaborative model's scores.

    `score_i = -D_i / (1 + P_i) ** gamma`, D and P min-max normalised to 0..1 in each row; a row whose values are all
    equal becomes 0.

    The nearest item has D = 0, so its score is 0 for every gamma: it keeps rank 1, and no prior changes `hr@1` (unless
    the nearest items are left out of the ranking, as those of a history are).

    Source: BIGRec, arXiv 2308.08434; there the score is positive and sorted ascending.

    Args:
        distances: (B, N), not negative.
        prior: (N,), one for all rows, or (B, N); higher is likelier.
        gamma: strength of the prior, 0..100; 0 is the order of the distances.

    Returns:
        (B, N) float32 in -1..0, higher is better.

    Raises:
        ValueError: a shape that does not fit, a gamma outside 0..100, NaN or infinity.

    Examples:
        >>> inject(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([0, 10, 30]), gamma=1).tolist()
        [[0.0, -0.375, -0.5]]
    """
    return _weigh(*_normalised(distances, prior), gamma)


def choose_gamma(
    distances: Tensor,
    prior: Tensor,
    targets: Tensor,
    *,
    gammas: Iterable[float] = range(100),
    metric: str = "ndcg@10",
    candidates: Tensor | None = None,
    exclude: Pairs | None = None,
) -> float:
    """The gamma of `inject` with the best mean of a metric on validation rows; of equally good ones the smallest.

    Items that tie with the target count against it (`target_ranks`), as items with its very title do where the prior
    does not part them.

    Source: BIGRec, arXiv 2308.08434; its code keeps, for every metric, the gamma that is best by NDCG, and gives some
    duplicate titles the best rank among them.

    Args:
        distances: (B, N) of validation rows.
        prior: (N,) or (B, N).
        targets: (B,) item ids 1..N.
        gammas: to choose from.
        metric: see `rank_metric`; without `candidates` and `exclude`, `hr@1` is the same for every gamma.
        candidates: (B, C) item ids that are ranked, the target among them; None: all items.
        exclude: pairs (row, item id) that are not ranked, such as histories.

    Raises:
        ValueError: no gamma; as for `inject`, `target_ranks` and `rank_metric`.
    """
    normalised = _normalised(distances, prior)

    def value(gamma: float) -> float:
        scores = _weigh(*normalised, gamma)
        scores = scores if candidates is None else scores.gather(1, candidates.to(scores.device) - 1)
        ranks = target_ranks(scores, targets, candidates=candidates, exclude=exclude)
        return float(rank_metric(ranks.cpu().numpy(), metric).mean())

    if not (choices := sorted(float(g) for g in gammas)):
        raise ValueError("there is no gamma to choose from")
    if not len(distances):
        raise ValueError("choosing gamma needs validation rows (got none)")
    return max(choices, key=value)


def _normalised(distances: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
    if distances.ndim != 2 or prior.shape not in (distances.shape, distances.shape[1:]):
        raise ValueError(
            f"distances must be (B, N) and the prior (N,) or (B, N) (got {tuple(distances.shape)} and "
            f"{tuple(prior.shape)})"
        )
    return _min_max(distances, "distances"), _min_max(prior.to(distances.device), "prior")


def _weigh(distances: Tensor, prior: Tensor, gamma: float) -> Tensor:
    if not 0 <= gamma <= _MAX_GAMMA:
        raise ValueError(f"gamma must be in 0..{_MAX_GAMMA:g} (got {gamma})")
    return 0 - distances / (1 + prior) ** gamma  # 0, not -0


def _min_max(values: Tensor, name: str) -> Tensor:
    values = values.float()
    if not (finite := values.isfinite()).all():
        place = tuple(torch.nonzero(~finite)[0].tolist())
        raise ValueError(f"the {name} must be finite (got {float(values[place])} first at {place})")
    if not values.numel():
        return values
    low, high = values.aminmax(dim=-1, keepdim=True)
    span = high - low
    return (values - low) / torch.where(span > 0, span, 1)


def _opening_token(tokenizer: Any) -> int:
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    raise ValueError("texts are embedded after BOS or EOS, but this tokenizer has neither: set tokenizer.bos_token")


def _adapted(model: Any) -> Any:
    """The PEFT model in `model`, which may be wrapped in another; None if there is no adapter."""
    return next((m for m in model.modules() if hasattr(m, "disable_adapter")), None)


@contextmanager
def _base_decoder(model: Any) -> Iterator[Any]:
    """The decoder, which has no LM head, without adapter, dropout and gradients; put back as it was.

    PEFT turns an adapter on again as a trainable one, even if it was frozen.
    """
    adapted = _adapted(model)
    training = [module for module in model.modules() if module.training]
    trained = [(weight, weight.requires_grad) for weight in model.parameters()]
    try:
        with torch.no_grad(), nullcontext() if adapted is None else adapted.disable_adapter():
            model.eval()
            yield (model if adapted is None else adapted.get_base_model()).get_decoder()
    finally:
        for module in training:
            module.training = True
        for weight, requires_grad in trained:
            weight.requires_grad_(requires_grad)


def _last_states(decoder: Any, rows: Sequence[Sequence[int]]) -> Tensor:
    """The hidden state (B, d) at the last token of each row, float32."""
    width = max(map(len, rows))
    device = _device(decoder)
    ids = torch.tensor([[*row, *[row[-1]] * (width - len(row))] for row in rows], device=device)
    last = torch.tensor([len(row) - 1 for row in rows], device=device)
    states: Tensor = decoder(input_ids=ids, use_cache=False).last_hidden_state
    return states[torch.arange(len(rows), device=states.device), last.to(states.device)].float()


def _device(model: Any) -> torch.device:
    device: torch.device = model.get_input_embeddings().weight.device
    return device


def _read(path: Path, fingerprint: str, count: int) -> Tensor | None:
    """The embeddings in a cache file; None, with a warning, where it is cut or is not what its name says."""
    try:
        with safe_open(path, framework="pt") as file:
            embeddings: Tensor = file.get_tensor("titles")
            written_for = (file.metadata() or {}).get("fingerprint")
    except (SafetensorError, OSError) as error:
        reason = str(error)
    else:
        if written_for == fingerprint and len(embeddings) == count:
            return embeddings
        reason = f"it holds {len(embeddings)} titles of the fingerprint {written_for}"
    warnings.warn(f"the title embeddings in {path} cannot be used and are made again: {reason}", stacklevel=4)
    return None


def _write(path: Path, fingerprint: str, embeddings: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        save_file({"titles": embeddings.cpu().contiguous()}, half, metadata={"fingerprint": fingerprint})
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)
