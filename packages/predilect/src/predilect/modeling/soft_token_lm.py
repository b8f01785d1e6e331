"""`SoftTokenCausalLM`: any causal language model that also reads vectors of other modalities through soft tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from predilect.modeling.base_model import (
    describe_base,
    read_base,
    require_same_base,
    require_same_tokenizer,
    write_base,
)
from predilect.modeling.causal_lm import load_causal_lm
from predilect.modeling.projectors import Projector, build_projector, plain_projector
from predilect.tokenization.soft_tokens import SoftTokens

VectorInput = Tensor | Sequence[Tensor] | Mapping[str, Tensor]

_CONFIG, _WEIGHTS, _ADAPTER = "config.json", "model.safetensors", "adapter"
_IGNORE = -100


class SoftTokenConfig(PreTrainedConfig):
    """What a `SoftTokenCausalLM` is made of, apart from its weights.

    Args:
        soft_tokens: name -> vectors of one occurrence.
        input_sizes: name -> width of the vectors given.
        projectors: name -> kind and options of a registered projector, for soft tokens without an input size.
        projector: "linear", or "mlp" (two layers with GELU between them).
        projector_hidden: width between the two layers; 0: that of the language model.
        added_tokens: further tokens of the prompt with an embedding of their own.
        tuning: "frozen" language model, "adapter" (PEFT), or "full".
        seed: of the projectors' start.
        base: config of the language model.
        adapter_name: PEFT's name of the adapter.
    """

    model_type = "predilect_soft_token_lm"

    soft_tokens: dict[str, int] = field(default_factory=dict)
    input_sizes: dict[str, int] = field(default_factory=dict)
    projectors: dict[str, dict[str, Any]] = field(default_factory=dict)
    projector: str = "linear"
    projector_hidden: int = 0
    added_tokens: list[str] = field(default_factory=list)
    tuning: str = "frozen"
    seed: int = 0
    base: dict[str, Any] = field(default_factory=dict)
    adapter_name: str = ""


AutoConfig.register(
    SoftTokenConfig.model_type, SoftTokenConfig
)  # so that AutoTokenizer knows the folder's config.json


class SoftTokenCausalLM(PreTrainedModel):
    """A causal LM (frozen, with a PEFT adapter, or trained in full) and one projector per modality.

    In the embedded prompt, each placeholder of a soft token is replaced by `projector(vector)`. Placeholders and added
    tokens are inputs only: the vocabulary of the language model is not resized, so tied weights stay tied and the
    model can never generate a placeholder. Only the rows of `added_tokens` are new parameters; they start at the mean
    of the embedding table.

    Args:
        lm: the language model; wrap it with `peft.get_peft_model` beforehand for tuning by adapter.
        tokenizer: its tokenizer; the placeholders and `added_tokens` are added to it.
        soft_tokens: the placeholders.
        input_sizes: name -> width of the vectors that will be given, for each soft token but those of `projectors`.
        projectors: name -> a registered module with inputs of its own (`predilect.modeling.projectors.Projector`).
        projector: "linear", or "mlp": Linear, GELU, Linear.
        projector_hidden: width between the two layers of "mlp"; 0: that of the language model.
        added_tokens: further tokens of the prompt with an embedding of their own, such as a placeholder of text-only
            prompts.
        tuning: "frozen", "adapter" or "full"; None: "adapter" for a PEFT model, otherwise "frozen".
        seed: of the projectors' start.

    Raises:
        ValueError: names that do not fit together, an unknown projector or tuning, or an adapter that adds virtual
            tokens.

    Examples:
        >>> from predilect.tokenization import SoftTokens
        >>> def read_items(lm, tokenizer, item_vectors):            # (n, 64): one vector per "<|item|>" in the prompts
        ...     model = SoftTokenCausalLM(lm, tokenizer, SoftTokens({"item": 1}), input_sizes={"item": 64})
        ...     prompts = tokenizer(["Next after Heat <|item|> is"], return_tensors="pt")
        ...     return model.generate(**prompts, vectors={"item": item_vectors}, max_new_tokens=20)
    """

    config_class = SoftTokenConfig
    base_model_prefix = "lm"
    supports_gradient_checkpointing = True
    _supports_sdpa = True  # the choice is the language model's; this keeps the outer config from refusing

    def __init__(
        self,
        lm: Any,
        tokenizer: Any,
        soft_tokens: SoftTokens,
        *,
        input_sizes: Mapping[str, int],
        projectors: Mapping[str, Projector] | None = None,
        projector: str = "linear",
        projector_hidden: int = 0,
        added_tokens: Sequence[str] = (),
        tuning: str | None = None,
        seed: int = 0,
    ) -> None:
        tuning = _check_tuning(lm, tuning)
        own = dict(projectors or {})
        if sorted([*input_sizes, *own]) != sorted(soft_tokens.names):
            names = sorted([*input_sizes, *own])
            raise ValueError(f"input_sizes must name {sorted(soft_tokens.names)} (got {names})")
        placeholders = soft_tokens.add_to(tokenizer)
        tokenizer.add_tokens([t for t in added_tokens if t not in tokenizer.get_vocab()], special_tokens=True)
        base = _bare(lm)
        super().__init__(
            SoftTokenConfig(
                soft_tokens=dict(soft_tokens.sizes),
                input_sizes=dict(input_sizes),
                projectors={name: {"kind": p.kind, "options": p.options} for name, p in own.items()},
                projector=projector,
                projector_hidden=projector_hidden,
                added_tokens=list(added_tokens),
                tuning=tuning,
                seed=seed,
                base=base.config.to_dict(),
                adapter_name=lm.active_adapter if tuning == "adapter" else "",
            )
        )
        self.lm, self.tokenizer, self.soft_tokens = lm, tokenizer, soft_tokens
        if tuning == "frozen":
            lm.requires_grad_(False)
        table = base.get_input_embeddings().weight
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.projectors = nn.ModuleDict(
                {name: plain_projector(projector, size, projector_hidden, table) for name, size in input_sizes.items()}
            )
        for name, module in own.items():
            if module.width != table.shape[1]:
                raise ValueError(
                    f"the projector of {name!r} gives vectors of the width {module.width}, but the language model "
                    f"reads {table.shape[1]}"
                )
            self.projectors[name] = module.to(table.device)
        mean = table.detach().float().mean(dim=0)
        self.added_embeddings = nn.Parameter(mean.expand(len(added_tokens), -1).clone()) if added_tokens else None
        self.register_buffer("_row", self._rows(placeholders, added_tokens).to(table.device), persistent=False)
        self.generation_config = base.generation_config
        # Trainer's resume loads what `save_pretrained` wrote and need not warn about the rest.
        self._keys_to_ignore_on_save = sorted(set(self.state_dict()) - set(self._own_keys()))

    def _rows(self, placeholders: Sequence[int], added_tokens: Sequence[str]) -> Tensor:
        """Per token id: -1 the language model's own, -2 a placeholder, r >= 0 row r of the added embeddings."""
        added = [self.tokenizer.convert_tokens_to_ids(t) for t in added_tokens]
        rows = torch.full((max([len(self.tokenizer), *placeholders, *added]) + 1,), -1)
        rows[torch.tensor(placeholders)] = -2
        for row, token_id in enumerate(added):
            rows[token_id] = row
        return rows

    def get_base_model(self) -> Any:
        """The language model without its adapter."""
        return _bare(self.lm)

    def get_decoder(self) -> Any:
        return self.get_base_model().get_decoder()

    def get_input_embeddings(self) -> Any:
        return self.get_base_model().get_input_embeddings()

    def get_output_embeddings(self) -> Any:
        return self.get_base_model().get_output_embeddings()

    def tie_weights(self, *_: Any, **__: Any) -> None:
        """Nothing to tie: the language model's ties are its own and stay."""

    def embed(self, input_ids: Tensor, vectors: Mapping[str, VectorInput] | None = None) -> Tensor:
        """Embeddings (B, T, d) of a prompt: words, added tokens, and projected vectors at the placeholders.

        Args:
            input_ids: (B, T).
            vectors: name -> vectors as for `SoftTokens.inject`, of the widths `input_sizes`; or the mapping that a
                registered projector reads, or what `project` gave for it.

        Raises:
            ValueError: vectors and placeholders differ in number or width; see `SoftTokens.inject`.
        """
        rows = self._row[input_ids]
        embeds = self.get_input_embeddings()(input_ids.masked_fill(rows != -1, 0))
        if self.added_embeddings is not None:
            added = self.added_embeddings[rows.clamp(min=0)].to(embeds.dtype)
            embeds = torch.where((rows >= 0).unsqueeze(-1), added, embeds)
        projected = {name: self._project(name, given) for name, given in (vectors or {}).items()}
        return self.soft_tokens.inject(embeds, input_ids, projected)

    def project(self, vectors: Mapping[str, VectorInput]) -> dict[str, VectorInput]:
        """`vectors` with what registered projectors read replaced by what they give, (n, size, d) in reading order.

        Done once, prompts can then be computed in any order and several times; `embed` takes these as they are.
        """
        return {
            name: self._project(name, given) if isinstance(given, Mapping) else given
            for name, given in vectors.items()
        }

    def _project(self, name: str, vectors: VectorInput) -> Tensor | Sequence[Tensor]:
        self.soft_tokens.token(name)  # refuses an unknown name
        if isinstance(vectors, Mapping) or name in self.config.projectors:
            return self._own_projection(name, vectors)
        if not isinstance(vectors, Tensor):
            return [self._project(name, v) for v in vectors]  # type: ignore[misc]
        width = self.config.input_sizes[name]
        if vectors.shape[-1] != width:
            raise ValueError(f"vectors of {name!r} must have the width {width} (got the shape {tuple(vectors.shape)})")
        weight = next(self.projectors[name].parameters())
        projected: Tensor = self.projectors[name](vectors.to(weight.device, weight.dtype))
        return projected

    def _own_projection(self, name: str, inputs: VectorInput) -> Tensor | Sequence[Tensor]:
        """What a registered projector gives; tensors are what `project` gave before."""
        if not isinstance(inputs, Mapping):
            return inputs
        if name not in self.config.projectors:
            raise ValueError(f"{name!r} reads one tensor of vectors, not a mapping with {', '.join(sorted(inputs))}")
        device = self._row.device
        projected: Tensor = self.projectors[name]({key: value.to(device) for key, value in inputs.items()})
        expected = (self.soft_tokens.sizes[name], self.get_input_embeddings().weight.shape[1])
        if projected.ndim != 3 or tuple(projected.shape[1:]) != expected:
            raise ValueError(
                f"the projector of {name!r} must give (n, {expected[0]}, {expected[1]}) (got {tuple(projected.shape)})"
            )
        return projected

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
        vectors: Mapping[str, VectorInput] | None = None,
        **kwargs: Any,
    ) -> Any:
        """The language model's forward on `embed(input_ids, vectors)`.

        Args:
            input_ids: (B, T).
            attention_mask: (B, T), or 4-D (`shared_prefix_mask`).
            position_ids: (B, T); None: counted along the mask, so that left padding changes nothing.
            labels: (B, T), -100 where nothing is predicted; never a placeholder or an added token.
            vectors: see `embed`.
            **kwargs: for the language model's forward.

        Returns:
            The language model's output, with `loss` (if labels are given) and `logits`.
        """
        if labels is not None and bool((self._row[labels.clamp(min=0)] != -1).logical_and(labels != _IGNORE).any()):
            raise ValueError(
                "labels hold a placeholder or an added token, which the model cannot generate: use -100 there"
            )
        if position_ids is None and attention_mask is not None and attention_mask.ndim == 2:
            position_ids = (attention_mask.long().cumsum(dim=1) - 1).clamp(min=0)
        kwargs.setdefault("use_cache", False)
        return self.lm(
            inputs_embeds=self.embed(input_ids, vectors),
            attention_mask=attention_mask,
            position_ids=position_ids,
            labels=labels,
            **kwargs,
        )

    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        vectors: Mapping[str, VectorInput] | None = None,
        **kwargs: Any,
    ) -> Any:
        """The language model's `generate`; returns the new tokens only. Pad batches on the left.

        Args:
            input_ids: (B, T) prompts.
            attention_mask: (B, T); None: no padding.
            vectors: see `embed`.
            **kwargs: for `generate`; logits processors see no prompt (for `TitleTrie`: prompt_width=0).
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if not bool(attention_mask[:, -1].all()):
            raise ValueError('prompts are padded on the right: tokenize with padding_side="left" to generate')
        with torch.no_grad():
            embeds = self.embed(input_ids, vectors)
        return self.lm.generate(inputs_embeds=embeds, attention_mask=attention_mask, **kwargs)

    def save_pretrained(
        self,
        save_directory: str | Path,
        state_dict: dict[str, Tensor] | None = None,
        is_main_process: bool = True,
        **_: Any,
    ) -> None:
        """Write one folder that `from_pretrained` restores exactly.

        It holds config.json, the tokenizer, model.safetensors (projectors, added embeddings, and the adapter or, after
        full tuning, the language model), adapter/ (PEFT's config) and base.json (`predilect.modeling.base_model`).
        """
        if not is_main_process:
            return
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        state = self.state_dict() if state_dict is None else state_dict
        save_file(
            _without_ties({key: state[key] for key in self._own_keys()}), folder / _WEIGHTS, metadata={"format": "pt"}
        )
        self.config.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        write_base(folder, describe_base(self.lm, self.tokenizer))
        if self.config.tuning == "adapter":
            self.lm.peft_config[self.config.adapter_name].save_pretrained(folder / _ADAPTER)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        base: Any = None,
        dtype: torch.dtype | str | None = None,
        attn_implementation: str | None = None,
    ) -> Self:
        """Load a folder written by `save_pretrained`; the tokenizer is the attribute `tokenizer`.

        Args:
            folder: the folder.
            base: the language model without adapter, or another name of it; None: the name in the folder.
            dtype: of the language model's weights; None: as saved.
            attn_implementation: see `load_causal_lm`.

        Raises:
            FileNotFoundError: a file of the folder is missing; names it.
            ValueError: a projector, the added embeddings or the adapter is missing, a projector is not registered or
                is another one than was saved, the tokenizer is another one, or the language model is of another shape
                or has other weights.
        """
        from transformers import AutoTokenizer

        folder = Path(folder)
        config = _read_config(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        about = read_base(folder)
        require_same_tokenizer(tokenizer, about, folder)
        how = {"dtype": dtype, "attn_implementation": attn_implementation}
        lm = _load_full(config, base, how) if config.tuning == "full" else _load_base(folder, about, base, how)
        if config.tuning == "adapter":
            lm = _with_adapter(lm, folder, config)
        model = cls(
            lm,
            tokenizer,
            SoftTokens(config.soft_tokens),
            input_sizes=config.input_sizes,
            projectors=_saved_projectors(config, lm, folder),
            projector=config.projector,
            projector_hidden=config.projector_hidden,
            added_tokens=config.added_tokens,
            tuning=config.tuning,
            seed=config.seed,
        )
        model._load_weights(load_file(folder / _WEIGHTS), folder)
        model.eval()
        return model

    def _load_weights(self, weights: dict[str, Tensor], folder: Path) -> None:
        state = self.state_dict()
        loaded = {state[key].data_ptr() for key in weights if key in state}
        missing = [k for k in self._own_keys() if k not in weights and state[k].data_ptr() not in loaded]
        unexpected = sorted(set(weights) - set(state))
        wrong = sorted(k for k in set(weights) & set(state) if weights[k].shape != state[k].shape)
        if missing or unexpected or wrong:
            parts = {
                "is missing": {self._part(k) for k in missing},
                "belongs to no part of this model": set(unexpected),
                "has another shape": set(wrong),
            }
            texts = [f"{', '.join(sorted(names))} {what}" for what, names in parts.items() if names]
            raise ValueError(f"{folder / _WEIGHTS} does not fit: {'; '.join(texts)}")
        self.load_state_dict(weights, strict=False)

    def _own_keys(self) -> list[str]:
        """Names of the weights that the folder holds: all but those that come with the base model."""
        keys = self.state_dict().keys()
        if self.config.tuning == "full":
            return list(keys)
        own = [key for key in keys if not key.startswith("lm.")]
        if self.config.tuning == "adapter":
            own += [key for key in keys if key.startswith("lm.") and self._of_adapter(key)]
        return own

    def _of_adapter(self, key: str) -> bool:
        name = self.config.adapter_name
        inside = f".{name}." in key or key.endswith(f".{name}")
        return inside and (self.lm.base_model.prefix in key or ".modules_to_save." in key)

    def _part(self, key: str) -> str:
        if key.startswith("projectors."):
            return f"the projector of {key.split('.')[1]!r}"
        if key == "added_embeddings":
            return "the table of added embeddings"
        return "the adapter" if self.config.tuning == "adapter" else key


def _check_tuning(lm: Any, tuning: str | None) -> str:
    adapted = hasattr(lm, "peft_config") and hasattr(lm, "get_base_model")
    chosen = tuning or ("adapter" if adapted else "frozen")
    if chosen not in ("frozen", "adapter", "full"):
        raise ValueError(f"tuning is 'frozen', 'adapter' or 'full' (got {tuning!r})")
    if adapted != (chosen == "adapter"):
        way = "merge_and_unload() it first" if adapted else "wrap the model with peft.get_peft_model first"
        raise ValueError(f"tuning={chosen!r} does not fit a {type(lm).__name__}: {way}")
    if adapted and lm.active_peft_config.is_prompt_learning:
        raise ValueError(f"{lm.active_peft_config.peft_type.value} adds virtual tokens before the prompt: use LoRA")
    return chosen


def _bare(lm: Any) -> Any:
    return lm.get_base_model() if hasattr(lm, "get_base_model") else lm


def _without_ties(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each storage once: safetensors refuses shared ones, and the language model ties its own weights again."""
    seen: dict[tuple[int, torch.Size], str] = {}
    for key, value in state.items():
        seen.setdefault((value.data_ptr(), value.shape), key)
    return {key: state[key].detach().contiguous() for key in seen.values()}


def _read_config(folder: Path) -> SoftTokenConfig:
    for name in (_CONFIG, _WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} is not a complete SoftTokenCausalLM folder: it has no {name}")
    model_type = json.loads((folder / _CONFIG).read_text()).get("model_type")
    if model_type != SoftTokenConfig.model_type:
        raise ValueError(f"{folder} holds a {model_type!r}, not a {SoftTokenConfig.model_type!r}")
    config: SoftTokenConfig = SoftTokenConfig.from_pretrained(folder)
    return config


def _saved_projectors(config: SoftTokenConfig, lm: Any, folder: Path) -> dict[str, Projector]:
    width = _bare(lm).get_input_embeddings().weight.shape[1]
    try:
        return {
            name: build_projector(about["kind"], about["options"], width) for name, about in config.projectors.items()
        }
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error


def _load_full(config: SoftTokenConfig, base: Any, options: dict[str, Any]) -> Any:
    """The language model that the folder's weights are to be loaded into."""
    from transformers import AutoModelForCausalLM

    if base is not None:
        raise ValueError("the folder holds a fully tuned language model: leave base out")
    inner = AutoConfig.for_model(**config.base)
    options = {"dtype": inner.dtype, **{k: v for k, v in options.items() if v is not None}}
    return AutoModelForCausalLM.from_config(inner, **options)


def _load_base(folder: Path, about: Mapping[str, Any], base: Any, options: dict[str, Any]) -> Any:
    lm = base
    if base is None or isinstance(base, str | Path):
        name = base or about["name"]
        if not name:
            raise ValueError(f"{folder} names no base model (it was built in memory): pass base=")
        lm = load_causal_lm(name, **options)[0]
    require_same_base(lm, about, folder)
    return lm


def _with_adapter(lm: Any, folder: Path, config: SoftTokenConfig) -> Any:
    from peft import PeftConfig, get_peft_model

    if not (folder / _ADAPTER / "adapter_config.json").is_file():
        raise FileNotFoundError(f"{folder} has no {_ADAPTER}/adapter_config.json: the adapter is missing")
    return get_peft_model(lm, PeftConfig.from_pretrained(str(folder / _ADAPTER)), adapter_name=config.adapter_name)
